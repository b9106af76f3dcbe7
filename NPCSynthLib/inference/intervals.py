"""From the uncertainty map to intervals: within them the true intensity lies about as often as they say.

The map holds the predicted mean absolute error u, scaled for each target on validation patients
(``evaluation.calibration``). Errors are taken to be Laplace distributed, as training takes them: the central interval
of level p is prediction ± u · -ln(1 - p). Multiples measured for each target and level were tried; on a patient whom
they were not measured on they hold less well than the law does (``evaluation.uncertainty`` shows both).
"""

import numpy as np

LEVELS = (0.5, 0.8, 0.9, 0.95)


def interval_factors(levels=LEVELS) -> tuple[float, ...]:
    """Half-widths of central intervals in units of the uncertainty map, for Laplace distributed errors.

    Example: ``result.array ± interval_factors()[3] * result.uncertainty`` should hold 95 % of the true values.
    """
    return tuple(float(-np.log1p(-p)) for p in levels)
