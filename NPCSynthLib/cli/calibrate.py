"""``npcsynth calibrate``: what weights need after training, again."""

from pathlib import Path
from typing import Annotated

import typer

from .console import command, progress_bar, say

NAME = "calibrate"


@command
def run(
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS", help="Folder of weights; changed in place.")],
    data: Annotated[
        Path, typer.Option("--data", help="Folder that they were trained on.", exists=True, file_okay=False)
    ],
) -> None:
    """Check the uncertainty of weights on the validation patients, and learn what their training images look like.

    [cyan]npcsynth train[/] ends with this. Alone it serves weights that were made before, or elsewhere. Network and
    prompts stay as they are: the manifest gets the factors of the uncertainty, and usual.safetensors is written, by
    which a run notices images that are unlike all that was learned from.

    [bold]Examples[/]

    [cyan]npcsynth calibrate runs/mine/weights --data data[/]
    """
    from ..evaluation.calibration import finish

    with progress_bar() as on_progress:
        done = finish(weights, data, on_progress)
    for sentence in done:
        say(sentence)
