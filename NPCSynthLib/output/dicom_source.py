"""The acquired DICOM images that a result was made from: found again, checked against its grid, put in its order."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset

from ..errors import Cancelled, InputError
from ..study.headers import Frame, frames_of, looks_like_dicom, read_header
from ..study.volume import Grid
from .provenance import reference_grid

#: Set to empty where the source lacks them: every object must have them, if without a value.
_TYPE_2 = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
           "StudyTime", "ReferringPhysicianName", "PositionReferenceIndicator")
#: Scanners round slice positions to 0.1 mm; reading evens them out by no more than this.
_SAME_PLACE_MM = 0.25


@dataclass(frozen=True)
class SourceSeries:
    """The images of one source.

    Attributes:
        sequence: id in the vocabulary.
        header: data set, without pixels, of the file that the first slice comes from. Holds the patient's identity.
        frames: its slices; those of the reference are in the order of the result's slices.
        displaced: whether its voxels went elsewhere than the positions in its header say: it was registered, or its
            frame of reference is not the reference's.
    """

    sequence: str
    header: Dataset
    frames: tuple[Frame, ...]
    displaced: bool = False

    @property
    def multiframe(self) -> bool:
        """Whether the slices are frames of an enhanced file."""
        return self.frames[0].index is not None

    @property
    def spacing(self) -> float:
        """Distance in mm from slice to slice."""
        first, last = self.frames[0].position, self.frames[-1].position
        return float(np.linalg.norm(last - first)) / (len(self.frames) - 1)

    @property
    def even_positions(self) -> np.ndarray:
        """(frames, 3) LPS mm, evenly from the first slice to the last: for multi-frame objects.

        They are off the slices' own positions by no more than what the scanner rounded. Common readers of multi-frame
        files measure the first step alone and go on from there, which would multiply that rounding.
        """
        return np.linspace(self.frames[0].position, self.frames[-1].position, len(self.frames))

    @property
    def thickness(self) -> float:
        """Thickness of a slice in mm, as the header says, else the distance from slice to slice."""
        thickness = self.frames[0].facts.get("SliceThickness")
        return thickness if isinstance(thickness, float) and thickness > 0 else self.spacing


_NO_FRAME = (
    "The reference {} names no frame of reference, so that no system could tell where the results lie. Export the "
    "series again from the scanner or archive, with all of its header."
)


def files_below(folder: str | Path) -> list[Path]:
    """Every file below a study folder. Raises InputError when there is no such folder, or it cannot be read."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"The study folder {folder.name} does not exist. Check the path.")
    try:
        return sorted(path for path in folder.rglob("*") if path.is_file())
    except OSError as error:
        raise InputError(f"The folder {folder.name} cannot be read. Check that you may open it.") from error


def check_from_dicom(reference: str, facts_of: Mapping[str, dict]) -> None:
    """Raises InputError unless all sources were read from DICOM and the reference says where it lies.

    Args:
        facts_of: metadata of each source's volume, by its sequence.
    """
    for sequence in (reference, *facts_of):
        _check_from_dicom(sequence, facts_of[sequence])
    if not facts_of[reference].get("FrameOfReferenceUID"):
        raise InputError(_NO_FRAME.format(reference))


def _check_from_dicom(sequence: str, facts: dict) -> None:
    """All that results were made from must be of one patient."""
    if not facts.get("SOPInstanceUIDs"):
        raise InputError(
            f"{sequence} was not read from DICOM, so that nothing says which patient, examination and frame of "
            "reference it belongs to. Synthesize from DICOM series alone, then export."
        )


def find_sources(
    document: dict, files: Iterable[Path], cancel: Callable[[], bool] | None = None
) -> tuple[SourceSeries, ...]:
    """The DICOM images of every source of a result, the reference first.

    Args:
        document: content of the result's ``result.json``.
        files: DICOM files among which the images are; other files may be among them.
        cancel: asked between files; True stops the search.

    Raises:
        InputError: a source was not read from DICOM, images are missing among ``files``, or they no longer lie
            where the result does. Cancelled.
    """
    entries = {entry["sequence"]: entry for entry in document["sources"]}
    reference = document["reference_grid"]["sequence"]
    for name in dict.fromkeys((reference, *entries)):
        _check_from_dicom(name, entries.get(name, {}))
    wanted = {uid for entry in entries.values() for uid in entry["SOPInstanceUIDs"]}
    paths = _paths_by_uid(wanted, files, cancel)
    found = [_series(entries[reference], paths)]
    found += [_series(entry, paths) for name, entry in entries.items() if name != reference]
    grid = reference_grid(document)
    first = found[0]
    if not first.header.get("FrameOfReferenceUID"):
        raise InputError(_NO_FRAME.format(reference))
    space = str(first.header.FrameOfReferenceUID)
    found = [replace(s, displaced=s.displaced or s.header.get("FrameOfReferenceUID", space) != space) for s in found]
    found[0] = SourceSeries(reference, first.header, in_slice_order(first.frames, grid, reference))
    return tuple(found)


