"""Image metrics: known values, one scale, and what each must react to."""

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("skimage", reason="the image metrics need scikit-image (extra: train)")

from NPCSynthLib.qa.image_metrics import compare, paper_style, ssim_map

SHAPE = (24, 32, 28)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    body = np.zeros(SHAPE, bool)
    body[4:-4, 5:-5, 5:-5] = True
    reference = ndimage.gaussian_filter(rng.random(SHAPE), 1.0)
    reference = np.where(body, (reference - reference.min()) / np.ptp(reference), 0).astype(np.float32)
    return reference, body


def test_identical_images_are_perfect(pair):
    reference, body = pair
    metrics = compare(reference.copy(), reference, body)
    assert metrics.ssim == pytest.approx(1, abs=1e-6) and metrics.psnr == np.inf
    assert metrics.mae == 0 and metrics.sharpness == pytest.approx(1)


def test_constant_offset_has_the_textbook_psnr_and_mae(pair):
    reference, body = pair
    metrics = compare(reference + 0.1, reference, body)
    assert metrics.psnr == pytest.approx(20.0, abs=1e-3) and metrics.mae == pytest.approx(0.1, abs=1e-6)


def test_prediction_is_not_rescaled_by_its_own_statistics(pair):
    reference, body = pair
    assert compare(0.5 * reference, reference, body).psnr < 15
    assert compare(0.5 * reference, reference, body).sharpness == pytest.approx(0.5, abs=1e-3)


def test_what_happens_outside_the_body_does_not_count(pair):
    reference, body = pair
    prediction = reference.copy()
    prediction[:2] = 1.0
    metrics = compare(prediction, reference, ndimage.binary_erosion(body, iterations=4))
    assert metrics.mae == 0 and metrics.psnr == np.inf


def test_ssim_follows_its_definition_at_one_voxel(pair):
    reference, _ = pair
    rng = np.random.default_rng(1)
    prediction = (reference + 0.1 * rng.standard_normal(SHAPE)).astype(np.float32)
    point = np.zeros(SHAPE)
    point[12, 16, 14] = 1
    window = ndimage.gaussian_filter(point, 1.5, truncate=3.5)
    mx, my = (window * prediction).sum(), (window * reference).sum()
    vx, vy = (window * prediction ** 2).sum() - mx ** 2, (window * reference ** 2).sum() - my ** 2
    cov = (window * prediction * reference).sum() - mx * my
    expected = (2 * mx * my + 1e-4) * (2 * cov + 9e-4) / ((mx ** 2 + my ** 2 + 1e-4) * (vx + vy + 9e-4))
    assert ssim_map(prediction, reference)[12, 16, 14] == pytest.approx(expected, abs=1e-4)


def test_cropping_to_the_body_changes_nothing(pair):
    reference, body = pair
    prediction = ndimage.gaussian_filter(reference, 0.7)
    wide = [np.pad(a, 20) for a in (prediction, reference, body)]
    assert compare(*wide).ssim == pytest.approx(compare(prediction, reference, body).ssim, abs=1e-6)


def test_blur_lowers_sharpness_and_noise_raises_it(pair):
    reference, body = pair
    noisy = reference + 0.1 * np.random.default_rng(2).standard_normal(SHAPE).astype(np.float32)
    assert compare(ndimage.gaussian_filter(reference, 1.5), reference, body).sharpness < 0.7
    assert compare(noisy, reference, body).sharpness > 1.1


def test_few_thick_slices_can_be_compared(pair):
    reference, body = pair
    metrics = compare(reference[8:14], reference[8:14], body[8:14], spacing=(1, 1, 6))
    assert metrics.ssim == pytest.approx(1, abs=1e-6)


def test_vanished_lesion_shows_in_its_mask_and_hides_in_the_paper_style_figure(pair):
    _, body = pair
    reference = np.where(body, 0.3, 0).astype(np.float32)
    lesion = np.zeros(SHAPE, bool)
    lesion[10:14, 14:18, 12:16] = True
    reference[lesion] = 1.0
    prediction = np.where(body, 0.3, 0).astype(np.float32)
    assert compare(prediction, reference, lesion).psnr < 5
    assert paper_style(prediction, reference)["paper_ssim"] > 0.95


def test_wrong_shapes_and_empty_masks_are_refused(pair):
    reference, body = pair
    with pytest.raises(ValueError, match="shape"):
        compare(reference[1:], reference, body)
    with pytest.raises(ValueError, match="empty"):
        compare(reference, reference, np.zeros_like(body))
