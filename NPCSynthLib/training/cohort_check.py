"""What a cohort is good for, said before hours are spent: headers first, then pixels, one image at a time."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..study.align import overlap
from ..study.normalize import body_mask
from ..study.read import read_file
from ..study.volume import SAME_GRID_MM, Volume, one_grid
from ..vocabulary import load_sequences
from .labels import read_labels
from .layouts import Cohort, PatientFiles, read_image
from .mask_orientation import place_mask

#: A training patient needs so many bytes for each voxel of each sequence (float16 image and mask of where it is).
_BYTES = 3


@dataclass(frozen=True)
class LabelFinding:
    """One label.

    Attributes:
        file, of: its name, and the sequence that it was held against.
        sits: whether it sits on that image; None where it was not looked at or the image does not tell.
        how: which way round it lies, in words.
        confidence: 0..1, how sure that is, or None.
    """

    file: str
    of: str | None
    sits: bool | None
    how: str
    confidence: float | None


@dataclass(frozen=True)
class PatientFinding:
    """One patient.

    Attributes:
        name, layout: as in ``PatientFiles``.
        sequences: id -> (shape (k, j, i), spacing (i, j, k) mm).
        registered: whether all sequences share one grid; else they are registered when they are loaded.
        labels: see ``LabelFinding``.
        use: "training", "validation" (never trained on) or "none".
        problems: sentences.
    """

    name: str
    layout: str
    sequences: dict[str, tuple[tuple[int, ...], tuple[float, ...]]]
    registered: bool
    labels: tuple[LabelFinding, ...]
    use: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class CohortFinding:
    """All of it: patients, sentences on the cohort as a whole, and the memory (GiB) that training on it takes."""

    layout: str
    patients: tuple[PatientFinding, ...]
    problems: tuple[str, ...]
    memory_gib: float

    @property
    def trainable(self) -> int:
        """Number of patients that can be trained on."""
        return sum(patient.use == "training" for patient in self.patients)


def check_cohort(
    cohort: Cohort,
    quick: bool = False,
    recognize: Callable[[Volume], object] | None = None,
    on_progress: Callable[[float, str], None] | None = None,
) -> CohortFinding:
    """Look at every patient and say what was found and what is wrong.

    Args:
        quick: headers alone: no constant or doubled image, and no mask on a wrong place, is noticed.
        recognize: gives an ``inference.recognition.Recognition`` of an image, for a second opinion on its sequence.
        on_progress: called with (fraction 0..1, what is being done).
    """
    usual = [s for s in load_sequences() if 2 * sum(s in p.images for p in cohort.patients) > len(cohort.patients)]
    seen: dict[str, tuple[str, str]] = {}
    people: dict[str, list[str]] = {}
    patients, problems = [], list(cohort.problems)
    for number, files in enumerate(cohort.patients):
        if on_progress is not None:
            on_progress(number / len(cohort.patients), f"Looking at patient {number + 1} of {len(cohort.patients)}")
        if files.person:
            people.setdefault(files.person, []).append(files.name)
        patients.append(_check_patient(files, usual, quick, recognize, seen, problems))
    for names in people.values():
        if len(names) > 1:
            problems.append(f"{', '.join(names)} are one patient by their headers. Hold out all of them or none.")
    finding = CohortFinding(cohort.layout, tuple(patients), (), _memory(patients))
    if finding.trainable == 1:
        problems.append("There is one patient only to train on: weights fit to one patient may do worse on all others, "
                        "and nothing here would show it. Use five or more.")
    elif finding.trainable and not any(len(p.sequences) > 1 for p in patients if p.use == "training"):
        problems.append("No patient has two sequences: nothing can be learned about making one from another.")
    return CohortFinding(finding.layout, finding.patients, tuple(dict.fromkeys(problems)), finding.memory_gib)


def _check_patient(files: PatientFiles, usual, quick: bool, recognize, seen: dict, of_cohort: list) -> PatientFinding:
    problems = list(files.problems)
    usable = dict(files.images)
    volumes = {}
    if not quick:
        for sequence, file in files.images.items():
            try:
                volumes[sequence] = read_image(sequence, file)
                body_mask(volumes[sequence].array, file.grid.spacing)
            except InputError as error:
                problems.append(f"{sequence} cannot be used: {error}")
                del usable[sequence]
                volumes.pop(sequence, None)
        doubled = _doubled(files, volumes, seen, problems)
        if doubled:
            of_cohort.append(f"{files.name} has the same images as {doubled}: one of them is enough, and they must not "
                             "be parted between training and what is held out.")
        if recognize is not None:
            for sequence, volume in volumes.items():
                doubt = recognize(volume).contradiction(sequence)
                problems += [doubt] if doubt else []
    lacking = [s for s in usual if s not in usable]
    if lacking:
        problems.append(f"It lacks {', '.join(lacking)}, which most others have; it is used with what it has.")
    if len(usable) == 1:
        problems.append(f"It has one sequence only ({next(iter(usable))}) and teaches little.")
    grids = [file.grid for file in usable.values()]
    for sequence, file in list(usable.items())[1:]:
        if not overlap(grids[0], file.grid):
            problems.append(f"{sequence} and {next(iter(usable))} show no common region.")
    registered = bool(grids) and one_grid(grids)
    labels = tuple(_label(files, label, volumes, quick, problems) for label in files.labels)
    use = "none" if not usable else "validation" if files.validation else "training"
    sequences = {s: (tuple(f.grid.shape), tuple(round(float(mm), 3) for mm in f.grid.spacing))
                 for s, f in usable.items()}
    return PatientFinding(files.name, files.layout, sequences, registered, labels, use, tuple(dict.fromkeys(problems)))


def _doubled(files: PatientFiles, volumes: dict[str, Volume], seen: dict, problems: list) -> str | None:
    """Tell of equal images within the patient; the name of another patient whose images these all are."""
    others = []
    for sequence, volume in volumes.items():
        digest = hashlib.sha256(np.ascontiguousarray(volume.array)).hexdigest()
        name, other = seen.setdefault(digest, (files.name, sequence))
        if name != files.name:
            others.append(name)
        elif other != sequence:
            problems.append(f"{other} and {sequence} are the same image under two names; one of the names is wrong.")
    return others[0] if others and len(others) == len(volumes) else None


def _label(files: PatientFiles, label, volumes: dict[str, Volume], quick: bool, problems: list) -> LabelFinding:
    file = label.path.name
    if quick:
        return LabelFinding(file, label.of, None, "not looked at", None)
    said: list[str] = []
    mask, images = None, [label.of] if label.of in volumes else []
    if not images:
        used = read_labels(_only(files, label), volumes, said.append)
        problems += [text.removeprefix(f"{files.name}: ") for text in said]
        if not used:
            return LabelFinding(file, label.of, False, "not used", None)
        of, mask = used[0]
        images = [of] if of else [s for s, volume in volumes.items() if volume.grid.matches(mask.grid, SAME_GRID_MM)]
    if not images:
        problems.append(f"{file} lies on another grid than every image; it is resampled.")
        return LabelFinding(file, None, None, "on another grid", None)
    try:
        mask = mask or read_file(label.path)
        of, placement = images[0], None
        for sequence in images:  # what one sequence does not show another one may
            if placement is None or placement.doubt:
                of, placement = sequence, place_mask(mask, volumes[sequence])
    except InputError as error:
        problems.append(f"{file} is not used: {error}")
        return LabelFinding(file, label.of, False, "not used", None)
    confidence = round(placement.confidence, 3)
    if not label.believed:
        if placement.doubt:
            problems.append(f"{placement.doubt} It is not used.")
        elif not placement.by_header:
            problems.append(f"{file} is used {placement.how}, which is how it sits on {of} ({confidence:.0%} sure); "
                            "its header says otherwise.")
        return LabelFinding(file, of, placement.doubt is None, placement.how, confidence)
    if placement.doubt:
        return LabelFinding(file, of, None, "as its header says", None)
    if not placement.by_header:
        problems.append(f"{file} does not sit on {of} as its header says; {placement.how} it would ({confidence:.0%} "
                        "sure). It is used as its header says: look at it, and save it the right way round or take it "
                        "out.")
        return LabelFinding(file, of, False, "as its header says", None)
    return LabelFinding(file, of, True, "as its header says", confidence)


def _only(files: PatientFiles, label) -> PatientFiles:
    return PatientFiles(files.name, files.layout, files.images, (label,))


def _memory(patients: list[PatientFinding]) -> float:
    """GiB that the patients take while they are trained on: each comes once for every grid of its own."""
    total = 0
    for patient in patients:
        if patient.use == "training":
            voxels = [int(np.prod(shape)) for shape, _ in patient.sequences.values()]
            total += _BYTES * len(voxels) * (voxels[0] if patient.registered else sum(voxels))
    return total / 2**30
