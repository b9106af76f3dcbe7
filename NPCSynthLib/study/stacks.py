"""From loose slices to volumes: split a series, sort its slices, find gaps and duplicates, compute the grid."""

import re
from collections.abc import Callable

import numpy as np

from ..errors import InputError
from .headers import Frame
from .volume import Grid

#: Slices may lie this part of the spacing away from even positions before they count as unevenly spaced.
SPACING_TOLERANCE = 0.01
#: Some scanners round positions to 0.1 mm, which may exceed that part; a tenth of the spacing is the limit for all.
_ROUNDING_MM = 0.1
_ORIENTATION_TOLERANCE = 1e-3
#: Cosine of two axes that are at right angles: over 300 mm it makes 0.003 mm.
_PERPENDICULAR = 1e-5

#: What tells repeated acquisitions of one place apart, in order of preference, and its word for messages.
_REPETITIONS = (
    ("TemporalPositionIdentifier", "time"), ("EchoNumbers", "echo"), ("TriggerTime", "trigger time"),
    ("AcquisitionNumber", "acquisition"),
)
#: De-identification may give several series one UID; these still tell them apart.
_SERIES = (("SeriesNumber", "series"), ("SeriesDescription", "series"))
#: Pixel spacings beyond these (mm) are no MR image of a patient.
_PIXEL_SPACING = (0.01, 100.0)


def split_series(frames: list[Frame]) -> list[list[Frame]]:
    """Parts of one series that can each be a volume: same plane, pixel grid, echo, inversion and kind of image."""
    parts: dict[tuple, list[list[Frame]]] = {}
    for frame in frames:
        alike = parts.setdefault(_kind_of_image(frame), [])
        for part in alike:
            first = part[0].orientation
            if (first is None) == (frame.orientation is None) and (
                first is None or np.abs(first - frame.orientation).max() <= _ORIENTATION_TOLERANCE
            ):
                part.append(frame)
                break
        else:
            alike.append([frame])
    return [part for alike in parts.values() for part in alike]


def _kind_of_image(frame: Frame) -> tuple:
    facts = frame.facts

    def rounded(keyword: str, digits: int):
        value = facts.get(keyword)
        return round(value, digits) if isinstance(value, float) else str(value)

    return (
        frame.size, None if frame.pixel_spacing is None else tuple(np.round(frame.pixel_spacing, 4)),
        str(facts.get("FrameType") or facts.get("ImageType")), rounded("EchoTime", 1), rounded("InversionTime", 0),
        *(str(facts.get(k)) for k in ("FrameOfReferenceUID", "DiffusionBValue", "StackID", "ComplexImageComponent")),
    )


def arrange(
    frames: list[Frame], pixels: Callable[[Frame], np.ndarray], warn: Callable[[str], None]
) -> list[tuple[str, list[Frame]]]:
    """Slices in order along the normal, as one volume, or several where the series repeats each place.

    Args:
        frames: one part of a series, as ``split_series`` gives.
        pixels: reads one slice; called only for slices that lie at the same place.
        warn: takes a sentence about duplicates left out.

    Returns (label, slices) for each volume; the label tells repetitions apart, "" when there is one volume.
    Raises InputError with the bare reason (the caller names the series).
    """
    if any(f.position is None or f.orientation is None for f in frames):
        raise InputError("its headers do not say where the slices lie in the patient")
    if any(f.size is None for f in frames):
        raise InputError("its headers do not say how many rows and columns its images have")
    low, high = _PIXEL_SPACING
    if any(f.pixel_spacing is None or (f.pixel_spacing < low).any() or (f.pixel_spacing > high).any() for f in frames):
        raise InputError("its headers lack a valid pixel spacing (it is missing, zero or absurd), so that nothing can "
                         "be measured on it")
    places = _places(frames)
    if all(len(place) == 1 for place in places):
        return [("", [place[0] for place in places])]
    repeated = _by_repetition(places)
    if repeated:
        return repeated
    kept, dropped = [], 0
    for place in places:
        first = pixels(place[0]) if len(place) > 1 else None
        for other in place[1:]:
            same = pixels(other)
            if first.shape != same.shape or not np.array_equal(first, same):
                raise InputError(
                    "several different images lie at the same place in it, and nothing in their headers tells them "
                    "apart; export this series alone"
                )
            dropped += 1
        kept.append(place[0])
    warn(f"{dropped} duplicate slice{'s were' if dropped != 1 else ' was'} left out (same place, same pixels)")
    return [("", kept)]


def _normal(frame: Frame) -> np.ndarray:
    row, column = _axes(frame)
    normal = np.cross(row, column)
    return normal / np.linalg.norm(normal)


