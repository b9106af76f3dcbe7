"""How the axes of an array lie in the patient."""

from itertools import permutations

import numpy as np

from ..study.volume import Grid


def axis_steps(grid: Grid) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """For each array axis (k, j, i): the patient axis nearest to it (0 left, 1 posterior, 2 superior) and its sign.

    Each patient axis is given out once, so that an oblique grid is never ambiguous.
    """
    direction = grid.direction[:, ::-1]  # columns k, j, i
    best = max(permutations(range(3)), key=lambda p: sum(abs(direction[p[a], a]) for a in range(3)))
    signs = tuple(1 if direction[best[a], a] >= 0 else -1 for a in range(3))
    return tuple(best), signs


def left_coordinate(grid: Grid) -> np.ndarray:
    """(k, j, i) float32: how far to the patient's left each voxel lies, in LPS mm."""
    return _coordinate(grid, 0)


def posterior_coordinate(grid: Grid) -> np.ndarray:
    """(k, j, i) float32: how far toward the patient's back each voxel lies, in LPS mm."""
    return _coordinate(grid, 1)


def superior_coordinate(grid: Grid) -> np.ndarray:
    """(k, j, i) float32: how far toward the patient's head each voxel lies, in LPS mm."""
    return _coordinate(grid, 2)


def _coordinate(grid: Grid, axis: int) -> np.ndarray:
    k, j, i = (np.arange(n, dtype=np.float32) for n in grid.shape)
    row = grid.ijk_to_lps[axis].astype(np.float32)
    return row[0] * i[None, None, :] + row[1] * j[None, :, None] + row[2] * k[:, None, None] + row[3]
