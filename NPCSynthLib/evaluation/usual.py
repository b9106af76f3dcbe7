"""Learn what the training images look like, so that unusual ones are noticed (``inference.unusual``)."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..inference.synthesizer import Synthesizer
from ..inference.unusual import Look, Usual, look_at, save_usual
from ..phantom.acquire import acquire
from ..phantom.anatomy import make_anatomy
from ..phantom.signal import random_protocol
from ..study.volume import Volume
from ..training.cohorts import patients_in
from ..training.layouts import PatientFiles, read_image
from .strange import mirrored

#: Principal axes of the features that are kept; fewer where there are fewer training images.
_AXES = 24
#: The limits lie this much beyond the largest distance of a training patient from all the others.
_MARGIN = 1.25
#: Patients who are all alike must not make everyone else unusual.
_LEAST = 0.02
#: An image looks like no sequence that was learnt below this share of the least confidence in an acquired one.
_CONFIDENT = 0.9
#: Digital patients among the training images, and sequences of each.
_PHANTOMS, _PHANTOM_SEQUENCES = 4, 3
#: From fewer nobody can say what is unusual.
LEAST_PATIENTS = 3


def learn_usual(
    weights: Path, data: Path, on_progress: Callable[[float, str], None] | None = None,
    cohort: Sequence[PatientFiles] = (), held_out: Sequence[PatientFiles] = (),
) -> Usual | None:  # fmt: skip
    """Measure training images and write what they have in common into the weights folder and its manifest.

    They are the acquired ones in ``data`` (cohorts/ and heads/, without the validation patients), those of ``cohort``
    and some digital patients when the weights learned from such. Limits come from leaving one patient out at a time,
    ``Recognition.least`` from the acquired images alone. Nothing is written, and None returned, when there are fewer
    patients than ``LEAST_PATIENTS``. Images that cannot be used are passed over, as training does and tells.

    Args:
        cohort: patients that the weights were trained on beside those of ``data``.
        held_out: patients that they were not trained on, wherever they lie.

    Raises WeightsError: the weights cannot be read.
    """
    synthesizer = Synthesizer(weights)
    pairs: dict[str, list[tuple[Look, Look]]] = {}
    simulated = any("phantom" in line for line in synthesizer.loaded.manifest.get("training_data", ()))
    acquired, confidences = list(_acquired(Path(data), cohort, held_out)), []
    images = acquired + (list(_simulated(synthesizer.sequences)) if simulated else [])
    for number, (patient, read) in enumerate(images):
        if on_progress is not None:
            on_progress(number / len(images), f"Learning what images look like: {patient}")
        try:
            volume = read()
            looks = tuple(look_at(synthesizer.loaded, synthesizer.device, v) for v in (volume, mirrored(volume, "P")))
            confidence = synthesizer.recognize(volume).confidence
        except InputError:
            continue
        pairs.setdefault(patient, []).append(looks)
        if number < len(acquired):
            confidences.append(confidence)
    if len(pairs) < LEAST_PATIENTS:
        return None
    usual = fit(pairs)
    save_usual(Path(weights), usual, round(_CONFIDENT * min(confidences, default=0.0), 2))
    return usual


def fit(pairs: dict[str, list[tuple[Look, Look]]]) -> Usual:
    """``Usual`` from each patient's (image, the same with front and back exchanged)."""
    apart = {}
    for left_out in pairs:
        others = _fit({name: looks for name, looks in pairs.items() if name != left_out})
        apart[left_out] = [(others.curve_distance(look), others.feature_distance(look)) for look, _ in pairs[left_out]]
    curve, feature = np.concatenate([np.array(distances) for distances in apart.values()]).max(axis=0)
    return _fit(pairs, _MARGIN * max(float(curve), _LEAST), _MARGIN * max(float(feature), _LEAST))


def _fit(pairs, curve_limit: float = 1.0, feature_limit: float = 1.0) -> Usual:
    looks = [look for patient in pairs.values() for look, _ in patient]
    turned = [look for patient in pairs.values() for _, look in patient]
    features = np.concatenate([look.features for look in looks]).astype(np.float64)
    mean = features.mean(axis=0)
    _, spread, directions = np.linalg.svd(features - mean, full_matrices=False)
    count = min(_AXES, len(features) // 4, len(spread) - 1)
    axes = directions[:count].T / (spread[:count] / np.sqrt(len(features)))
    rest = float(np.sqrt(np.square(spread[count:]).sum() / len(features)))

    # height within each image, from its features less the image's own mean
    heights = np.arange(len(looks[0].features)) - (len(looks[0].features) - 1) / 2
    centered = np.concatenate([(look.features - look.features.mean(axis=0)) @ axes for look in looks])
    up = axes @ _ridge(centered, np.tile(heights, len(looks)))
    slopes = np.concatenate([look.slopes for look in (*looks, *turned)]).astype(np.float64)
    sides = np.repeat((1.0, -1.0), [len(look.slopes) * len(looks) for look in looks[:1]] * 2)
    back = _ridge(slopes, sides)
    curves = np.stack([look.quantiles for look in looks])
    arrays = (np.asarray(a, np.float32) for a in (curves, mean, axes))
    return Usual(*arrays, rest, up.astype(np.float32), back.astype(np.float32), curve_limit, feature_limit)


def _ridge(inputs: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Linear coefficients without an offset, shrunk a little."""
    square = inputs.T @ inputs
    shrink = 0.03 * np.trace(square) / len(square)
    return np.linalg.solve(square + shrink * np.eye(len(square)), inputs.T @ answers)


def _acquired(
    data: Path, cohort: Sequence[PatientFiles], held_out: Sequence[PatientFiles]
) -> Iterator[tuple[str, Callable[[], Volume]]]:
    """(patient, function that reads the image) of every training image."""
    for folder in (data / "cohorts", data / "heads"):
        for one in patients_in(folder, (*cohort, *held_out)):
            for sequence, file in one.images.items() if not one.validation else ():
                yield one.name, partial(read_image, sequence, file)
    for number, one in enumerate(cohort, start=1):
        for sequence, file in one.images.items():
            yield f"{number} of the cohort", partial(read_image, sequence, file)


def _simulated(sequences: tuple[str, ...]) -> Iterator[tuple[str, Callable[[], Volume]]]:
    """The same for the digital patients that training begins with."""
    for seed in range(1000, 1000 + _PHANTOMS):
        anatomy = make_anatomy(seed, (118, 128, 104), (2.0, 2.0, 2.0))
        for number in np.random.default_rng([seed, 300]).permutation(len(sequences))[:_PHANTOM_SEQUENCES]:
            rng = np.random.default_rng([seed, 301, number])
            protocol = random_protocol(sequences[number], rng, float(rng.choice((1.5, 3.0))))
            yield f"phantom/{seed}", lambda a=anatomy, p=protocol, r=rng: acquire(a, p, r)
