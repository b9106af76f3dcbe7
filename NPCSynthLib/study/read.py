"""Files in: a folder of DICOM or NIfTI/NRRD/MHA images, or one file, becomes volumes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from . import headers
from .check import check_usable
from .identify import SURE_REFUSAL, Identification, identify
from .image_files import IMAGE_SUFFIXES, read_image_file
from .scan import (
    KINDS,
    check_one_patient,
    examination_warnings,
    is_medium_index,
    nothing_usable,
    part_of,
    scan,
    series_name,
    stop_if,
)
from .series import identify_parts, read_series
from .volume import Volume


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
        path: folder, or a single image file, or the DICOMDIR of a medium (what it lists is read then).
        on_progress: called with (fraction 0..1, what is being read).
        cancel: called between files; True stops the reading.

    Raises InputError when the folder holds images of more than one patient or examination, or nothing usable;
    Cancelled.
    """
    path = Path(path)
    if path.is_file() and not is_medium_index(path):
        volume = read_file(path)
        return ReadReport((volume,), (), check_usable(volume))
    found = scan(path, part_of(on_progress, 0.0, 0.4), cancel)
    check_one_patient(found.headers)
    volumes, refused, warnings = [], list(found.unreadable), [*found.warnings, *examination_warnings(found.headers)]
    jobs = list(found.series.values()) + found.files
    report = part_of(on_progress, 0.4, 1.0)
    for n, job in enumerate(jobs):
        stop_if(cancel)
        name = job.name if isinstance(job, Path) else series_name(job[0].facts)
        report(n / len(jobs), f"Reading {name}")
        if isinstance(job, Path):
            _read_image(job, volumes, refused, warnings)
        else:
            read_series(job, volumes, refused, warnings, cancel)
    report(1.0, "Read")
    refused = list(dict.fromkeys(refused))
    if not volumes:
        raise InputError(nothing_usable(path, found, refused))
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
    found = scan(path, part_of(on_progress, 0.0, 1.0), cancel)
    entries = []
    for frames in found.series.values():
        parts: dict[Identification, int] = {}
        for part, told in identify_parts(frames):
            parts[told] = parts.get(told, 0) + len(part)
        uid, name = str(frames[0].facts.get("SeriesInstanceUID", "")), series_name(frames[0].facts)
        entries += [SeriesEntry(uid, name, told, count) for told, count in parts.items()]
    entries += [SeriesEntry("", file.name, identify({}, file.name), 0) for file in found.files]
    entries += [SeriesEntry("", name, Identification(None, 1.0, reason), 0) for name, reason in found.unreadable]
    if not entries:
        raise InputError(nothing_usable(path, found, []))
    return tuple(entries)


def read_file(path, labels: bool = False) -> Volume:
    """Read one image file: NIfTI, NRRD, MetaImage, or enhanced multi-frame DICOM.

    Args:
        labels: whether it is to be read as contours, which may be a program's.

    Returns a float32 (k, j, i) volume. Raises InputError naming the file for 4D, RGB or vector, complex and
    single-slice images, for synthetic images and for files that are missing, empty or damaged. Pixel values are checked
    by ``check_usable``.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path.name} does not exist. Check the path.")
    if path.stat().st_size == 0:
        raise InputError(f"{path.name} is empty. Export or copy it again.")
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return read_image_file(path, labels)
    if headers.looks_like_dicom(path):
        return _read_dicom_file(path)
    raise InputError(f"{path.name} is not an image that can be read. Give {KINDS}.")


def _read_dicom_file(path: Path) -> Volume:
    frames = headers.read_frames(path)
    if frames is None:
        raise InputError(f"{path.name} is a damaged DICOM file. Export it again.")
    told = identify(frames[0].facts, series_name(frames[0].facts))
    if told.sequence is None and told.confidence >= SURE_REFUSAL:
        raise InputError(f"{path.name} cannot be used: {told.reason}.")
    if len(frames) == 1:
        raise InputError(f"{path.name} is a single slice. Give the folder that holds the whole series.")
    volumes, refused = [], []
    read_series(frames, volumes, refused, [], None)
    if len(volumes) == 1:
        return volumes[0]
    if volumes:
        raise InputError(f"{path.name} holds {len(volumes)} volumes. Give its folder instead, and choose there.")
    raise InputError(f"{path.name} cannot be used: {refused[0][1]}.")


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
