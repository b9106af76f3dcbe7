"""Registration and resampling against known motion, on oblique and anisotropic grids."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from NPCSynthLib.errors import InputError
from NPCSynthLib.study.align import align, apart, overlap, resample
from NPCSynthLib.study.volume import Grid, Volume

#: (center, radii, T1-like intensity, T2-like intensity), LPS mm; later ones overwrite earlier ones.
TISSUES = [
    ((0, 0, 0), (70, 85, 75), 900, 300), ((0, 0, 5), (62, 77, 68), 450, 420), ((0, 10, 8), (50, 60, 52), 600, 330),
    ((18, 5, 15), (8, 26, 12), 150, 1000), ((-16, 8, 15), (8, 22, 11), 150, 1000), ((5, -60, -40), (16, 18, 22), 0, 0),
    ((30, -55, 0), (12, 12, 12), 200, 950), ((-30, -52, -2), (12, 12, 12), 200, 950),
    ((12, 45, -35), (28, 20, 16), 500, 500), ((-25, 35, 30), (10, 14, 9), 300, 800),
]


def tilted(shape, spacing, angle=0.25, center=(0, 0, 0), flip=False):
    """Grid centered on ``center``, tilted about two axes."""
    c, s = np.cos(angle), np.sin(angle)
    direction = np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    if flip:
        direction = direction @ np.diag([-1, 1, -1])
    middle = direction * np.array(spacing) @ ((np.array(shape[::-1]) - 1) / 2)
    return Grid.from_parts(shape, spacing, np.array(center) - middle, direction)


def scan(grid, contrast, motion=None, noise=8):
    """Volume of the ellipsoid head; ``motion`` maps scanner LPS to the patient's own LPS."""
    k, j, i = np.indices(grid.shape)
    points = grid.ijk_to_lps[:3, :3] @ np.stack([i.ravel(), j.ravel(), k.ravel()]) + grid.ijk_to_lps[:3, 3:]
    if motion is not None:
        matrix = np.array(motion.GetMatrix()).reshape(3, 3)
        points = matrix @ points + np.array(motion.GetTranslation())[:, None]
    image = np.zeros(points.shape[1])
    for center, radii, *intensities in TISSUES:
        hit = (((points - np.array(center)[:, None]) / np.array(radii)[:, None]) ** 2).sum(0) <= 1
        image[hit] = intensities[contrast]
    image = ndimage.gaussian_filter(image.reshape(grid.shape), 0.5)
    rng = np.random.default_rng(contrast)
    return Volume(np.hypot(image + rng.normal(0, noise, grid.shape), rng.normal(0, noise, grid.shape)), grid,
                  ("T1 tra", "T2 cor")[contrast])


FIXED = tilted((40, 88, 80), (2.2, 2.2, 4.5))
MOVING = tilted((88, 36, 84), (2.1, 5.0, 2.1), angle=-0.15, flip=True)


@pytest.fixture(scope="module")
def known():
    """Motion with its center at the origin, and what align found."""
    motion = sitk.Euler3DTransform()
    motion.SetRotation(0.05, -0.04, 0.08)
    motion.SetTranslation((6.0, -4.0, 5.0))
    fixed, moving = scan(FIXED, 0), scan(MOVING, 1, motion)
    return motion, fixed, moving, *align(moving, fixed)


def test_known_motion_is_found_within_half_a_millimeter(known):
    motion, _, _, transform, report = known
    truth = motion.GetInverse()  # fixed shows the patient at rest: fixed points -> where the moving scan has them
    inside = [np.array(c) + d for c, *_ in TISSUES for d in ((15, 0, 0), (0, 15, 0), (0, 0, 15))]
    errors = [np.subtract(transform.TransformPoint(p.tolist()), truth.TransformPoint(p.tolist())) for p in inside]
    assert np.linalg.norm(errors, axis=1).mean() < 0.5
    assert report["applied"] and report["metric_after"] > report["metric_before"]
    assert report["rotation_deg"] == pytest.approx(5.9, abs=0.5)


def test_same_input_gives_the_same_transform(known):
    _, fixed, moving, transform, report = known
    again, second = align(moving, fixed)
    assert np.allclose(again.GetParameters(), transform.GetParameters(), atol=1e-6)
    assert second == report


def test_registered_image_matches_better_than_the_unregistered_one(known):
    _, fixed, moving, transform, _ = known
    truth = scan(FIXED, 1).array
    found, inside = resample(moving, fixed.grid, transform)
    before, inside_before = resample(moving, fixed.grid)
    assert np.corrcoef(found[inside], truth[inside])[0, 1] > 0.95
    assert np.corrcoef(before[inside_before], truth[inside_before])[0, 1] < 0.9


def test_aligned_volumes_are_left_alone():
    transform, report = align(scan(MOVING, 1), scan(FIXED, 0))
    assert transform is None and not report["applied"]
    assert report["reason"].startswith("Already aligned")


