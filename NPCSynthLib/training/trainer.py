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
from ..output.folder import cannot_write, check_writable
from ..phantom.signal import ANY_ECHO
from ..vocabulary import load_sequences
from .checkpoint import CHECKPOINT, load_module, load_optimizer, read_checkpoint, save_checkpoint
from .config import TrainingConfig, build_module
from .dataset import Batch, TrainingBatches
from .export import export_weights
from .journal import Journal
from .layouts import PatientFiles
from .objectives import TrainingModule
from .text_pretraining import pretrain_text
from .wordings import Meanings

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
    if not loaded.manifest["tokens"]:
        raise WeightsError(f"The weights in {loaded.folder} know sequences by labels, not by words: they are there to "
                           "be compared with. Choose others.")
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


def _configuration(name: str, start: Path | None) -> tuple[TrainingConfig, LoadedModel | None]:
    """The configuration as it is run, and the weights that it goes on from."""
    config = TrainingConfig.load(name)
    if start is None:
        if config.model is None:
            raise UsageError(f'The configuration "{name}" goes on from weights. Name them with --from.')
        return config, None
    base = load_weights(start)
    config = replace(config, model=config.model or base.model.config, warmup_steps=0)
    if config.learns == "words":  # what the weights never met stays unknown to their words
        met = base.manifest["prompts"]
        without = tuple(s for s in load_sequences() if s in config.mixture.without or s not in met)
        if set(ANY_ECHO) <= set(without):
            raise WeightsError(f"The weights in {start} never met {' or '.join(ANY_ECHO)}, and words are learned on "
                               "these. Choose weights that did.")
        config = replace(config, mixture=replace(config.mixture, without=without))
    return config, base


def _module(config: TrainingConfig, base: LoadedModel | None, state: dict | None, fabric, on_step) -> torch.nn.Module:
    """What a run learns: one that waits for its checkpoint, or finished weights, or a fresh one whose tower has read
    prompts."""
    words = config.learns == "words"
    ours = config.network == "any-to-all"
    if state is None and base is not None:
        module = _start_from(base, config)
    else:
        module = build_module(config, state["tokens"] if state else tokens_of_vocabulary() if ours else [])
    canonical = base.canonical() if words else {}
    if state is None and (base is None or words) and ours:
        means = {sequence: text.pooled for sequence, text in canonical.items()} if words else None
        tower = module.text.to(fabric.device)
        precision = nullcontext if choose_device()[0].dtype == torch.float16 else fabric.autocast  # it needs a scaler
        pretrain_text(tower, config.text_steps, config.seed, without=config.mixture.without, means=means,
                      autocast=precision, on_step=on_step if words else None)  # fmt: skip
    if words:
        module.meanings = Meanings(canonical, config.mixture.without)
    return module.to(memory_format=torch.channels_last)


