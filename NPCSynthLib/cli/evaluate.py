"""``npcsynth evaluate``: what the weights can do, and what not, on patients never trained on."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UsageError
from ..evaluation.section import SECTIONS
from .console import command, progress_bar, say
from .options import Device, Weights

NAME = "evaluate"


@command
def run(
    data: Annotated[
        Path, typer.Option("--data", help="Folder with cohorts/<cohort>/<patient>.", exists=True, file_okay=False)
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder of the report; a run that was stopped in it goes on.")],
    weights: Weights = None,
    only: Annotated[
        str | None, typer.Option("--only", help=f"Sections to run, of: {', '.join(SECTIONS)}. [dim]Default: all.[/]")
    ] = None,
    baseline: Annotated[
        list[Path] | None,
        typer.Option("--baseline", help="Folder of a comparison network's run or weights, of any name. Weights "
                     "trained by comparison/no-contrast or no-t1fs are asked more. [dim]Repeatable.[/]",
                     exists=True, file_okay=False),
    ] = None,
    device: Device = None,
    quick: Annotated[bool, typer.Option("--quick", help="A first look: fewer cells and levels.")] = False,
    full: Annotated[bool, typer.Option("--full", help="All slices, not the 24 middle ones; takes hours.")] = False,
) -> None:
    """Measure weights on the validation patients, and write tables, plots and one HTML page.

    Each section writes Markdown, CSV, JSON, PNG and SVG files of its name; index.html shows all sections that are in
    the folder. What is measured is kept there: with further baselines only these are computed, and a run that was
    stopped goes on.

    [bold]Examples[/]

    [cyan]npcsynth evaluate --data data --out report[/]

    [cyan]npcsynth evaluate --data data --out report --only any-to-all --quick[/]

    [cyan]npcsynth evaluate --data data --out report --baseline runs/channel-unet --baseline runs/swin-unetr[/]
    """
    from ..evaluation.report import PAGE, write_section
    from ..evaluation.section import Context, run_section, section_names
    from ..inference.synthesizer import Synthesizer
    from ..training.baseline_networks import check_swin_unetr

    if quick and full:
        raise UsageError("--quick and --full exclude each other. Give one of them, or none.")
    names = section_names(only)
    if "cost" in names:
        check_swin_unetr()
    baselines = _named(baseline or [])
    written = []
    with progress_bar() as on_progress:
        on_progress(0.0, "Loading weights")
        synthesizer = Synthesizer(weights, device)
        for number, name in enumerate(names):
            context = Context(
                synthesizer, data, out, quick, full, baselines,
                lambda done, stage: on_progress((number + done) / len(names), f"{name}: {stage}"),
            )
            section = run_section(name, context)
            write_section(name, section, context)
            written.append((section.title, section.text))
    for title, text in written:
        say(f"{title}: {text.split(chr(10) * 2)[-1]}")
    say(f"Wrote {out / PAGE}.")


def _named(folders: list[Path]) -> dict[str, Path]:
    """Name in tables -> weights folder; a run's folder stands for the weights in it.

    Raises UsageError; WeightsError: there are none in a folder.
    """
    from ..model.manifest import manifest_of_any

    found = {}
    for folder in folders:
        folder = folder.resolve()
        weights, _ = manifest_of_any(folder)
        name = folder.parent.name if folder.name == "weights" else folder.name
        if name in found:
            raise UsageError(f'Two baselines are called "{name}". Rename the folder of one of their runs.')
        found[name] = weights
    return found
