"""``npcsynth identify``: what is each series of a folder?"""

from pathlib import Path
from typing import Annotated

import typer

from .console import command, print_json, progress_bar
from .options import AsJson

NAME = "identify"


@command
def run(
    folder: Annotated[Path, typer.Argument(help="The patient's DICOM, NIfTI, NRRD or MHA files, or a DICOMDIR.")],
    look: Annotated[
        bool, typer.Option("--look", help="Ask the network too what each image looks like. [dim]Slower.[/]")
    ] = False,
    json: AsJson = False,
) -> None:
    """Tell which sequence each series is, how sure that is, and why.

    The answer comes from headers and file names. With --look the images have a say too: a series exported under a
    wrong name shows.

    [bold]Examples[/]

    [cyan]npcsynth identify patient/[/]

    [cyan]npcsynth identify patient/ --look[/]

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
    if look:
        _look(folder, entries)
    if json:
        print_json(entries)
    else:
        _print_table(entries)


def _look(folder: Path, entries: list[dict]) -> None:
    """Add "image_sequence" and "image_confidence", what the images look like; None for series that are not used,
    "unknown" for an image that looks like none of the sequences."""
    from ..errors import InputError
    from ..inference.synthesizer import Synthesizer
    from ..study.identify import identify
    from ..study.read import read_folder

    synthesizer = Synthesizer()
    with progress_bar() as on_progress:
        volumes = read_folder(folder, on_progress=lambda done, stage: on_progress(0.7 * done, stage)).volumes
        seen = {}
        for number, volume in enumerate(volumes):
            on_progress(0.7 + 0.3 * number / len(volumes), "Looking at the images")
            try:
                one = volume.metadata.get("SeriesInstanceUID") or volume.name
                # Two echoes come in one series.
                seen[one, identify(volume.metadata, volume.name).sequence] = synthesizer.recognize(volume)
            except InputError:  # the header's verdict stands alone
                continue
    for entry in entries:
        found = seen.get((entry["series_uid"] or entry["description"], entry["sequence"]))
        entry["image_sequence"] = (found.sequence if found.known else "unknown") if found else None
        entry["image_confidence"] = round(found.confidence, 3) if found else None
        doubt = found.contradiction(entry["sequence"]) if found else None
        if doubt:
            entry["reason"] += f". But: {doubt}"


def _print_table(entries) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("Sequence", "Confidence", "Series", "Reason")
    for entry in entries:
        sequence = entry["sequence"] or "[dim]not used[/]"
        table.add_row(sequence, f"{entry['confidence']:.0%}", escape(entry["description"]), escape(entry["reason"]))
    Console().print(table)
