"""``npcsynth export``: results as DICOM objects that file with the patient's images."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from .console import command, print_json, progress_bar, say, warn
from .options import AsJson, Deidentify, Enhanced

NAME = "export"


@command
def run(
    result: Annotated[Path, typer.Argument(metavar="RESULT_FOLDER", help="What npcsynth synthesize wrote.")],
    study: Annotated[Path, typer.Option("--study", help="Folder of the DICOM images that the results were made from.")],
    out: Annotated[Path, typer.Option("--out", help="Folder to write; made anew, whole or not at all.")],
    enhanced: Enhanced = False,
    deidentify: Deidentify = False,
    json: AsJson = False,
) -> None:
    """Write results as DICOM: synthetic MR series, uncertainty maps, segmentation and contours.

    They lie in the study and frame of reference of the acquired images, and say of themselves that they are synthetic.
    The patient's identity is copied unchanged, so that they file correctly, unless you ask for --deidentify.

    [bold]Examples[/]

    [cyan]npcsynth export result/ --study patient/ --out dicom[/]

    [cyan]npcsynth export result/ --study patient/ --out dicom --enhanced --deidentify[/]
    """
    from ..output.folder import check_free

    check_free(out)

    from ..output.dicom_derived import not_in_contours
    from ..output.dicom_export import export_dicom
    from ..output.dicom_source import files_below
    from ..output.result_folder import read_result

    with progress_bar() as on_progress:
        on_progress(0.0, "Reading results")
        content, document = read_result(result)
        written = export_dicom(content, document, files_below(study), out, enhanced, deidentify, on_progress)
    warn(not_in_contours(series.left_out) for series in written if series.left_out)
    if json:
        print_json([asdict(series) for series in written])
        return
    say(f"Wrote {len(written)} DICOM series to {out}. Synthetic: research use only.")
