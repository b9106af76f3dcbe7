"""The training run: ``train("small", data, out)``. Lightning Fabric does devices, precision and several processes."""

import math
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from .. import __version__
from ..errors import InputError, OutputError, UsageError, WeightsError
from ..inference.device import choose_device
from ..model.text import tokens_of_vocabulary
from ..model.weights import LoadedModel, load_weights
from ..vocabulary import load_sequences
from .config import TrainingConfig, build_module
from .dataset import Batch, TrainingBatches
from .export import export_weights
from .journal import Journal
from .layouts import PatientFiles
from .objectives import TrainingModule
from .text_pretraining import pretrain_text
from .wordings import Meanings

_CHECKPOINT = "checkpoint.ckpt"
_SAVE_SECONDS = 120
#: bfloat16 only where the hardware has it: elsewhere it is emulated, ten times slower than float32.
_PRECISIONS = {torch.float32: "32-true", torch.bfloat16: "bf16-mixed", torch.float16: "16-mixed"}


def learning_rate(step: int, config: TrainingConfig) -> float:
    """Linear warm-up over 100 steps, then a cosine down to 2 % at the last step."""
    ramp = min(1.0, (step + 1) / 100)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))
    return config.learning_rate * ramp * (0.02 + 0.98 * cosine)


def _groups(module: torch.nn.Module, config: TrainingConfig) -> list[dict]:
    """What learns, in the optimizer's groups, with the share of the learning rate that each gets."""
    words = {id(parameter) for parameter in module.text.parameters()} if config.network == "any-to-all" else set()
    learning = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in learning if id(p) not in words], "share": 1.0},
        {"params": [p for p in learning if id(p) in words], "share": config.text_rate},
    ]
    return [group for group in groups if group["params"]]


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


def _start_from(loaded: LoadedModel, config: TrainingConfig) -> TrainingModule:
    """Finished weights as the beginning of a further run."""
    if config.network != "any-to-all" or loaded.manifest["model"] != config.model.to_dict():
        raise WeightsError(
            f"The weights in {loaded.folder} are not of the size that the configuration describes. "
            "Use the configuration that they were trained with."
        )
    words = config.learns == "words"
    module = build_module(config, tokens_of_vocabulary() if words else loaded.manifest["tokens"])
    module.model.load_state_dict(loaded.model.state_dict())
    if words:
        return module
    module.text.load_state_dict(loaded.text_tower().state_dict())
    if config.learns == "everything":
        module.text = module.text.grown(tokens_of_vocabulary())
    return module


def _move(batch: Batch, device) -> Batch:
    tensors = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return replace(batch, **{k: v.to(device, non_blocking=True) for k, v in tensors.items() if torch.is_tensor(v)})


def _read_checkpoint(path: Path, config: TrainingConfig, meant: str | None) -> dict:
    """The state of an interrupted run. Raises InputError when it is damaged or another configuration's.

    Args:
        meant: SHA-256 of the weights whose meanings words are learned for.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        same = (state["network"], state["model"]) == (config.network, config.model.to_dict())
        same &= state.get("meant") == meant
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
        f'The checkpoint in "{checkpoint.parent.name}" is of a run with another network or configuration, or of an '
        "older NPCSynth. Choose another folder, or begin again with --fresh."
    )


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict, checkpoint: Path) -> None:
    """Go on with an optimizer's state, at the shares of the learning rate that the configuration gives now.

    Raises InputError when other parameters learned in that run.
    """
    shares = [group["share"] for group in optimizer.param_groups]
    counts = [[len(group["params"]) for group in groups] for groups in (optimizer.param_groups, state["param_groups"])]
    if counts[0] != counts[1]:
        raise _of_another_run(checkpoint)
    optimizer.load_state_dict(state)
    for group, share in zip(optimizer.param_groups, shares, strict=True):
        group["share"] = share


def _save(state: dict, path: Path) -> None:
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


def _launch():
    """Fabric on one device, or on those that torchrun started this process for."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    here, everywhere = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("WORLD_SIZE", 1))
    # a batch without tumor, or with single sources alone, leaves parts of the network without a gradient
    strategy = DDPStrategy(find_unused_parameters=True) if everywhere > 1 else "auto"
    fabric = Fabric(
        accelerator="auto", devices=here, num_nodes=everywhere // here, strategy=strategy,
        precision=_PRECISIONS[choose_device()[0].dtype],
    )  # fmt: skip
    fabric.launch()
    return fabric


