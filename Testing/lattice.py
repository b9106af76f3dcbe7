"""Voxels of one grid at the voxels of another that shares its lattice: for files that turn or flip axes."""

import numpy as np


def at_the_voxels_of(array, array_ijk_to_ras, shape, ijk_to_ras):
    """``array`` looked up at the centers of another grid's voxels (Slicer's files turn left-handed grids round)."""
    index = np.indices(shape)[::-1].reshape(3, -1)
    there = np.linalg.inv(array_ijk_to_ras) @ ijk_to_ras @ np.vstack([index, np.ones(index.shape[1])])
    assert np.abs(there - there.round()).max() < 1e-3
    i, j, k = there[:3].round().astype(int)
    return array[k, j, i].reshape(shape)
