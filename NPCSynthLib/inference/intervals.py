"""From the uncertainty map to intervals: within them the true intensity lies about as often as they say.

The map holds the predicted mean absolute error u, scaled for each target on validation patients
(``evaluation.calibration``). Within a patient errors are taken to be Laplace distributed, as training takes them; but
a new patient's errors may all be larger or smaller than those of the patients that set the scale. With a log-normal
factor exp(spread * z) between patients, the central interval of level p is prediction ± f * u, where
E[exp(-f / exp(spread * z))] = 1 - p over a standard normal z; without spread f = -ln(1 - p). Multiples measured for
each target and level were tried; on a patient whom they were not measured on they hold less well than the law does
(``evaluation.uncertainty`` shows all).
"""

from collections.abc import Sequence

import numpy as np

LEVELS = (0.5, 0.8, 0.9, 0.95)
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)


def interval_factors(levels: Sequence[float] = LEVELS, spread: float = 0.0) -> tuple[float, ...]:
    """Half-widths of central intervals in units of the uncertainty map.

    Example: ``sequence.array ± sequence.interval_factors[3] * sequence.uncertainty`` should hold 95 % of the true
    values.

    Args:
        levels: each in 0..1.
        spread: standard deviation, between patients, of the natural logarithm of error over uncertainty.
    """
    from scipy.optimize import brentq  # here: Slicer's start must not wait for it

    scales = np.exp(spread * _NODES)
    shares = _WEIGHTS / _WEIGHTS.sum()

    def outside(factor: float) -> float:
        return float(shares @ np.exp(-factor / scales))

    widest = -np.log1p(-max(levels)) * scales.max()
    return tuple(brentq(lambda f: outside(f) - (1 - p), 0.0, widest) for p in levels)
