"""Images that no head MR is like, made from real or digital ones, to see whether they are noticed."""

import numpy as np
from scipy import ndimage

from ..inference.geometry import axis_steps
from ..phantom.anatomy import Anatomy
from ..phantom.shapes import smooth_noise
from ..study.normalize import body_mask
from ..study.volume import Grid, Volume

#: Hounsfield units of the phantom's tissues in CT; what is not listed is soft tissue.
_HOUNSFIELD = {
    "air": -1000, "subcutaneous_fat": -100, "deep_fat": -95, "fatty_marrow": 250, "red_marrow": 300,
    "cortical_bone": 1300, "teeth": 2200, "thyroid_cartilage": 180, "cartilage": 110, "csf": 8, "vitreous": 5,
    "gray_matter": 38, "white_matter": 30, "skin": 20, "parotid": -10, "muscle": 55, "disc": 90,
}  # fmt: skip
_SOFT = 45


def ct_like(anatomy: Anatomy, seed: int) -> Volume:
    """A digital patient in CT: air -1000, fat -100, soft tissue close together, bone bright; noise of 15 HU."""
    rng = np.random.default_rng([seed, 1])
    values = np.array([_HOUNSFIELD.get(name, _SOFT) for name in anatomy.tissue_names], np.float32)
    values = np.where(anatomy.labels > 0, values[anatomy.labels], -1000).astype(np.float32)
    image = ndimage.gaussian_filter(values, 0.5) + rng.normal(0, 15, values.shape)
    return Volume(image.astype(np.int16), anatomy.grid, "CT-like", {"Modality": "MR"})


def abdomen_like(seed: int) -> Volume:
    """A trunk of about 350 mm by 230 mm in MR: fat, muscle, spine, liver, spleen, kidneys, bowel, as ellipsoids."""
    rng = np.random.default_rng([seed, 2])
    grid = Grid.from_parts((36, 128, 160), (2.6, 2.6, 6.0), (-206.7, -165.1, -105.0), np.eye(3))
    k, j, i = np.indices(grid.shape)
    x, y, z = (a * s + o for a, s, o in zip((i, j, k), grid.spacing, grid.origin, strict=True))
    fat_bright = rng.random() < 0.6  # T1 or T2 without fat suppression, else with it
    fat, muscle = (rng.uniform(700, 900), rng.uniform(220, 320)) if fat_bright else (rng.uniform(90, 160), 300)
    width, depth = rng.uniform(330, 380), rng.uniform(210, 260)
    wave = 1 + 0.03 * np.sin(z / 40 + rng.uniform(0, 6))

    def inside(center, radii):
        return sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), center, radii, strict=True)) < 1

    image = np.zeros(grid.shape, np.float32)
    endless = 1e4
    image[inside((0, 0, 0), (width / 2 * wave, depth / 2 * wave, endless))] = fat
    image[inside((0, 0, 0), (width / 2 - 25, depth / 2 - 25, endless))] = muscle
    image[inside((0, 0, 0), (width / 2 - 40, depth / 2 - 38, endless))] = fat * 0.9
    for center, radii, value in (
        ((0, depth / 2 - 55, 0), (22, 20, endless), rng.uniform(350, 500)),  # vertebrae
        ((0, depth / 2 - 40, 0), (8, 7, endless), rng.uniform(300, 900)),  # spinal canal
        ((-70, -10, 40), (72, 70, 75), rng.uniform(380, 520)),  # liver
        ((95, 20, 50), (35, 45, 50), rng.uniform(280, 480)),  # spleen
        ((-75, 45, -30), (26, 25, 55), rng.uniform(250, 700)),  # kidneys
        ((75, 45, -25), (26, 25, 55), rng.uniform(250, 700)),
    ):
        image[inside(center, radii)] = value
    for _ in range(14):  # bowel
        center = rng.uniform((-90, -60, -100), (90, 10, 10))
        image[inside(center, rng.uniform(12, 24, 3))] = rng.uniform(100, 800)
    image *= np.exp(0.12 * smooth_noise(grid, 150.0, [seed, 3]) + 0.05 * smooth_noise(grid, 9.0, [seed, 4]))
    image = ndimage.gaussian_filter(image, (0, 0.5, 0.5))
    sigma = rng.uniform(8, 20)
    image = np.hypot(image + rng.normal(0, sigma, image.shape), rng.normal(0, sigma, image.shape))
    return Volume(image.astype(np.int16), grid, "abdomen-like")


def noise_only(like: Volume, seed: int) -> Volume:
    """Magnitude noise on the volume's grid; every second one is smooth, as a scanner's interpolation leaves it."""
    rng = np.random.default_rng([seed, 5])
    real, imaginary = rng.standard_normal((2, *like.array.shape), np.float32)
    if seed % 2:
        real, imaginary = (ndimage.gaussian_filter(a, 0.5) for a in (real, imaginary))
    return Volume((300 * np.hypot(real, imaginary)).astype(np.int16), like.grid, "noise")


def mirrored(volume: Volume, axes: str) -> Volume:
    """The image mirrored within its own grid along the patient's axes named: "S" feet up, "P" back in front."""
    toward, _ = axis_steps(volume.grid)
    wanted = {"P": 1, "S": 2}
    flips = tuple(slice(None, None, -1 if toward[a] in {wanted[x] for x in axes} else 1) for a in range(3))
    return Volume(np.ascontiguousarray(volume.array[flips]), volume.grid, "upside down")


def cropped(volume: Volume, side: int) -> Volume:
    """Half of what the image shows of the body: cut in the middle, the right (0), left, front or back half (3) kept."""
    body = body_mask(volume.array, volume.grid.spacing)
    toward, sign = axis_steps(volume.grid)
    axis = toward.index(side // 2)
    hit = np.flatnonzero(body.any(axis=tuple(a for a in range(3) if a != axis)))
    middle = int(hit[0] + hit[-1] + 1) // 2
    low_end = (side % 2 == 0) == (sign[axis] > 0)
    half = slice(0, middle) if low_end else slice(middle, None)
    part = tuple(half if a == axis else slice(None) for a in range(3))
    start = np.array([s.start or 0 for s in part])[::-1]
    matrix = volume.grid.ijk_to_lps.copy()
    matrix[:3, 3] += matrix[:3, :3] @ start
    array = np.ascontiguousarray(volume.array[part])
    return Volume(array, Grid(array.shape, matrix), "cropped")
