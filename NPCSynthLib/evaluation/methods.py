"""The methods that are compared: the weights that are judged, simple baselines, and trained comparison networks."""

from dataclasses import dataclass
from pathlib import Path

from ..inference.synthesizer import Synthesizer
from ..model.manifest import manifest_of_any
from .baselines import Predict, all_baselines, training_voxels
from .protocol import training_studies
from .section import Context
from .trained_baselines import trained_baseline

OURS = "NPCSynth"
_SIMPLE = ("source copy", "histogram match", "voxel regression", "mean of inputs")


@dataclass(frozen=True)
class Method:
    """``name`` in tables, ``predict(study, target)``, and ``identity``: a text that changes when its answers may."""

    name: str
    predict: Predict
    identity: str


def ours(context: Context) -> Method:
    """The weights that are judged."""
    return Method(OURS, context.synthesizer.predict, context.synthesizer.loaded.identity["sha256"])


def trained(context: Context) -> list[Method]:
    """The comparison networks of ``context.baselines``; networks of their own kind and any-to-all ones alike.

    Raises WeightsError.
    """
    return [_trained(name, Path(folder), context) for name, folder in context.baselines.items()]


def simple(context: Context) -> list[Method]:
    """Methods without a network, fitted to the training patients (when one of them is first asked)."""
    fitted: dict[str, Predict] = {}
    names = sorted(f"{p.parent.name}/{p.name}" for p in (context.data / "cohorts").glob("*/*"))

    def call(name: str) -> Predict:
        def predict(study, target):
            if not fitted:
                fitted.update(all_baselines(training_voxels(training_studies(context.data / "cohorts"))))
            return fitted[name](study, target)

        return predict

    identity = "fitted to " + " ".join(names)
    return [Method(name, call(name), identity) for name in _SIMPLE]


def trained_by(context: Context, configuration: str) -> Synthesizer | None:
    """Those of ``context.baselines`` that ``npcsynth train comparison/<configuration>`` made, or None.

    Raises WeightsError.
    """
    for folder in context.baselines.values():
        if manifest_of_any(folder)[1].get("configuration") == configuration:
            return Synthesizer(folder, context.synthesizer.device.torch.type)
    return None


def _trained(name: str, folder: Path, context: Context) -> Method:
    _, manifest = manifest_of_any(folder)
    identity = " ".join(entry["sha256"] for entry in manifest["files"].values())
    device = context.synthesizer.device
    if "network" in manifest:
        return Method(name, trained_baseline(folder, device), identity)
    return Method(name, Synthesizer(folder, device.torch.type).predict, identity)
