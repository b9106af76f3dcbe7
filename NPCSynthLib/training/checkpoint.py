"""Checkpoints of a training run: written whole or not at all, and gone on from by the same run alone."""

from pathlib import Path

import torch

from ..errors import InputError, OutputError
from .config import TrainingConfig

CHECKPOINT = "checkpoint.ckpt"


def read_checkpoint(path: Path, config: TrainingConfig, base: str | None) -> dict:
    """The state of an interrupted run. Raises InputError when it is damaged or another configuration's.

    Args:
        base: SHA-256 of the weights that the run goes on from.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        same = (state.get("config"), state.get("base")) == (config.text(), base)
        state["module"], state["optimizer"], state["average"], state["step"], state["tokens"]
    except Exception as error:  # torch raises whatever its unpickler met
        raise InputError(
            f'The checkpoint in "{path.parent.name}" is damaged and the run cannot go on from it. Begin again with '
            "--fresh or in another folder; weights that are there already were not touched."
        ) from error
    if not same:
        raise _of_another_run(path)
    return state


def _of_another_run(checkpoint: Path) -> InputError:
    return InputError(
        f'The checkpoint in "{checkpoint.parent.name}" is of a run with another configuration, on from other weights, '
        "or of an older NPCSynth. Choose another folder, or begin again with --fresh."
    )


def load_module(module: torch.nn.Module, state: dict, checkpoint: Path) -> None:
    """Go on with a module's parameters.

    Raises InputError when they are of another network.
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise _of_another_run(checkpoint) from error


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict, checkpoint: Path) -> None:
    """Go on with an optimizer's state.

    Raises InputError when other parameters learned in that run.
    """
    counts = [[len(group["params"]) for group in groups] for groups in (optimizer.param_groups, state["param_groups"])]
    if counts[0] != counts[1]:
        raise _of_another_run(checkpoint)
    optimizer.load_state_dict(state)


def save_checkpoint(state: dict, path: Path) -> None:
    """Write a checkpoint; the last good one stays until the new one is whole. Raises OutputError."""
    partial = path.with_suffix(".part")
    try:
        torch.save(state, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's writer tells of a full disk by a RuntimeError
        partial.unlink(missing_ok=True)
        kept = "The last good checkpoint was kept." if path.exists() else "There is none yet."
        reason = getattr(error, "strerror", None) or "disk full?"
        raise OutputError(
            f'The checkpoint could not be written to "{path.parent.name}" ({reason}). {kept} '
            "Make room on the disk and start the same command again."
        ) from error
