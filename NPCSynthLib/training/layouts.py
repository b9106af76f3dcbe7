"""Whose files lie where: cohorts in several layouts become one plain description, from names and headers alone.

Four layouts are known, each told by what a patient's folder holds, at any depth up to three below the cohort's:

- "sequence files": ``<SEQUENCE>.nii.gz`` named by the vocabulary (T1, T1C, …) and ``label_<what>.nii.gz``;
- "BraTS": ``<id>_t1, _t1ce, _t2, _flair, _seg`` or ``<id>-t1n, -t1c, -t2w, -t2f, -seg`` (``.nii.gz``);
- "MRI-Segments" (the public NPC set): ``T1WI/ T2WI/ CE-T1WI/`` with DICOM slices, and masks ``ROI-T1.nii``,
  ``ROI-T2.nii``, ``ROI-CE-T1.nii``;
- "DICOM": one folder for each patient directly below the cohort's, series sorted by ``study.identify``.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import InputError, UsageError
from ..study.build import assign
from ..study.check import check_usable
from ..study.headers import looks_like_dicom, read_frames
from ..study.identify import SURE_REFUSAL, identify
from ..study.image_files import nifti_files, sequence_files
from ..study.pixels import SlicePixels
from ..study.read import read_file
from ..study.scan import check_one_patient, is_medium_index, scan, series_name
from ..study.series import identify_parts, read_series
from ..study.stacks import arrange, grid_of
from ..study.volume import Grid, Volume
from ..vocabulary import get_sequence, load_sequences
from .split import is_validation

_DEPTH = 3
_BRATS = re.compile(r"(?i)^(?P<id>brats.*?)[-_](?P<what>t1ce|t1n|t1c|t1|t2w|t2f|t2|flair|seg)$")
_BRATS_SEQUENCES = {"t1": "T1", "t1n": "T1", "t1ce": "T1C", "t1c": "T1C", "t2": "T2", "t2w": "T2", "flair": "FLAIR",
                    "t2f": "FLAIR"}
#: Folder of the public NPC set -> (sequence, name of its mask).
_SEGMENTS = {"t1wi": ("T1", "roi-t1"), "t2wi": ("T2", "roi-t2"), "ce-t1wi": ("T1C", "roi-ce-t1")}
_CONTOURS = ("RTSTRUCT", "SEG")


@dataclass(frozen=True)
class ImageFile:
    """Where the volume of one sequence comes from.

    Attributes:
        path: an image file, or a folder that holds the DICOM slices.
        grid: by its header.
        series_uid: which series of the folder; "" for an image file.
    """

    path: Path
    grid: Grid
    series_uid: str = ""


@dataclass(frozen=True)
class LabelFile:
    """Where a mask or a set of contours comes from.

    Attributes:
        path: a mask (voxels above 0), or a DICOM RTSTRUCT or SEG.
        of: the sequence that it was drawn on; None where it lies by its coordinates.
        believed: whether the header of the mask is to be believed; else the image must confirm it.
    """

    path: Path
    of: str | None = None
    believed: bool = True

    @property
    def is_contours(self) -> bool:
        """True for DICOM, where each structure has a name."""
        return not self.path.name.lower().endswith((".nii", ".nii.gz"))


@dataclass(frozen=True)
class PatientFiles:
    """One patient's files.

    Attributes:
        name: "<parent folder>/<folder>".
        layout: which of this module's layouts.
        images: sequence id -> where it comes from, in the vocabulary's order.
        labels: masks and contours of tumors or lesions.
        validation: never to be trained on.
        person: a digest that is the same for two folders of one person; "" where no header tells.
        problems: sentences on what could not be used.
    """

    name: str
    layout: str
    images: dict[str, ImageFile]
    labels: tuple[LabelFile, ...] = ()
    validation: bool = False
    person: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cohort:
    """What a folder holds: patients in order of their folders' names, and sentences on what was left out."""

    folder: Path
    patients: tuple[PatientFiles, ...]
    problems: tuple[str, ...] = ()

    @property
    def layout(self) -> str:
        """The layouts found, in words."""
        return " and ".join(dict.fromkeys(p.layout for p in self.patients))


