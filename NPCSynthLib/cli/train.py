"""``npcsynth train``: make weights of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import Cancelled, UsageError
from .console import command, progress_bar, say

NAME = "train"


@command
def run(
    config: Annotated[str, typer.Argument(help="Name of a configuration that ships, or a file of your own.")],
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

    Needs the "train" extra. Stop with Ctrl-C at any time and go on with the same command.

    [bold]Examples[/]

    [cyan]npcsynth train small --data data --out runs/first[/]

    [cyan]npcsynth train my.json --data data --out runs/mine --max-minutes 60[/]

    [cyan]npcsynth train small --data our_patients --out runs/ours --from weights[/]
    """
    try:
        from ..evaluation.calibration import calibrate
        from ..evaluation.protocol import validation_folders
        from ..training.trainer import train
    except ModuleNotFoundError as error:
        raise UsageError(f'Training needs {error.name}. Install NPCSynth with its "train" extra.') from error
    try:
        with progress_bar() as on_progress:
            weights = train(config, data, out, resume=resume, max_minutes=max_minutes, start=start,
                  on_step=lambda step, steps, losses: on_progress(step / steps, f"Step {step} of {steps}"))
            if validation_folders(data / "cohorts"):
                on_progress(1.0, "Calibrating the uncertainty")
                calibrate(weights, data / "cohorts")
    except KeyboardInterrupt:
        raise Cancelled("Training stopped. The same command goes on from the last checkpoint.") from None
    say(f"Training ended. The weights are in {weights}; use them with --weights.")
