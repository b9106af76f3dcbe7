"""How near a synthesized image is to the acquired one, inside the body.

All functions work on images of one scale, set by the acquired image alone: 0 and 1 are the 0.5 and 99.5
percentiles of its body (``study.normalize``), and the data range is 1. A prediction is never rescaled by its own
statistics: a wrong brightness counts as an error.
"""

from dataclasses import asdict, dataclass

import numpy as np

#: Intensities are limited to this range before comparison, for both images alike, so that a few bright vessels do not
#: rule the figures.
LIMITS = (0.0, 1.5)
_SSIM = dict(gaussian_weights=True, sigma=1.5, K1=0.01, K2=0.03, use_sample_covariance=False)


@dataclass(frozen=True)
class ImageMetrics:
    """Agreement of a prediction with a reference inside a mask.

    Attributes:
        ssim: mean over the mask of the 3D structural similarity map (Gaussian window, sigma 1.5 voxels; Wang et al.,
            IEEE Trans Image Process 2004;13:600-612), 1 is best.
        psnr: 10 log10(1 / mean squared error) in dB, data range 1; infinite for identical images.
        mae: mean absolute error in units of the data range.
        sharpness: mean gradient magnitude of the prediction over that of the reference; below 1 is blurred.
    """

    ssim: float
    psnr: float
    mae: float
    sharpness: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def compare(prediction: np.ndarray, reference: np.ndarray, mask: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> ImageMetrics:
    """Metrics of ``prediction`` against ``reference`` inside ``mask``.

    SSIM is computed on the images as they are, air included, and then averaged over the mask.

    Args:
        prediction, reference: (k, j, i), on the reference's scale (0 and 1 are its body percentiles).
        mask: (k, j, i) bool, the body, or a part of it such as a lesion.
        spacing: (3,) voxel size in mm along (i, j, k), for the gradient.

    Raises ValueError when shapes differ or the mask is empty.
    """
    if not prediction.shape == reference.shape == mask.shape:
        raise ValueError("prediction, reference and mask must have one shape")
    if not mask.any():
        raise ValueError("the mask is empty")
    box = _box(mask, margin=7)
    mask = mask[box]
    prediction, reference = (np.clip(a[box], *LIMITS).astype(np.float32) for a in (prediction, reference))
    steep = _gradient(reference, spacing)[mask].mean()
    return ImageMetrics(
        ssim=float(ssim_map(prediction, reference)[mask].mean(dtype=np.float64)),
        **errors_within(prediction, reference, mask),
        sharpness=float(_gradient(prediction, spacing)[mask].mean() / steep) if steep > 0 else float("nan"),
    )


def errors_within(prediction: np.ndarray, reference: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """{"psnr" (dB), "mae"} inside a small region such as a lesion; arguments as :func:`compare`.

    Raises ValueError when the mask is empty.
    """
    if not mask.any():
        raise ValueError("the mask is empty")
    error = np.clip(prediction[mask], *LIMITS).astype(np.float64) - np.clip(reference[mask], *LIMITS)
    return {"psnr": _psnr(float(np.mean(error ** 2)), 1.0), "mae": float(np.abs(error).mean())}


def ssim_map(prediction: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """3D structural similarity at every voxel, data range 1, same shape as the input.

    An axis of fewer than 11 voxels is compared with its edge values repeated.
    """
    from skimage.metrics import structural_similarity

    short = [(0, max(0, 11 - n)) for n in reference.shape]
    padded = [np.pad(a, short, mode="edge") for a in (prediction, reference)]
    _, full = structural_similarity(*padded, data_range=1.0, full=True, **_SSIM)
    return full[tuple(slice(n) for n in reference.shape)]


def paper_style(prediction: np.ndarray, reference: np.ndarray, axis: int = 0) -> dict[str, float]:
    """Whole-slice SSIM and PSNR of 224 x 224 8-bit pictures, averaged over slices, as papers often report them.

    Printed for comparison with papers only: the black background dominates it and a vanished tumor hardly moves it.
    Slices without any signal in the reference are left out.

    Args:
        prediction, reference: (k, j, i) on the reference's scale; axis: the one that counts slices.

    Returns:
        {"paper_ssim", "paper_psnr"}.
    """
    from skimage.metrics import structural_similarity
    from skimage.transform import resize

    similarities, ratios = [], []
    for ours, theirs in zip(np.moveaxis(prediction, axis, 0), np.moveaxis(reference, axis, 0), strict=True):
        if not (theirs > 0.05).any():
            continue
        ours, theirs = (
            np.rint(255 * resize(np.clip(a, 0, 1).astype(np.float32), (224, 224), anti_aliasing=True)).astype(np.uint8)
            for a in (ours, theirs)
        )
        similarities.append(structural_similarity(ours, theirs, data_range=255))
        ratios.append(_psnr(float(np.mean((ours.astype(float) - theirs) ** 2)), 255.0))
    if not similarities:
        raise ValueError("the reference has no signal")
    return {"paper_ssim": float(np.mean(similarities)), "paper_psnr": float(np.mean(ratios))}


def _psnr(mean_squared_error: float, data_range: float) -> float:
    return float("inf") if mean_squared_error == 0 else float(10 * np.log10(data_range ** 2 / mean_squared_error))


def _gradient(image: np.ndarray, spacing) -> np.ndarray:
    """Gradient magnitude per mm; an axis of one voxel has none."""
    total = np.zeros_like(image)
    for axis, mm in enumerate(reversed([float(s) for s in spacing])):
        if image.shape[axis] > 1:
            total += np.gradient(image, mm, axis=axis) ** 2
    return np.sqrt(total)


def _box(mask: np.ndarray, margin: int) -> tuple[slice, ...]:
    """The mask's bounding box with a margin that the SSIM window needs (its radius is 5)."""
    slices = []
    for axis in range(mask.ndim):
        hit = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        slices.append(slice(max(0, hit[0] - margin), hit[-1] + margin + 1))
    return tuple(slices)
