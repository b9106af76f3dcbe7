"""From a volume on any grid to slices as the model knows them, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from ..study.volume import Grid
from .geometry import axis_steps

#: In-plane pixel sizes, mm, that training has covered; others are resampled to the nearer end.
PIXEL_MM = (0.7, 1.3)
#: Contours are drawn from pixels no finer than this: with finer ones the crops of training showed too little around an
#: organ for it to be known on a whole slice.
CONTOUR_PIXEL_MM = 1.0


@dataclass(frozen=True)
class Slicing:
    """How the voxels of a grid become model slices.

    Attributes:
        order: array axes that become (slice, row, column).
        flip: which of the three are reversed.
        shape: (slices, rows, columns) of the volume in that order.
        work: (rows, columns) at the working pixel size.
        padded: ``work`` rounded up to the model's stride.
    """

    order: tuple[int, int, int]
    flip: tuple[bool, bool, bool]
    shape: tuple[int, int, int]
    work: tuple[int, int]
    padded: tuple[int, int]

    @classmethod
    def plan(cls, grid: Grid, stride: int, finest_mm: float = PIXEL_MM[0]) -> "Slicing":
        """Slices across the thick direction; of an isotropic volume, axial ones. Rows and columns run as a viewer
        shows them: axial rows to posterior and columns to the left, otherwise rows to inferior.
        Pixels finer than ``finest_mm`` are brought to it."""
        toward, sign = axis_steps(grid)  # for each array axis: 0 = left, 1 = posterior, 2 = superior
        spacing = grid.spacing[::-1]
        if spacing.max() > 1.6 * spacing.min():
            across = int(np.argmax(spacing))
        else:
            across = toward.index(2)
        normal = toward[across]
        row, column, row_sign = {2: (1, 0, 1), 1: (2, 0, -1), 0: (2, 1, -1)}[normal]
        order = (across, toward.index(row), toward.index(column))
        flip = (sign[order[0]] < 0, sign[order[1]] != row_sign, sign[order[2]] < 0)
        shape = tuple(int(grid.shape[a]) for a in order)
        pixel = [float(spacing[a]) for a in order[1:]]
        work = tuple(
            max(1, round(n * mm / float(np.clip(mm, finest_mm, PIXEL_MM[1]))))
            for n, mm in zip(shape[1:], pixel, strict=True)
        )
        padded = tuple(-(-n // stride) * stride for n in work)
        return cls(order, flip, shape, work, padded)

    def around(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """(N, 3) int: each of N slices between its neighbors; at the ends the last slice stands for the missing one."""
        return np.clip(np.add.outer(np.asarray(rows), (-1, 0, 1)), 0, self.shape[0] - 1)

    def take(self, array: np.ndarray) -> np.ndarray:
        """View of a (k, j, i) array as (slice, row, column)."""
        view = array.transpose(self.order)
        return view[tuple(slice(None, None, -1 if f else 1) for f in self.flip)]

    def put(self, array: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`take`."""
        view = array[tuple(slice(None, None, -1 if f else 1) for f in self.flip)]
        return view.transpose(np.argsort(self.order))

    def to_work(self, slices: torch.Tensor, mode: str = "bilinear") -> torch.Tensor:
        """(B, C, rows, columns) float at the volume's pixels to (B, C, *padded)."""
        if tuple(slices.shape[-2:]) != self.work:
            smooth = {"mode": mode, "antialias": True} if mode == "bilinear" else {"mode": mode}
            slices = F.interpolate(slices, size=self.work, **smooth)
        rows, columns = (p - w for p, w in zip(self.padded, self.work, strict=True))
        return F.pad(slices, (0, columns, 0, rows))

    def from_work(self, slices: torch.Tensor) -> torch.Tensor:
        """(B, C, *padded) float to the volume's own pixels."""
        slices = slices[..., : self.work[0], : self.work[1]]
        if self.work != self.shape[1:]:
            slices = F.interpolate(slices, size=self.shape[1:], mode="bilinear", antialias=True)
        return slices
