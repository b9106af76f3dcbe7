"""``npcsynth batch``: what ``npcsynth synthesize`` does, for many patients one after the other."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..errors import Cancelled, NPCSynthError, UsageError
from .console import command, messages, print_json, progress_bar, say, tracebacks_wanted, warn
from .options import AsJson, Deidentify, Device, Dicom, Enhanced, Reference, Report, Segment, Targets, Weights

NAME = "batch"


class BatchError(NPCSynthError):
    """Some patients failed; the others are there."""


@command
def run(
    cohort: Annotated[Path, typer.Argument(metavar="COHORT", help="Folder that holds one folder for each patient.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the batch: new, or that of a batch to go on with.")
    ],
    targets: Targets = None,
    segment: Segment = True,
    reference: Reference = None,
    numbered: Annotated[
        bool, typer.Option("--numbered", help="Call patients patient-001, patient-002, not by their folders' names.")
    ] = False,
    retry: Annotated[bool, typer.Option("--retry", help="Do the patients again that failed before.")] = False,
    report: Report = False,
    dicom: Dicom = False,
    enhanced: Enhanced = False,
    deidentify: Deidentify = False,
    device: Device = None,
    weights: Weights = None,
    json: AsJson = False,
) -> None:
    """Make the missing sequences of many patients, one after the other.

    Each folder in COHORT is a patient. The batch's folder gets a folder of results for each, as
    [cyan]npcsynth synthesize[/] writes it, summary.csv, summary.html, and batch.json, which remembers how far it is:
    after Ctrl-C or a crash the same command goes on where it was. A patient who fails never stops the rest;
    [cyan]--retry[/] does those again.

    batch.json holds the folders' names, also with [cyan]--numbered[/]: it is the key to the numbers.

    [bold]Examples[/]

    [cyan]npcsynth batch cohort/ --out results[/]

    [cyan]npcsynth batch cohort/ --out results --targets T1C,FLAIR --report --numbered[/]

    [cyan]npcsynth batch cohort/ --out results --retry[/]
    """
    from ..batch.cohort import CSV, FAILED, PAGE, Cohort, Settings, patient_folders
    from ..batch.summary import counts, error_of
    from ..vocabulary import get_sequence, parse_sequences

    if (enhanced or deidentify) and not dicom:
        raise UsageError("--enhanced and --deidentify say how DICOM is written. Add --dicom.")
    settings = Settings(
        parse_sequences(targets) if targets is not None else None, get_sequence(reference).id if reference else None,
        segment, report, dicom, enhanced, deidentify, numbered=numbered,
    )  # fmt: skip
    folders = patient_folders(cohort, out)
    batch = Cohort(out, settings)

    from ..batch.run import run_cohort
    from ..inference.job import InProcess

    computer = InProcess(weights=weights)

    def on_patient(patient, error):
        if error is not None and tracebacks_wanted():
            from rich.traceback import Traceback

            messages.print(Traceback.from_exception(type(error), error, error.__traceback__))
        told = f"failed: {error_of(batch, patient)}" if patient.outcome == FAILED else \
            f"{patient.outcome}{': ' + ', '.join(patient.made) if patient.made else ''} ({patient.seconds:.0f} s)"
        remarks = len(patient.unusual) + len(patient.warnings)
        say(f"{patient.name}: {told}{f'; {remarks} remarks' if remarks else ''}")
        warn(f"{patient.name}: {sentence}" for sentence in patient.unusual)

    with progress_bar() as on_progress:
        on_progress(0.0, "Loading weights")
        computer.synthesizer(device)  # weights that are missing or damaged stop here, not at every patient
        batch.add(folders)
        if retry:
            batch.retry_failed()
        try:
            run_cohort(batch, computer, device=device, on_progress=on_progress, on_patient=on_patient)
        except (KeyboardInterrupt, Cancelled) as error:
            done = sum(patient.finished for patient in batch.patients)
            raise Cancelled(f"Canceled. {done} of {len(batch.patients)} patients are finished; the same command goes "
                            "on with the rest.") from error  # fmt: skip
    total = counts(batch.patients)
    if json:
        print_json({"outcomes": total, "patients": [
            {key: value for key, value in asdict(patient).items() if not (numbered and key in ("folder", "error"))}
            | {"error": error_of(batch, patient)} for patient in batch.patients
        ]})  # fmt: skip
    if deidentify:
        warn(["Only the folders dicom are de-identified: what lies beside them still identifies the patients."])
    failed = total.get(FAILED, 0)
    if failed:
        raise BatchError(f"{failed} of {len(batch.patients)} patients failed, see {CSV} in {out}. When the cause is "
                         "removed, the same command with --retry does them again.")  # fmt: skip
    outcomes = ", ".join(f"{number} {outcome}" for outcome, number in total.items())
    say(f"{len(batch.patients)} patients in {out}: {outcomes}. {PAGE} there holds all remarks. Synthetic images: "
        "research use only.")
