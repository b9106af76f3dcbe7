"""Uncertainty that means what it says: on patients never trained on, its mean is the mean absolute error."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..inference.intervals import LEVELS
from ..inference.result import INTENSITY_HIGH
from ..inference.synthesizer import Synthesizer
from ..model.manifest import read_manifest, write_manifest
from ..training.layouts import PatientFiles
from .protocol import Case, cases, validation_folders
from .usual import LEAST_PATIENTS, learn_usual

_POINTS = np.linspace(0.005, 0.995, 199)


def finish(
    weights: Path, data: Path, on_progress: Callable[[float, str], None], cohort: Sequence[PatientFiles] = (),
    held_out: Sequence[PatientFiles] = (),
) -> list[str]:  # fmt: skip
    """What weights need after training: calibrated uncertainty, and knowledge of what is usual.

    Args:
        data, cohort: the folder and the patients that they were trained on.
        held_out: patients that they were not trained on.

    Returns:
        Sentences on what was done, and on what could not be.
    """
    done = []
    if validation_folders(data / "cohorts"):
        on_progress(0.0, "Calibrating the uncertainty")
        factors = calibrate(weights, data / "cohorts")
        done.append(f"The uncertainty of {', '.join(factors)} was calibrated on the validation patients.")
    else:
        done.append("The uncertainty was not calibrated: the validation patients are not there.")
    if learn_usual(weights, data, on_progress, cohort, held_out) is None:
        done.append(f"Unusual images will go unnoticed: that takes {LEAST_PATIENTS} patients to learn from.")
    else:
        done.append("Unusual images will be noticed.")
    return done


def calibrate(weights: Path, cohorts_dir: Path) -> dict[str, float]:
    """Set the factor of each target's uncertainty, and the spread between patients, in the manifest of ``weights``.

    The middle slices of the validation patients are made from single sources and from all of them. A target that no
    validation patient has gets no factor: results say that its uncertainty was never checked.

    Returns:
        The factors by which the network's scale becomes the mean absolute error.
    """
    synthesizer = Synthesizer(weights)
    synthesizer.loaded.manifest.pop("calibration", None)
    checked: dict[str, list[tuple[str, Check]]] = {}
    for folder in validation_folders(cohorts_dir):
        for case in cases(folder, quick=True):
            found = check(case, *synthesizer.estimate(case.study, case.target))
            checked.setdefault(case.target, []).append((f"{folder.parent.name}/{folder.name}", found))
    factors = {target: round(scale_factor([one for _, one in found]), 3) for target, found in checked.items()}
    folder, manifest = read_manifest(weights)
    manifest["calibration"] = factors
    manifest["patient_spread"] = round(patient_spread(checked), 2)
    write_manifest(folder, manifest)
    return factors


@dataclass(frozen=True)
class Check:
    """How the uncertainty of one synthetic image compares with its errors, in the body.

    Attributes:
        error, uncertainty: means of the absolute error and of the map, in units of the data range.
        ratios: ``_POINTS`` quantiles of absolute error over uncertainty.
    """

    error: float
    uncertainty: float
    ratios: tuple[float, ...]

    def coverage(self, factor: float) -> float:
        """Share of the body's voxels whose error is at most ``factor`` times the uncertainty."""
        return float(np.interp(factor, (0.0, *self.ratios), (0.0, *_POINTS), right=1.0))


def check(case: Case, made: np.ndarray, uncertainty: np.ndarray) -> Check:
    """Compare what ``Synthesizer.estimate`` gave with the truth of its case."""
    error = np.abs(made[case.mask].astype(np.float32) / INTENSITY_HIGH - case.truth[case.mask])
    predicted = uncertainty[case.mask].astype(np.float32) / INTENSITY_HIGH
    ratios = np.quantile(error / np.maximum(predicted, 1 / INTENSITY_HIGH), _POINTS)
    return Check(float(error.mean()), float(predicted.mean()), tuple(ratios.tolist()))


def scale_factor(found: Sequence[Check]) -> float:
    """By what the uncertainties must be multiplied for their mean to be the mean error."""
    return sum(one.error for one in found) / sum(one.uncertainty for one in found)


def patient_spread(checked: Mapping[str, Sequence[tuple[str, Check]]]) -> float:
    """How much a new patient's errors may differ from what the others say, as ``interval_factors`` takes it.

    The standard deviation between patients of the natural logarithm of error over uncertainty, pooled over the targets,
    times sqrt(1 + 1/n), as for any prediction of one more from n; 0 when no target has two patients.

    Args:
        checked: (patient, check) pairs of each target.
    """
    squares, freedom, counts = 0.0, 0, []
    for found in checked.values():
        logs: dict[str, list[float]] = {}
        for patient, one in found:
            logs.setdefault(patient, []).append(float(np.log(one.error / one.uncertainty)))
        means = [float(np.mean(values)) for values in logs.values()]
        if len(means) > 1:
            squares += float(np.var(means)) * len(means)
            freedom += len(means) - 1
            counts.append(len(means))
    return float(np.sqrt(squares / freedom * (1 + 1 / np.mean(counts)))) if freedom else 0.0


def quantile_factors(found: Sequence[Check], levels=LEVELS) -> tuple[float, ...]:
    """Multiples of the uncertainty that cover these shares of the voxels, every image counting the same."""
    return tuple(np.quantile(np.concatenate([one.ratios for one in found]), levels).tolist())
