"""4 x 4 matrices between VTK and numpy, and between Slicer's RAS and the library's LPS."""

import numpy as np
import vtk

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def swap_ras_lps(matrix: np.ndarray) -> np.ndarray:
    """(4, 4) matrix whose output axes are LPS for one whose output axes are RAS, and the other way round."""
    return _RAS_TO_LPS @ matrix


def to_numpy(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """(4, 4) float64 copy of a VTK matrix."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def to_vtk(matrix: np.ndarray) -> vtk.vtkMatrix4x4:
    """VTK copy of a (4, 4) array."""
    result = vtk.vtkMatrix4x4()
    result.DeepCopy(np.asarray(matrix, float).ravel().tolist())
    return result


def ijk_to_ras(node) -> np.ndarray:
    """(4, 4) float64 of a volume node: voxel indices (i, j, k, 1) to RAS mm in the node's own frame."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return to_numpy(matrix)
