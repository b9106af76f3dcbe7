"""From the uncertainty map to intervals: within them the true intensity lies as often as they say.

The map holds the predicted mean absolute error u. Were errors Laplace distributed, the central interval of level p
would be prediction ± u · -ln(1 - p). They are not quite: calibration (``evaluation.calibration``) measures, for each
target, the factor f(p) with which prediction ± u · f(p) covers p of the body's voxels on validation patients, and keeps
it in the weights' manifest ("intervals": {target: factors of ``LEVELS``}). Targets that were never checked get
Laplace's factors.
"""

from collections.abc import Mapping

import numpy as np

LEVELS = (0.5, 0.8, 0.9, 0.95)


def laplace_factors(levels=LEVELS) -> tuple[float, ...]:
    """Half-widths of central intervals in units of the mean absolute error, for Laplace distributed errors."""
    return tuple(float(-np.log1p(-p)) for p in levels)


def interval_factors(manifest: Mapping, target: str) -> tuple[float, ...]:
    """Half-widths of the intervals of ``LEVELS`` for a target, in units of its uncertainty map.

    Example: ``result.array ± interval_factors(manifest, "T2")[3] * result.uncertainty`` holds 95 % of the true values.
    """
    return tuple(manifest.get("intervals", {}).get(target, laplace_factors()))
