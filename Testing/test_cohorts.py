"""Cohorts: what lies where, which masks sit on their image, and what is said before hours are spent."""

import numpy as np
from PIL import Image

from NPCSynthLib.training.cohorts import load_tumor_slices


def test_masks_of_the_tumor_slices_are_turned(tmp_path):
    """In that set the rows of a mask run against those of its image."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    image, mask = np.zeros((512, 512), np.uint8), np.zeros((512, 512), np.uint8)
    image[60:450, 100:400] = 90
    image[150:190, 220:300] = 240
    mask[512 - 190 : 512 - 150, 220:300] = 255
    for kind, array in (("images", image), ("masks", mask)):
        Image.fromarray(array).save(tmp_path / kind / "1.jpg", quality=95)
    (only,) = load_tumor_slices(tmp_path, held_out=0)
    assert only.image[only.tumor].min() > 0.8 and only.image[~only.tumor].mean() < 0.1
