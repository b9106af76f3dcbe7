"""What every volume must pass before it is used, wherever it comes from."""

import numpy as np

from ..errors import InputError
from .volume import Volume


def check_usable(volume: Volume) -> tuple[str, ...]:
    """Check the values of a volume; every way in calls this before the volume is used.

    Returns warnings (8-bit gray levels, lossy compression, file without orientation). Raises InputError naming the
    volume when it is not three-dimensional, has one slice, holds NaN or infinite values or is constant.
    """
    array, name = volume.array, volume.name or "The image"
    if array.ndim != 3 or tuple(array.shape) != tuple(volume.grid.shape):
        raise InputError(f"{name} is not a three-dimensional image. Give one volume for each sequence.")
    if min(array.shape) < 2:
        raise InputError(f"{name} is a single slice. Give the whole volume.")
    if np.issubdtype(array.dtype, np.complexfloating):
        raise InputError(f"{name} holds complex values. Give the magnitude image.")
    if not np.isfinite(volume.grid.ijk_to_lps).all() or abs(np.linalg.det(volume.grid.ijk_to_lps[:3, :3])) < 1e-9:
        raise InputError(f"{name} has no valid voxel size or orientation. Export it again.")
    refuse_not_numbers(name, int(array.size - np.count_nonzero(np.isfinite(array))))
    if array.min() == array.max():
        raise InputError(f"{name} is empty: every voxel has the value {float(array.flat[0]):g}. Export it again.")
    warnings = []
    bits = volume.metadata.get("BitsStored")
    if isinstance(bits, float) and bits <= 8:
        warnings.append(f"{name} has only 8 bits a voxel (256 gray levels), perhaps clipped; the original is better.")
    if str(volume.metadata.get("LossyImageCompression")) == "01":
        warnings.append(f"{name} was compressed with loss; fine detail may be gone. The original is better.")
    if volume.metadata.get("orientation_missing"):
        warnings.append(f"{name} does not say how it lies in the patient; left and right may be swapped. Check "
                        "it before you trust any side, Eye_L and Parotid_R included.")
    return tuple(warnings)


def refuse_not_numbers(name: str, count: int) -> None:
    """Raises InputError when ``count`` voxels, of an image or file of this name, are NaN or infinite."""
    if count:
        raise InputError(f"{name} holds {count} voxels that are not numbers (NaN or infinite). Replace them, for "
                         "example by 0, and save it again.")