class _Run:
    """A module that learns, step by step, and what its checkpoint holds.

    Attributes:
        step: number of steps that were made.
    """

    def __init__(self, module: torch.nn.Module, config: TrainingConfig, fabric, checkpoint: Path, state: dict | None,
                 base: str | None):  # fmt: skip
        self.config, self.checkpoint, self.base = config, checkpoint, base
        self._fabric, self._plain = fabric, module
        self._scaled = choose_device()[0].dtype == torch.float16
        optimizer = torch.optim.AdamW(
            _groups(module, config), lr=config.learning_rate, weight_decay=config.weight_decay, betas=(0.9, 0.98),
            fused=not self._scaled,  # a fused one unscales by itself, and its gradients cannot be clipped then
        )
        self._average = MovingAverage(module, config.ema)
        self._module, self._optimizer = fabric.setup(module, optimizer)
        self.step = 0
        if state is not None:
            load_module(module, state["module"], checkpoint)
            load_optimizer(self._optimizer, state["optimizer"], checkpoint)
            self._average.values = state["average"]
            self.step = state["step"]
        self._average.values = {n: v.to(fabric.device) for n, v in self._average.values.items()}

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step on a batch that lies on the device; returns its losses."""
        fabric, config = self._fabric, self.config
        for group in self._optimizer.param_groups:
            group["lr"] = group["share"] * learning_rate(self.step, config)
        seed = (config.seed * 1_000_003 + self.step) * fabric.world_size + fabric.global_rank
        losses = self._module(batch, torch.Generator(fabric.device).manual_seed(seed))
        fabric.backward(losses["total"])
        try:  # of float16 a scaler passes over such steps
            fabric.clip_gradients(self._module, self._optimizer, max_norm=1.0, error_if_nonfinite=not self._scaled)
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            raise InputError(f"Training fell apart in step {self.step + 1}: what it would learn from is no number. All "
                             'until then is kept. Train with a lower "learning_rate", in another folder.') from error
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._average.update(self._plain, self.step)
        self.step += 1
        return {name: float(value.detach()) for name, value in losses.items()}

    def save(self) -> None:
        """Write the checkpoint, by the first process alone."""
        if self._fabric.is_global_zero:
            state = {
                "module": self._plain.state_dict(), "optimizer": self._optimizer.state_dict(),
                "average": self._average.values, "step": self.step, "config": self.config.text(), "base": self.base,
                "tokens": getattr(getattr(self._plain, "text", None), "tokens", []),
            }  # fmt: skip
            save_checkpoint(state, self.checkpoint)


def train(
    config_name: str, data_dir: Path | None, out_dir: Path, resume: bool = True, max_minutes: float | None = None,
    start: Path | None = None, on_step=None, cohort: Sequence[PatientFiles] = (),
    note: Callable[[str], None] = lambda text: None, called: str | None = None, held_out: Sequence[PatientFiles] = (),
    begin: Callable[[], None] = lambda: None,
) -> Path:  # fmt: skip
    """Train and leave ``weights/``, ``checkpoint.ckpt`` and what ``Journal`` writes in ``out_dir``.

    Started by torchrun, the processes share every batch; the first one writes.

    Args:
        data_dir: the folder with cohorts/, heads/, labelmaps/ and npc_t2/; any of them may be missing, and all.
        resume: go on from the checkpoint in ``out_dir`` when there is one.
        max_minutes: stop after this long (the checkpoint is written; call again to go on).
        start: weights to go on from instead of beginning anew; they must be of the configuration's size. A
            checkpoint in ``out_dir`` that began with the same ones comes first.
        on_step: called as ``on_step(step, steps, losses)`` with plain floats.
        cohort: patients of one's own beside those of ``data_dir``.
        note: takes a sentence for each file that is not used, or not as it came.
        called: what the weights are named after, instead of the configuration.
        held_out: patients that are never met, not even where ``data_dir`` has them too.
        begin: called when data and weights are there and nothing has been written yet.

    Returns:
        The weights folder, ready for ``Synthesizer(weights=...)``.

    Raises:
        UsageError: unknown configuration, one that needs ``start``, or more processes than a batch has samples.
        InputError: there is nothing to train on, the checkpoint is damaged or another run's, or gradients are no
        numbers. WeightsError: the weights to start from cannot be used. OutputError: a checkpoint or the weights could
        not be written.
    """
    config, base = _configuration(config_name, start)
    out_dir = Path(out_dir)
    check_writable(out_dir)
    fabric = _launch()
    if fabric.world_size > config.batch_size:
        raise UsageError(
            f'"{config_name}" has batches of {config.batch_size}, too few for {fabric.world_size} processes. Start '
            'fewer with torchrun, or raise "batch_size".'
        )
    checkpoint, begun_from = out_dir / CHECKPOINT, None if base is None else base.identity["sha256"]
    state = read_checkpoint(checkpoint, config, begun_from) if resume and checkpoint.exists() else None
    module = _module(config, base, state, fabric, on_step)
    run = _Run(module, config, fabric, checkpoint, state, begun_from)
    batches = TrainingBatches(
        data_dir, config.steps, config.batch_size, config.size, config.warmup_steps, config.phantoms,
        config.mixture, config.seed, part=(fabric.global_rank, fabric.world_size), cohort=cohort, note=note,
        echo_times=config.learns == "words", held_out=held_out,
    )  # fmt: skip
    if not (batches.patients or batches.labelmaps or batches.phantoms):
        where = data_dir or "The cohort"
        raise InputError(f"{where} holds nothing to train on. It should contain cohorts/ or labelmaps/.")
    if cohort and not any(patient.name in batches.own for patient in batches.patients):
        raise InputError("No patient of the cohort could be used. See what is wrong with: npcsynth cohort check DIR")
    begin()
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # on some disks nothing tells before
        raise OutputError(cannot_write(out_dir, error)) from error
    # on a computer with a GPU the processor's cores are all there is to feed it
    workers = max(1, min(14, (os.cpu_count() or 2) // fabric.world_size - 1))
    loader = DataLoader(
        batches, batch_size=None, sampler=range(run.step, config.steps), num_workers=workers, prefetch_factor=3
    )
    started = saved = time.monotonic()
    with Journal(out_dir if fabric.is_global_zero else None, note) as journal:
        try:
            for batch in loader:
                batch = _move(batch, fabric.device)
                losses = run.learn(batch)
                journal.write(run.step, losses, lambda: module.preview(batch))
                if on_step is not None:
                    on_step(run.step, config.steps, losses)
                if time.monotonic() - saved > _SAVE_SECONDS:
                    run.save()
                    saved = time.monotonic()
                # the first process's clock is everybody's, or the others would wait for it in the next step
                if max_minutes is not None and fabric.broadcast(time.monotonic() - started > 60 * max_minutes):
                    break
        finally:  # an interrupted run goes on from its last step, not from its last checkpoint
            run.save()
    weights = out_dir / "weights"
    if fabric.is_global_zero:
        export_weights(checkpoint, weights, Path(called or config_name).stem, __version__, config, batches, base)
    fabric.barrier()
    return weights
