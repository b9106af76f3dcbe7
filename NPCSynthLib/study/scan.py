"""Looking around in a folder: which series and image files it holds, from headers alone."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import Cancelled, InputError
from . import headers
from .image_files import IMAGE_SUFFIXES

#: For messages: what to do about a file of the wrong kind.
KINDS = "DICOM, NIfTI (.nii, .nii.gz), NRRD (.nrrd) or MetaImage (.mha, .mhd)"


@dataclass
class Found:
    """What a folder holds.

    Attributes:
        count: number of files.
        series: frames by series, in order of series number.
        files: image files other than DICOM.
        unreadable: (file name, reason) of damaged files.
        headers: facts of every DICOM file.
        warnings: sentences for the user.
    """

    count: int
    series: dict = field(default_factory=dict)
    files: list = field(default_factory=list)
    unreadable: list = field(default_factory=list)
    headers: list = field(default_factory=list)
    warnings: list = field(default_factory=list)


def scan(path: Path, report, cancel) -> Found:
    """Read the headers of every file below a folder, or of those that a DICOMDIR lists. Raises InputError, Cancelled.

    ``report`` takes (fraction, text) some hundred times at most.
    """
    if path.is_file():
        if not is_medium_index(path):
            raise InputError(f"{path.name} is a file. Give the folder that it lies in.")
        files, missing = _listed_files(path)
    elif path.is_dir():
        files, missing = _files_below(path)
    else:
        raise InputError(f"The folder {path.name} does not exist. Check the path.")
    found = Found(len(files))
    if missing:
        found.warnings.append(f"The index of the medium (DICOMDIR) lists {missing} file{'s' if missing > 1 else ''} "
                              "more than there are: the copy is not complete.")
    for n, file in enumerate(files):
        stop_if(cancel)
        if n % (len(files) // 256 + 1) == 0:
            report(n / len(files), "Reading headers")
        if file.name.lower().endswith(IMAGE_SUFFIXES):
            found.files.append(file)
        elif headers.looks_like_dicom(file):
            _scan_dicom(file, found)
        elif file.suffix.lower() in (".dcm", ".ima"):
            found.unreadable.append((file.name, "not a readable DICOM file: empty, damaged or cut short"))
    found.series = dict(sorted(found.series.items(), key=lambda item: _series_order(item[1][0].facts)))
    return found


def is_medium_index(path: Path) -> bool:
    """True for the file that lists what a DICOM medium (a CD) holds; the standard fixes its name."""
    return path.name.upper() == "DICOMDIR"


def _files_below(folder: Path) -> tuple[list[Path], int]:
    """(files that may be images, number of those that the folder's DICOMDIR lists and that are missing)."""
    try:
        files = sorted(p for p in folder.rglob("*") if p.is_file() and _is_candidate(p.relative_to(folder)))
        index = next((p for p in folder.iterdir() if is_medium_index(p) and p.is_file()), None)
    except OSError as error:
        raise InputError(f"The folder {folder.name} cannot be read. Check that you may open it.") from error
    try:
        return files, _listed_files(index)[1] if index else 0
    except InputError:
        return files, 0  # all files are found without the index


def _listed_files(index: Path) -> tuple[list[Path], int]:
    """(files that a DICOMDIR lists, number of those missing). Raises InputError when it cannot be read."""
    import pydicom

    files, missing = [], 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for record in pydicom.dcmread(index).DirectoryRecordSequence:
                name = record.get("ReferencedFileID")
                if not name:
                    continue
                parts = [name] if isinstance(name, str) else [str(part) for part in name]
                file = _below(index.parent, parts)
                files += [file] if file else []
                missing += file is None
        except Exception as error:
            raise InputError(f"{index.name} is damaged. Give the folder that it lies in.") from error
    return sorted(files), missing


def _below(folder: Path, parts: list[str]) -> Path | None:
    """The file of that path in the folder, upper or lower case; None when it is missing or would lie outside."""
    if any(part in ("", ".", "..") or {"/", "\\", ":", "\0"} & set(part) for part in parts):
        return None
    for spelled in (parts, [part.lower() for part in parts]):
        if (file := folder.joinpath(*spelled)).is_file():
            return file
    return None


def _is_candidate(path: Path) -> bool:
    """False for what is never an image: hidden files, archive litter and the index of a DICOM medium."""
    parts = path.parts
    return not any(p.startswith((".", "__MACOSX")) for p in parts) and not is_medium_index(path)


def _scan_dicom(file: Path, found: Found) -> None:
    frames = headers.read_frames(file)
    if frames is None:
        found.unreadable.append((file.name, "a damaged DICOM file; export it again"))
        return
    facts = frames[0].facts
    if facts.get("SOPClassUID") == headers.DICOMDIR_CLASS:
        return
    found.headers.append(facts)
    # Without a series UID, files of one folder and description belong together.
    key = str(facts.get("SeriesInstanceUID", "")) or (str(file.parent), series_name(facts))
    found.series.setdefault(key, []).extend(frames)


def _series_order(facts: dict) -> tuple:
    number = facts.get("SeriesNumber")
    return (number if isinstance(number, float) else float("inf"), series_name(facts))


def _person(facts: dict, keyword: str) -> str:
    return " ".join(str(facts.get(keyword, "")).replace("^", " ").replace("=", " ").upper().split())


def several_people(all_facts: list[dict]) -> bool:
    """Whether headers name more than one patient, by ID, name or birth date. What is missing says nothing."""
    said = [{_person(f, k) for f in all_facts} - {""} for k in ("PatientID", "PatientName", "PatientBirthDate")]
    return any(len(values) > 1 for values in said)


def unknown_person(facts_of: Mapping[str, dict]) -> str | None:
    """A sentence where some of the images say whose they are and others do not, else None.

    Args:
        facts_of: metadata of each image, by its name.
    """
    told = {name: any(facts.get(key) for key in ("PatientID", "PatientName", "SOPInstanceUIDs"))
            for name, facts in facts_of.items()}
    if all(told.values()) or not any(told.values()):
        return None
    known, unknown = (" and ".join(name for name in told if told[name] is said) for said in (True, False))
    return (f"Nothing says whether {unknown} is of the same patient as {known}: it has no DICOM header. Make sure that "
            "it is.")


def check_one_patient(all_facts: list[dict]) -> None:
    """Raises InputError when the headers belong to different patients, or cannot be told to be of one examination."""
    if several_people(all_facts):
        raise InputError("The folder holds images of more than one patient. Nothing was read: separate the patients "
                         "and give a folder of one of them.")
    studies = {str(f.get("StudyInstanceUID")) for f in all_facts if f.get("StudyInstanceUID")}
    if len(studies) < 2:
        return
    if not any(_person(facts, "PatientID") for facts in all_facts):
        raise InputError("The folder holds images of more than one examination without patient ID, perhaps of more "
                         "than one patient. Nothing was read: give a folder of one examination.")
    if len({str(f.get("StudyDate")) for f in all_facts if f.get("StudyInstanceUID")}) > 1:
        raise InputError(f"The folder holds {len(studies)} examinations of different days, between which the patient "
                         "may have changed. Nothing was read: give a folder of one examination.")


def examination_warnings(all_facts: list[dict]) -> list[str]:
    """What to tell where the headers belong to several examinations that may be used together."""
    studies = {str(f["StudyInstanceUID"]) for f in all_facts if f.get("StudyInstanceUID")}
    if len(studies) > 1:
        return [f"The folder holds {len(studies)} examinations of one patient on one day; they are used together."]
    return []


def nothing_usable(path: Path, found: Found, refused: list) -> str:
    """The sentence for a folder that holds nothing to work on; ``refused``: (name, reason)."""
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
    """A reporter whose 0..1 is the part from ``start`` to ``end`` of the whole."""
    def report(fraction: float, text: str) -> None:
        if on_progress:
            on_progress(start + fraction * (end - start), text)

    return report


def stop_if(cancel) -> None:
    """Raises Cancelled when the caller asks for it."""
    if cancel and cancel():
        raise Cancelled()