def in_slice_order(frames: Iterable[Frame], grid: Grid, sequence: str) -> tuple[Frame, ...]:
    """The frames in the order of the grid's slices. Raises InputError when they are not the slices of this grid."""
    to_index = np.linalg.inv(grid.ijk_to_lps)
    ordered = {}
    for frame in frames:
        if frame.position is None or frame.orientation is None or frame.pixel_spacing is None:
            break
        k = round(float((to_index @ [*frame.position, 1])[2]))
        there = (grid.ijk_to_lps @ [0, 0, k, 1])[:3]
        step = np.concatenate([frame.orientation[:3] * frame.pixel_spacing[1],
                               frame.orientation[3:] * frame.pixel_spacing[0]])
        across = np.abs(step - grid.ijk_to_lps[:3, :2].T.ravel()).max() * max(grid.shape[1:])
        if np.abs(there - frame.position).max() > _SAME_PLACE_MM or across > _SAME_PLACE_MM or \
                frame.size != tuple(grid.shape[1:]):
            break
        ordered[k] = frame
    if sorted(ordered) != list(range(grid.shape[0])):
        raise InputError(
            f"The results do not lie where the DICOM series of the reference {sequence} does: the image was moved, "
            "resampled or cropped after it was read. Synthesize from the series as it was acquired."
        )
    return tuple(ordered[k] for k in range(grid.shape[0]))


def contributing_frames(source: SourceSeries, reference: SourceSeries) -> list[list[Frame]]:
    """For each slice of the reference, the frames of a source, it itself or another one, that the model saw through it.

    The model looks at a slice and its two neighbors, so that these are the frames that reach into the slab that the
    three fill. Of a displaced source nothing tells which these are: every slice names the whole series.
    """
    if source.displaced:
        return [list(source.frames) for _ in reference.frames]
    normal = _normal(reference.frames[0])
    places = np.array([frame.position @ normal for frame in reference.frames])
    reach = 1.5 * reference.spacing
    kept: list[list[Frame]] = [[] for _ in places]
    for frame in source.frames:
        corners = [corner @ normal for corner in _corners(frame)]
        half = source.thickness / 2
        near = (places + reach >= min(corners) - half) & (places - reach <= max(corners) + half)
        for k in np.flatnonzero(near):
            kept[k].append(frame)
    return kept


def _corners(frame: Frame) -> list[np.ndarray]:
    rows, columns = frame.size
    along_row = frame.orientation[:3] * frame.pixel_spacing[1] * (columns - 1)
    down_column = frame.orientation[3:] * frame.pixel_spacing[0] * (rows - 1)
    return [frame.position + a * along_row + b * down_column for a in (0, 1) for b in (0, 1)]


def _normal(frame: Frame) -> np.ndarray:
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    return normal / np.linalg.norm(normal)


def _paths_by_uid(wanted: set[str], files: Iterable[Path], cancel) -> dict[str, Path]:
    paths: dict[str, Path] = {}
    for file in files:
        if cancel and cancel():
            raise Cancelled()
        if len(paths) == len(wanted):
            break
        if not looks_like_dicom(Path(file)):
            continue
        try:
            found = dcmread(file, force=True, stop_before_pixels=True, specific_tags=["SOPInstanceUID"])
            uid = str(found.get("SOPInstanceUID", ""))
        except Exception:  # damaged files are no business of ours here: what is missed is missed below, by its UID
            continue
        if uid in wanted:
            paths.setdefault(uid, Path(file))
    return paths


def _series(entry: dict, paths: dict[str, Path]) -> SourceSeries:
    uids, name = entry["SOPInstanceUIDs"], entry["sequence"]
    missing = sum(uid not in paths for uid in set(uids))
    if missing:
        raise InputError(
            f"{missing} of the {len(set(uids))} DICOM files that {name} was read from are not in the study folder. "
            "Give the folder that the results were made from."
        )
    numbers = entry.get("FrameNumbers") or [None] * len(uids)
    wanted = {(uid, None if number is None else int(number) - 1) for uid, number in zip(uids, numbers, strict=True)}
    header, frames = None, {}
    for uid in dict.fromkeys(uids):
        dataset = read_header(paths[uid])
        if dataset is None:
            raise InputError(f"{paths[uid].name} is a damaged DICOM file. Export it again.")
        header = dataset if header is None else header
        frames |= {(uid, frame.index): frame for frame in frames_of(dataset, paths[uid])}
    for keyword in _TYPE_2:
        if keyword not in header:
            setattr(header, keyword, "")
    slices = [frames[key] for key in sorted(wanted & set(frames), key=str)]
    if slices and all(frame.position is not None and frame.orientation is not None for frame in slices):
        # in order of their places, or the distance from slice to slice could not be told
        across = np.cross(slices[0].orientation[:3], slices[0].orientation[3:])
        slices.sort(key=lambda frame: float(frame.position @ across))
    return SourceSeries(name, header, tuple(slices), bool(entry.get("registration", {}).get("applied")))
