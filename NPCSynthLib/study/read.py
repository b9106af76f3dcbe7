"""Files in: a folder of DICOM or NIfTI/NRRD/MHA images, or one file, becomes volumes."""

import gzip
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import Cancelled, InputError
from . import headers, stacks
from .identify import MR_IMAGE_CLASSES, SURE_REFUSAL, Identification, identify
from .pixels import SlicePixels
from .volume import Volume, from_sitk

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")

#: For messages: what to do about a file of the wrong kind.
_KINDS = "DICOM, NIfTI (.nii, .nii.gz), NRRD (.nrrd) or MetaImage (.mha, .mhd)"


@dataclass(frozen=True)
class ReadReport:
    """What a folder holds.

    Attributes:
        volumes: float32 (k, j, i) volumes in scanner units, in order of series number; which sequence each is,
            ``identify(volume.metadata, volume.name)`` tells.
        refused: (series or file name, reason) for everything that is an image but cannot be used.
        warnings: sentences for the user.
    """

    volumes: tuple[Volume, ...]
    refused: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeriesEntry:
    """One series as its headers describe it, pixels unread.

    Attributes:
        series_uid: SeriesInstanceUID, "" for files without header.
        description: series description or file name.
        identification: which sequence it is, or why it cannot be used.
        slices: number of slices found.
    """

    series_uid: str
    description: str
    identification: Identification
    slices: int