def _axes(frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors along a row and a column; headers round them. Raises InputError when they are no such pair."""
    row, column = frame.orientation[:3], frame.orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if np.abs(np.subtract(lengths, 1)).max() > 1e-2 or abs(row @ column) > 5e-3:
        raise InputError("the slice orientation in its headers is not valid (axes not perpendicular, or not of unit "
                         "length); export it again")
    return row / lengths[0], column / lengths[1]


def _places(frames: list[Frame]) -> list[list[Frame]]:
    """Slices grouped by position, groups in order along the normal."""
    normal = _normal(frames[0])
    along = {id(f): float(f.position @ normal) for f in frames}
    ordered = sorted(frames, key=lambda f: (along[id(f)], f.instance, f.index or 0, str(f.path)))
    distances = np.diff([along[id(f)] for f in ordered])
    steps = distances[distances > _ROUNDING_MM]
    typical = np.median(steps) if len(steps) else 1.0
    groups = [[ordered[0]]]
    for distance, frame in zip(distances, ordered[1:], strict=True):
        if distance <= 0.1 * typical and np.abs(frame.position - groups[-1][0].position).max() <= 0.1 * typical:
            groups[-1].append(frame)
        else:
            groups.append([frame])
    return groups


def _by_repetition(places: list[list[Frame]]) -> list[tuple[str, list[Frame]]] | None:
    """One volume for each time point or echo, when a header value tells them apart at every place."""
    for keyword, word in (*_REPETITIONS, *_SERIES):
        values = {str(f.facts.get(keyword)) for place in places for f in place}
        if len(values) < 2 or "None" in values:
            continue
        if all(sorted(str(f.facts[keyword]) for f in place) == sorted(values) for place in places):
            if len(values) > 2 and (keyword, word) in _REPETITIONS:
                raise InputError(f"it repeats the same slices {len(values)} times (a dynamic or 4D series); only "
                                 "single volumes can be used")
            ordered = sorted(values, key=lambda v: (float(v) if re.fullmatch(r"\d+\.?\d*", v, re.ASCII) else 0.0, v))
            return [
                (f"{word} {n}", [next(f for f in place if str(f.facts[keyword]) == value) for place in places])
                for n, value in enumerate(ordered, 1)
            ]
    return None


def grid_of(frames: list[Frame]) -> Grid:
    """The grid of slices in order along the normal.

    i runs along a row (increasing column), j down a column, k from the first slice to the last.
    Raises InputError with the bare reason for single slices, gaps, uneven spacing and slanted stacks.
    """
    if len(frames) < 2:
        raise InputError("it holds a single slice, and a volume is needed")
    first, last = frames[0], frames[-1]
    positions = np.array([f.position for f in frames])
    normal = _normal(first)
    _check_gaps(positions @ normal)
    count = len(frames) - 1
    k_axis = normal * float((last.position - first.position) @ normal) / count
    # Positions rounded by the scanner drift from the normal by less than that; a stack that truly leans a little is
    # followed exactly.
    if np.abs(first.position + count * k_axis - last.position).max() > _ROUNDING_MM:
        k_axis = (last.position - first.position) / count
    spacing = float(np.linalg.norm(k_axis))
    straight = first.position + np.arange(len(frames))[:, None] * k_axis
    if np.abs(k_axis / spacing - normal).max() > 2e-3 or np.abs(positions - straight).max() > 2 * _ROUNDING_MM:
        raise InputError("its slices are shifted sideways against each other (a slanted stack), which cannot be used")
    rows, columns = first.size
    row, column = _axes(first)
    matrix = np.eye(4)
    matrix[:3, 0] = row * first.pixel_spacing[1]
    matrix[:3, 1] = column * first.pixel_spacing[0]
    matrix[:3, 2] = k_axis
    matrix[:3, 3] = first.position
    return _at_right_angles(Grid((len(frames), rows, columns), matrix))


def _at_right_angles(grid: Grid) -> Grid:
    """The same where its axes are perpendicular but for the last digits of a header, else the nearest that is.

    Orientations are written with three decimals by some; image files and readers of images know right angles alone.
    Slice positions are more exact, so that rows and columns yield. The middle of the volume stays where it is. Raises
    InputError with the bare reason when a corner would move by more than what a scanner rounds.
    """
    axes = grid.direction
    if np.abs(axes.T @ axes - np.eye(3)).max() < _PERPENDICULAR:
        return grid
    across = axes[:, :2] - np.outer(axes[:, 2], axes[:, 2] @ axes[:, :2])
    left, _, right = np.linalg.svd(across, full_matrices=False)
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, :2] = left @ right * grid.spacing[:2]
    middle = (np.array(grid.shape[::-1]) - 1) / 2
    matrix[:3, 3] += grid.ijk_to_lps[:3, :3] @ middle - matrix[:3, :3] @ middle
    corners = np.array([[*(np.array(grid.shape[::-1]) - 1) * corner, 1] for corner in np.ndindex(2, 2, 2)])
    if np.abs((matrix - grid.ijk_to_lps) @ corners.T).max() > 2 * _ROUNDING_MM:
        raise InputError("its rows, columns and slices are not at right angles to each other, which cannot be used; "
                         "export it again")
    return Grid(grid.shape, matrix)


def _check_gaps(along: np.ndarray) -> None:
    """``along``: (n,) mm, increasing. Raises InputError unless they are evenly spaced."""
    steps = np.diff(along)
    spacing = float(steps.mean())
    allowed = min(max(SPACING_TOLERANCE * spacing, _ROUNDING_MM), 0.1 * spacing)
    if np.abs(along - np.linspace(along[0], along[-1], len(along))).max() <= allowed:
        return
    for step in (float(np.median(steps)), float(steps.min())):
        multiples = np.round(steps / step)
        if multiples.min() >= 1 and multiples.max() > 1 and np.abs(steps / step - multiples).max() <= 0.1:
            missing = int((multiples - 1).sum())
            raise InputError(
                f"{missing} of its {len(along) + missing} slices {'are' if missing != 1 else 'is'} missing; "
                "export the series again completely"
            )
    raise InputError(f"its slices are unevenly spaced ({steps.min():.2f} to {steps.max():.2f} mm); export it again")