def test_implausible_motion_within_one_frame_of_reference_is_refused_aloud(monkeypatch, known):
    _, fixed, moving, *_ = known
    frame = {"FrameOfReferenceUID": "1.2.3"}
    monkeypatch.setattr("NPCSynthLib.study.align.SAME_FRAME_LIMIT", (5.0, 45.0))
    transform, report = align(Volume(moving.array, moving.grid, "T2 cor", frame),
                              Volume(fixed.array, fixed.grid, "T1 tra", frame))
    assert transform is None and not report["applied"]
    assert "T2 cor" in report["warning"] and "T1 tra" in report["warning"]


def test_far_off_headers_of_another_frame_start_from_the_bodies():
    fixed = scan(FIXED, 0)
    moving = scan(MOVING, 1)
    matrix = moving.grid.ijk_to_lps.copy()
    matrix[:3, 3] += (70, -60, 50)
    transform, report = align(Volume(moving.array, Grid(MOVING.shape, matrix), "T2 cor"), fixed)
    shift = np.subtract(transform.TransformPoint((0.0, 0.0, 0.0)), (70, -60, 50))
    assert report["applied"] and np.linalg.norm(shift) < 1.0


@pytest.mark.parametrize("slices", [2, 3])
def test_what_could_not_be_compared_is_not_called_aligned(slices):
    moving = scan(tilted((slices, 84, 84), (2.1, 2.1, 6.0)), 1)
    transform, report = align(moving, scan(FIXED, 0))
    assert transform is None and not report["applied"]
    assert "Not registered" in report["reason"] and "Check that it lies right" in report["warning"]


def test_a_thin_slab_between_the_points_of_a_large_field_overlaps_with_it():
    large, slab = tilted((60, 60, 60), (4, 4, 4), 0), tilted((2, 60, 60), (4, 4, 3), 0)
    assert overlap(large, slab) == 0 and overlap(slab, large) > 0.9 and not apart(large, slab)


def test_no_overlap_names_both_volumes_and_the_remedy():
    far = tilted((20, 40, 40), (2, 2, 4), center=(900, 0, 0))
    with pytest.raises(InputError, match='"T2 cor" and "T1 tra".*same patient'):
        align(Volume(np.ones(far.shape), far, "T2 cor"), scan(FIXED, 0))


def test_equal_grids_copy_exactly():
    volume = scan(FIXED, 0)
    array, inside = resample(volume, Grid(FIXED.shape, FIXED.ijk_to_lps.copy()))
    assert np.array_equal(array, volume.array.astype(np.float32)) and inside.all()
    assert not np.shares_memory(array, volume.array)


def test_flipped_grid_gives_the_flipped_image():
    volume = scan(FIXED, 0)
    matrix = FIXED.ijk_to_lps.copy()
    matrix[:3, 3] += matrix[:3, 2] * (FIXED.shape[0] - 1)
    matrix[:3, 2] *= -1
    array, inside = resample(volume, Grid(FIXED.shape, matrix))
    assert inside.all()
    assert np.abs(array - volume.array[::-1]).max() < 1


@pytest.mark.parametrize("order", ["linear", "bspline", "nearest"])
def test_resampling_reproduces_a_ramp_and_is_zero_outside(order):
    grid = tilted((30, 40, 36), (2, 2, 3))
    k, j, i = np.indices(grid.shape)
    x = np.einsum("b,bkji->kji", grid.ijk_to_lps[0, :3], np.stack([i, j, k])) + grid.ijk_to_lps[0, 3]
    ramp = Volume(1000 + x, grid)
    target = tilted((20, 30, 70), (2.5, 2.5, 3), angle=-0.1)
    array, inside = resample(ramp, target, order=order)
    k, j, i = np.indices(target.shape)
    x = np.einsum("b,bkji->kji", target.ijk_to_lps[0, :3], np.stack([i, j, k])) + target.ijk_to_lps[0, 3]
    core = ndimage.binary_erosion(inside, iterations=3)
    assert np.abs(array - 1000 - x)[core].max() < (2.5 if order == "nearest" else 0.1)
    assert not inside.all() and (array[~inside] == 0).all()


def test_fine_stripes_do_not_alias_on_a_coarse_grid():
    grid = tilted((12, 60, 60), (1, 1, 4), angle=0)
    stripes = Volume(np.where(np.indices(grid.shape)[2] % 2, 1000.0, 0.0), grid)
    coarse = tilted((12, 15, 15), (4, 4, 4), angle=0)
    array, inside = resample(stripes, coarse)
    assert inside.all() and np.abs(array[:, 1:-1, 1:-1] - 500).max() < 60


def test_overlap_is_the_share_of_the_field_of_view():
    grid = tilted((20, 20, 20), (2, 2, 2))
    half = Grid(grid.shape, grid.ijk_to_lps.copy())
    half.ijk_to_lps[:3, 3] += grid.ijk_to_lps[:3, 0] * 10
    assert overlap(grid, half) == pytest.approx(0.5, abs=0.03)
    assert overlap(grid, grid) == 1
