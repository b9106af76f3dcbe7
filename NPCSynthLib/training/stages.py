"""A run of several configurations, each on from the weights of the one before."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import UsageError
from ..model.manifest import MANIFEST, read_manifest
from .config import TrainingConfig
from .layouts import PatientFiles
from .trainer import train


def train_in_stages(
    config_name: str, data_dir: Path | None, out_dir: Path, resume: bool = True, max_minutes: float | None = None,
    start: Path | None = None, on_step: Callable[[str, int, int, dict], None] | None = None,
    cohort: Sequence[PatientFiles] = (), note: Callable[[str], None] = lambda text: None,
) -> Path:  # fmt: skip
    """Train all that a configuration consists of; most are of one stage alone, and then this is :func:`train`.

    The last stage's files lie in ``out_dir`` itself, those of earlier ones in folders "1-…", "2-…" within. A stage that
    has been finished is not trained again when ``resume``.

    Args:
        max_minutes: stop after this long, counted over all stages; call again to go on.
        on_step: called as ``on_step(stage, step, steps, losses)``; ``stage`` is "" where there is but one.

    Other arguments, returns and errors are those of :func:`train`. UsageError comes before the first stage: it tells
    of a later one too.
    """
    stages = TrainingConfig.stages(config_name)
    configs = [TrainingConfig.load(stage) for stage in stages]
    for stage, config in zip(stages[1:], configs[1:], strict=True):
        if config.model is not None:
            raise UsageError(f'The stage "{stage}" of "{config_name}" begins anew. Set its "model" to null.')
    if len(stages) > 1 and cohort and any(config.learns == "words" for config in configs):
        raise UsageError(f'A stage of "{config_name}" learns from simulated images alone. Leave out --cohort.')
    started = time.monotonic()
    for number, (stage, config) in enumerate(zip(stages, configs, strict=True), start=1):
        last = number == len(stages)
        folder = Path(out_dir) if last else Path(out_dir) / f"{number}-{Path(stage).stem}"
        if resume and not last and _finished(folder / "weights", start, config.steps):
            start = folder / "weights"
            continue
        left = None if max_minutes is None else max(0.0, max_minutes - (time.monotonic() - started) / 60)
        label = "" if len(stages) == 1 else f"{Path(stage).stem}, {number} of {len(stages)}"
        weights = train(
            stage, data_dir, folder, resume=resume, max_minutes=left, start=start, cohort=cohort, note=note,
            called=config_name, on_step=on_step and (lambda *told, label=label: on_step(label, *told)),
        )  # fmt: skip
        if not last and not _finished(weights, start, config.steps):
            break
        start = weights
    return weights


def _finished(weights: Path, start: Path | None, steps: int) -> bool:
    """Whether weights are there that went on from ``start`` to the last step."""
    if not (weights / MANIFEST).exists():
        return False
    before = 0 if start is None else read_manifest(start)[1].get("steps", 0)
    return read_manifest(weights)[1].get("steps", 0) - before >= steps
