"""One training sample: the same place in several sequences."""

from dataclasses import dataclass

import numpy as np

from ..vocabulary import load_classes

#: Segmentation value that carries no loss.
IGNORE = 255
#: Segmentation values of voxels that are one of several classes; which one is not known.
SOFT_TISSUE, NERVOUS_TISSUE, NO_TUMOR = 254, 253, 252
POSSIBLE_CLASSES = {
    SOFT_TISSUE: ("body", "GTVp", "GTVn", "Parotid", "Eye"),
    NERVOUS_TISSUE: ("Brain", "Brainstem", "SpinalCord"),
    NO_TUMOR: tuple(name for name in load_classes() if name != "GTVp"),
}


@dataclass
class Sample:
    """Aligned 2.5D crops of one place.

    Attributes:
        sources: (S, 3, H, W) float32, what the model sees: degraded, three adjacent slices, 0..1 = body percentiles.
        targets: (T, H, W) float32, what it should make, clean.
        known: (T, H, W) bool, where the target was acquired.
        source_ids, target_ids: sequence ids.
        source_prompts, target_prompts: one wording for each.
        body: (H, W) bool.
        lesion: (H, W) bool.
        structures: (H, W) uint8 index into ``load_classes()``; where it is not known, of POSSIBLE_CLASSES, or IGNORE.
        pixel_mm: in-plane pixel size.
        place: a number that tells patients apart.
    """

    sources: np.ndarray
    targets: np.ndarray
    known: np.ndarray
    source_ids: list[str]
    target_ids: list[str]
    source_prompts: list[str]
    target_prompts: list[str]
    body: np.ndarray
    lesion: np.ndarray
    structures: np.ndarray
    pixel_mm: float
    place: int


def choose_plane(rng: np.random.Generator, axial: float) -> int:
    """Normal of the slice: 0 axial, 1 coronal, 2 sagittal."""
    return int(rng.choice(3, p=(axial, (1 - axial) / 2, (1 - axial) / 2)))


def plane_axes(plane: int) -> np.ndarray:
    """(3, 3): k-j-i unit steps along (normal, row, column) of the slice.

    In-plane directions are those a viewer uses: axial rows run to posterior and columns to the patient's left;
    coronal and sagittal rows run to inferior. Columns of a sagittal slice run to posterior.
    """
    axes = {
        0: ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
        1: ((0, 1, 0), (-1, 0, 0), (0, 0, 1)),
        2: ((0, 0, 1), (-1, 0, 0), (0, 1, 0)),
    }[plane]
    return np.array(axes, np.float32)


def random_frame(rng: np.random.Generator, plane: int, slice_mm: float, pixel_mm: float) -> np.ndarray:
    """(3, 3) float32: k-j-i mm of one step along (slice, row, column), slightly rotated, sometimes mirrored."""
    axes = plane_axes(plane)
    a, b, c = rng.normal(0, (0.07, 0.05, 0.12))
    ca, sa, cb, sb, cc, sc = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(c), np.sin(c)
    rotation = (
        np.array(((1, 0, 0), (0, cc, -sc), (0, sc, cc)))
        @ np.array(((ca, -sa, 0), (sa, ca, 0), (0, 0, 1)))
        @ np.array(((cb, 0, -sb), (0, 1, 0), (sb, 0, cb)))
    )
    frame = rotation.astype(np.float32) @ axes
    frame[0] *= slice_mm
    frame[1] *= pixel_mm
    frame[2] *= pixel_mm
    if plane != 2 and rng.random() < 0.5:
        frame[2] *= -1
    return frame
