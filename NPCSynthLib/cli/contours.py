"""``npcsynth contours``: how well do two sets of contours agree?"""

from pathlib import Path
from typing import Annotated

import typer

from .console import command, print_json, say, warn
from .options import AsJson

NAME = "contours"


@command
def run(
    reference: Annotated[Path, typer.Argument(help="RTSTRUCT, DICOM SEG, .seg.nrrd or label image of a person.")],
    predicted: Annotated[
        Path, typer.Argument(help="The same of a program, e.g. segmentation_synthetic.seg.nrrd of a result.")
    ],
    image: Annotated[
        Path, typer.Option("--image", help="The series that the contours belong to: folder or file.")
    ],
    csv: Annotated[Path | None, typer.Option("--csv", help="Also write table and notes to this new file.")] = None,
    json: AsJson = False,
) -> None:
    """Compare contours structure by structure: Dice, surface Dice, distances, volumes, worst slice.

    Slices are counted from 1 as they lie in the image, in axial DICOM series from below, whatever numbers its files
    have.

    Structures are matched by their TG-263 names and the usual aliases (GTVnx is GTVp, Lt Parotid is Parotid_L).

    [bold]Examples[/]

    [cyan]npcsynth contours RTSTRUCT.dcm result/segmentation_synthetic.seg.nrrd --image patient/01_t1_tse_tra[/]

    [cyan]npcsynth contours mine.seg.nrrd yours.seg.nrrd --image t1.nii.gz --csv agreement.csv[/]
    """
    from ..errors import UsageError
    from ..qa.contours import compare_contours, table_row, write_csv
    from ..study.contours import read_contours
    from ..study.read import read_folder

    if csv and csv.exists():
        raise UsageError(f"{csv} is there already, and is not overwritten. Choose another name.")
    found = read_folder(image)
    volumes = found.volumes
    if len(volumes) > 1:
        raise UsageError(f"{image.name} holds {len(volumes)} series ({', '.join(v.name for v in volumes)}). Give the "
                         "folder of the one that the contours belong to.")
    sides = [read_contours(path, volumes[0]) for path in (reference, predicted)]
    notes = tuple(dict.fromkeys([*found.warnings, *(note for side in sides for note in side.notes)]))
    warn(notes)
    agreements = compare_contours(*sides)
    if csv:
        write_csv(agreements, csv, notes)
        say(f"Wrote {csv}.")
    rows = [table_row(agreement) for agreement in agreements]
    if json:
        print_json({"structures": rows, "notes": list(notes)})
    else:
        _print_table(rows)


#: What is no agreement of two outlines has a table of its own: one for everything is wider than most terminals.
_SECOND = ("reference_name", "predicted_name", "reference_ml", "predicted_ml", "difference_ml", "worst_slice")


def _print_table(rows: list[dict]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    # A column in which nothing stands would take the room of one that says something.
    told = [key for key in rows[0] if key != "remark" and any(row[key] is not None for row in rows)]
    for keys in ([key for key in told if key not in _SECOND], ["structure", *(key for key in told if key in _SECOND)]):
        if len(keys) == 1:
            continue
        table = Table()
        for key in keys:
            numbers = any(isinstance(row[key], int | float) for row in rows)
            head = key.replace("_", " ").capitalize()
            if numbers:  # a narrow column under which no figure is cut off
                table.add_column(head.replace(" ", "\n"), justify="right", no_wrap=True)
            else:
                table.add_column(head, no_wrap=key == "structure")
        for row in rows:
            table.add_row(*(escape("" if row[key] is None else str(row[key])) for key in keys))
        console.print(table)
    for row in rows:
        if row["remark"]:
            console.print(escape(f"{row['structure']}: {row['remark']}"), soft_wrap=True, highlight=False)
