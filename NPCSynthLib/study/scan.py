"""Looking around in a folder: which series and image files it holds, from headers alone."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import Cancelled, InputError
from . import headers
from .image_files import IMAGE_SUFFIXES
from .refuse import MR_IMAGE_CLASSES

#: For messages: what to do about a file of the wrong kind.
KINDS = "DICOM, NIfTI (.nii, .nii.gz), NRRD (.nrrd) or MetaImage (.mha, .mhd)"


@dataclass
class Found:
    """Frames by series, image files, (name, reason) of unreadable files, facts of every DICOM file, files in all."""

    series: dict
    files: list
    unreadable: list
    headers: list
    count: int


def scan(path: Path, report, cancel) -> Found:
    if path.is_file():
        raise InputError(f"{path.name} is a file. Give the folder that it lies in.")
    if not path.is_dir():
        raise InputError(f"The folder {path.name} does not exist. Check the path.")
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file() and _is_candidate(p.relative_to(path)))
    except OSError as error:
        raise InputError(f"The folder {path.name} cannot be read. Check that you may open it.") from error
    found = Found({}, [], [], [], len(files))
    for n, file in enumerate(files):
        stop_if(cancel)
        report(n / len(files), "Reading headers")
        if file.name.lower().endswith(IMAGE_SUFFIXES):
            found.files.append(file)
        elif headers.looks_like_dicom(file):
            _scan_dicom(file, found)
        elif file.suffix.lower() in (".dcm", ".ima"):
            found.unreadable.append((file.name, "not a readable DICOM file: empty, damaged or cut short"))
    found.series = dict(sorted(found.series.items(), key=lambda item: _series_order(item[1][0].facts)))
    return found


def _is_candidate(path: Path) -> bool:
    """False for what is never an image: hidden files, archive litter and the index of a DICOM medium."""
    parts = path.parts
    return not any(p.startswith((".", "__MACOSX")) for p in parts) and path.name.upper() != "DICOMDIR"


def _scan_dicom(file: Path, found: Found) -> None:
    dataset = headers.read_header(file)
    # A file cut inside its header reads without complaint up to the cut; what must be there is then missing.
    if dataset is None or (str(dataset.get("SOPClassUID", "")) in MR_IMAGE_CLASSES
                           and not dataset.get("Rows")):
        found.unreadable.append((file.name, "a damaged DICOM file; export it again"))
        return
    if str(dataset.get("SOPClassUID", "")) == headers.DICOMDIR_CLASS:
        return
    frames = headers.frames_of(dataset, file)
    facts = frames[0].facts
    found.headers.append(facts)
    # Without a series UID, files of one folder and description belong together.
    key = facts.get("SeriesInstanceUID") or (str(file.parent), series_name(facts))
    found.series.setdefault(key, []).extend(frames)


def _series_order(facts: dict) -> tuple:
    number = facts.get("SeriesNumber")
    return (number if isinstance(number, float) else float("inf"), series_name(facts))


def _person(facts: dict, keyword: str) -> str:
    return " ".join(str(facts.get(keyword, "")).replace("^", " ").replace("=", " ").upper().split())


def check_one_patient(all_facts: list[dict]) -> None:
    """Raises InputError when the headers belong to different patients, or cannot be told to be of one examination."""
    people = {k: {_person(f, k) for f in all_facts} - {""} for k in ("PatientID", "PatientName", "PatientBirthDate")}
    if any(len(values) > 1 for values in people.values()):
        raise InputError("The folder holds images of more than one patient. Nothing was read: separate the patients "
                         "and give a folder of one of them.")
    studies = {str(f.get("StudyInstanceUID")) for f in all_facts if f.get("StudyInstanceUID")}
    if len(studies) < 2:
        return
    if not people["PatientID"]:
        raise InputError("The folder holds images of more than one examination without patient ID, perhaps of more "
                         "than one patient. Nothing was read: give a folder of one examination.")
    if len({f.get("StudyDate") for f in all_facts if f.get("StudyInstanceUID")}) > 1:
        raise InputError(f"The folder holds {len(studies)} examinations of different days, between which the patient "
                         "may have changed. Nothing was read: give a folder of one examination.")


def examination_warnings(all_facts: list[dict]) -> list[str]:
    studies = {str(f["StudyInstanceUID"]) for f in all_facts if f.get("StudyInstanceUID")}
    if len(studies) > 1:
        return [f"The folder holds {len(studies)} examinations of one patient on one day; they are used together."]
    return []


def nothing_usable(path: Path, found: Found, refused: list) -> str:
    if not found.count:
        return f"The folder {path.name} is empty. Choose the folder that holds the MR images."
    modalities = {str(f.get("Modality", "")) for f in found.headers} - {""}
    if modalities and "MR" not in modalities:
        return (f"The folder {path.name} holds no MR images, only {', '.join(sorted(modalities))}. Choose the folder "
                "that holds the MR images.")
    if not refused:
        return f"The folder {path.name} holds no images that can be read. Give {KINDS}."
    listed = "; ".join(f"{name}: {reason}" for name, reason in refused[:5])
    more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
    return f"The folder {path.name} holds no usable MR series. {listed}{more}."


def series_name(facts: dict) -> str:
    """What to call a series in messages: its description, else protocol, else number."""
    for keyword in ("SeriesDescription", "ProtocolName"):
        if facts.get(keyword):
            value = facts[keyword]
            return " ".join(value) if isinstance(value, list) else str(value)
    number = facts.get("SeriesNumber")
    return f"series {number:g}" if isinstance(number, float) else "series without a name"


def part_of(on_progress, start: float, end: float) -> Callable[[float, str], None]:
    def report(fraction: float, text: str) -> None:
        if on_progress:
            on_progress(start + fraction * (end - start), text)

    return report


def stop_if(cancel) -> None:
    if cancel and cancel():
        raise Cancelled()
