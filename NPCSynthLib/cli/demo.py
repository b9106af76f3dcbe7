"""``npcsynth demo``: the whole job on a digital patient, with a picture and a page to look at."""

import json
from pathlib import Path

from .console import command, progress_bar, say, warn
from .options import Device, OutFolder, Overwrite, PhantomSize, Seed, Size, Weights

NAME = "demo"
ACQUIRED = ("T1", "T2")
NOT_ACQUIRED = ("T1C", "T2FS")
STUDY, PICTURE, PAGE = "dicom", "demo.png", "index.html"


@command
def run(
    out: OutFolder,
    seed: Seed = 0,
    size: Size = PhantomSize.full,
    device: Device = None,
    weights: Weights = None,
    overwrite: Overwrite = False,
) -> None:
    """Make a digital patient with two sequences "not acquired", fill them in, and show how well that went.

    Writes the patient's DICOM study, the results, a 3D Slicer scene, demo.png and index.html.

    [bold]Example[/]

    [cyan]npcsynth demo --out demo[/]
    """
    from ..output.folder import check_free, new_folder

    check_free(out, overwrite)

    from ..inference.synthesizer import Synthesizer
    from ..phantom.patient import make_patient, write_dicom
    from ..study.build import study_from_folder

    with progress_bar() as on_progress, new_folder(out, overwrite) as temporary:
        on_progress(0.0, "Loading weights")
        synthesizer = Synthesizer(weights=weights, device=device)
        on_progress(0.05, "Simulating a patient")
        patient = make_patient(seed, sequences=(*ACQUIRED, *NOT_ACQUIRED), size=size.value)
        (temporary / STUDY).mkdir()
        write_dicom(patient, temporary / STUDY, ACQUIRED)
        study = study_from_folder(temporary / STUDY,
                                  on_progress=lambda done, stage: on_progress(0.2 + 0.2 * done, stage))
        result = synthesizer.run(study, NOT_ACQUIRED, segment=True,
                                 on_progress=lambda done, stage: on_progress(0.4 + 0.4 * done, stage))
        on_progress(0.8, "Writing")
        document = _write(result, study, patient, temporary)
    warn(document["warnings"])
    say(f"Wrote {', '.join(NOT_ACQUIRED)} to {out}. Look at {Path(out) / PAGE}"
        + (f", or open {Path(out) / 'scene.mrb'} in 3D Slicer." if "scene.mrb" in document["files"] else "."))


def _write(result, study, patient, folder: Path) -> dict:
    from ..output.report import overview, report
    from ..output.truth import truth_on_grid
    from ..output.write import write_files
    from ..qa.contours import compare_structures
    from ..study.volume import Volume

    document = write_files(result, study, folder)
    structures = {name: Volume(mask.astype("uint8"), patient.anatomy.grid, name)
                  for name, mask in patient.structures.items()}
    truth = truth_on_grid(study, {name: patient.volumes[name] for name in NOT_ACQUIRED}, structures)
    # The body's outline takes longest to compare and says least.
    predicted = {s.name: result.segmentation.mask(s) for s in result.segmentation.segments if s.label}
    drawn = {name: mask for name, mask in truth.structures.items() if name in predicted}
    agreements = compare_structures(drawn, predicted, result.grid)
    (folder / PICTURE).write_bytes(overview(result, study, truth))
    (folder / PAGE).write_text(report(result, study, document, truth, agreements), encoding="utf-8")
    document["files"] = sorted([*document["files"], PICTURE, PAGE])
    (folder / "result.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return document
