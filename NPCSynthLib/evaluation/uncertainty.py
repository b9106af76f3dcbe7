"""Does the uncertainty mean what it says, and does it warn where lesions are missed or invented?"""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage, stats

from ..errors import InputError
from ..inference.intervals import LEVELS, interval_factors
from ..inference.result import INTENSITY_HIGH
from .calibration import Check, check, patient_spread, quantile_factors, scale_factor
from .protocol import Case, PatientCases, validation_folders
from .section import Context, Plot, Section, Table

#: A lesion voxel stands out when it differs from the ring around the lesion by this part of the data range ...
_STANDS_OUT = 0.1
#: ... is missed when less than this share of that difference was made, and invented when the made image stands out by
#: twice ``_STANDS_OUT`` where the real one does not.
_MADE = 0.5
#: The ring lies from 5 mm (the dilated label) to this much farther out.
_RING_MM = 10.0
#: A voxel is flagged when its uncertainty is among the highest tenth of the body's.
_FLAGGED = 0.9
_VOXELS = 40_000
_CURVE = np.linspace(0.05, 0.95, 19)
#: The weights' own way, and what might have been done instead.
_SPREAD = "scale from the others, spread between patients from all"
_SPREAD_OTHERS, _LAPLACE = "scale and spread from the others", "scale from the others, no spread"
_TABLE = "a multiple for each level, from the others"
_WAYS = (_SPREAD, _SPREAD_OTHERS, _LAPLACE, _TABLE)


def run(context: Context) -> Section:
    """Measure every cell and say how often intervals hold, always calibrated on the other patients."""
    rows = _measure(context)
    coverage, used, alone = _coverage(rows)
    worst = {name: max(abs(float(np.mean(list(levels[level].values()))) - level) for level in LEVELS)
             for name, levels in coverage.items()}
    alone_worst = max(abs(value - level) for level in LEVELS for value in coverage[_SPREAD][level].values())
    correlations = [row["spearman"] for row in rows]
    text = (
        "Inside the body. Intervals are the prediction plus and minus a multiple of the uncertainty map. The multiples "
        "come from the other validation patients (each patient is left out in turn): a target that only one of them "
        f"has is not counted{' (' + ', '.join(alone) + ')' if alone else ''}. The weights themselves carry the scale "
        "that all of them give, and one number for how far patients lie apart.\n\n"
        f"With that number from all patients mean coverage is off by up to {100 * worst[_SPREAD]:.1f} points, and for "
        f"a single patient by up to {100 * alone_worst:.1f}. With that from the others too, the mean is off by up "
        f"to {100 * worst[_SPREAD_OTHERS]:.1f}, without it {100 * worst[_LAPLACE]:.1f}, with a multiple for each level "
        f"instead {100 * worst[_TABLE]:.1f}. The rank correlation of uncertainty and error is "
        f"{np.mean(correlations):.2f} on average ({min(correlations):.2f} to {max(correlations):.2f})."
    )
    tables = [_coverage_table(coverage), _patient_table(coverage), _target_table(rows)]
    lesions = _lesion_table(rows)
    return Section("Uncertainty", text, (*tables, *lesions),
                   (Plot("coverage", f"Coverage of {used} images, calibrated on other patients", _figure(coverage)),))


def _measure(context: Context) -> list[dict]:
    # each is judged by what the others calibrate
    patients = [PatientCases.of_folder(folder) for folder in validation_folders(context.data / "cohorts", least=2)]
    loaded, kept = context.synthesizer.loaded, context.kept("uncertainty")
    asked = [(patient, *question) for patient in patients for question in patient.questions(few=context.quick)]
    rows = []
    for number, (patient, sources, target) in enumerate(asked):
        told = {"patient": patient.name, "sources": "+".join(sources), "target": target}
        context.on_progress(number / len(asked), f"{patient.name}: {told['sources']} to {target}")
        key = {**told, "weights": loaded.identity["sha256"], "middle": not context.full,
               "factor": loaded.manifest.get("calibration", {}).get(target)}

        def compute():
            case = patient.case(sources, target, middle=not context.full)
            made, uncertainty = context.synthesizer.estimate(case.study, target)
            return {"check": asdict(check(case, made, uncertainty)), "spearman": correlation(case, made, uncertainty),
                    "lesion": lesion_flags(case, made, uncertainty)}

        found = kept.get(key, compute)
        rows.append({**told, **found, "check": Check(**found["check"])})
    return rows


