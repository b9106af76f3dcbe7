"""Damage done to training images is the damage that its name says."""

import numpy as np

from NPCSynthLib.training.augmentation import cut_off, degrade, ghosted, thicker


def disk():
    rows, columns = np.mgrid[:64, :64]
    image = np.zeros((3, 64, 64), np.float32)
    image[:, (rows - 32) ** 2 + (columns - 32) ** 2 < 100] = 0.8
    return image


def test_ghosts_lie_half_a_field_of_view_away_along_phase_encoding_alone():
    found = ghosted(disk(), 0.2, copies=2, axis=1)
    assert np.isclose(found[1, 0, 32], 0.16) and found[1, 32, 0] == 0 and np.isclose(found[1, 32, 32], 0.8)


def test_thick_slices_take_from_their_neighbors_and_lose_nothing():
    image = np.zeros((3, 4, 4), np.float32)
    image[1] = 0.9
    found = thicker(image, 0.6)
    assert np.allclose(found[1], 0.36) and np.allclose(found[0], 0.27) and np.allclose(thicker(disk(), 0.6), disk())


def test_a_field_of_view_that_ends_early_loses_an_edge_and_nothing_else():
    for seed in range(8):
        image = np.ones((3, 60, 60), np.float32)
        gone = cut_off(image, np.random.default_rng(seed)) == 0
        rows, columns = gone[0].all(axis=1), gone[0].all(axis=0)
        assert 0.04 < gone.mean() < 0.34 and (rows.sum() + columns.sum()) * 60 == gone[0].sum()
        assert image.all()


def test_what_comes_in_is_never_changed():
    image, rng = disk(), np.random.default_rng(0)
    for _ in range(100):
        assert np.isfinite(degrade(image, rng)).all()
    assert np.array_equal(image, disk())
