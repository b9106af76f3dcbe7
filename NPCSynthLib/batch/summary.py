"""What came of a cohort, as a table for people (HTML) and one for programs (CSV)."""

import csv
import io
import re
from collections import Counter
from collections.abc import Sequence
from urllib.parse import quote

from ..output.discretion import GAP, without
from ..output.folder import REPORT, write_whole
from ..output.page import Markup, bullets, page, section, table, text
from ..output.provenance import LIMITS, UNITS
from .cohort import CSV, DONE, FAILED, PAGE, Cohort, Patient

TITLE = "NPCSynth: several patients, synthetic images, research use only"
COLUMNS = ("patient", "outcome", "sources", "made", "mean_uncertainty", "unusual", "warnings", "seconds", "weights",
           "error")  # fmt: skip


def write_summary(cohort: Cohort) -> None:
    """Write ``summary.csv`` and ``summary.html`` into the batch's folder. Raises OutputError."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS)
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows(cohort))
    write_whole(cohort.out / CSV, stream.getvalue())
    write_whole(cohort.out / PAGE, _page(cohort))


def rows(cohort: Cohort) -> list[dict]:
    """One row a patient, plain values under ``COLUMNS``; where patients are numbered nothing in it names them."""
    found = []
    for patient in cohort.patients:
        uncertainty = patient.mean_uncertainty or {}
        found.append({
            "patient": patient.name, "outcome": patient.outcome, "sources": " ".join(patient.sources),
            "made": " ".join(patient.made),
            "mean_uncertainty": " ".join(f"{sequence} {value:.0f}" for sequence, value in uncertainty.items()),
            "unusual": " ".join(patient.unusual), "warnings": " ".join(patient.warnings),
            "seconds": round(patient.seconds, 1) if patient.seconds else "", "weights": patient.weights[:12],
            "error": error_of(cohort, patient),
        })  # fmt: skip
    return found


def error_of(cohort: Cohort, patient: Patient) -> str:
    """Why a patient failed; where patients are numbered, only what is sure to name neither folder nor series."""
    if not cohort.settings.numbered or not patient.error:
        return patient.error
    first = re.split(r"(?<=[.!?]) ", patient.error)[0]
    parts = patient.folder.replace("\\", "/").split("/")[-2:]
    return without([], parts)(first.replace(patient.folder, GAP))


def counts(patients: Sequence[Patient]) -> dict[str, int]:
    """Outcome -> number of patients, those that occur."""
    return dict(Counter(patient.outcome for patient in patients))


def _cell(value):
    """Spreadsheets take text that begins like this for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _page(cohort: Cohort) -> str:
    told = ", ".join(f"{number} {outcome}" for outcome, number in counts(cohort.patients).items()) or "no patients"
    lines = []
    for patient, row in zip(cohort.patients, rows(cohort)):
        name = row["patient"]
        if patient.outcome == DONE and (cohort.results(patient) / REPORT).is_file():
            name = Markup(f"<a href='{quote(patient.name)}/{REPORT}'>{text(name)}</a>")
        remarks = [*([row["error"]] if patient.outcome == FAILED else []), *patient.unusual, *patient.warnings]
        lines.append((
            name, row["outcome"], row["sources"], row["made"],
            row["mean_uncertainty"], f"{patient.seconds:.0f}" if patient.seconds else "",
            Markup(bullets(dict.fromkeys(remarks))) if remarks else "",
        ))  # fmt: skip
    head = ("Patient", "Outcome", "Acquired", "Synthetic", "Mean uncertainty", "Seconds", "Remarks")
    caption = f"Uncertainty: predicted mean absolute error within the body. {UNITS}"
    return page(TITLE, (
        "<header><p class='mark'>SYNTHETIC &ndash; research use only</p><h1>NPCSynth: several patients</h1>"
        f"<p>{len(cohort.patients)} patients: {text(told)}.</p></header>"
        + section("Limits", bullets(LIMITS), "limits")
        + section("Patients", table(head, lines, caption, "wide"))
    ))  # fmt: skip
