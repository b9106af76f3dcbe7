"""Body mask and intensity scale on images made of ellipsoids."""

import numpy as np
import pytest
from scipy import ndimage

from NPCSynthLib.errors import InputError
from NPCSynthLib.study.normalize import body_mask, n4, normalize, percentiles

SPACING = (2.0, 2.0, 2.0)
SHAPE = (48, 64, 56)


def ellipsoid(center, radii, shape=SHAPE):
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, center, radii, strict=True)) <= 1


@pytest.fixture
def head():
    """(outline, image): scalp 900, brain 500, an airway of 0 that opens to the outside through a thin channel."""
    outline = ellipsoid((24, 32, 28), (20, 26, 22))
    image = np.where(outline, 900.0, 0.0)
    image[ellipsoid((24, 32, 28), (17, 23, 19))] = 500.0
    image[ellipsoid((12, 20, 28), (5, 7, 4))] = 0.0
    image[12, 2:20, 28] = 0.0
    return outline, image


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def test_mask_is_the_head_with_its_airway_in_noise_and_shading(head):
    outline, image = head
    rng = np.random.default_rng(0)
    shading = np.exp(-((np.arange(SHAPE[1]) - 50) / 40.0) ** 2)[None, :, None]
    noisy = np.hypot(image * shading + rng.normal(0, 12, SHAPE), rng.normal(0, 12, SHAPE))
    mask = body_mask(noisy.astype(np.int16), SPACING)
    assert dice(mask, outline) > 0.97
    assert mask[12, 20, 28], "the airway belongs to the body"
    assert not mask[0, 0, 0]


def test_mask_of_a_skull_stripped_brain_keeps_dark_and_negative_voxels():
    brain = ellipsoid((24, 32, 28), (18, 24, 20))
    image = np.where(brain, 600.0, 0.0) * (1 + 0.1 * np.random.default_rng(1).standard_normal(SHAPE))
    image[ellipsoid((24, 32, 22), (6, 9, 3))] = -40.0
    mask = body_mask(image, SPACING)
    assert dice(mask, brain) > 0.98
    assert mask[24, 32, 22]


@pytest.mark.parametrize("noise", [5, 12, 18])
def test_mask_of_an_image_with_zeros_around_its_field_of_view_is_the_head(head, noise):
    """As it is after resampling onto a planning CT's grid: the air that was scanned has noise."""
    outline, image = head
    rng = np.random.default_rng(3)
    scanned = np.hypot(image + rng.normal(0, noise, SHAPE), rng.normal(0, noise, SHAPE))
    around = ((30, 30), (28, 28), (34, 34))
    mask = body_mask(np.pad(scanned, around), SPACING)
    assert dice(mask, np.pad(outline, around)) > 0.97


def test_a_dark_scalp_in_front_of_zeros_belongs_to_the_head():
    """As in FLAIR with fat suppression whose air the scanner has set to zero."""
    outline, brain = ellipsoid((24, 32, 28), (21, 29, 25)), ellipsoid((24, 32, 28), (15, 21, 18))
    layers = np.random.default_rng(4).uniform(-1.5, -0.4, [n // 4 for n in SHAPE])
    scalp = 500 * 10 ** np.kron(layers, np.ones((4, 4, 4)))
    mask = body_mask(np.where(brain, 600, np.where(outline, scalp, 0)), SPACING)
    assert dice(mask, outline) > 0.97


def test_mask_drops_ghost_islands_and_thermal_noise(head):
    outline, image = head
    image = image + np.abs(np.random.default_rng(2).normal(0, 10, SHAPE))
    image[2:5, 2:5, 2:5] = 400
    mask = body_mask(image, SPACING)
    assert not mask[:6, :6, :6].any()
    assert dice(mask, outline) > 0.97


def test_thick_slices_give_the_same_head(head):
    outline, image = head
    fine = ndimage.zoom(image, (0.4, 2, 2), order=1)
    mask = body_mask(fine, (1.0, 1.0, 5.0))
    assert dice(mask, ndimage.zoom(outline.astype(np.uint8), (0.4, 2, 2), order=0) > 0) > 0.93


def test_image_without_air_is_body_all_over():
    image = 500 + 50 * np.random.default_rng(3).standard_normal(SHAPE)
    assert body_mask(image, SPACING).mean() > 0.99


def test_mask_ignores_scale_and_non_finite_values(head):
    _, image = head
    image = image + np.abs(np.random.default_rng(4).normal(0, 8, SHAPE))
    mask = body_mask(image, SPACING)
    assert (mask == body_mask(image * 16, SPACING)).all()
    broken = image.copy()
    broken[0, 0, :4] = np.nan, np.inf, -np.inf, np.nan
    assert dice(mask, body_mask(broken, SPACING)) > 0.99


@pytest.mark.parametrize("image", [np.full(SHAPE, 7), np.full(SHAPE, np.nan)], ids=["constant", "no finite value"])
def test_image_without_content_is_refused(image):
    with pytest.raises(InputError, match="Choose another|choose another"):
        body_mask(image, SPACING)


def test_percentiles_become_zero_and_one_and_the_rest_is_cut_off():
    image = np.linspace(-100, 4000, 50_000).reshape(50, 50, 20)
    mask = image > 0
    low, high = percentiles(image, mask)
    assert (low, high) == pytest.approx((20, 3980), abs=1)
    scaled = normalize(np.array([low, high, (low + high) / 2, 1e6, -1e6, np.nan]), low, high)
    assert scaled.dtype == np.float32
    assert scaled.tolist() == pytest.approx([0, 1, 0.5, 2.0, -0.5, 0.0])


def test_percentiles_of_one_intensity_are_refused():
    with pytest.raises(InputError):
        percentiles(np.ones(SHAPE), np.ones(SHAPE, bool))


def test_n4_removes_shading_and_keeps_the_mean(head):
    outline, _ = head
    image = np.where(outline, 500.0, 0.0) * (1 + 0.02 * np.random.default_rng(5).standard_normal(SHAPE))
    shaded = image * np.linspace(0.6, 1.4, SHAPE[1])[None, :, None]
    corrected = n4(shaded, outline, SPACING)
    inner = ndimage.binary_erosion(outline, iterations=3)
    assert corrected[inner].std() < 0.4 * shaded[inner].std()
    assert corrected[outline].mean() == pytest.approx(shaded[outline].mean(), rel=1e-3)
