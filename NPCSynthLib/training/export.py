"""From a checkpoint to weights that can be shipped: averaged parameters, float16, manifest."""

import datetime
from pathlib import Path

import torch

from ..model.network import AnyToAll, ModelConfig
from ..model.text import TextTower
from ..model.weights import LoadedModel, save_weights
from ..vocabulary import canonical_prompt, load_sequences
from .objectives import TrainingModule


def export_weights(
    checkpoint: Path, folder: Path, name: str, version: str, training_data: list[str], base: LoadedModel | None = None
) -> dict:
    """Write the moving average of a checkpoint as weights; returns the manifest.

    The manifest's "notes", sentences that every result carries as warnings, are for whoever ships weights to add.

    Args:
        training_data: what it was trained on, a line each.
        base: the weights that the run started from.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    config = ModelConfig.from_dict(state["model"])
    module = TrainingModule(AnyToAll(config), TextTower(config, state["tokens"]))
    module.load_state_dict(state["module"])
    with torch.no_grad():
        for parameter_name, parameter in module.named_parameters():
            parameter.copy_(state["average"][parameter_name])
    about = {
        "name": name,
        "version": version,
        "license": "Apache-2.0",
        "created": datetime.date.today().isoformat(),
        "intended_use": "research; not a medical device",
        "steps": state["step"],
        "prompts": {s.id: canonical_prompt(s) for s in load_sequences().values()},
        "training_data": training_data,
    }
    if base is not None:
        about["steps"] += base.manifest.get("steps", 0)
        about["started_from"] = base.identity
        about["training_data"] = list(dict.fromkeys(base.manifest.get("training_data", []) + training_data))
    return save_weights(folder, module.eval().model, module.text, about)
