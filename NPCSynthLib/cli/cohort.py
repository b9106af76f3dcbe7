"""``npcsynth cohort check``: what a folder of patients holds and what is wrong with it, before a training run."""

from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from .console import command, print_json, progress_bar
from .options import AsJson

NAME = "cohort"

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Look after the patients to train on.")


@app.command("check")
@command
def check(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder of the patients.", exists=True, file_okay=False)
    ],
    look: Annotated[
        bool, typer.Option("--look", help="The network looks whether each image is what it is called.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Headers alone: seconds, also for hundreds of patients.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Tell which patients are there, what each is good for, and what is wrong.

    Layouts, found by themselves: [bold]<patient>/T1.nii.gz[/] … with label_….nii.gz; BraTS names; the public NPC set
    ([bold]001/T1WI/*.dcm[/] with [bold]ROI-T1.nii[/]), whose masks must be confirmed by their images; and one folder
    of DICOM for each patient. Exit code 3 when nothing can be trained on.

    [bold]Examples[/]

    [cyan]npcsynth cohort check our_patients[/]

    [cyan]npcsynth cohort check MRI-Segments --quick --json > cohort.json[/]
    """
    from ..training.cohort_check import check_cohort
    from ..training.layouts import find_cohort

    recognize = None
    if look and not quick:
        from ..inference.synthesizer import Synthesizer

        recognize = Synthesizer().recognize
    with progress_bar() as on_progress:
        cohort = find_cohort(folder, on_progress=lambda done, text: on_progress(0.2 * done, text))
        found = check_cohort(cohort, quick, recognize, lambda done, text: on_progress(0.2 + 0.8 * done, text))
    if json:
        print_json(_document(found))
    else:
        _print(found)
    if not found.trainable:
        raise InputError("No patient here can be trained on.")


def _document(found) -> dict:
    patients = [
        {
            "name": one.name, "layout": one.layout, "use": one.use,
            "sequences": {s: {"shape": list(size), "spacing_mm": list(mm)} for s, (size, mm) in one.sequences.items()},
            "needs_registration": not one.registered,
            "labels": [{"file": label.file, "of": label.of, "sits": label.sits, "how": label.how,
                        "confidence": label.confidence} for label in one.labels],
            "problems": list(one.problems),
        }
        for one in found.patients
    ]  # fmt: skip
    return {"layout": found.layout, "patients": patients, "problems": list(found.problems),
            "trainable": found.trainable, "memory_gib": round(found.memory_gib, 2)}


def _print(found) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("Patient", "Sequences", "Grids", "Labels", "Use", title=f"Layout: {escape(found.layout)}")
    uses = {"training": "training", "validation": "[yellow]validation[/]", "none": "[red]none[/]"}
    sits = {True: "[green]sits[/]", None: "[yellow]not confirmed[/]", False: "[red]see below[/]"}
    for one in found.patients:
        labels = [f"{escape(label.file)}: {sits[label.sits]}" for label in one.labels]
        table.add_row(escape(one.name), ", ".join(one.sequences), "one" if one.registered else "own",
                      "\n".join(labels), uses[one.use])
    console = Console()
    console.print(table)
    for sentence in found.problems:
        console.print(f"[yellow]•[/] {escape(sentence)}", soft_wrap=True)
    for one in found.patients:
        for sentence in one.problems:
            console.print(f"[yellow]•[/] {escape(f'{one.name}: {sentence}')}", soft_wrap=True)
    if any(one.use == "validation" for one in found.patients):
        console.print("Patients for validation are those of the published tables; they are never trained on.")
    if not all(one.registered for one in found.patients):
        console.print("Sequences on grids of their own are registered to each other when they are loaded.")
    console.print(f"{found.trainable} of {len(found.patients)} patients can be trained on; they take about "
                  f"{found.memory_gib:.1f} GiB of memory.")