def train(
    config_name: str, data_dir: Path | None, out_dir: Path, resume: bool = True, max_minutes: float | None = None,
    steps: int | None = None, start: Path | None = None, on_step=None, cohort: Sequence[PatientFiles] = (),
    note: Callable[[str], None] = lambda text: None, called: str | None = None,
) -> Path:  # fmt: skip
    """Train and leave ``weights/``, ``checkpoint.ckpt`` and what ``Journal`` writes in ``out_dir``.

    Started by torchrun, the processes share every batch; the first one writes.

    Args:
        data_dir: the folder with cohorts/, heads/, labelmaps/ and npc_t2/; any of them may be missing, and all.
        resume: go on from the checkpoint in ``out_dir`` when there is one.
        max_minutes: stop after this long (the checkpoint is written; call again to go on).
        steps: end of the schedule, instead of the configuration's.
        start: weights to go on from instead of beginning anew; they must be of the configuration's size. A
            checkpoint in ``out_dir`` comes first.
        on_step: called as ``on_step(step, steps, losses)`` with plain floats.
        cohort: patients of one's own beside those of ``data_dir``.
        note: takes a sentence for each file that is not used, or not as it came.
        called: what the weights are named after, instead of the configuration.

    Returns:
        The weights folder, ready for ``Synthesizer(weights=...)``.

    Raises:
        UsageError: unknown configuration, or one that needs ``start``. InputError: there is nothing to train on, or the
        checkpoint is damaged. WeightsError: the weights to start from cannot be used. OutputError: a checkpoint could
        not be written.
    """
    config = TrainingConfig.load(config_name)
    if steps is not None:
        config = replace(config, steps=steps)
    base = None if start is None else load_weights(start)
    if config.model is None:
        if base is None:
            raise UsageError(f'The configuration "{config_name}" goes on from weights. Name them with --from.')
        config = replace(config, model=base.model.config)
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    fabric = _launch()
    checkpoint = out_dir / _CHECKPOINT
    words = config.learns == "words"
    meant = base.identity["sha256"] if words else None
    if words and cohort:
        raise UsageError(f'The configuration "{config_name}" learns from simulated images alone. Leave out --cohort.')
    state = _read_checkpoint(checkpoint, config, meant) if resume and checkpoint.exists() else None
    if base is not None:
        config = replace(config, warmup_steps=0)
    tokens = state["tokens"] if state else tokens_of_vocabulary() if config.network == "any-to-all" else []
    if state is None and base is not None:
        module = _start_from(base, config)
    else:
        module = build_module(config, tokens)
    without, canonical = config.mixture.without, {}
    if words:
        canonical = base.canonical()
        without = tuple(s for s in load_sequences() if s in without or s not in canonical)
        config = replace(config, mixture=replace(config.mixture, without=without))
    if state is None and (base is None or words) and config.network == "any-to-all":
        means = {sequence: text.pooled for sequence, text in canonical.items()} if words else None
        tower = module.text.to(fabric.device)
        precision = nullcontext if choose_device()[0].dtype == torch.float16 else fabric.autocast  # it needs a scaler
        pretrain_text(tower, config.text_steps, config.seed, without=without, means=means, autocast=precision,
                      on_step=on_step if words else None)  # fmt: skip
    if words:
        module.meanings = Meanings(canonical, without)
    module = module.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        _groups(module, config), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98)
    )
    average = MovingAverage(module, config.ema)
    plain = module
    module, optimizer = fabric.setup(module, optimizer)
    step = 0
    if state is not None:
        plain.load_state_dict(state["module"])
        _load_optimizer(optimizer, state["optimizer"], checkpoint)
        average.values = state["average"]
        step = state["step"]
    average.values = {n: v.to(fabric.device) for n, v in average.values.items()}

    def save() -> None:
        if fabric.is_global_zero:
            _save({"module": plain.state_dict(), "optimizer": optimizer.state_dict(), "average": average.values,
                   "step": step, "model": config.model.to_dict(), "network": config.network, "meant": meant,
                   "tokens": getattr(getattr(plain, "text", None), "tokens", [])}, checkpoint)  # fmt: skip

    batches = TrainingBatches(
        data_dir, config.steps, config.batch_size, config.size, config.warmup_steps, config.phantoms,
        config.mixture, config.seed, part=(fabric.global_rank, fabric.world_size), cohort=cohort, note=note,
        echo_times=words,
    )  # fmt: skip
    if not (batches.patients or batches.labelmaps or batches.phantoms):
        where = data_dir or "The cohort"
        raise InputError(f"{where} holds nothing to train on. It should contain cohorts/ or labelmaps/.")
    if cohort and not any(patient.name in batches.own for patient in batches.patients):
        raise InputError("No patient of the cohort could be used. See what is wrong with: npcsynth cohort check DIR")
    # on a computer with a GPU the processor's cores are all there is to feed it
    workers = max(1, min(14, (os.cpu_count() or 2) // fabric.world_size - 1))
    loader = DataLoader(
        batches, batch_size=None, sampler=range(step, config.steps), num_workers=workers, prefetch_factor=3
    )
    started = saved = time.monotonic()
    with Journal(out_dir if fabric.is_global_zero else None) as journal:
        try:
            for batch in loader:
                for group in optimizer.param_groups:
                    group["lr"] = group["share"] * learning_rate(step, config)
                seed = (config.seed * 1_000_003 + step) * fabric.world_size + fabric.global_rank
                batch = _move(batch, fabric.device)
                losses = module(batch, torch.Generator(fabric.device).manual_seed(seed))
                fabric.backward(losses["total"])
                fabric.clip_gradients(module, optimizer, max_norm=1.0, error_if_nonfinite=False)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                average.update(plain, step)
                step += 1
                values = {name: float(value.detach()) for name, value in losses.items()}
                journal.write(step, values, lambda: plain.preview(batch))
                if on_step is not None:
                    on_step(step, config.steps, values)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    save()
                    saved = time.monotonic()
                if max_minutes is not None and time.monotonic() - started > 60 * max_minutes:
                    break
        finally:  # an interrupted run goes on from its last step, not from its last checkpoint
            save()
    weights = out_dir / "weights"
    if fabric.is_global_zero:
        export_weights(checkpoint, weights, Path(called or config_name).stem, __version__, config, batches, base)
    fabric.barrier()
    return weights
