"""Class maps of the segmentation head to named structures."""

import numpy as np
import SimpleITK as sitk

from ..study.volume import Grid
from ..vocabulary import load_structures
from .geometry import axis_steps, left_coordinate, posterior_coordinate, superior_coordinate
from .result import NODES_LEFT_OUT, Segment, SegmentationResult

#: Islands smaller than this are noise, not structures.
ISLAND_MM3 = 50.0
#: A node must be at least this probable somewhere: of those that the network is nowhere sure of, most are false. Of the
#: primary tumor everything is kept, since it is on real images seldom surer than this and must not be missed.
SURE = 0.7
#: So much of brainstem and cord tells the midline; as the head may be tilted, within so much of the organ's height.
_ENOUGH_MM3, _LEVEL_MM = 500.0, 20.0
#: Two parts are a left and a right organ when their centers lie so far apart, also in widths of the wider one (eyes and
#: parotids: about 2.4 and more), when they differ in size by no more than this factor, and when their middle is so near
#: to brainstem and cord, from left to right.
_APART_MM, _APART_WIDTHS, _ALIKE, _NEAR_MM = 20.0, 1.5, 3, 25.0
#: In a turned head the middle of eyes, far in front, lies farther aside: by so much of how far in front, at 30 degrees.
#: That is believed of parts as far apart as eyes are.
_TURNED, _EYES_MM = 0.58, 45.0
#: No eye and no parotid is as wide as this, left to right: it is two, grown together.
_WIDER_THAN_ONE_MM = 50.0
#: Half a head is no wider than this.
_HALF_A_HEAD_MM = 75.0


def with_margin(mask: np.ndarray, grid: Grid, margin_mm: float) -> np.ndarray:
    """The (k, j, i) bool mask grown by at least ``margin_mm`` in every direction."""
    radius = [int(np.ceil(margin_mm / mm)) for mm in grid.spacing]
    grown = sitk.BinaryDilate(sitk.GetImageFromArray(mask.astype(np.uint8)), radius, sitk.sitkBox)
    return sitk.GetArrayFromImage(grown) > 0


def without_islands(mask: np.ndarray, voxel_mm3: float) -> np.ndarray:
    """The (k, j, i) bool mask without connected parts smaller than ``ISLAND_MM3``."""
    least = int(np.ceil(ISLAND_MM3 / voxel_mm3))
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
    return sitk.GetArrayFromImage(sitk.RelabelComponent(parts, least)) > 0


def _with_sure_core(mask: np.ndarray, sure: np.ndarray, voxel_ml: float) -> tuple[np.ndarray, list[float]]:
    """The (k, j, i) bool mask without connected parts that hold no voxel of ``sure``; the volumes of those in ml."""
    parts = _parts_by_size(mask)
    kept = mask & np.isin(parts, np.unique(parts[mask & sure]))
    counts = np.bincount(parts[mask & ~kept])
    return kept, [float(count) * voxel_ml for count in counts if count]


def _parts_by_size(mask: np.ndarray) -> np.ndarray:
    """(k, j, i) number of the connected part that each voxel belongs to; 1 is the largest, 0 is outside."""
    parts = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)))
    return sitk.GetArrayFromImage(sitk.RelabelComponent(parts))


def _largest(mask: np.ndarray) -> np.ndarray:
    return _parts_by_size(mask) == 1


def _sides(
    organ: np.ndarray, central: np.ndarray, brain: np.ndarray, body: np.ndarray, grid: Grid
) -> dict[str, np.ndarray] | None:
    """A paired organ's (k, j, i) bool masks "left" and "right"; None when nothing tells where the midline is.

    The midline is halfway between the two largest parts where these are a pair, so that a turned head does not matter;
    a lone organ and a false island are none. Else it is that of brainstem and spinal cord (``central``), else of the
    brain, else of the body. Every part is named as a whole, unless it is two organs grown together.
    """
    if not organ.any():
        return {"left": organ, "right": organ}
    left = left_coordinate(grid)
    parts = _parts_by_size(organ)
    numbers = range(1, int(parts.max()) + 1)
    centers = [float(left[parts == n].mean()) for n in numbers]
    widths = [float(np.ptp(np.percentile(left[parts == n], (2, 98)))) for n in numbers]
    middle = _central_midline(organ, central, left, grid)
    if middle is None:
        middle = _own_midline(brain, left, grid)
    if len(centers) >= 2 and abs(centers[0] - centers[1]) > max(_APART_MM, _APART_WIDTHS * max(widths[:2])):
        sizes = np.bincount(parts.ravel())
        halfway, near = (centers[0] + centers[1]) / 2, _NEAR_MM
        if central.any() and abs(centers[0] - centers[1]) >= _EYES_MM:
            back = posterior_coordinate(grid)
            near = max(near, _TURNED * abs(float(np.median(back[central]) - np.median(back[organ]))))
        if sizes[1] <= _ALIKE * sizes[2] and (middle is None or abs(halfway - middle) <= near):
            middle = halfway
    if middle is None:
        middle = _own_midline(body, left, grid)
    if middle is None:
        return None
    on_left = np.zeros_like(organ)
    for n, center, width in zip(numbers, centers, widths):
        part = parts == n
        beyond = left[part] >= middle
        if 0.25 < beyond.mean() < 0.75 and width > _WIDER_THAN_ONE_MM:
            on_left[part] = beyond
        elif center >= middle:
            on_left |= part
    return {"left": on_left, "right": organ & ~on_left}


