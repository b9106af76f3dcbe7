"""Agreement of delineations, on shapes whose answer is known."""

import math

import numpy as np
import pytest

from NPCSynthLib.qa.contours import dice


def box(start, stop):
    mask = np.zeros((6, 10, 20), bool)
    mask[1:5, 2:8, start:stop] = True
    return mask


@pytest.mark.parametrize("shift, expected", [(0, 1.0), (5, 0.5), (10, 0.0)])
def test_dice_of_shifted_boxes(shift, expected):
    assert dice(box(0, 10), box(shift, 10 + shift)) == expected


def test_dice_of_different_sizes():
    assert dice(box(0, 4), box(0, 12)) == pytest.approx(0.5)


def test_dice_of_nothing_is_not_a_number():
    assert math.isnan(dice(box(0, 0), box(0, 0)))
    assert dice(box(0, 4), box(0, 0)) == 0.0


def test_masks_of_different_grids_are_refused():
    with pytest.raises(ValueError, match="different shapes"):
        dice(box(0, 4), box(0, 4)[1:])