def read_folder(
    path,
    on_progress: Callable[[float, str], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> ReadReport:
    """Read every usable MR image below a folder (any depth, any file order, DICOM files with any name).

    DICOM series are split where they hold several volumes and slices are sorted by position; series that are surely
    unusable (scouts, diffusion, other modalities) are refused by their headers, without reading pixels. One bad series
    or file does not stop the others.

    Args:
        path: folder, or a single image file.
        on_progress: called with (fraction 0..1, what is being read).
        cancel: called between files; True stops the reading.

    Raises InputError when the folder holds images of more than one patient or examination, or nothing usable;
    Cancelled.
    """
    path = Path(path)
    if path.is_file():
        volume = read_file(path)
        return ReadReport((volume,), (), check_usable(volume))
    found = _scan(path, _part(on_progress, 0.0, 0.4), cancel)
    _check_one_patient(found.headers)
    volumes, refused, warnings = [], list(found.unreadable), _examination_warnings(found.headers)
    jobs = list(found.series.values()) + found.files
    report = _part(on_progress, 0.4, 1.0)
    for n, job in enumerate(jobs):
        _stop_if(cancel)
        name = job.name if isinstance(job, Path) else series_name(job[0].facts)
        report(n / len(jobs), f"Reading {name}")
        if isinstance(job, Path):
            _read_image(job, volumes, refused, warnings)
        else:
            _read_series(job, volumes, refused, warnings, cancel)
    report(1.0, "Read")
    refused = list(dict.fromkeys(refused))
    if not volumes:
        raise InputError(_nothing_usable(path, found, refused))
    if len(found.unreadable):
        warnings.append(f"{len(found.unreadable)} file{'s' if len(found.unreadable) > 1 else ''} could not be read; "
                        "slices at the end of a series may be missing without notice.")
    return ReadReport(tuple(volumes), tuple(refused), tuple(dict.fromkeys(warnings)))


def list_series(
    path,
    on_progress: Callable[[float, str], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> tuple[SeriesEntry, ...]:
    """Tell what every series below a folder is, from headers alone; several patients are fine here.

    A series that holds several kinds of image (two echoes, magnitude and phase) has an entry for each. Raises
    InputError when the folder holds no image, Cancelled.
    """
    path = Path(path)
    found = _scan(path, _part(on_progress, 0.0, 1.0), cancel)
    entries = []
    for frames in found.series.values():
        parts: dict[Identification, int] = {}
        for part in stacks.split_series(frames):
            told = identify(part[0].facts, series_name(part[0].facts))
            parts[told] = parts.get(told, 0) + len(part)
        uid, name = str(frames[0].facts.get("SeriesInstanceUID", "")), series_name(frames[0].facts)
        entries += [SeriesEntry(uid, name, told, count) for told, count in parts.items()]
    entries += [SeriesEntry("", file.name, identify({}, file.name), 0) for file in found.files]
    entries += [SeriesEntry("", name, Identification(None, 1.0, reason), 0) for name, reason in found.unreadable]
    if not entries:
        raise InputError(_nothing_usable(path, found, []))
    return tuple(entries)


def read_file(path) -> Volume:
    """Read one image file: NIfTI, NRRD, MetaImage, or enhanced multi-frame DICOM.

    Returns a float32 (k, j, i) volume. Raises InputError naming the file for 4D, RGB or vector, complex and
    single-slice images and for files that are missing, empty or damaged. Pixel values are checked by ``check_usable``.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path.name} does not exist. Check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty. Export or copy it again.")
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return _read_with_sitk(path)
    if headers.looks_like_dicom(path):
        return _read_dicom_file(path)
    raise InputError(f"{path.name} is not an image that can be read. Give {_KINDS}.")


def check_usable(volume: Volume) -> tuple[str, ...]:
    """Check the values of a volume; every way in calls this before the volume is used.

    Returns warnings (8-bit gray levels, file without orientation). Raises InputError naming the volume when it is not
    three-dimensional, has one slice, holds NaN or infinite values or is constant.
    """
    array, name = volume.array, volume.name or "The image"
    if array.ndim != 3 or tuple(array.shape) != tuple(volume.grid.shape):
        raise InputError(f"{name} is not a three-dimensional image. Give one volume for each sequence.")
    if min(array.shape) < 2:
        raise InputError(f"{name} is a single slice. Give the whole volume.")
    if np.issubdtype(array.dtype, np.complexfloating):
        raise InputError(f"{name} holds complex values. Give the magnitude image.")
    if not np.isfinite(volume.grid.ijk_to_lps).all() or abs(np.linalg.det(volume.grid.ijk_to_lps[:3, :3])) < 1e-9:
        raise InputError(f"{name} has no valid voxel size or orientation. Export it again.")
    bad = int(array.size - np.count_nonzero(np.isfinite(array)))
    if bad:
        raise InputError(f"{name} holds {bad} voxels that are not numbers (NaN or infinite). Replace them, for "
                         "example by 0, and save it again.")
    if array.min() == array.max():
        raise InputError(f"{name} is empty: every voxel has the value {float(array.flat[0]):g}. Export it again.")
    warnings = []
    bits = volume.metadata.get("BitsStored")
    if isinstance(bits, float) and bits <= 8:
        warnings.append(f"{name} has only 8 bits a voxel (256 gray levels), perhaps clipped; the original is better.")
    if volume.metadata.get("orientation_missing"):
        warnings.append(f"{name} does not say how it lies in the patient; left and right may be swapped. Check "
                        "it before you trust any side, Eye_L and Parotid_R included.")
    return tuple(warnings)


def series_name(facts: dict) -> str:
    """What to call a series in messages: its description, else protocol, else number."""
    for keyword in ("SeriesDescription", "ProtocolName"):
        if facts.get(keyword):
            value = facts[keyword]
            return " ".join(value) if isinstance(value, list) else str(value)
    number = facts.get("SeriesNumber")
    return f"series {number:g}" if isinstance(number, float) else "series without a name"


# --- looking around --------------------------------------------------------------------------------------------------

@dataclass
class _Found:
    """Frames by series, image files, (name, reason) of unreadable files, facts of every DICOM file, files in all."""

    series: dict
    files: list
    unreadable: list
    headers: list
    count: int


def _scan(path: Path, report, cancel) -> _Found:
    if path.is_file():
        raise InputError(f"{path.name} is a file. Give the folder that it lies in.")
    if not path.is_dir():
        raise InputError(f"The folder {path.name} does not exist. Check the path.")
    try:
        files = sorted(p for p in path.rglob("*") if p.is_file() and _is_candidate(p.relative_to(path)))
    except OSError as error:
        raise InputError(f"The folder {path.name} cannot be read. Check that you may open it.") from error
    found = _Found({}, [], [], [], len(files))
    for n, file in enumerate(files):
        _stop_if(cancel)
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


def _scan_dicom(file: Path, found: _Found) -> None:
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


def _check_one_patient(all_facts: list[dict]) -> None:
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


def _examination_warnings(all_facts: list[dict]) -> list[str]:
    studies = {str(f["StudyInstanceUID"]) for f in all_facts if f.get("StudyInstanceUID")}
    if len(studies) > 1:
        return [f"The folder holds {len(studies)} examinations of one patient on one day; they are used together."]
    return []


def _nothing_usable(path: Path, found: _Found, refused: list) -> str:
    if not found.count:
        return f"The folder {path.name} is empty. Choose the folder that holds the MR images."
    modalities = {str(f.get("Modality", "")) for f in found.headers} - {""}
    if modalities and "MR" not in modalities:
        return (f"The folder {path.name} holds no MR images, only {', '.join(sorted(modalities))}. Choose the folder "
                "that holds the MR images.")
    if not refused:
        return f"The folder {path.name} holds no images that can be read. Give {_KINDS}."
    listed = "; ".join(f"{name}: {reason}" for name, reason in refused[:5])
    more = f"; and {len(refused) - 5} more" if len(refused) > 5 else ""
    return f"The folder {path.name} holds no usable MR series. {listed}{more}."


# --- DICOM series ----------------------------------------------------------------------------------------------------

def _read_series(frames: list, volumes: list, refused: list, warnings: list, cancel) -> None:
    name = series_name(frames[0].facts)
    try:
        _check_whole(frames)
    except InputError as error:
        refused.append((name, str(error)))
        return
    parts = stacks.split_series(frames)
    usable = []
    for part in parts:
        told = identify(part[0].facts, name)
        if told.sequence is None and told.confidence >= SURE_REFUSAL:
            refused.append((name, told.reason))
        else:
            usable.append(part)
    pixels = SlicePixels()
    for n, part in enumerate(usable, 1):
        label = _part_label(part, usable, n)
        try:
            arranged = stacks.arrange(part, pixels, partial(_warn, warnings, name + label))
            for repetition, ordered in arranged:
                suffix = f"{label} ({repetition})" if repetition else label
                volume = _volume(ordered, name + suffix, pixels, cancel)
                warnings.extend(check_usable(volume))
                volumes.append(volume)
                if len(parts) == 1 and len(arranged) == 1:
                    warnings.extend(_numbering_warning(ordered, name))
        except InputError as error:
            refused.append((name + label, str(error)))


def _warn(warnings: list, name: str, text: str) -> None:
    warnings.append(f"{name}: {text}.")


def _check_whole(frames: list) -> None:
    """Raises InputError with the bare reason when some of the slices have lost part of their header."""
    if identify(frames[0].facts, "").sequence is None and len(frames) == 1:
        return
    damaged = [f for f in frames if f.position is None or f.orientation is None or f.pixel_spacing is None
               or f.size is None]
    if damaged and len(damaged) < len(frames):
        raise InputError(f"{len(damaged)} of its {len(frames)} slices have no valid position, pixel spacing or size "
                         f"(first: file {damaged[0].path.name}); export it again")


def _part_label(part: list, parts: list, number: int) -> str:
    if len(parts) == 1:
        return ""
    times = [p[0].facts.get("EchoTime") for p in parts]
    if len(set(times)) == len(parts) and all(isinstance(t, float) for t in times):
        return f" (TE {part[0].facts['EchoTime']:g} ms)"
    return f" (part {number})"


def _numbering_warning(frames: list, name: str) -> list[str]:
    """Evenly spaced slices whose numbers do not begin at 1 or leave some out: ends, or every second, may be gone."""
    numbers = sorted({f.instance for f in frames})
    if frames[0].index is not None or len(numbers) != len(frames) or numbers[0] < 1:
        return []
    if numbers[0] == 1 and numbers[-1] == len(numbers):
        return []
    if numbers[-1] - numbers[0] + 1 == len(numbers) and numbers[0] > len(numbers):
        return []
    return [f"{name}: its {len(numbers)} slices are numbered {numbers[0]} to {numbers[-1]}; slices may be missing "
            "at an end."]


def _volume(frames: list, name: str, pixels: SlicePixels, cancel) -> Volume:
    """Slices in order -> volume. Raises InputError with the bare reason, Cancelled."""
    grid = stacks.grid_of(frames)
    array = np.empty(grid.shape, np.float32)
    for k, frame in enumerate(frames):
        _stop_if(cancel)
        array[k] = pixels(frame)
    return Volume(array, grid, name, _metadata(frames))


def _metadata(frames: list) -> dict:
    """Facts of the first slice, and in k order the SOP instance of each slice and its frame number if enhanced."""
    metadata = dict(frames[0].facts)
    metadata["SOPInstanceUIDs"] = [f.uid for f in frames]
    if frames[0].index is not None:
        metadata["FrameNumbers"] = [str(f.index + 1) for f in frames]
    folders = {f.path.parent for f in frames}
    one_file = len({f.path for f in frames}) == 1
    metadata["source_path"] = str(frames[0].path if one_file else sorted(folders)[0])
    return metadata


def _read_dicom_file(path: Path) -> Volume:
    dataset = headers.read_header(path)
    if dataset is None:
        raise InputError(f"{path.name} is a damaged DICOM file. Export it again.")
    frames = headers.frames_of(dataset, path)
    told = identify(frames[0].facts, series_name(frames[0].facts))
    if told.sequence is None and told.confidence >= SURE_REFUSAL:
        raise InputError(f"{path.name} cannot be used: {told.reason}.")
    if len(frames) == 1:
        raise InputError(f"{path.name} is a single slice. Give the folder that holds the whole series.")
    volumes, refused = [], []
    _read_series(frames, volumes, refused, [], None)
    if len(volumes) == 1:
        return volumes[0]
    if volumes:
        raise InputError(f"{path.name} holds {len(volumes)} volumes. Give its folder instead, and choose there.")
    raise InputError(f"{path.name} cannot be used: {refused[0][1]}.")


# --- other files -----------------------------------------------------------------------------------------------------

def _read_image(file: Path, volumes: list, refused: list, warnings: list) -> None:
    told = identify({}, file.name)
    if told.sequence is None and told.confidence >= SURE_REFUSAL:
        refused.append((file.name, told.reason))
        return
    try:
        volume = read_file(file)
        warnings.extend(check_usable(volume))
    except InputError as error:
        refused.append((file.name, str(error)))
        return
    volumes.append(volume)


def made_by_npcsynth(path: Path) -> bool:
    """True when an image file says of itself that it is synthetic: NPCSynth writes so into every header."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return False  # not an image: whoever reads it will say so
    return _says_synthetic(reader)


def _says_synthetic(reader) -> bool:
    notes = [reader.GetMetaData(k) for k in ("ITK_FileNotes", "descrip") if reader.HasMetaDataKey(k)]
    return any(note.strip().startswith("SYNTHETIC") for note in notes)


def _read_with_sitk(path: Path) -> Volume:
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        size, components = reader.GetSize(), reader.GetNumberOfComponents()
        _check_shape(path.name, size, components, sitk.GetPixelIDValueAsString(reader.GetPixelID()))
        if _says_synthetic(reader):
            raise InputError(
                f"{path.name} was synthesized by NPCSynth, not acquired. Give the acquired image, or leave it out.")
        if ".nii" in path.name.lower():
            _check_nifti_complete(path)
        image = reader.Execute()
    except (RuntimeError, OSError, EOFError, zlib.error, struct.error) as error:
        if "orthonormal" in str(error):
            raise InputError(f"{path.name} has axes that are not perpendicular (sheared). Resample it first, for "
                             "example in Slicer.") from error
        raise InputError(f"{path.name} cannot be read: it is damaged, cut short or not what its name says. Export or "
                         "copy it again.") from error
    while image.GetDimension() > 3:
        image = image[..., 0]
    metadata = {"source_path": str(path)}
    if image.GetPixelID() in (sitk.sitkUInt8, sitk.sitkInt8):
        metadata["BitsStored"] = 8.0
    keys = {k: reader.GetMetaData(k) for k in ("qform_code", "sform_code") if reader.HasMetaDataKey(k)}
    if keys and not any(value.strip() not in ("", "0") for value in keys.values()):
        metadata["orientation_missing"] = "YES"
    volume = from_sitk(image, path.name, metadata)
    return Volume(volume.array.astype(np.float32), volume.grid, volume.name, volume.metadata)


def _check_nifti_complete(path: Path) -> None:
    """Raises EOFError or OSError when the file holds fewer bytes than its header says: ITK reads zeros instead."""
    with (gzip.open if path.name.lower().endswith(".gz") else open)(path, "rb") as file:
        header = file.read(540)
        order = "<" if header[:4] in (b"\x5c\x01\0\0", b"\x1c\x02\0\0") else ">"
        # Offsets of bits a voxel, dimensions and start of the voxels: NIfTI-1 (348 bytes) or NIfTI-2 (540 bytes).
        if struct.unpack(order + "i", header[:4])[0] == 540:
            (bits,), dims = struct.unpack_from(order + "h", header, 14), struct.unpack_from(order + "8q", header, 16)
            (start,) = struct.unpack_from(order + "q", header, 168)
        else:
            (bits,), dims = struct.unpack_from(order + "h", header, 72), struct.unpack_from(order + "8h", header, 40)
            (start,) = struct.unpack_from(order + "f", header, 108)
        needed = int(start) + int(np.prod([max(d, 1) for d in dims[1 : dims[0] + 1]], dtype=np.int64)) * bits // 8
        length = len(header)
        while chunk := file.read(1 << 20):
            length += len(chunk)
    if length < needed:
        raise EOFError(f"{length} of {needed} bytes")


def _check_shape(name: str, size: tuple, components: int, pixel_type: str) -> None:
    if components > 1:
        raise InputError(f"{name} has {components} values a voxel (color or vector). Give a gray-scale image.")
    if "complex" in pixel_type:
        raise InputError(f"{name} holds complex values. Give the magnitude image.")
    if len(size) > 3 and max(size[3:]) > 1:
        raise InputError(f"{name} has four dimensions ({' x '.join(map(str, size))}). Give one volume for each "
                         "sequence.")
    if len(size) < 3 or min(size[:3]) < 2:
        raise InputError(f"{name} is a single slice ({' x '.join(map(str, size))}). Give the whole volume.")


# --- progress --------------------------------------------------------------------------------------------------------

def _part(on_progress, start: float, end: float) -> Callable[[float, str], None]:
    def report(fraction: float, text: str) -> None:
        if on_progress:
            on_progress(start + fraction * (end - start), text)

    return report


def _stop_if(cancel) -> None:
    if cancel and cancel():
        raise Cancelled()
