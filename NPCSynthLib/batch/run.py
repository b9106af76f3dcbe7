"""Runs the patients of a cohort one after the other; a bad one never stops the rest."""

import glob
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..errors import Cancelled, InputError, NPCSynthError, UsageError
from ..inference.request import SynthesisRequest
from ..output.discretion import discreet, without
from ..output.folder import MANIFEST, check_free
from ..study.build import volumes_from_folder
from .cohort import COMPLETE, CSV, DONE, FAILED, PAGE, RUNNING, STATE, WAITING, Cohort, Patient
from .summary import write_summary

#: Shares of a patient's progress.
_READING, _COMPUTING = 0.2, 0.75


def run_cohort(
    cohort: Cohort,
    computer,
    *,
    device: str | None = None,
    weights: Path | None = None,
    scene: bool = True,
    on_progress: Callable[[float, str], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    pause: Callable[[], bool] | None = None,
    on_patient: Callable[[Patient, Exception | None], None] | None = None,
) -> None:
    """Do what is left of a cohort: every patient that waits, and the one at which an earlier run was killed.

    Each result is written whole or not at all, into a folder of the batch's folder; the summary is written anew after
    each patient. Nothing of a patient stays in memory.

    Args:
        computer: ``inference.job.InProcess`` or ``inference.process.WorkerProcess``.
        device, weights: as in ``SynthesisRequest``.
        scene: write ``scene.mrb`` for each patient; not from a thread of Slicer, see ``output.write.write_result``.
        on_progress: called with the fraction 0..1 of the whole and a stage in words that names nobody.
        cancel: asked often. The patient at hand waits again then.
        pause: asked before each patient; true ends the run there.
        on_patient: called with each patient as it came out, and the error when it failed.

    Raises:
        Cancelled.
        UsageError: another program runs this cohort, or it was begun with other weights. WeightsError: there are no
        weights.
        OutputError: the batch's own files could not be written; what was finished is there.
    """
    wanted = cohort.settings.targets or computer.sequences(weights)
    with cohort.locked():
        _tidy_up(cohort)
        before = {patient.weights for patient in cohort.patients if patient.outcome == DONE}
        if before - {computer.network_sha256(weights)}:
            raise UsageError(f"The batch in {cohort.out} was begun with other weights, and its results must stay "
                             "comparable. Choose those again, or another folder.")  # fmt: skip
        left = [patient for patient in cohort.patients if patient.outcome == WAITING]
        for number, patient in enumerate(left):
            if pause is not None and pause():
                break

            def part(fraction: float, stage: str, number=number) -> None:
                if on_progress is not None:
                    on_progress((number + fraction) / len(left), f"Patient {number + 1} of {len(left)}: {stage}")

            if cancel is not None and cancel():
                raise Cancelled()
            if cohort.update(patient.name, outcome=RUNNING) is None:
                continue
            failure = None
            try:
                facts = _one(cohort, patient, computer, wanted, device, weights, scene, part, cancel)
            except Exception as error:
                if isinstance(error, Cancelled):
                    cohort.update(patient.name, outcome=WAITING)
                    raise
                failure, facts = error, {"outcome": FAILED, "error": _sentence(error)}
            except BaseException:  # Ctrl-C
                cohort.update(patient.name, outcome=WAITING)
                raise
            patient = cohort.update(patient.name, **facts)
            write_summary(cohort)
            if patient is not None and on_patient is not None:
                on_patient(patient, failure)
        write_summary(cohort)


def _one(cohort: Cohort, patient: Patient, computer, wanted, device, weights, scene, on_progress, cancel) -> dict:
    """The facts about one patient who was read, computed and written."""
    from ..output.write import write_result  # needs packages that Slicer installs when a run begins

    started = time.perf_counter()
    folder, settings, out = Path(patient.folder), cohort.settings, cohort.results(patient)
    if not folder.is_dir():
        raise InputError("The folder of this patient is no longer there. Bring it back, then retry what failed.")
    check_free(out)

    def part(low: float, high: float):
        return lambda fraction, stage: on_progress(low + (high - low) * fraction, stage)

    # Names of series may name the patient, and the stage is shown and logged: it stays with what is done.
    volumes, warnings, refused = volumes_from_folder(
        folder, lambda fraction, _name: on_progress(_READING * fraction, "Reading"), cancel)
    reading = time.perf_counter() - started
    targets = [sequence for sequence in wanted if sequence not in volumes]
    if not targets:
        names = [volume.name for volume in volumes.values()] + [name for name, _ in refused]
        told = (*warnings, *(f"A series was not used: {reason}" for _, reason in refused))
        remarks = tuple(dict.fromkeys(map(without(names), told)))
        if settings.segment:
            remarks += ("No contours were made: they come with the images, and none of those was missing.",)
        return {"outcome": COMPLETE, "sources": tuple(volumes), "warnings": remarks,
                "seconds": time.perf_counter() - started}  # fmt: skip
    if settings.dicom:
        from ..output.dicom_source import check_from_dicom
        from ..study.build import choose_reference

        reference = settings.reference if settings.reference in volumes else choose_reference(volumes)
        check_from_dicom(reference, {sequence: volume.metadata for sequence, volume in volumes.items()})
    request = SynthesisRequest(
        tuple(targets), settings.reference, settings.segment, device=device, weights=weights
    )
    study, result = computer.compute(
        volumes, request, on_progress=part(_READING, _READING + _COMPUTING), cancel=cancel
    )
    study = replace(study, warnings=(*warnings, *study.warnings), refused=refused)
    result = replace(result, seconds={"reading": reading, **result.seconds})
    on_progress(_READING + _COMPUTING, "Writing")
    files = None
    if settings.dicom:
        from ..output.dicom_source import files_below

        files = files_below(folder)
    document = write_result(result, study, out, dicom_files=files, enhanced=settings.enhanced,
                            deidentify=settings.deidentify, report=settings.report, scene=scene)  # fmt: skip
    return {**_facts(document), "seconds": time.perf_counter() - started}


def _facts(document: dict) -> dict:
    """What the list keeps of a result's provenance."""
    clean = discreet(document)
    unusual = tuple(document.get("unusual") or ())
    return {
        "outcome": DONE,
        "error": "",
        "sources": tuple(source["sequence"] for source in document["sources"]),
        "made": tuple(output["sequence"] for output in document["outputs"]),
        "mean_uncertainty": {output["sequence"]: output["mean_uncertainty"] for output in document["outputs"]},
        "warnings": tuple(dict.fromkeys(clean(one) for one in document["warnings"] if one not in unusual)),
        "unusual": tuple(clean(sentence) for sentence in unusual),
        "seconds": sum(document["seconds"].values()),
        "weights": document["weights"]["sha256"],
    }


def _sentence(error: Exception) -> str:
    if isinstance(error, NPCSynthError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The memory was too small for this study. Close other programs, then retry what failed."
    if isinstance(error, OSError):
        return f"A file could not be read or written ({error.strerror or type(error).__name__}). Retry what failed."
    return f"NPCSynth failed unexpectedly ({type(error).__name__}). This is an error of the program: please report it."


def _tidy_up(cohort: Cohort) -> None:
    """After a run that was killed: what is half written goes, and the patient at hand is done or waits again."""
    for name in (STATE, CSV, PAGE):
        for half in cohort.out.glob(f".{name}.????????.partial"):
            half.unlink(missing_ok=True)
    for patient in cohort.patients:
        for half in cohort.out.glob(f".{glob.escape(patient.name)}.????????.partial"):
            shutil.rmtree(half, ignore_errors=True)
        if patient.outcome != RUNNING:
            continue
        try:  # a result appears whole: when it is there, only the list had not been told
            facts = _facts(json.loads((cohort.results(patient) / MANIFEST).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            facts = {"outcome": WAITING}
        cohort.update(patient.name, **facts)
