"""How well two delineations of one structure agree."""

import numpy as np


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient 2|A∩B| / (|A| + |B|) of two masks (Dice, Ecology 1945;26:297).

    Args:
        first, second: bool arrays of the same shape, on the same grid.

    Returns:
        0..1; NaN when both are empty, since there is nothing to agree on.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"the masks have different shapes: {first.shape} and {second.shape}")
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else float("nan")