def _central_midline(organ: np.ndarray, central: np.ndarray, left: np.ndarray, grid: Grid) -> float | None:
    """How far left (mm) brainstem and spinal cord lie: at the organ's height where they are there, else anywhere.

    Where the field of view cuts them this is off by less than their half width, which is less than any organ is away.
    """
    up = superior_coordinate(grid)
    level = central & (np.abs(up - np.median(up[organ])) <= _LEVEL_MM)
    for mask in (level, central):
        if mask.sum() * _voxel_mm3(grid) >= _ENOUGH_MM3:
            return float(np.median(left[mask]))
    return None


def _own_midline(mask: np.ndarray, left: np.ndarray, grid: Grid) -> float | None:
    """How far left (mm) the mean of a brain or body lies; None when the field of view leaves out much of one side.

    What is cut off ends in a wide plane, also where the image goes on with zeros; what is whole tapers off.
    """
    axis = axis_steps(grid)[0].index(0)
    areas = np.trim_zeros(mask.sum(axis=tuple(a for a in range(3) if a != axis)))
    step = float(grid.spacing[2 - axis])
    if len(areas) * step <= _HALF_A_HEAD_MM:
        return None
    inward = int(round(5 / step))
    if abs(int(areas[inward]) - int(areas[-1 - inward])) > 0.5 * areas.max():
        return None
    return float(left[mask].mean())


def _voxel_mm3(grid: Grid) -> float:
    return float(np.abs(np.linalg.det(grid.ijk_to_lps[:3, :3])))


def to_segments(
    classes: np.ndarray, sure: np.ndarray, names: tuple[str, ...], body: np.ndarray, grid: Grid
) -> tuple[SegmentationResult, list[str]]:
    """Name the classes; paired organs are told apart by side, nodes need a sure core.

    Args:
        classes: (k, j, i) uint8 index into ``names``.
        sure: (k, j, i) bool, where the class has a probability of ``SURE`` or more.
        names: class names in the order of the head.
        body: (k, j, i) bool.

    Returns:
        the segmentation, and sentences for the user on what was left out of it or not found.
    """
    structures = load_structures()
    voxel_mm3 = _voxel_mm3(grid)
    wanted = {structure.class_name for structure in structures if structure.label}
    cleaned = {
        name: without_islands((classes == number) & body, voxel_mm3)
        for number, name in enumerate(names) if name in wanted
    }  # fmt: skip
    nothing = np.zeros(classes.shape, bool)
    brainstem, cord, brain = (_largest(cleaned.get(name, nothing)) for name in ("Brainstem", "SpinalCord", "Brain"))
    paired = dict.fromkeys(structure.class_name for structure in structures if structure.side)
    sides = {name: _sides(cleaned[name], brainstem | cord, brain, body, grid) for name in paired if name in cleaned}
    labelmap = np.zeros(classes.shape, np.uint8)
    segments, notes = [], []
    for structure in structures:
        segments.append(Segment(structure.name, structure.label, structure.color, structure.code))
        if structure.label == 0 or structure.class_name not in cleaned:
            continue
        mask = cleaned[structure.class_name]
        if structure.side is not None:
            found = sides[structure.class_name]
            mask = nothing if found is None else found[structure.side]
        if structure.single:
            mask = _largest(mask)
        elif structure.name == "GTVn":
            mask, left_out = _with_sure_core(mask, sure, voxel_mm3 / 1000)
            if left_out:
                notes.append(
                    f"{NODES_LEFT_OUT}: {len(left_out)}, of {sum(left_out):.1f} ml in all. Look for nodes yourself."
                )
        labelmap[mask] = structure.label
    segmentation = SegmentationResult(labelmap, body, tuple(segments))
    unnamed = [name for name, found in sides.items() if found is None]
    if unnamed:
        notes.append(
            f"What looks like {' and '.join(unnamed)} was left out of the contours, because left and right could not "
            "be told apart: neither brainstem nor spinal cord nor the whole brain was found, and the image does not "
            "show both sides of the body. Draw them yourself, or use an image of the whole head."
        )
    absent = [
        segment.name for segment, structure in zip(segments, structures)
        if structure.class_name not in unnamed and not segmentation.mask(segment).any()
    ]  # fmt: skip
    if absent:
        notes.append(f"Not found: {', '.join(absent)}. They may be there all the same.")
    return segmentation, notes
