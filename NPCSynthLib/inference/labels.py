"""Class maps of the segmentation head to named structures."""

import numpy as np
import SimpleITK as sitk

from ..study.volume import Grid
from ..vocabulary import load_structures
from .geometry import left_coordinate
from .result import Segment, SegmentationResult

#: Islands smaller than this are noise, not structures.
ISLAND_MM3 = 50.0
#: A node must be at least this probable somewhere: of those that the network is nowhere sure of, most are false. Of the
#: primary tumor everything is kept, since it is on real images seldom surer than this and must not be missed.
SURE = 0.7


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


def _on_side(mask: np.ndarray, left: np.ndarray, middle: float, left_side: bool) -> np.ndarray:
    """The organs of one side, each as a whole.

    With two or more parts the middle is halfway between the two largest when they lie apart, so that a turned head or
    a cropped field of view does not matter. A part that fills both sides (organs grown together) is cut there.
    """
    parts = _parts_by_size(mask)
    centers = [float(left[parts == n].mean()) for n in range(1, int(parts.max()) + 1)]
    if len(centers) >= 2 and abs(centers[0] - centers[1]) > 20:
        middle = (centers[0] + centers[1]) / 2
    chosen = np.zeros_like(mask)
    for n, center in enumerate(centers, start=1):
        part = parts == n
        share = float((left[part] >= middle).mean())
        if 0.25 < share < 0.75:
            chosen |= part & ((left >= middle) == left_side)
        elif (center >= middle) == left_side:
            chosen |= part
    return chosen


def to_segments(
    classes: np.ndarray, sure: np.ndarray, names: tuple[str, ...], body: np.ndarray, grid: Grid
) -> tuple[SegmentationResult, list[float]]:
    """Name the classes; paired organs are told apart by side, nodes need a sure core.

    Args:
        classes: (k, j, i) uint8 index into ``names``.
        sure: (k, j, i) bool, where the class has a probability of ``SURE`` or more.
        names: class names in the order of the head.
        body: (k, j, i) bool.

    Returns:
        the segmentation, and the volumes in ml of possible nodes that were left out.
    """
    voxel_mm3 = float(np.abs(np.linalg.det(grid.ijk_to_lps[:3, :3])))
    left = left_coordinate(grid)
    middle = float(left[body].mean()) if body.any() else 0.0
    labelmap = np.zeros(classes.shape, np.uint8)
    segments, cleaned, left_out = [], {}, []
    for structure in load_structures():
        segments.append(Segment(structure.name, structure.label, structure.color, structure.code))
        if structure.label == 0 or structure.class_name not in names:
            continue
        if structure.class_name not in cleaned:
            mask = (classes == names.index(structure.class_name)) & body
            cleaned[structure.class_name] = without_islands(mask, voxel_mm3)
        mask = cleaned[structure.class_name]
        if structure.side is not None:
            mask = _on_side(mask, left, middle, structure.side == "left")
        if structure.single:
            mask = _parts_by_size(mask) == 1
        elif structure.name == "GTVn":
            mask, left_out = _with_sure_core(mask, sure, voxel_mm3 / 1000)
        labelmap[mask] = structure.label
    return SegmentationResult(labelmap, body, tuple(segments)), left_out
