"""Uncertainty that means what it says: on patients never trained on, its mean is the mean absolute error."""

import json
from pathlib import Path

import numpy as np

from ..inference.synthesizer import Synthesizer
from ..model.weights import MANIFEST
from .protocol import cases, validation_folders


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
            made = synthesizer.run(case.study, [case.target], segment=False).sequences[0]
            error = np.abs(made.array / 1000.0 - case.truth)[case.mask]
            errors.setdefault(case.target, []).append(float(error.mean()))
            predicted.setdefault(case.target, []).append(float(made.uncertainty[case.mask].mean()) / 1000.0)
    manifest["calibration"] = {t: round(float(np.sum(errors[t]) / np.sum(predicted[t])), 3) for t in errors}
    manifest_path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return manifest["calibration"]
