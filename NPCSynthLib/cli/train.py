"""``npcsynth train``: make weights of one's own."""

import os
from pathlib import Path
from typing import Annotated

import typer

from ..errors import Cancelled, UsageError
from .console import command, progress_bar, say, warn

NAME = "train"
_KINDS = ("cohorts", "heads", "labelmaps", "npc_t2")
_SHOWN = ("l1", "ssim", "segmentation", "wordings")


@command
def run(
    config_name: Annotated[
        str, typer.Argument(metavar="CONFIG", help="Name of a configuration that ships, or a file of your own.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for checkpoints and weights; a run in it is resumed.")],
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder with cohorts/ and labelmaps/.", exists=True, file_okay=False)
    ] = None,
    cohort: Annotated[
        Path | None,
        typer.Option("--cohort", help="Patients of your own, in any layout that `cohort check` knows.", exists=True,
                     file_okay=False),
    ] = None,
    hold_out: Annotated[
        list[str] | None,
        typer.Option("--hold-out", help="Patient of the cohort to compare before and after on; may be repeated."),
    ] = None,
    max_minutes: Annotated[float | None, typer.Option("--max-minutes", min=0, help="Stop after that long.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", help="Weights to start from, e.g. to fine-tune the shipped ones.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume/--fresh", help="Go on from the last checkpoint, or start anew.")
    ] = True,
) -> None:
    """Train weights on registered MR sequences and on simulated contrasts.

    Needs the "train" extra. Stop with Ctrl-C at any time and go on with the same command. The folder of the run holds
    log.csv, TensorBoard events and progress.png beside checkpoint and weights. On several GPUs: torchrun
    --nproc-per-node 4 -m NPCSynthLib train …

    Configurations: small-in-stages (small, segmentation and words, each on from the weights of the one before; two CPU
    cores, four hours), small (the network, two CPU cores), base (the same larger, one GPU), fine-tune
    (weights that are there, on patients of your own; see Resources/Docs/fine-tuning.md), segmentation (its head alone,
    further), words (the text tower alone, anew), and comparison/ours with what it is compared with:
    comparison/channel-unet, channel-unet-gan, pair-unets, swin-unetr, labels, slow-text, no-contrast, no-simulation,
    no-t1fs, share-25 and share-50; small-channel-unet, which small is compared with at its full budget.

    [bold]Examples[/]

    [cyan]npcsynth train small-in-stages --data data --out runs/first[/]

    [cyan]npcsynth train my.json --data data --out runs/mine --max-minutes 60[/]

    [cyan]npcsynth train fine-tune --from weights --cohort our_patients --hold-out 07 --hold-out 08 --out runs/ours[/]
    """
    try:
        import lightning_fabric  # noqa: F401  of the extra, and not imported before the run

        from ..evaluation.before_after import before_after, comparable, table, write_before_after
        from ..evaluation.calibration import finish
        from ..training.config import TrainingConfig
        from ..training.held_out import remember, seen_before, trained_before
        from ..training.stages import train_in_stages
    except ModuleNotFoundError as error:
        raise UsageError(f'Training needs {error.name}. Install NPCSynth with its "train" extra.') from error
    if data is None and cohort is None:
        raise UsageError("There is nothing to train on. Give --data, --cohort or both.")
    if hold_out and (cohort is None or start is None):
        raise UsageError("--hold-out compares before and after on patients of --cohort, by the weights of --from.")
    configs = [TrainingConfig.load(stage) for stage in TrainingConfig.stages(config_name)]
    if data is not None and not any((data / kind).is_dir() for kind in _KINDS):
        raise UsageError(f"{data} holds none of {', '.join(f'{kind}/' for kind in _KINDS)}: there is nothing in it to "
                         "train on. Give the folder that these are in.")
    # a run of words leaves all of that as it was
    calibrated = any(config.network == "any-to-all" and config.learns != "words" for config in configs)
    done, said = [], set()

    def note(sentence: str) -> None:
        if sentence not in said:
            said.add(sentence)
            warn([sentence])

    try:
        with progress_bar() as on_progress:
            patients, held = _patients(cohort, hold_out or [], note, on_progress)
            compared = comparable(held, note)
            before = trained_before(out, held, resume)
            for sentence in seen_before(start, held) if held else []:
                note(sentence)
            weights, unfinished = train_in_stages(
                config_name, data, out, resume=resume, max_minutes=max_minutes, start=start, cohort=patients,
                note=note, held_out=held, begin=lambda: remember(out, patients, held, before) if patients else None,
                on_step=lambda stage, step, steps, losses: on_progress(step / steps, _told(stage, step, steps, losses)),
            )
            if os.environ.get("RANK", "0") != "0":
                return  # of several processes the first one writes
            if calibrated and data is not None and not unfinished:
                done = finish(weights, data, on_progress, patients, held)
            rows = []
            if compared and not unfinished:
                rows = before_after(start, weights, compared, on_progress, note)
    except KeyboardInterrupt:
        raise Cancelled("Training stopped. The same command goes on from the last checkpoint.") from None
    if unfinished:
        say(f"Time was up in {unfinished}. The same command goes on from there.")
        return
    if calibrated and data is None:
        done = ["The uncertainty was not calibrated, and unusual images will go unnoticed: both take --data."]
    for sentence in done:
        say(sentence)
    if rows:
        write_before_after(rows, out)
        say(f"On the patients held out:\n\n{table(rows)}")
    say(f"Training ended. The weights are in {weights}; use them with --weights.")


def _patients(cohort: Path | None, hold_out: list[str], note, on_progress) -> tuple[list, list]:
    """(patients to train on, patients held out) of a cohort; ``note`` takes what is wrong by the headers."""
    from ..training.cohort_check import check_cohort
    from ..training.layouts import find_cohort, part

    if cohort is None:
        return [], []
    found = find_cohort(cohort, on_progress)
    checked = check_cohort(found, quick=True)
    by_patient = (f"{one.name}: {problem}" for one in checked.patients for problem in one.problems)
    for problem in (*checked.problems, *by_patient):
        note(problem)
    return part(found, hold_out)


def _told(stage: str, step: int, steps: int, losses: dict[str, float]) -> str:
    """How far a run is and what it has learnt, in one line."""
    figures = ", ".join(f"{name} {losses[name]:.3f}" for name in _SHOWN if name in losses)
    return f"{stage + ': step' if stage else 'Step'} {step} of {steps} ({figures})"
