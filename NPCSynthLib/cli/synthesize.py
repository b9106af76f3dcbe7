"""``npcsynth synthesize``: one patient's missing sequences and segmentation."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from .console import command, print_json, progress_bar, say, warn
from .options import (
    AsJson,
    Deidentify,
    Device,
    Dicom,
    Enhanced,
    OutFolder,
    Overwrite,
    Reference,
    Report,
    Segment,
    Targets,
    Weights,
)

NAME = "synthesize"


@command
def run(
    out: OutFolder,
    folder: Annotated[
        Path | None, typer.Argument(metavar="STUDY_FOLDER", help="The patient's DICOM, NIfTI, NRRD or MHA files.")
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source", metavar="SEQUENCE=FILE",
            help="A source by its file, or the folder of its series, instead of a study folder. [dim]Repeatable.[/]",
        ),
    ] = None,
    targets: Targets = None,
    segment: Segment = True,
    reference: Reference = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option("--prompt", metavar="SEQUENCE=TEXT", help="Own wording for a target. [dim]Repeatable.[/]"),
    ] = None,
    dicom: Dicom = False,
    enhanced: Enhanced = False,
    deidentify: Deidentify = False,
    report: Report = False,
    device: Device = None,
    weights: Weights = None,
    overwrite: Overwrite = False,
    json: AsJson = False,
) -> None:
    """Make a patient's missing sequences and a segmentation.

    Writes TARGET_synthetic.nii.gz, TARGET_synthetic_uncertainty.nii.gz, segmentation_synthetic.seg.nrrd, result.json
    and scene.mrb, with --dicom what [cyan]npcsynth export[/] writes, and with --report a page to look at and to print.

    [bold]Examples[/]

    [cyan]npcsynth synthesize patient/ --out result[/]

    [cyan]npcsynth synthesize patient/ --out result --targets T1C,T2FS --no-segment[/]

    [cyan]npcsynth synthesize patient/ --out result --dicom --report[/]

    [cyan]npcsynth synthesize --source T1=a.nii.gz --source T2=b.nii.gz --targets FLAIR --out result[/]

    [cyan]npcsynth synthesize patient/ --out result --prompt T2FS="T2 TSE with fat saturation"[/]
    """
    from ..output.folder import MANIFEST, check_free
    from ..vocabulary import get_sequence, parse_sequences

    # All that can be told without reading images comes first, so that a slip does not cost minutes.
    if (folder is None) == (not source):
        raise UsageError("Name either a study folder or files with --source SEQUENCE=FILE, not both.")
    if (enhanced or deidentify) and not dicom:
        raise UsageError("--enhanced and --deidentify say how DICOM is written. Add --dicom.")
    files = {name: Path(path) for name, path in _pairs(source or [], "--source", "T1=a.nii.gz").items()}
    prompts = _pairs(prompt or [], "--prompt", 'T2FS="T2-weighted, fat suppressed"')
    wanted = parse_sequences(targets) if targets is not None else None
    reference = get_sequence(reference).id if reference else None
    for name in wanted or ():
        if name in files:
            raise UsageError(f"{name} is given as a source and asked for as a target. Leave it out of one of the two.")
    for name in prompts:
        if wanted is not None and name not in wanted:
            raise UsageError(f"--prompt says how to make {name}, which is not among the --targets. Add it there, or "
                             "leave the prompt out.")
    check_free(out, overwrite)

    from ..inference.synthesizer import Synthesizer
    from ..output.dicom_source import check_from_dicom
    from ..output.write import SCENE, write_result

    with progress_bar() as on_progress:
        on_progress(0.0, "Loading weights")
        synthesizer = Synthesizer(weights=weights, device=device)
        started = time.perf_counter()
        study = _study(folder, files, reference, lambda done, stage: on_progress(0.3 * done, stage))
        reading = time.perf_counter() - started
        if dicom:
            check_from_dicom(study.reference, {s.sequence: s.original.metadata for s in study.sources})
        wanted = wanted or _missing(study, synthesizer)
        result = synthesizer.run(study, wanted, segment=segment, prompts=prompts or None,
                                 on_progress=lambda done, stage: on_progress(0.3 + 0.6 * done, stage))
        result = replace(result, seconds={"reading": reading, **result.seconds})
        on_progress(0.9, "Writing")
        dicom_files = _dicom_files(folder, files) if dicom else None
        document = write_result(result, study, out, overwrite, dicom_files, enhanced, deidentify, report)
    if deidentify:
        telling = " and ".join(name for name in (SCENE, MANIFEST) if name in document["files"])
        warn([f"Only the folder dicom is de-identified: beside it, {telling} still hold what identifies the patient "
              "(acquired images, UIDs, series descriptions)."])
    if json:
        print_json(document)
        return
    warn(document["warnings"])
    say(f"Wrote {', '.join(wanted)} from {', '.join(result.sources)} to {out} "
        f"({result.device}, {sum(result.seconds.values()):.0f} s). Synthetic images: research use only.")


def _study(folder, files, reference, on_progress):
    from ..study.build import build_study, study_from_folder
    from ..study.identify import identify

    if folder is not None:
        return study_from_folder(folder, reference=reference, on_progress=on_progress)
    volumes, warnings = {}, []
    for name, path in files.items():
        volume = volumes[name] = _source(name, path, warnings)
        seen = identify(volume.metadata, volume.name).sequence
        if seen not in (name, None):
            warnings.append(f"{volume.name} was used as {name}, as named, but looks like {seen}.")
    return build_study(volumes, reference=reference, on_progress=on_progress, warnings=warnings)


def _source(name: str, path: Path, warnings: list[str]):
    """The only volume of a file or folder."""
    from ..study.read import read_folder

    found = read_folder(path)
    if len(found.volumes) > 1:
        raise UsageError(f"--source {name}: {path.name} holds {len(found.volumes)} images "
                         f"({', '.join(volume.name for volume in found.volumes)}). Give the folder of one series.")
    warnings += found.warnings
    return found.volumes[0]


def _dicom_files(folder, files) -> list[Path]:
    from ..output.dicom_source import files_below

    places = [folder] if folder is not None else files.values()
    return [file for place in places for file in (files_below(place) if place.is_dir() else [place])]


def _missing(study, synthesizer) -> tuple[str, ...]:
    present = {source.sequence for source in study.sources}
    missing = tuple(name for name in synthesizer.sequences if name not in present)
    if not missing:
        raise UsageError("Nothing is missing: the study has every sequence that these weights know. "
                         "Name files or folders of series with --source to leave one out.")
    return missing


def _pairs(texts: list[str], option: str, example: str) -> dict[str, str]:
    """{"T1": "a.nii.gz"} from ["T1=a.nii.gz"]. Raises UsageError."""
    from ..vocabulary import get_sequence

    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not value.strip():
            raise UsageError(f'"{text}" is not what {option} takes. Write it as {option} {example}.')
        sequence = get_sequence(name).id
        if sequence in pairs:
            raise UsageError(f"{option} names {sequence} twice. Give each sequence once.")
        pairs[sequence] = value.strip()
    return pairs