def correlation(case: Case, made: np.ndarray, uncertainty: np.ndarray) -> float:
    """Spearman's rank correlation of uncertainty and absolute error over the body (40,000 voxels drawn from it)."""
    index = np.flatnonzero(case.mask)
    index = np.random.default_rng(0).choice(index, min(_VOXELS, index.size), replace=False)
    error = np.abs(made.ravel()[index] / INTENSITY_HIGH - case.truth.ravel()[index])
    predicted = uncertainty.ravel()[index]
    return float(stats.spearmanr(predicted, error).statistic) if np.ptp(predicted) and np.ptp(error) else 0.0


def lesion_flags(case: Case, made: np.ndarray, uncertainty: np.ndarray) -> dict[str, int] | None:
    """Counts of lesion voxels and of those that the map flags; None without a lesion or a ring around it.

    Contrast is the difference from the median of the ring 5 to 15 mm around the lesion, in the same image. A voxel of
    the label is "missed" when it stands out in the real image by 0.1 of the data range or more and less than half of
    that contrast was made; in the label and its 5 mm rim it is "invented" when the made image stands out by 0.2 where
    the real one does not by 0.1. The other voxels of the label are "right". Flagged: uncertainty in the highest tenth
    of the body.

    Returns {"missed", "invented", "right", and the same with "_flagged"}.
    """
    if case.core is None or not case.core.any():
        return None
    distance = ndimage.distance_transform_edt(~case.lesion, sampling=case.study.grid.spacing[::-1])
    ring = (distance > 0) & (distance <= _RING_MM) & case.mask
    if not ring.any():
        return None
    made = made.astype(np.float32) / INTENSITY_HIGH
    real, synthetic = case.truth - np.median(case.truth[ring]), made - np.median(made[ring])
    stands_out = np.abs(real) >= _STANDS_OUT
    missed = case.core & stands_out & (synthetic * np.sign(real) < _MADE * np.abs(real))
    invented = case.lesion & ~stands_out & (np.abs(synthetic) >= 2 * _STANDS_OUT)
    flagged = uncertainty >= np.quantile(uncertainty[case.mask], _FLAGGED)
    kinds = {"missed": missed, "invented": invented, "right": case.core & ~missed & ~invented}
    counts = {name: int(mask.sum()) for name, mask in kinds.items()}
    return counts | {f"{name}_flagged": int((mask & flagged).sum()) for name, mask in kinds.items()}


def _coverage(rows: Sequence[dict]) -> tuple[dict, int, list[str]]:
    """{method: {level: {patient: coverage}}}, the number of images, and the targets that one patient alone has."""
    levels = sorted({*LEVELS, *np.round(_CURVE, 2).tolist()})
    found = {name: {level: {} for level in levels} for name in _WAYS}
    every = _spread_without(rows, None)
    by_patient: dict[str, dict[str, dict[float, list[float]]]] = {}
    used, alone = 0, []
    for row in rows:
        target = row["target"]
        others = [r["check"] for r in rows if r["target"] == target and r["patient"] != row["patient"]]
        if not others:
            alone.append(target)
            continue
        used += 1
        scale = scale_factor(others)
        factors = {
            **{name: dict(zip(levels, (scale * f for f in interval_factors(levels, spread))))
               for name, spread in ((_SPREAD, every), (_SPREAD_OTHERS, _spread_without(rows, row["patient"])),
                                    (_LAPLACE, 0.0))},
            _TABLE: dict(zip(levels, quantile_factors(others, levels))),
        }
        for name, by_level in factors.items():
            for level, factor in by_level.items():
                places = by_patient.setdefault(name, {}).setdefault(row["patient"], {})
                places.setdefault(level, []).append(row["check"].coverage(factor))
    for name, patients in by_patient.items():
        for patient, by_level in patients.items():
            for level, values in by_level.items():
                found[name][level][patient] = float(np.mean(values))
    if not used:
        raise InputError("No target is there in two validation patients, so that nothing can be calibrated on one and "
                         "judged on the other.")
    return found, used, sorted(set(alone))


