"""Options that several commands share, so that they mean and read the same everywhere."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

OutFolder = Annotated[Path, typer.Option("--out", help="Folder to write; made anew, whole or not at all.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace earlier NPCSynth results in the folder.")]
Device = Annotated[
    str | None,
    typer.Option("--device", help="auto, cuda, mps or cpu. [dim]Default: auto, the best one there is.[/]"),
]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="Folder of weights. [dim]Default: those that ship with NPCSynth.[/]")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]

Targets = Annotated[
    str | None,
    typer.Option("--targets", help="Sequences to make, e.g. T1C,T2FS. [dim]Default: all missing ones.[/]"),
]
Segment = Annotated[bool, typer.Option("--segment/--no-segment", help="Segment tumor and organs at risk.")]
Reference = Annotated[
    str | None, typer.Option("--reference", help="Source whose grid the results take. [dim]Default: the best one.[/]")
]
Dicom = Annotated[bool, typer.Option("--dicom", help="Write DICOM objects too, into the folder dicom of the results.")]
Enhanced = Annotated[
    bool, typer.Option("--enhanced", help="One multi-frame MR file for each sequence instead of one file a slice.")
]
Deidentify = Annotated[
    bool, typer.Option("--deidentify", help="Take identity out of the DICOM files (PS3.15 basic profile).")
]
Report = Annotated[
    bool, typer.Option("--report", help="Write report.html too: pictures, figures and a checklist; names nobody.")
]


class PhantomSize(str, Enum):
    """How finely the digital patient is made."""

    small = "small"
    full = "full"


Seed = Annotated[int, typer.Option("--seed", min=0, help="The same number gives the same patient.")]
Size = Annotated[
    PhantomSize, typer.Option("--size", help="full: 1 mm anatomy, about half a minute; small: 4 mm, for a quick try.")
]