def find_cohort(folder: str | Path, on_progress: Callable[[float, str], None] | None = None) -> Cohort:
    """Find the patients below a folder and what each has. Pixels are not read.

    Args:
        folder: of a cohort, of several cohorts, or of one patient.
        on_progress: called with (fraction 0..1, what is being read).

    Raises InputError when the folder is not there or holds no patient.
    """
    folder = Path(folder).resolve()
    if not folder.is_dir():
        raise InputError(f"The folder {folder.name} does not exist. Give the folder that holds the patients.")
    places = list(_places(folder, _DEPTH))
    if not places:
        places = [("DICOM", place) for place in _dicom_places(folder)]
    else:  # DICOM patients beside others
        taken = {place for _, place in places}
        places += [("DICOM", place) for place in _dicom_places(folder) if place != folder
                   and not any(place == one or place in one.parents for one in taken)]
    if not places:
        raise InputError(
            f"No patient was found in {folder.name}. Known layouts: <patient>/T1.nii.gz, T2.nii.gz, …; "
            "BraTS*_t1.nii.gz; <patient>/T1WI/*.dcm with ROI-T1.nii; and one folder of DICOM for each patient.")
    patients, problems = [], []
    for number, (layout, place) in enumerate(sorted(places, key=lambda item: item[1])):
        if on_progress is not None:
            on_progress(number / len(places), f"Reading headers of patient {number + 1} of {len(places)}")
        name = f"{place.parent.name}/{place.name}"
        try:
            found = _READERS[layout](place, name)
        except InputError as error:
            problems.append(f"{name}: {error}")
            continue
        if not found.images:
            problems += [f"{name}: {problem}" for problem in found.problems or ("it holds no usable sequence.",)]
            continue
        ordered = {s: found.images[s] for s in load_sequences() if s in found.images}
        patients.append(replace(found, images=ordered,
                                validation=found.validation or is_validation(place.parent.name, place.name)))
    if not patients:
        raise InputError(f"No patient of {folder.name} can be used. {' '.join(problems[:5])}")
    return Cohort(folder, tuple(patients), tuple(problems))


def part(cohort: Cohort, hold_out: Iterable[str]) -> tuple[list[PatientFiles], list[PatientFiles]]:
    """(patients to train on, patients held out); the validation patients are in neither.

    Args:
        hold_out: names of patients or of their folders. Whoever is the same person by the headers is held out too.

    Raises UsageError for a name that is not there, InputError when nobody is left to train on.
    """
    wanted = set(hold_out)
    usable = [one for one in cohort.patients if not one.validation]
    unknown = wanted - {name for one in usable for name in (one.name, one.name.split("/")[-1])}
    if unknown:
        raise UsageError(f"{', '.join(sorted(unknown))} cannot be held out: no such patient. There are: "
                         f"{', '.join(one.name.split('/')[-1] for one in usable)}.")
    held = [one for one in usable if wanted & {one.name, one.name.split("/")[-1]}]
    people = {one.person for one in held} - {""}
    held += [one for one in usable if one.person in people and one not in held]
    rest = [one for one in usable if one not in held]
    if not rest:
        raise InputError(f"Nobody of {cohort.folder.name} is left to train on: all patients are held out or kept for "
                         "validation.")
    return rest, held


def read_image(sequence: str, file: ImageFile) -> Volume:
    """The volume, float32 (k, j, i) in scanner units. Raises InputError when it cannot be used."""
    if not file.series_uid:
        volume = read_file(file.path)
        check_usable(volume)
        return volume
    found = scan(file.path, _quiet, None)
    volumes, refused = [], []
    for frames in found.series.values():
        if _series_key(frames) == file.series_uid:
            read_series(frames, volumes, refused, [], None)
    same = [v for v in volumes if v.grid.matches(file.grid)]
    # Two echoes of one series share a grid.
    best = next((v for v in same if identify(v.metadata, v.name).sequence == sequence), same[0] if same else None)
    if best is None:
        reason = f": {refused[0][1]}" if refused else ""
        raise InputError(f"{sequence} of {file.path.name} cannot be used{reason}. Export it again.")
    return best


def _person(facts: dict) -> str:
    """A digest of who the headers say the patient is; "" where they do not say."""
    words = " ".join(str(facts.get(k) or "") for k in ("PatientID", "PatientBirthDate"))
    return hashlib.sha256(words.encode()).hexdigest()[:16] if facts.get("PatientID") else ""


def _quiet(fraction: float, text: str) -> None:
    """Progress that nobody looks at."""


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "__MACOSX")))
    except OSError as error:
        raise InputError(f"The folder {folder.name} cannot be read. Check that you may open it.") from error


