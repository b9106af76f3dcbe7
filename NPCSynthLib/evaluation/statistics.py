"""Means with intervals, and paired comparisons, over rows {"patient", "sources", "target", "method", figures}.

Every patient counts the same, however many cells (sets of sources to a target) it has. Intervals are 95 % bootstrap
intervals in two stages: patients drawn with replacement, and of each drawn patient its cells. With the two or three
patients that there are, they say how much the figures vary here, not how much they would in another hospital.
"""

from collections.abc import Sequence

import numpy as np

_DRAWS = 2000
#: A loss of SSIM that further sources must not cost.
WORSE = 0.001
INTERVAL_NOTE = (
    "In brackets a 95 % bootstrap interval: patients drawn with replacement, then cells of each. It cannot speak for "
    "hospitals that are not among the patients."
)


def mean_and_interval(rows: Sequence[dict], figure: str) -> tuple[float, float | None, float | None]:
    """(mean over patients of their cells' mean, low, high); the interval is None for a single cell.

    Rows whose figure is None or not finite are left out; (nan, None, None) when none is left.
    """
    groups = [np.array(values) for values in _by_patient(rows, figure).values()]
    if not groups:
        return float("nan"), None, None
    mean = float(np.mean([group.mean() for group in groups]))
    if sum(map(len, groups)) < 2:
        return mean, None, None
    rng = np.random.default_rng(0)
    # means of resampled cells for each patient, then of resampled patients
    cells = np.stack([g[rng.integers(0, len(g), (_DRAWS * len(groups), len(g)))].mean(axis=1) for g in groups])
    chosen = rng.integers(0, len(groups), (_DRAWS, len(groups)))
    places = np.arange(_DRAWS * len(groups)).reshape(_DRAWS, len(groups))
    low, high = np.percentile(cells[chosen, places].mean(axis=1), (2.5, 97.5))
    return mean, float(low), float(high)


def with_interval(rows: Sequence[dict], figure: str, digits: int = 3) -> str:
    """"0.598 [0.487, 0.658]"."""
    mean, low, high = mean_and_interval(rows, figure)
    if mean != mean:
        return "–"
    return f"{mean:.{digits}f}" + ("" if low is None else f" [{low:.{digits}f}, {high:.{digits}f}]")


def cell(row: dict) -> tuple[str, str, str]:
    """What two methods must share to be compared."""
    return row["patient"], row["sources"], row["target"]


def paired(ours: Sequence[dict], theirs: Sequence[dict], figure: str) -> dict:
    """Differences (ours - theirs) over the cells that both have.

    Returns {"cells", "ahead", "median", "worst" (our largest deficit, or smallest lead), "p"}; p is Wilcoxon's
    signed-rank test, two-sided, None for fewer than 6 cells. Cells of one patient are not independent: p is too small.
    """
    from scipy.stats import wilcoxon

    other = {cell(row): row[figure] for row in theirs}
    differences = np.array([row[figure] - other[cell(row)] for row in ours if cell(row) in other])
    if not differences.size:
        return {"cells": 0, "ahead": 0, "median": None, "worst": None, "p": None}
    p = float(wilcoxon(differences).pvalue) if len(differences) >= 6 and differences.any() else None
    return {"cells": len(differences), "ahead": int((differences > 0).sum()), "median": float(np.median(differences)),
            "worst": float(differences.min()), "p": p}  # fmt: skip


def more_sources(rows: Sequence[dict]) -> dict:
    """How one method gains from further sources.

    Returns {"means": {number of sources: mean SSIM over (patient, target) that have every number of sources up to
    the largest}, "pairs": pairs of a set of sources and one that holds it and more, "worse": share of them in which
    the larger one is worse by more than ``WORSE``, "change": mean change}.
    """
    by_question: dict[tuple, dict[frozenset, float]] = {}
    for row in rows:
        found = by_question.setdefault((row["patient"], row["target"]), {})
        found[frozenset(row["sources"].split("+"))] = row["ssim"]
    changes = [large - small for found in by_question.values() for a, small in found.items()
               for b, large in found.items() if a < b]
    most = max((len(s) for found in by_question.values() for s in found), default=0)
    whole = [found for found in by_question.values() if max(map(len, found)) == most]
    sizes = [{len(s) for s in found} for found in whole]
    numbers = sorted(set.intersection(*sizes)) if sizes else []  # not every number is asked for everywhere
    means = {n: float(np.mean([np.mean([v for s, v in found.items() if len(s) == n]) for found in whole]))
             for n in numbers}
    return {"means": means, "pairs": len(changes),
            "worse": float(np.mean([c < -WORSE for c in changes])) if changes else None,
            "change": float(np.mean(changes)) if changes else None}  # fmt: skip


def auroc(normal: Sequence[float], strange: Sequence[float]) -> float:
    """Probability that a strange image has the higher score; ties count half."""
    a, b = np.array(strange)[:, None], np.array(normal)[None]
    return float(((a > b) + 0.5 * (a == b)).mean())


def _by_patient(rows: Sequence[dict], figure: str) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = {}
    for row in rows:
        if row[figure] is not None and np.isfinite(row[figure]):
            groups.setdefault(row["patient"], []).append(row[figure])
    return groups
