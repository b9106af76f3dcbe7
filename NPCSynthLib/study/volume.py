"""One image volume and its place in the patient: the currency of every room."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

#: Grids whose corners lie this near to each other are one: headers round.
SAME_GRID_MM = 1e-2


@dataclass(frozen=True)
class Grid:
    """A regular sampling grid in patient space.

    Attributes:
        shape: number of voxels (k, j, i) = (slices, rows, columns).
        ijk_to_lps: (4, 4) float64, maps homogeneous voxel indices (i, j, k, 1) to LPS millimetres.
            Its columns may be oblique, flipped and anisotropic; they are orthogonal unless sheared.
    """

    shape: tuple[int, int, int]
    ijk_to_lps: np.ndarray

    @property
    def spacing(self) -> np.ndarray:
        """(3,) voxel size in mm along (i, j, k)."""
        return np.linalg.norm(self.ijk_to_lps[:3, :3], axis=0)

    @property
    def origin(self) -> np.ndarray:
        """(3,) LPS position in mm of the centre of voxel (0, 0, 0)."""
        return self.ijk_to_lps[:3, 3].copy()

    @property
    def direction(self) -> np.ndarray:
        """(3, 3) unit column vectors of the i, j and k axes in LPS."""
        return self.ijk_to_lps[:3, :3] / self.spacing

    @property
    def first_side(self) -> str:
        """The patient's side on which the first slice lies: "below", "above", "the right", … as in "from below"."""
        toward = self.direction[:, 2]
        axis = int(np.abs(toward).argmax())
        sides = (("the right", "the left"), ("the front", "the back"), ("below", "above"))
        return sides[axis][int(toward[axis] < 0)]

    @classmethod
    def from_parts(cls, shape, spacing, origin, direction) -> "Grid":
        """Build from voxel counts (k, j, i), spacing (i, j, k) mm, LPS origin and 3 x 3 direction columns."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(direction, float).reshape(3, 3) * np.asarray(spacing, float)
        matrix[:3, 3] = origin
        return cls(tuple(int(n) for n in shape), matrix)

    def matches(self, other: "Grid", tolerance_mm: float = 1e-4) -> bool:
        """True when both grids have the same shape and every corner agrees within ``tolerance_mm``."""
        if self.shape != other.shape:
            return False
        k, j, i = (n - 1 for n in self.shape)
        corners = np.array([(a, b, c, 1) for a in (0, i) for b in (0, j) for c in (0, k)], float).T
        return bool(np.abs((self.ijk_to_lps - other.ijk_to_lps) @ corners).max() <= tolerance_mm)


def one_grid(grids: Iterable[Grid]) -> bool:
    """Whether all are one grid, as far as headers that round can tell."""
    first, *others = grids
    return all(first.matches(other, SAME_GRID_MM) for other in others)


@dataclass(frozen=True)
class Volume:
    """A scalar image on a grid.

    Attributes:
        array: (k, j, i) array; intensities in the scanner's units unless said otherwise.
        grid: where the voxels lie (LPS, mm).
        name: what to call it in messages (a series description or file name, never a patient name).
        metadata: header facts as plain strings/numbers, e.g. "SeriesInstanceUID", "Modality",
            "RepetitionTime", "source_path". May hold identifiers: never log it.
    """

    array: np.ndarray
    grid: Grid
    name: str = ""
    metadata: dict = field(default_factory=dict)


def to_sitk(array: np.ndarray, grid: Grid):
    """SimpleITK image (LPS) sharing nothing with ``array`` (k, j, i)."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin(grid.origin.tolist())
    image.SetDirection(grid.direction.ravel().tolist())
    return image


def from_sitk(image, name: str = "", metadata: dict | None = None) -> Volume:
    """Volume from a scalar 3D SimpleITK image; the array keeps the file's dtype."""
    import SimpleITK as sitk

    array = sitk.GetArrayFromImage(image)
    grid = Grid.from_parts(array.shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return Volume(array, grid, name, dict(metadata or {}))
