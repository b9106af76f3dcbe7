"""The training run: ``train("small", data, out)``. Lightning Fabric does devices, precision and checkpoints."""

import csv
import json
import math
import time
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from .. import __version__
from ..errors import InputError, UsageError, WeightsError
from ..model.network import AnyToAll, ModelConfig
from ..model.text import TextTower, tokens_of_vocabulary
from ..model.weights import LoadedModel, load_weights
from ..vocabulary import load_classes
from .dataset import Batch, Mixture, TrainingBatches
from .export import export_weights
from .objectives import TrainingModule
from .text_pretraining import pretrain_text

_CHECKPOINT = "checkpoint.ckpt"


@dataclass(frozen=True)
class TrainingConfig:
    """One training run; see ``small.json`` and ``base.json`` beside this file for what the values mean in practice."""

    model: ModelConfig
    steps: int
    batch_size: int
    size: int
    text_steps: int
    warmup_steps: int
    learning_rate: float
    weight_decay: float
    ema: float
    phantoms: int
    seed: int

    @classmethod
    def load(cls, name: str) -> "TrainingConfig":
        """Read "small", "base" or the path of a JSON file. Raises UsageError when it cannot be read."""
        path = Path(__file__).parent / f"{name}.json"
        if not path.exists():
            path = Path(name)
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            model = ModelConfig.from_dict({**values.pop("model"), "classes": list(load_classes())})
            values.pop("about", None)
            return cls(model=model, **values)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(
                f'"{name}" is not a training configuration ({error}). Use "small", "base" or the path of a JSON file '
                "with the same fields."
            ) from error


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up over 100 steps, then a cosine down to 2 % at the last step."""
    ramp = min(1.0, (step + 1) / 100)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))
    return config.learning_rate * ramp * (0.02 + 0.98 * cosine)


class MovingAverage:
    """Exponential moving average of a module's parameters, with a short memory at first."""

    def __init__(self, module: torch.nn.Module, decay: float):
        self.decay = decay
        self.values = {n: p.detach().clone().float() for n, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: torch.nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, parameter in module.named_parameters():
            self.values[name].lerp_(parameter.detach().float(), 1 - decay)


def build_module(config: TrainingConfig, tokens: list[int]) -> TrainingModule:
    """A fresh model with its text tower, seeded."""
    torch.manual_seed(config.seed)
    return TrainingModule(AnyToAll(config.model), TextTower(config.model, tokens))


def _start_from(loaded: LoadedModel, config: TrainingConfig) -> TrainingModule:
    """Finished weights as the beginning of a further run."""
    if loaded.manifest["model"] != config.model.to_dict():
        raise WeightsError(
            f"The weights in {loaded.folder} are not of the size that the configuration describes. "
            "Use the configuration that they were trained with."
        )
    module = build_module(config, loaded.manifest["tokens"])
    module.model.load_state_dict(loaded.model.state_dict())
    module.text.load_state_dict(loaded.text_tower().state_dict())
    return module


def _move(batch: Batch, device) -> Batch:
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{k: v.to(device, non_blocking=True) for k, v in tensors.items() if torch.is_tensor(v)})


def train(
    config_name: str, data_dir: Path, out_dir: Path, resume: bool = True, max_minutes: float | None = None,
    steps: int | None = None, mixture: Mixture = Mixture(), start: Path | None = None, on_step=None,
) -> Path:  # fmt: skip
    """Train and leave ``weights/``, ``checkpoint.ckpt`` and ``log.csv`` in ``out_dir``.

    Args:
        data_dir: the folder with cohorts/, heads/, labelmaps/ and npc_t2/; any of them may be missing.
        resume: go on from the checkpoint in ``out_dir`` when there is one.
        max_minutes: stop after this long (the checkpoint is written; call again to go on).
        steps: end of the schedule, instead of the configuration's.
        start: weights to go on from instead of beginning anew; they must be of the configuration's size. A
            checkpoint in ``out_dir`` comes first.
        on_step: called as ``on_step(step, steps, losses)`` with plain floats.

    Returns:
        The weights folder, ready for ``Synthesizer(weights=...)``.

    Raises:
        UsageError: unknown configuration. InputError: ``data_dir`` holds nothing to train on. WeightsError: the
        weights to start from cannot be used.
    """
    from lightning_fabric import Fabric

    config = TrainingConfig.load(config_name)
    if steps is not None:
        config = replace(config, steps=steps)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    fabric = Fabric(accelerator="auto", devices=1, precision="bf16-mixed")
    fabric.launch()
    checkpoint = out_dir / _CHECKPOINT
    state = torch.load(checkpoint, map_location="cpu", weights_only=True) if resume and checkpoint.exists() else None
    base = None if start is None else load_weights(start)
    if base is not None:
        config = replace(config, warmup_steps=0)
    if state is None and base is not None:
        module = _start_from(base, config)
    else:
        module = build_module(config, state["tokens"] if state else tokens_of_vocabulary())
    if state is None and base is None:
        pretrain_text(module.text.to(fabric.device), config.text_steps, config.seed)
    module = module.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        module.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    average = MovingAverage(module, config.ema)
    module, optimizer = fabric.setup(module, optimizer)
    step = 0
    if state is not None:
        module.load_state_dict(state["module"])
        optimizer.load_state_dict(state["optimizer"])
        average.values = state["average"]
        step = state["step"]
    average.values = {n: v.to(fabric.device) for n, v in average.values.items()}

    def save() -> None:
        state = {"module": module.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values,
                 "step": step, "model": config.model.to_dict(), "tokens": module.text.tokens}  # fmt: skip
        partial = checkpoint.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(checkpoint)

    batches = TrainingBatches(
        data_dir, config.steps, config.batch_size, config.size, config.warmup_steps, config.phantoms, mixture,
        config.seed,
    )
    if not (batches.patients or batches.labelmaps or batches.phantoms):
        raise InputError(f"{data_dir} holds nothing to train on. It should contain cohorts/ or labelmaps/.")
    loader = DataLoader(batches, batch_size=None, sampler=range(step, config.steps), num_workers=1, prefetch_factor=3)
    started = saved = time.monotonic()
    log_path = out_dir / "log.csv"
    with log_path.open("a", newline="", encoding="utf-8") as log_file:
        log = csv.writer(log_file)
        try:
            for batch in loader:
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(step, config)
                generator = torch.Generator(fabric.device).manual_seed(config.seed * 1_000_003 + step)
                losses = module(_move(batch, fabric.device), generator)
                fabric.backward(losses["total"])
                fabric.clip_gradients(module, optimizer, max_norm=1.0, error_if_nonfinite=False)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                average.update(module.module, step)
                step += 1
                values = {name: float(value.detach()) for name, value in losses.items()}
                log.writerow([step, round(time.monotonic() - started, 2), *(round(v, 5) for v in values.values())])
                log_file.flush()
                if on_step is not None:
                    on_step(step, config.steps, values)
                if time.monotonic() - saved > 120:
                    save()
                    saved = time.monotonic()
                if max_minutes is not None and time.monotonic() - started > 60 * max_minutes:
                    break
        finally:  # an interrupted run goes on from its last step, not from its last checkpoint
            save()
    weights = out_dir / "weights"
    name = f"NPCSynth any-to-all ({Path(config_name).stem})"
    export_weights(checkpoint, weights, name, __version__, batches.describe(), base)
    return weights