def _places(folder: Path, depth: int) -> Iterator[tuple[str, Path]]:
    """(layout, patient's folder) of everything but DICOM folders."""
    folders = _folders(folder)
    if any(sub.name.lower() in _SEGMENTS for sub in folders):
        yield "MRI-Segments", folder
    elif any(_BRATS.match(stem) for stem in nifti_files(folder)):
        yield "BraTS", folder
    elif sequence_files(folder):
        yield "sequence files", folder
    elif depth:
        for sub in folders:
            yield from _places(sub, depth - 1)


def _dicom_places(folder: Path) -> list[Path]:
    """Folders directly below that hold DICOM; the folder itself when all of it is one examination."""
    places = [sub for sub in _folders(folder) if _first_dicom(sub) is not None]
    loose = any(_is_image(p) for p in folder.iterdir())
    if loose:
        return [folder]
    studies = set()
    for place in places:
        facts = _facts_of(_first_dicom(place))
        studies.add((_person(facts), str(facts.get("StudyInstanceUID") or place)))
    if len(places) > 1 and len(studies) == 1:
        return [folder]
    return [inner for place in places for inner in _people(place)]


def _people(folder: Path) -> list[Path]:
    """The folder, or those below it where each is of somebody else and holds folders of series: a cohort among cohorts.

    Series of two people in one patient's folder are no cohort: reading them refuses that.
    """
    inner = [sub for sub in _folders(folder) if _first_dicom(sub) is not None]
    loose = any(_is_image(path) for path in folder.iterdir())
    deep = all(any(_first_dicom(series) is not None for series in _folders(sub)) for sub in inner)
    people = {_person(_facts_of(_first_dicom(sub))) for sub in inner} - {""}
    return inner if len(inner) == len(people) > 1 and deep and not loose else [folder]


def _facts_of(file: Path) -> dict:
    """Facts of one DICOM file; empty when it is damaged."""
    frames = read_frames(file)
    return frames[0].facts if frames else {}


def _first_dicom(folder: Path) -> Path | None:
    return next((p for p in sorted(folder.rglob("*")) if _is_image(p)), None)


def _is_image(path: Path) -> bool:
    """Whether it is DICOM, and not the table of contents of a medium."""
    return path.is_file() and not is_medium_index(path) and looks_like_dicom(path)


def _header_grid(path: Path) -> Grid:
    """The grid of an image file by its header. Raises InputError."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path.name} cannot be read: it is damaged or not what its name says. Export or copy it "
                         "again.") from error
    size = reader.GetSize()
    if len(size) < 3 or max(size[3:], default=1) > 1:
        raise InputError(f"{path.name} is not a three-dimensional image. Give one volume for each sequence.")
    spacing, origin, flat = reader.GetSpacing()[:3], reader.GetOrigin()[:3], reader.GetDirection()
    n = len(size)
    direction = [flat[n * row + column] for row in range(3) for column in range(3)]
    return Grid.from_parts(size[2::-1], spacing, origin, direction)


def _images_of(files: dict[str, Path]) -> tuple[dict[str, ImageFile], list[str]]:
    images, problems = {}, []
    for sequence, path in files.items():
        try:
            images[sequence] = ImageFile(path, _header_grid(path))
        except InputError as error:
            problems.append(f"{sequence} is not used: {error}")
    return images, problems


def _sequence_files(folder: Path, name: str) -> PatientFiles:
    named = sequence_files(folder)
    images, problems = _images_of(named)
    rest = [path for path in nifti_files(folder).values() if path not in named.values()]
    labels = tuple(LabelFile(path) for path in rest if path.name.lower().startswith("label_"))
    others = [path.name for path in rest if not path.name.lower().startswith("label_")]
    if others:
        problems.append(f"{', '.join(others)}: not used. Sequences are called {', '.join(load_sequences())}, masks "
                        "label_….")
    return PatientFiles(name, "sequence files", images, labels, problems=tuple(problems))


def _brats(folder: Path, name: str) -> PatientFiles:
    matches = {path: match for stem, path in nifti_files(folder).items() if (match := _BRATS.match(stem))}
    people = sorted({match["id"] for match in matches.values()})
    if len(people) > 1:
        raise InputError(f"It holds files of {len(people)} patients ({people[0]}, {people[1]}"
                         f"{', …' if people[2:] else ''}). Give each patient a folder.")
    what = {path: match["what"].lower() for path, match in matches.items()}
    images, problems = _images_of({_BRATS_SEQUENCES[w]: path for path, w in what.items() if w != "seg"})
    labels = tuple(LabelFile(path) for path, w in what.items() if w == "seg")
    validation = is_validation(folder.name, people[0])
    return PatientFiles(name, "BraTS", images, labels, validation, problems=tuple(problems))


def _segments(folder: Path, name: str) -> PatientFiles:
    """A patient of the public NPC set. The masks' headers are not believed."""
    images, labels, problems, person = {}, [], [], ""
    known = {}
    for sub in _folders(folder):
        known |= {stem.lower(): path for stem, path in nifti_files(sub).items()}
    known |= {stem.lower(): path for stem, path in nifti_files(folder).items()}
    for sub in _folders(folder):
        if sub.name.lower() not in _SEGMENTS:
            continue
        usual, roi = _SEGMENTS[sub.name.lower()]
        try:
            sequence, image, facts, said = _one_series(sub, usual)
        except InputError as error:
            problems.append(f"{sub.name} is not used: {error}")
            continue
        images[sequence] = image
        problems += said
        person = person or _person(facts)
        if roi in known:
            labels.append(LabelFile(known.pop(roi), sequence, believed=False))
        else:
            problems.append(f"{sub.name} has no mask {roi.upper()}.nii.")
    unknown = [path.name for stem, path in known.items() if stem not in {roi for _, roi in _SEGMENTS.values()}]
    if unknown:
        problems.append(f"{', '.join(sorted(unknown))}: no mask of a name that is known; not used.")
    return PatientFiles(name, "MRI-Segments", images, tuple(labels), person=person, problems=tuple(problems))


