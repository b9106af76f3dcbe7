"""``npcsynth phantom``: a digital patient as DICOM, to try everything without a real one."""

from typing import Annotated

import typer

from .console import command, progress_bar, say
from .options import OutFolder, PhantomSize, Seed, Size

NAME = "phantom"


@command
def run(
    out: OutFolder,
    seed: Seed = 0,
    sequences: Annotated[str, typer.Option("--sequences", help="Sequences that are acquired.")] = "T1,T1C,T2,T2FS",
    size: Size = PhantomSize.full,
) -> None:
    """Make a digital head-and-neck patient: an MR study and its RTSTRUCT as DICOM files.

    [bold]Examples[/]

    [cyan]npcsynth phantom --out patient[/]

    [cyan]npcsynth phantom --out patient --seed 7 --sequences T1,T2,T2FS[/]
    """
    from ..output.folder import check_free, new_folder
    from ..vocabulary import parse_sequences

    acquired = parse_sequences(sequences)
    check_free(out)

    from ..phantom.patient import make_patient, write_dicom

    with progress_bar() as on_progress, new_folder(out) as temporary:
        on_progress(0.0, "Acquiring")
        patient = make_patient(seed, sequences=acquired, size=size.value)
        on_progress(0.7, "Writing DICOM")
        write_dicom(patient, temporary, acquired)
    say(f"Wrote {', '.join(acquired)} and an RTSTRUCT to {out}. This patient is simulated.")