def _spread_without(rows: Sequence[dict], patient: str | None) -> float:
    checked: dict[str, list[tuple[str, Check]]] = {}
    for row in rows:
        if row["patient"] != patient:
            checked.setdefault(row["target"], []).append((row["patient"], row["check"]))
    return patient_spread(checked)


def _coverage_table(coverage: dict) -> Table:
    lines = [(name, *(float(np.mean(list(levels[level].values()))) for level in LEVELS))
             for name, levels in coverage.items()]
    return Table("Coverage", ("intervals", *(f"{level:.0%}" for level in LEVELS)), tuple(lines),
                 "Share of the body's voxels whose true intensity lies in the interval, mean over patients.")


def _patient_table(coverage: dict) -> Table:
    lines = []
    for patient in coverage[_TABLE][LEVELS[0]]:
        for name in _WAYS:
            lines.append((patient, name, *(coverage[name][level][patient] for level in LEVELS)))
    return Table("Coverage of each patient", ("patient", "intervals", *(f"{level:.0%}" for level in LEVELS)),
                 tuple(lines), "What to expect of a new patient is what comes from the others alone; the spread "
                 "from all has seen each of them.")


def _target_table(rows: Sequence[dict]) -> Table:
    lines = []
    for target in dict.fromkeys(row["target"] for row in rows):
        for patient in dict.fromkeys(row["patient"] for row in rows if row["target"] == target):
            here = [row for row in rows if (row["target"], row["patient"]) == (target, patient)]
            lines.append((target, patient, len(here), float(np.mean([row["check"].error for row in here])),
                          float(np.mean([row["check"].uncertainty for row in here])),
                          float(np.mean([row["spearman"] for row in here])), min(row["spearman"] for row in here)))
    return Table("Error and uncertainty", ("target", "patient", "cells", "mean absolute error", "mean uncertainty",
                                           "mean rank correlation", "lowest"), tuple(lines),
                 "Uncertainty as the weights give it; Spearman's correlation over the voxels of each image.")


def _lesion_table(rows: Sequence[dict]) -> list[Table]:
    lines = []
    for target in dict.fromkeys(row["target"] for row in rows):
        here = [row["lesion"] for row in rows if row["target"] == target and row["lesion"] is not None]
        total = {name: sum(counts[name] for counts in here) for name in (here[0] if here else ())}
        if not here:
            continue
        shares = [total[f"{kind}_flagged"] / total[kind] if total[kind] else None
                  for kind in ("missed", "invented", "right")]
        labelled = total["missed"] + total["right"]
        lines.append((target, len(here), total["missed"] / labelled if labelled else None, shares[0],
                      total["invented"], shares[1], shares[2]))
    if not lines:
        return []
    return [Table(
        "Lesions missed and invented, and whether the map warns",
        ("target", "cells", "share missed", "of these flagged", "voxels invented", "of these flagged",
         "of the right ones flagged"), tuple(lines),
        "Of the label's voxels, all cells together. Contrast is taken to a ring 5 to 15 mm around the lesion. Missed: "
        "stands out by 0.1 of the data range in the real image, and less than half of that was made. Invented: in the "
        "label or within 5 mm, the made image stands out by 0.2 where the real one does not by 0.1. Flagged: "
        "uncertainty in the highest tenth of the body, so that 0.1 would be chance.")]


def _figure(coverage: dict) -> Figure:
    figure = Figure(figsize=(9, 4.2), layout="compressed")
    for axis, name in zip(figure.subplots(1, 2, sharey=True), (_SPREAD, _LAPLACE), strict=True):
        levels = sorted(coverage[name])
        axis.plot([0, 1], [0, 1], color="black", linewidth=0.8)
        for patient in coverage[name][levels[0]]:
            axis.plot(levels, [coverage[name][level][patient] for level in levels], "o-", markersize=3, label=patient)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("interval")
        axis.legend(fontsize=8)
    figure.axes[0].set_ylabel("coverage")
    return figure
