"""What scanners and patients do to images: noise, bias, ghosts, blur, thick and missing slices, contrast drift,
misregistration, a field of view that ends too early."""

import numpy as np
from scipy import ndimage


def smooth_field(rng: np.random.Generator, shape, cells: int) -> np.ndarray:
    """(H, W) smooth float32 field of about unit variance with ``cells`` bumps a side."""
    coarse = rng.standard_normal((cells + 1, cells + 1)).astype(np.float32)
    rows = np.linspace(0, cells, shape[0], dtype=np.float32)
    columns = np.linspace(0, cells, shape[1], dtype=np.float32)
    r0 = np.minimum(rows.astype(int), cells - 1)
    c0 = np.minimum(columns.astype(int), cells - 1)
    fr, fc = _ease(rows - r0)[:, None], _ease(columns - c0)[None]
    top = coarse[r0][:, c0] * (1 - fc) + coarse[r0][:, c0 + 1] * fc
    bottom = coarse[r0 + 1][:, c0] * (1 - fc) + coarse[r0 + 1][:, c0 + 1] * fc
    return top * (1 - fr) + bottom * fr


def _ease(t: np.ndarray) -> np.ndarray:
    return t * t * (3 - 2 * t)


def bias_field(rng: np.random.Generator, shape, strength: float) -> np.ndarray:
    """(H, W) multiplicative coil shading around 1."""
    return np.exp(strength * smooth_field(rng, shape, int(rng.integers(1, 4)))).astype(np.float32)


def rician(image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Magnitude of the image with complex Gaussian noise (Gudbjartsson and Patz, MRM 1995;34:910)."""
    real = image + sigma * rng.standard_normal(image.shape, dtype=np.float32)
    imaginary = sigma * rng.standard_normal(image.shape, dtype=np.float32)
    return np.sqrt(real**2 + imaginary**2)


def ghosted(image: np.ndarray, strength: float, copies: int, axis: int) -> np.ndarray:
    """(3, H, W) with copies along the phase-encoding ``axis`` (1 or 2), as periodic motion leaves them: displaced by
    equal parts of the field of view, fainter with each order, of alternating sign (Wood and Henkelman, Med Phys
    1985;12:143).
    """
    step = image.shape[axis] // copies
    ghosts = [(-1) ** n * strength / n * np.roll(image, n * step, axis=axis) for n in range(1, copies)]
    return np.abs(image + np.sum(ghosts, axis=0, dtype=np.float32))


def thicker(image: np.ndarray, share: float) -> np.ndarray:
    """(3, H, W) whose slices take that share of their signal from their neighbors."""
    around = np.stack([image[[0, 0, 1]], image[[1, 2, 2]]]).mean(axis=0)
    return (1 - share) * image + share * around


def cut_off(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(3, H, W) without what lies beyond one edge of a smaller field of view: up to a third of it."""
    image = image.copy()
    lost = int(image.shape[-1] * rng.uniform(0.05, 0.33))
    edge = (slice(None, lost), slice(-lost, None))[int(rng.integers(2))]
    np.moveaxis(image, int(rng.integers(1, 3)), 0)[edge] = 0
    return image


def degrade(image: np.ndarray, rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """One source's (3, H, W) stack as another scanner might have delivered it."""
    shape = image.shape[-2:]
    if rng.random() < 0.5 * strength:
        image = image * bias_field(rng, shape, 0.15 * strength * rng.random())
    if rng.random() < 0.3 * strength:
        image = ndimage.gaussian_filter(image, (0, *(rng.uniform(0.2, 1.0, 2))))
    if rng.random() < 0.5 * strength:
        gamma = float(np.exp(rng.normal(0, 0.15)))
        image = np.sign(image) * np.abs(image) ** gamma
    if rng.random() < 0.7:
        image = image * float(np.exp(rng.normal(0, 0.07))) + float(rng.normal(0, 0.02)) * (image > 0.02)
    if rng.random() < 0.08 * strength:
        image = ghosted(image, float(rng.uniform(0.03, 0.2)), int(rng.integers(2, 5)), int(rng.integers(1, 3)))
    if rng.random() < 0.1 * strength:
        image = thicker(image, float(rng.uniform(0.2, 0.66)))
    if rng.random() < 0.5 * strength:
        image = rician(image, float(rng.exponential(0.02)), rng)
    if rng.random() < 0.25 * strength:
        shift = rng.integers(-1, 2, 2)
        image = np.roll(image, tuple(shift), axis=(1, 2))
    if rng.random() < 0.03 * strength:
        image = cut_off(image, rng)
    if rng.random() < 0.05 * strength:
        image = image.copy()
        image[int(rng.choice((0, 2)))] = image[1]
    return image.astype(np.float32, copy=False)
