"""Did fine-tuning help? The same patients, never trained on, by the weights before and after."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..errors import InputError, OutputError
from ..inference.synthesizer import Synthesizer
from ..qa.image_metrics import compare
from ..study.volume import Volume
from ..training.layouts import PatientFiles, read_image
from .protocol import PatientCases


@dataclass(frozen=True)
class Row:
    """One target of one patient, made from all its other sequences; figures inside the body, before and after."""

    patient: str
    target: str
    sources: tuple[str, ...]
    ssim: tuple[float, float]
    psnr: tuple[float, float]
    mae: tuple[float, float]


def comparable(patients: Sequence[PatientFiles], note: Callable[[str], None]) -> list[PatientFiles]:
    """The patients with those of their images that can be read, two at least: what is wrong is told before a training.

    Args:
        note: takes a sentence for each image that cannot be read, and each patient who cannot be compared on.

    Raises InputError when nobody is left.
    """
    usable = []
    for one in patients:
        images = {}
        for sequence, file in one.images.items():
            try:
                read_image(sequence, file)
                images[sequence] = file
            except InputError as error:
                note(f"{one.name}: {sequence} is not compared on: {error}")
        if len(images) > 1:
            usable.append(replace(one, images=images))
        else:
            note(f"{one.name} is held out, but has no two sequences to compare before and after on.")
    if patients and not usable:
        raise InputError("No patient that is held out has two sequences: there is nothing to compare. Hold out others.")
    return usable


def before_after(
    before: Path, after: Path, patients: Sequence[PatientFiles],
    on_progress: Callable[[float, str], None] | None = None, note: Callable[[str], None] = lambda text: None,
) -> list[Row]:  # fmt: skip
    """Make every sequence of every patient from the others, on its own grid, by two sets of weights.

    The 24 middle slices of the target's body count; the acquired target alone sets the scale.

    Args:
        before, after: folders of weights.
        patients: with at least two sequences each, see ``comparable``.
        note: takes a sentence for each sequence that could not be compared on.
    """
    methods = [Synthesizer(folder) for folder in (before, after)]
    rows = []
    for number, files in enumerate(patients):
        patient = PatientCases(files.name, files.images, partial(_read, files))
        for target in patient.sequences:
            if on_progress is not None:
                on_progress(number / len(patients), f"Before and after: {target}")
            sources = tuple(sequence for sequence in patient.sequences if sequence != target)
            try:
                case = patient.case(sources, target, middle=True)
            except InputError as error:
                note(f"{files.name}: {target} is not compared on: {error}")
                continue
            figures = [compare(method.predict(case.study, target), case.truth, case.mask, case.study.grid.spacing)
                       for method in methods]
            rows.append(Row(files.name, target, sources, *(
                tuple(float(getattr(one, name)) for one in figures) for name in ("ssim", "psnr", "mae"))))
    return rows


def _read(files: PatientFiles) -> tuple[dict[str, Volume], None]:
    return {sequence: read_image(sequence, file) for sequence, file in files.images.items()}, None


def table(rows: Sequence[Row]) -> str:
    """Markdown: the mean over patients of each target, and of all."""
    lines = ["| target | cases | SSIM before | after | PSNR before | after | MAE before | after |",
             "|---|---|---|---|---|---|---|---|"]
    targets = list(dict.fromkeys(row.target for row in rows))
    for name in (*targets, "all"):
        chosen = [row for row in rows if name in (row.target, "all")]
        ssim, psnr, mae = (np.mean([getattr(row, key) for row in chosen], axis=0) for key in ("ssim", "psnr", "mae"))
        lines.append(f"| {name} | {len(chosen)} | {ssim[0]:.3f} | {ssim[1]:.3f} | {psnr[0]:.1f} | {psnr[1]:.1f} | "
                     f"{mae[0]:.3f} | {mae[1]:.3f} |")
    return "\n".join(lines) + "\n"


def write_before_after(rows: Sequence[Row], folder: Path) -> None:
    """``before_after.md`` and ``.json`` (each case) in the folder of the run. Raises OutputError."""
    cases = [{"patient": row.patient, "target": row.target, "sources": list(row.sources)} | {
        f"{key}_{when}": round(value, 4) for key in ("ssim", "psnr", "mae")
        for when, value in zip(("before", "after"), getattr(row, key), strict=True)} for row in rows]
    try:
        (folder / "before_after.md").write_text(table(rows), encoding="utf-8")
        (folder / "before_after.json").write_text(json.dumps(cases, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"The table could not be written to {folder.name}: {error.strerror or error}.") from error
