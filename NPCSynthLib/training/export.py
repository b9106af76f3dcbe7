"""From a checkpoint to weights that can be shipped: averaged parameters and a manifest."""

import datetime
from pathlib import Path

import torch

from ..model.weights import LoadedModel, save_weights, save_with_head, save_with_words
from ..vocabulary import canonical_prompt, load_sequences
from .baseline_networks import NETWORKS, save_baseline
from .config import TrainingConfig, build_module
from .dataset import TUMOR_SLICES, TrainingBatches

_LEARNED = "The tumor and organ contours were learned from"


def together(lines: list[str]) -> list[str]:
    """Lines "kind: one, another" of several runs, without those that an earlier or longer one says too."""
    said = {line: {f"{line.partition(': ')[0]}: {thing}" for thing in line.partition(": ")[2].split(", ")}
            for line in lines}  # fmt: skip
    return [line for line in said if not any(said[line] < said[other] for other in said)]


def _contours_learned_from(training_data: list[str]) -> str:
    """By the lines of ``TrainingBatches.describe``; what is drawn on patients of cohorts teaches no contours."""
    slices = [line.removeprefix(TUMOR_SLICES) for line in training_data if line.startswith(TUMOR_SLICES)]
    return f"simulated patients and {max(map(int, slices))} real slices" if slices else "simulated patients"


def export_weights(
    checkpoint: Path, folder: Path, configuration: str, version: str, config: TrainingConfig,
    batches: TrainingBatches, base: LoadedModel | None = None,
) -> None:  # fmt: skip
    """Write the moving average of a checkpoint as weights.

    The manifest's "notes" are sentences that every result carries as warnings: those of ``base``, and what contours
    were learned from.

    Args:
        configuration: name of the file that the run was started with, without its suffix. By it, whatever their folder
            is called, the evaluation knows the weights that it asks more.
        batches: what it was trained on.
        base: the weights that the run started from.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    module = build_module(config, state["tokens"])
    module.load_state_dict(state["module"])
    with torch.no_grad():
        for parameter_name, parameter in module.named_parameters():
            parameter.copy_(state["average"][parameter_name])
    about = {
        "version": version,
        "created": datetime.date.today().isoformat(),
        "steps": state["step"],
        "training_data": batches.describe(),
    }
    if base is not None:
        about["steps"] += base.manifest.get("steps", 0)
        about["started_from"] = base.identity
        about["training_data"] = together(base.manifest.get("training_data", []) + about["training_data"])
        if "reads_echo_times" in base.manifest:
            about["reads_echo_times"] = base.manifest["reads_echo_times"]
    if config.network not in NETWORKS:
        kept = [] if base is None else [note for note in base.manifest.get("notes", []) if _LEARNED not in note]
        about["notes"] = [*kept, f"{_LEARNED} {_contours_learned_from(about['training_data'])}: check every one."]
    if config.learns == "segmentation":
        save_with_head(folder, base, module.eval().model, about)
        return
    if config.learns == "words":
        save_with_words(folder, base, module.eval().text, {**about, "reads_echo_times": True})
        return
    about |= {
        "name": f"NPCSynth {config.network} ({configuration})",
        "configuration": configuration,
        "license": "Apache-2.0",
        "intended_use": "research; not a medical device",
        "prompts": {s.id: canonical_prompt(s) for s in load_sequences().values() if s.id not in config.mixture.without},
    }
    if config.network in NETWORKS:
        save_baseline(folder, config.network, module.eval(), about)
    else:
        save_weights(folder, module.eval().model, module.text, about)
