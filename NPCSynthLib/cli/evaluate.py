"""``npcsynth evaluate``: how good the weights are on patients never trained on, beside simple baselines."""

from pathlib import Path
from typing import Annotated

import typer

from .console import command, progress_bar, say
from .options import Device, Weights

NAME = "evaluate"


@command
def run(
    data: Annotated[
        Path, typer.Option("--data", help="Folder with cohorts/<cohort>/<patient>.", exists=True, file_okay=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for validation.md, .csv and .json.")],
    weights: Weights = None,
    device: Device = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Single sources and all of them only, on the 24 middle slices.")
    ] = False,
) -> None:
    """Synthesize every sequence of the validation patients from every set of others, and compare with the real one.

    The same cases are given to source copy, mean of inputs, histogram matching and per-voxel regression.

    [bold]Examples[/]

    [cyan]npcsynth evaluate --data data --out tables --quick[/]
    """
    from ..evaluation.protocol import evaluate
    from ..evaluation.tables import summary
    from ..inference.synthesizer import Synthesizer

    with progress_bar() as on_progress:
        on_progress(0.0, "Loading weights and fitting baselines")
        synthesizer = Synthesizer(weights, device)
        rows = evaluate(synthesizer.predict, cohorts_dir=data / "cohorts", out=out, quick=quick,
                        on_progress=on_progress)
    for method, figures in summary(rows).items():
        say(f"{method}: SSIM {figures['ssim']['mean']:.3f}, PSNR {figures['psnr']['mean']:.1f} dB")
    say(f"Wrote validation.md, .csv and .json to {out}.")