def _one_series(folder: Path, usual: str) -> tuple[str, ImageFile, dict, list[str]]:
    """(sequence, where, header facts, problems) of a folder that should hold one series of that sequence.

    The header may say more than the folder's name (fat suppression); where it says otherwise, the name counts and it
    is told.
    """
    stacks = [stack for stack in _stacks(folder)[0] if stack[1].sequence or stack[1].confidence < SURE_REFUSAL]
    if not stacks:
        raise InputError("it holds no volume of DICOM slices")
    volume, told = max(stacks, key=lambda stack: stack[0].grid.shape[0])
    problems = []
    if len(stacks) > 1:
        problems.append(f"{folder.name} holds {len(stacks)} volumes; the one with most slices is used.")
    sequence, said, meant = usual, told.sequence, get_sequence(usual)
    if said and said != usual:
        one = get_sequence(said)
        kind = (one.weighting, one.contrast_agent, one.inversion_recovery)
        if kind == (meant.weighting, meant.contrast_agent, meant.inversion_recovery):
            sequence = said
        elif one.weighting != meant.weighting or one.inversion_recovery != meant.inversion_recovery:
            problems.append(f"{folder.name} holds a series that its header calls {said}; used as {usual}. Check it.")
    image = ImageFile(folder, volume.grid, volume.metadata["series_key"])
    return sequence, image, volume.metadata, problems


def _stacks(folder: Path) -> tuple[list, list[dict], list[LabelFile], list[str]]:
    """([(volume without voxels, identification)], header facts, contours, problems) of a folder of DICOM slices."""
    found = scan(folder, _quiet, None)
    check_one_patient(found.headers)
    stacks, contours, problems = [], [], []
    for frames in found.series.values():
        if str(frames[0].facts.get("Modality")) in _CONTOURS:
            contours.append(LabelFile(frames[0].path))
            continue
        for part, told in identify_parts(frames):
            if told.sequence is None and told.confidence >= SURE_REFUSAL:
                continue
            name = series_name(part[0].facts)
            try:
                for _, ordered in arrange(part, SlicePixels(), lambda text: None):
                    facts = {**ordered[0].facts, "series_key": _series_key(frames)}
                    stacks.append((Volume(None, grid_of(ordered), name, facts), told))
            except InputError as error:
                problems.append(f'"{name}" is not used: {error}.')
    return stacks, found.headers, contours, problems


def _series_key(frames: list) -> str:
    """What tells a series from others of its folder."""
    first = frames[0]
    return str(first.facts.get("SeriesInstanceUID") or f"{first.path.parent.name}/{series_name(first.facts)}")


def _dicom(folder: Path, name: str) -> PatientFiles:
    stacks, headers, contours, problems = _stacks(folder)
    chosen, warnings, _ = assign([volume for volume, _ in stacks])
    images = {sequence: ImageFile(folder, volume.grid, volume.metadata["series_key"])
              for sequence, volume in chosen.items()}
    person = _person(headers[0]) if headers else ""
    return PatientFiles(name, "DICOM", images, tuple(contours), person=person, problems=(*problems, *warnings))


_READERS = {"sequence files": _sequence_files, "BraTS": _brats, "MRI-Segments": _segments, "DICOM": _dicom}
