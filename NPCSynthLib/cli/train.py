"""``npcsynth train``: make weights of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import Cancelled, UsageError
from .console import command, progress_bar, say

NAME = "train"


@command
def run(
    config_name: Annotated[
        str, typer.Argument(metavar="CONFIG", help="Name of a configuration that ships, or a file of your own.")
    ],
    data: Annotated[
        Path, typer.Option("--data", help="Folder with cohorts/ and labelmaps/.", exists=True, file_okay=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints and weights; a run in it is resumed.")],
    max_minutes: Annotated[float | None, typer.Option("--max-minutes", min=0, help="Stop after that long.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Weights to start from, e.g. to fine-tune the shipped ones.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from the last checkpoint, or start anew.")
    ] = True,
) -> None:
    """Train weights on registered MR sequences and on simulated contrasts.

    Needs the "train" extra. Stop with Ctrl-C at any time and go on with the same command. The folder of the run holds
    log.csv, TensorBoard events and progress.png beside checkpoint and weights. On several GPUs: torchrun
    --nproc-per-node 4 -m NPCSynthLib train …

    Configurations: small (two CPU cores), base (one GPU), and comparison/ours with what it is compared with:
    comparison/channel-unet, channel-unet-gan, pair-unets, swin-unetr, labels, no-contrast, no-simulation, no-t1fs.

    [bold]Examples[/]

    [cyan]npcsynth train small --data data --out runs/first[/]

    [cyan]npcsynth train my.json --data data --out runs/mine --max-minutes 60[/]

    [cyan]npcsynth train small --data our_patients --out runs/ours --from weights[/]
    """
    try:
        from ..evaluation.calibration import finish
        from ..training.config import TrainingConfig
        from ..training.trainer import train
    except ModuleNotFoundError as error:
        raise UsageError(f'Training needs {error.name}. Install NPCSynth with its "train" extra.') from error
    config = TrainingConfig.load(config_name)
    done = []
    try:
        with progress_bar() as on_progress:
            weights = train(config_name, data, out, resume=resume, max_minutes=max_minutes, start=start,
                  on_step=lambda step, steps, losses: on_progress(step / steps, _stage(step, steps, losses)))
            if config.network == "any-to-all":
                done = finish(weights, data, on_progress)
    except KeyboardInterrupt:
        raise Cancelled("Training stopped. The same command goes on from the last checkpoint.") from None
    for sentence in done:
        say(sentence)
    say(f"Training ended. The weights are in {weights}; use them with --weights.")


def _stage(step: int, steps: int, losses: dict[str, float]) -> str:
    """How far a run is and what it has learnt, in one line."""
    figures = ", ".join(f"{name} {losses[name]:.3f}" for name in ("l1", "ssim", "segmentation") if name in losses)
    return f"Step {step} of {steps} ({figures})"
