"""Acquired images and drawn structures to hold a result against, on the result's own grid."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..inference.result import INTENSITY_HIGH
from ..study.align import resample
from ..study.normalize import normalize, percentiles
from ..study.study import Study
from ..study.volume import Volume


@dataclass(frozen=True)
class Truth:
    """What was really there.

    Attributes:
        images: sequence id -> (k, j, i) float32 on the study's grid; 0 and 1000 are its own 0.5 and 99.5 percentiles in
            the study's body, the units of the synthetic images; NaN where nothing was acquired. Never fitted to a
            prediction.
        structures: TG-263 name -> (k, j, i) bool on the study's grid.
        notes: sentences on whether the images belong to the study; shown with them.
    """

    images: Mapping[str, np.ndarray]
    structures: Mapping[str, np.ndarray]
    notes: tuple[str, ...] = ()


def truth_on_grid(study: Study, images: Mapping[str, Volume], structures: Mapping[str, Volume]) -> Truth:
    """Bring acquired volumes and binary structure volumes onto the study's grid by their headers.

    Raises InputError when one does not overlap the study.
    """
    on_grid = {}
    for sequence, volume in images.items():
        array, inside = resample(volume, study.grid)
        low, high = percentiles(array, study.body & inside)
        on_grid[sequence] = np.where(inside, normalize(array, low, high) * INTENSITY_HIGH, np.nan).astype(np.float32)
    masks = {name: resample(volume, study.grid, order="nearest")[0] > 0.5 for name, volume in structures.items()}
    return Truth(on_grid, masks)
