"""What a synthesis has to beat: methods without a network, fitted to the training patients alone.

Every baseline is called like the model, ``baseline(study, target) -> (k, j, i) float32`` on ``study.grid``, scaled so
that 0 and 1 are the 0.5 and 99.5 percentiles of the body. None of them ever sees the patient that it is judged on.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..study.study import Study

Predict = Callable[[Study, str], np.ndarray]

#: Voxels drawn from each training patient's body, so that every patient counts the same.
VOXELS_A_PATIENT = 150_000
_QUANTILES = np.linspace(0, 1, 201)
_RANGE = (-0.1, 1.3)
#: Joint histogram bins along each source, by number of sources; more sources than listed are not used together.
_BINS = {1: 128, 2: 48, 3: 24}


@dataclass(frozen=True)
class TrainingVoxels:
    """Intensities of the training patients at the same places, one entry a patient.

    Attributes:
        patients: for each patient {sequence id: (n,) float32}, all of one length within a patient.
    """

    patients: tuple[dict[str, np.ndarray], ...]

    def pairs(self, sources: tuple[str, ...], target: str) -> tuple[np.ndarray, np.ndarray]:
        """((n, sources) inputs, (n,) target values) over all patients that have every one of these sequences."""
        having = [p for p in self.patients if target in p and all(s in p for s in sources)]
        if not having:
            return np.zeros((0, len(sources)), np.float32), np.zeros(0, np.float32)
        inputs = np.concatenate([np.stack([p[s] for s in sources], axis=1) for p in having])
        return inputs, np.concatenate([p[target] for p in having])

    def best_source(self, sources: Iterable[str], target: str) -> str:
        """The source whose plain copy came nearest to the target in the training patients (mean absolute error)."""
        def error(source: str) -> float:
            inputs, values = self.pairs((source,), target)
            return float(np.abs(inputs[:, 0] - values).mean()) if values.size else np.inf

        return min(sources, key=error)


def training_voxels(studies: Iterable[Study], seed: int = 0) -> TrainingVoxels:
    """Draw voxels where every source of a study has data, inside the body."""
    rng = np.random.default_rng(seed)
    patients = []
    for study in studies:
        inside = study.body & np.all([s.inside for s in study.sources], axis=0)
        index = np.flatnonzero(inside)
        index = rng.choice(index, min(VOXELS_A_PATIENT, index.size), replace=False)
        patients.append({s.sequence: s.array.ravel()[index] for s in study.sources})
    return TrainingVoxels(tuple(patients))


def all_baselines(training: TrainingVoxels) -> dict[str, Predict]:
    """Every baseline by the name it has in tables."""
    return {
        "source copy": source_copy(training),
        "histogram match": histogram_match(training),
        "voxel regression": voxel_regression(training),
        "mean of inputs": mean_of_inputs,
    }


def source_copy(training: TrainingVoxels) -> Predict:
    """The source that was nearest to the target in training, unchanged."""
    return lambda study, target: study.source(training.best_source(_ids(study), target)).array


def histogram_match(training: TrainingVoxels) -> Predict:
    """The nearest source with its body histogram brought to the mean target histogram of the training patients.

    Histograms are averaged as quantile functions.
    """
    def predict(study: Study, target: str) -> np.ndarray:
        source = study.source(training.best_source(_ids(study), target))
        curves = [np.quantile(p[target], _QUANTILES) for p in training.patients if target in p]
        if not curves:
            return source.array
        own = np.quantile(source.array[study.body & source.inside], _QUANTILES)
        own = own + np.arange(own.size) * 1e-9  # np.interp needs increasing points; quantiles may repeat
        matched = np.interp(source.array, own, np.mean(curves, axis=0)).astype(np.float32)
        matched[~source.inside | ~study.body] = 0
        return matched

    return predict


def voxel_regression(training: TrainingVoxels) -> Predict:
    """Mean target intensity given the sources' intensities at the same voxel, from smoothed joint histograms.

    Up to three sources are used together, the nearest to the target in training first. Where the training patients
    never showed a combination of intensities, the smoothing has the nearest ones answer.
    """
    tables: dict[tuple, np.ndarray] = {}

    def predict(study: Study, target: str) -> np.ndarray:
        ranked, left = [], list(_ids(study))
        while left and len(ranked) < max(_BINS):
            ranked.append(training.best_source(left, target))
            left.remove(ranked[-1])
        while ranked and not training.pairs(tuple(ranked), target)[1].size:
            ranked.pop()
        if not ranked:
            return mean_of_inputs(study, target)
        key = (*ranked, target)
        if key not in tables:
            tables[key] = _expectation(*training.pairs(tuple(ranked), target))
        bins = tables[key].shape[0]
        predicted = np.zeros(study.grid.shape, np.float32)
        values = np.stack([study.source(s).array[study.body] for s in ranked])
        where = (np.clip(values, *_RANGE) - _RANGE[0]) / (_RANGE[1] - _RANGE[0]) * bins - 0.5
        predicted[study.body] = ndimage.map_coordinates(tables[key], where, order=1, mode="nearest")
        return predicted

    return predict


def mean_of_inputs(study: Study, target: str) -> np.ndarray:
    """Mean of the sources that have data at a voxel."""
    total = np.sum([s.array for s in study.sources], axis=0)
    return (total / np.maximum(1, np.sum([s.inside for s in study.sources], axis=0))).astype(np.float32)


def _ids(study: Study) -> tuple[str, ...]:
    return tuple(s.sequence for s in study.sources)


def _expectation(inputs: np.ndarray, values: np.ndarray) -> np.ndarray:
    """E[value | inputs] on a regular lattice over ``_RANGE`` in each input."""
    count = inputs.shape[1]
    bins, limits = [_BINS[count]] * count, [_RANGE] * count
    inputs = np.clip(inputs, _RANGE[0] + 1e-6, _RANGE[1] - 1e-6)
    weight = np.histogramdd(inputs, bins, limits)[0]
    total = np.histogramdd(inputs, bins, limits, weights=values)[0]
    mean, known = np.zeros_like(total), np.zeros(total.shape, bool)
    for sigma in (0.7, 1.5, 3.0, 6.0, 12.0):
        w, t = (ndimage.gaussian_filter(a, sigma, mode="constant") for a in (weight, total))
        fill = ~known & (w > 1.0 / (2.5 * sigma) ** count)
        mean[fill] = t[fill] / w[fill]
        known |= fill
    mean[~known] = values.mean()
    return mean
