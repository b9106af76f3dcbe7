"""``npcsynth identify``: what is each series of a folder?"""

from pathlib import Path
from typing import Annotated

import typer

from .console import command, print_json, progress_bar
from .options import AsJson

NAME = "identify"


@command
def run(
    folder: Annotated[Path, typer.Argument(help="The patient's DICOM, NIfTI, NRRD or MHA files.")],
    json: AsJson = False,
) -> None:
    """Tell which sequence each series is, how sure that is, and why.

    [bold]Examples[/]

    [cyan]npcsynth identify patient/[/]

    [cyan]npcsynth identify patient/ --json > series.json[/]
    """
    from ..study.read import list_series

    with progress_bar() as on_progress:
        series = list_series(folder, on_progress=on_progress)
    entries = [
        {
            "series_uid": one.series_uid or None,
            "description": one.description,
            "sequence": one.identification.sequence,
            "confidence": round(float(one.identification.confidence), 3),
            "reason": one.identification.reason,
        }
        for one in series
    ]
    if json:
        print_json(entries)
    else:
        _print_table(entries)


def _print_table(entries) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("Sequence", "Confidence", "Series", "Reason")
    for entry in entries:
        sequence = entry["sequence"] or "[dim]not used[/]"
        table.add_row(sequence, f"{entry['confidence']:.0%}", escape(entry["description"]), escape(entry["reason"]))
    Console().print(table)
