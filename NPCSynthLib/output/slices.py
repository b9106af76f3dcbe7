"""Which slices to show, and how to turn a slice the way a radiologist expects it."""

from dataclasses import dataclass

import numpy as np

from ..inference.result import SynthesisResult, SynthesizedSequence
from ..study.volume import Grid

#: Tumor segments first: what the clinician looks for decides which slices are shown.
TUMOR_SEGMENTS = ("GTVp", "GTVn")


@dataclass(frozen=True)
class SliceView:
    """One slice of the grid as it was acquired (constant k), turned for display.

    Attributes:
        k: slice index.
        transpose, flip_rows, flip_columns: what brings (row, column) to the radiological orientation.
        aspect: height of a displayed pixel over its width.
        sides: the letters of the picture's left and right edge, ("R", "L") or, on sagittal slices, ("A", "P").
    """

    k: int
    transpose: bool
    flip_rows: bool
    flip_columns: bool
    aspect: float
    sides: tuple[str, str]

    def of(self, array: np.ndarray) -> np.ndarray:
        """The 2D picture of this slice of a (k, j, i) array."""
        picture = array[self.k]
        if self.transpose:
            picture = picture.T
        if self.flip_rows:
            picture = picture[::-1]
        if self.flip_columns:
            picture = picture[:, ::-1]
        return picture


def slice_view(grid: Grid, k: int) -> SliceView:
    """Slice ``k`` with the patient's left to the right and anterior (or superior) at the top.

    A sagittal slice has anterior to the left.
    """
    row_axis, column_axis = grid.direction[:, 1], grid.direction[:, 0]
    axes = [int(np.abs(axis).argmax()) for axis in (row_axis, column_axis)]
    # The horizontal axis is x (left) where the slice has it, else y (posterior); both grow to the right.
    transpose = axes[0] < axes[1]
    if transpose:
        row_axis, column_axis, axes = column_axis, row_axis, axes[::-1]
    spacing_row, spacing_column = grid.spacing[[0, 1]] if transpose else grid.spacing[[1, 0]]
    flip_columns = column_axis[axes[1]] < 0
    downward = 1 if axes[0] == 1 else -1  # posterior grows downward, superior upward
    flip_rows = row_axis[axes[0]] * downward < 0
    sides = ("R", "L") if axes[1] == 0 else ("A", "P")
    aspect = float(spacing_row / spacing_column)
    return SliceView(int(k), transpose, bool(flip_rows), bool(flip_columns), aspect, sides)


def telling_slices(
    result: SynthesisResult, body: np.ndarray, tumor: np.ndarray | None = None, count: int = 3
) -> list[int]:
    """Indices k of slices worth looking at: through the tumor where there is one, else through the body.

    Args:
        body: (k, j, i) bool.
        tumor: (k, j, i) bool known tumor; without it the predicted one is taken.
        count: how many slices, the most telling one first.
    """
    if tumor is None and result.segmentation is not None:
        names = [s for s in result.segmentation.segments if s.name in TUMOR_SEGMENTS]
        tumor = next((mask for mask in map(result.segmentation.mask, names) if mask.any()), None)
    mask = tumor if tumor is not None and tumor.any() else body
    area = mask.sum(axis=(1, 2))
    best = int(area.argmax())
    extent = np.flatnonzero(area)
    chosen = [best]
    for fraction in (0.25, 0.75, 0.5, 0.1, 0.9):
        k = int(extent[round(fraction * (len(extent) - 1))])
        if k not in chosen and len(chosen) < count:
            chosen.append(k)
    return chosen


def slice_uncertainty(synthetic: SynthesizedSequence, body: np.ndarray) -> np.ndarray:
    """(k,) mean uncertainty inside the body of each slice; NaN where there is next to no body in it.

    A slice that holds less than a quarter of the largest one's body is left out: the top of the skin says little.
    """
    area = body.sum(axis=(1, 2))
    means = np.full(len(area), np.nan)
    enough = area >= max(1, area.max() / 4)
    means[enough] = (synthetic.uncertainty * body).sum(axis=(1, 2), dtype=np.float64)[enough] / area[enough]
    return means


def middle_slice(body: np.ndarray) -> int:
    """Index k halfway between the first and the last slice of the body."""
    extent = np.flatnonzero(body.any(axis=(1, 2)))
    return int((extent[0] + extent[-1]) // 2)
