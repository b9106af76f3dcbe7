"""A run of several configurations, each on from the weights of the one before."""

import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import InputError, OutputError, UsageError
from ..model.manifest import MANIFEST, MODEL, manifest_of_any, read_manifest
from .checkpoint import CHECKPOINT
from .config import TrainingConfig
from .labelmaps import load_labelmap, phantom_labelmap
from .layouts import PatientFiles
from .trainer import train


def train_in_stages(
    config_name: str, data_dir: Path | None, out_dir: Path, resume: bool = True, max_minutes: float | None = None,
    start: Path | None = None, on_step: Callable[[str, int, int, dict], None] | None = None,
    cohort: Sequence[PatientFiles] = (), note: Callable[[str], None] = lambda text: None,
    held_out: Sequence[PatientFiles] = (), begin: Callable[[], None] = lambda: None,
) -> tuple[Path, str]:  # fmt: skip
    """Train all that a configuration consists of; most are of one stage alone, and then this is :func:`train`.

    The last stage's files lie in ``out_dir`` itself, those of earlier ones in folders "1-…", "2-…" within. A stage that
    has been finished is not trained again when ``resume``; otherwise what a run before left goes as soon as data and
    weights turn out to be there, and not before.

    Args:
        max_minutes: stop after this long, counted over all stages; call again to go on.
        on_step: called as ``on_step(stage, step, steps, losses)``; ``stage`` is "" where there is but one.
        begin: called once, when data and weights are there and nothing has been written yet.

    Returns:
        The weights folder; and in which stage time was up, "" when none is missing.

    Other arguments and errors are those of :func:`train`. UsageError comes before the first stage and tells of a
    later one too, that a cohort was given where words are learned, or that ``start`` lies in ``out_dir``. InputError,
    before a stage is trained, when a later one has a checkpoint already. OutputError: a run before could not be
    removed.
    """
    stages = TrainingConfig.stages(config_name)
    configs = [TrainingConfig.load(stage) for stage in stages]
    for stage, config in zip(stages[1:], configs[1:], strict=True):
        if config.model is not None:
            raise UsageError(f'The stage "{stage}" of "{config_name}" begins anew. Set its "model" to null.')
    if cohort and any(config.learns == "words" for config in configs):
        raise UsageError(f'"{config_name}" learns words, and these from simulated images alone. Leave out --cohort.')
    several, out_dir = len(stages) > 1, Path(out_dir)
    if start is not None and Path(start).resolve().is_relative_to(out_dir.resolve()):
        raise UsageError(f"The weights in {start} lie in the folder of the run, which would overwrite them. Choose "
                         "another folder for the run.")
    folders = [out_dir / f"{n}-{Path(stage).stem}" for n, stage in enumerate(stages[:-1], start=1)]

    def begin_first() -> None:
        nonlocal begun
        if begun:
            return
        begun = True
        if not resume and os.environ.get("RANK", "0") == "0":  # of several processes the first one writes
            _remove([out_dir / CHECKPOINT, *folders])
        begin()

    begun, started = False, time.monotonic()
    try:
        for number, (stage, config, folder) in enumerate(zip(stages, configs, [*folders, out_dir], strict=True), 1):
            weights = folder / "weights"
            if resume and folder != out_dir and _finished(weights, start, config.steps):
                start = weights
                continue
            stale = next((later for later in [*folders, out_dir][number:] if (later / CHECKPOINT).exists()), None)
            if stale is not None and resume:  # otherwise the first process is about to remove it
                raise InputError(
                    f'"{stale.name}" holds a checkpoint of a run on from other weights than these stages make. Choose '
                    "another folder, or begin again with --fresh."
                )
            left = None if max_minutes is None else max(0.0, max_minutes - (time.monotonic() - started) / 60)
            label = f"{Path(stage).stem}, {number} of {len(stages)}" if several else ""
            train(
                stage, data_dir, folder, resume=resume, max_minutes=left, start=start, cohort=cohort, note=note,
                called=config_name, held_out=held_out, begin=begin_first,
                on_step=on_step and (lambda *told, label=label: on_step(label, *told)),
            )  # fmt: skip
            if not _finished(weights, start, config.steps):
                return weights, label or Path(stage).stem
            start = weights
        return weights, ""
    finally:  # stages ask for the same ones
        load_labelmap.cache_clear()
        phantom_labelmap.cache_clear()


def _remove(paths: Sequence[Path]) -> None:
    """Files and folders of an earlier run. Raises OutputError: what stays would be taken for this run's."""
    for path in paths:
        try:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(
                f'"{path.name}" of the run before could not be removed ({error.strerror or error}). '
                "Choose another folder."
            ) from error


def _finished(weights: Path, start: Path | None, steps: int) -> bool:
    """Whether weights are there that went on from ``start`` to the last step."""
    if not (weights / MANIFEST).exists():
        return False
    manifest, before, begun_from = manifest_of_any(weights)[1], 0, None
    if start is not None:
        base = read_manifest(start)[1]
        before, begun_from = base.get("steps", 0), base["files"][MODEL]["sha256"]
    return manifest.get("started_from", {}).get("sha256") == begun_from and manifest.get("steps", 0) - before >= steps
