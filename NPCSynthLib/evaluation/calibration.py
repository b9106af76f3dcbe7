"""Uncertainty that means what it says: on patients never trained on, its mean is the mean absolute error."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..inference.synthesizer import Synthesizer
from ..model.manifest import MANIFEST
from .protocol import cases, validation_folders
from .usual import LEAST_PATIENTS, learn_usual


def finish(weights: Path, data: Path, on_progress: Callable[[float, str], None]) -> list[str]:
    """What weights need after training: calibrated uncertainty, and knowledge of what is usual.

    Args:
        data: the folder that they were trained on.

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
    if learn_usual(weights, data, on_progress) is None:
        done.append(f"Unusual images will go unnoticed: that takes {LEAST_PATIENTS} patients to learn from.")
    else:
        done.append("Unusual images will be noticed.")
    return done


def calibrate(weights: Path, cohorts_dir: Path) -> dict[str, float]:
    """Set the factor of each target's uncertainty in the manifest of ``weights``; returns the factors.

    The middle slices of the validation patients are made from single sources and from all of them. A target that no
    validation patient has gets no factor: results say that its uncertainty was never checked.
    """
    manifest_path = Path(weights) / MANIFEST
    manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
    manifest.pop("calibration", None)
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    synthesizer = Synthesizer(weights)
    errors, predicted = {}, {}
    for folder in validation_folders(cohorts_dir):
        for case in cases(folder, quick=True):
            made, uncertainty = synthesizer.estimate(case.study, case.target)
            error = np.abs(made / 1000.0 - case.truth)[case.mask]
            errors.setdefault(case.target, []).append(float(error.mean()))
            predicted.setdefault(case.target, []).append(float(uncertainty[case.mask].mean()) / 1000.0)
    manifest["calibration"] = {t: round(float(np.sum(errors[t]) / np.sum(predicted[t])), 3) for t in errors}
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest["calibration"]
