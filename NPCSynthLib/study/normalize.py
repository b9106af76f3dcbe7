"""Where the body is, and one intensity scale for all: 0 and 1 are the 0.5 and 99.5 percentiles of the body.

Training, inference and evaluation all scale with the functions of this module. They use no random numbers, so
that the same image always gets the same scale. SciPy is loaded when it is needed, as in ``align``.
"""

import numpy as np

from ..errors import InputError

#: Percentiles of the body that become 0 and 1.
PERCENTILES = (0.5, 99.5)
#: Normalized intensities are cut off here; vessels and fat near the coil may lie far above 1.
CLIP = (-0.5, 2.0)

_COARSE_MM = 3.0
#: Dark voxels that are no zeros are scanned air when they are many (as a share of the tissue) and alike: noise spreads
#: by 0.53 of its median at most, a dark scalp or the rim of a stripped brain by 0.8 and more.
_NOISY_AIR, _ALIKE = 0.5, 0.7
_CONSTANT = "{what} is the same everywhere, so there is no image in it. Choose another series."


def body_mask(array: np.ndarray, spacing) -> np.ndarray:
    """The patient's body: skin and all within, air cavities included; the brain alone in skull-stripped images.

    Works on a copy of about 3 mm: the darkest region that reaches the edge of the image is air (or the constant
    that skull stripping left), what differs from it is body; small islands are dropped and enclosed holes are
    filled slice by slice in the three directions. The outline is then drawn at full resolution. An image without
    any air around (a crop inside the head) is body all over.

    Args:
        array: (k, j, i) intensities of any real dtype; non-finite values count as air.
        spacing: (3,) voxel size in mm along (i, j, k), as ``Grid.spacing``.

    Returns:
        (k, j, i) bool, never empty.

    Raises:
        InputError: the image is constant or has no finite value.
    """
    from scipy import ndimage

    array = _finite(array)
    factors = [max(1, round(_COARSE_MM / float(mm))) for mm in reversed(np.asarray(spacing, float).tolist())]
    factors = [min(f, max(1, n // 8)) for f, n in zip(factors, array.shape, strict=True)]
    empty = _constant_background(array)
    if empty is not None:
        signal = np.abs(array - np.float32(empty))
    else:
        signal = array
    coarse = block_mean(signal, factors)
    low, high = np.percentile(coarse, (1, 99))
    if not high > low:
        low, high = float(coarse.min()), float(coarse.max())
    otsu = _otsu(np.clip(coarse, low, high))
    air = _air(coarse <= otsu)
    level = float(np.median(coarse[air])) if air.any() else otsu
    darkest = min(0.0, low)
    if level - darkest > 0.5 * (float(np.median(coarse[coarse > otsu])) - darkest):
        return np.ones(array.shape, bool)

    if empty is not None:
        # Zeros may surround the field of view of the scan itself, as after resampling: its own air is what counts.
        noisy = air & (coarse > 1e-3 * (high - low))
        if noisy.sum() > _NOISY_AIR * (coarse > otsu).sum():
            typical = float(np.median(coarse[noisy]))
            if 1.4826 * float(np.median(np.abs(coarse[noisy] - typical))) < _ALIKE * typical:
                air, level, empty = noisy, typical, None
    spread = 1.4826 * float(np.median(np.abs(coarse[air] - level)))
    if empty is not None and spread < 1e-4 * (high - low):
        # What surrounds the head is one number, so that nearly all else is tissue.
        threshold = edge = level + 0.03 * (high - low)
    else:
        # Ghosts and wrap-around lie above thermal noise, muscle and marrow below Otsu's threshold.
        threshold = min(max(level + 4 * spread, level + 0.3 * (otsu - level)), otsu)
        edge = max(threshold, level + 0.5 * (otsu - level))
    mask = _solid(coarse > threshold)
    if not mask.any():
        mask = _solid(coarse > otsu)
    if not mask.any():
        return np.ones(array.shape, bool)

    inner = _enlarge(ndimage.binary_erosion(mask, border_value=1), factors, array.shape)
    outer = _enlarge(ndimage.binary_dilation(mask), factors, array.shape)
    body = inner | (outer & (signal > edge))
    return body if body.any() else outer


def percentiles(array: np.ndarray, mask: np.ndarray) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles of ``array`` inside ``mask`` (both (k, j, i)), in the array's units.

    Raises InputError when the body is empty or has one intensity only.
    """
    values = np.asarray(array)[mask]
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise InputError("No body was found in the image. Choose another series.")
    low, high = (float(v) for v in np.percentile(values, PERCENTILES))
    if not high > low:
        low, high = float(values.min()), float(values.max())
    if not high > low:
        raise InputError(_CONSTANT.format(what="The intensity inside the body"))
    return low, high


def normalize(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """``(array - low) / (high - low)`` as float32 of the same shape, cut off at -0.5 and 2.

    ``low`` and ``high`` come from :func:`percentiles`. Nothing else rescales the image.
    """
    scaled = (np.asarray(array, np.float32) - np.float32(low)) / np.float32(high - low)
    return np.clip(np.nan_to_num(scaled, nan=0.0), *CLIP, out=scaled)


def n4(array: np.ndarray, mask: np.ndarray, spacing) -> np.ndarray:
    """The image without its coil shading: N4 bias correction at about 4 mm, the smooth field applied at full size.

    Args:
        array, mask: (k, j, i); spacing: (3,) mm along (i, j, k).

    Returns:
        (k, j, i) float32 in the same units; the mean inside the mask is kept.

    Source: Tustison et al., IEEE Trans Med Imaging 2010;29:1310-1320, as in SimpleITK.
    """
    import SimpleITK as sitk

    array = _finite(array)
    # N4 takes logarithms: zero and negative values (left by interpolation) are lifted to a small positive one.
    floor = max(float(np.percentile(array[mask], 99)) * 1e-3, 1e-6)
    image = sitk.GetImageFromArray(np.maximum(array, floor))
    image.SetSpacing([float(mm) for mm in spacing])
    body = sitk.GetImageFromArray(mask.astype(np.uint8))
    body.CopyInformation(image)
    shrink = [max(1, min(round(4.0 / float(mm)), n // 8)) for mm, n in zip(spacing, image.GetSize(), strict=True)]
    corrector = sitk.N4BiasFieldCorrectionImageFilter()
    corrector.SetMaximumNumberOfIterations([20, 20, 10])
    corrector.Execute(sitk.Shrink(image, shrink), sitk.Shrink(body, shrink))
    field = sitk.GetArrayFromImage(corrector.GetLogBiasFieldAsImage(image))
    corrected = array * np.exp(-np.clip(field, -2, 2)).astype(np.float32)
    mean = float(corrected[mask].mean())
    return corrected * np.float32(float(array[mask].mean()) / mean) if mean > 0 else corrected


def _finite(array: np.ndarray) -> np.ndarray:
    """float32 copy whose non-finite values are the lowest finite one."""
    array = np.asarray(array)
    finite = np.isfinite(array)
    if not finite.any():
        raise InputError("The image has no finite intensity. Export the series again or choose another one.")
    lowest, highest = array[finite].min(), array[finite].max()
    if lowest == highest:
        raise InputError(_CONSTANT.format(what="The intensity"))
    return np.where(finite, array, lowest).astype(np.float32)


def _constant_background(array: np.ndarray) -> float | None:
    """The value that fills the edge of the image exactly, as skull stripping or defacing leave it; else None."""
    faces = np.concatenate([array[e, :, :].ravel() for e in (0, -1)] + [array[:, e, :].ravel() for e in (0, -1)]
                           + [array[:, :, e].ravel() for e in (0, -1)])
    values, counts = np.unique(faces, return_counts=True)
    value = float(values[counts.argmax()])
    return value if counts.max() > 0.5 * faces.size and value <= np.median(array) else None


def block_mean(array: np.ndarray, factors) -> np.ndarray:
    """Mean over blocks of ``factors`` voxels; the last block of an axis may be smaller."""
    for axis, factor in enumerate(factors):
        if factor > 1:
            starts = np.arange(0, array.shape[axis], factor)
            counts = np.diff(np.append(starts, array.shape[axis])).astype(np.float32)
            shape = [-1 if a == axis else 1 for a in range(array.ndim)]
            array = np.add.reduceat(array, starts, axis=axis) / counts.reshape(shape)
    return array


def _enlarge(mask: np.ndarray, factors, shape) -> np.ndarray:
    """The coarse mask on the fine grid, blocks as in :func:`block_mean`."""
    for axis, factor in enumerate(factors):
        mask = np.repeat(mask, factor, axis=axis) if factor > 1 else mask
    return mask[tuple(slice(n) for n in shape)]


def _otsu(values: np.ndarray, bins: int = 256) -> float:
    """Otsu's threshold (IEEE Trans Syst Man Cybern 1979;9:62-66)."""
    counts, edges = np.histogram(values, bins)
    centers = (edges[1:] + edges[:-1]) / 2
    weight = np.cumsum(counts)
    total = np.cumsum(counts * centers)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = (total[-1] * weight / weight[-1] - total) ** 2 / (weight * (weight[-1] - weight))
    return float(centers[np.argmax(np.nan_to_num(between[:-1]))])


def _air(dark: np.ndarray) -> np.ndarray:
    """The dark region that reaches the edge of the image, away from the skin; empty when there is next to none."""
    from scipy import ndimage

    labels, _ = ndimage.label(dark)
    faces = [labels[e] for e in (0, -1)] + [labels[:, e] for e in (0, -1)] + [labels[:, :, e] for e in (0, -1)]
    edge = np.unique(np.concatenate([face.ravel() for face in faces]))
    air = np.isin(labels, edge[edge > 0])
    if air.sum() < 0.02 * air.size:
        return np.zeros_like(air)
    eroded = ndimage.binary_erosion(air, iterations=2, border_value=1)
    return eroded if eroded.any() else air


def _solid(mask: np.ndarray) -> np.ndarray:
    """Islands dropped, cavities filled."""
    from scipy import ndimage

    opened = ndimage.binary_opening(mask)
    if opened.any():
        mask = mask & ndimage.binary_dilation(opened)
    labels, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    mask = np.isin(labels, np.flatnonzero(sizes >= 0.1 * sizes.max()))
    # A cleft one voxel wide (ear canal, nostril) must not leave the airway open to the outside.
    mask |= ndimage.binary_closing(np.pad(mask, 2, mode="edge"), iterations=2)[2:-2, 2:-2, 2:-2]
    for axis in (0, 1, 2):
        for index in range(mask.shape[axis]):
            section = [slice(None)] * 3
            section[axis] = index
            section = tuple(section)
            mask[section] = ndimage.binary_fill_holes(mask[section])
    return mask
