"""Did fine-tuning help? The same patients, never trained on, by the weights before and after."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..errors import InputError, OutputError
from ..inference.synthesizer import Synthesizer
from ..qa.image_metrics import compare
from ..study.build import build_study
from ..study.normalize import body_mask
from ..study.study import Study
from .layouts import PatientFiles, read_image

_SLICES = 24


@dataclass(frozen=True)
class Row:
    """One target of one patient, made from all its other sequences; figures inside the body, before and after."""

    patient: str
    target: str
    sources: tuple[str, ...]
    ssim: tuple[float, float]
    psnr: tuple[float, float]
    mae: tuple[float, float]


def before_after(
    before: Path, after: Path, patients: Sequence[PatientFiles], on_progress: Callable[[float, str], None] | None = None
) -> list[Row]:
    """Make every sequence of every patient from the others, on its own grid, by two sets of weights.

    The 24 middle slices of the target's body count; the acquired target alone sets the scale.

    Args:
        before, after: folders of weights.
        patients: with at least two sequences each; others are passed over.

    Raises InputError when there is nothing to compare.
    """
    methods = [Synthesizer(folder) for folder in (before, after)]
    rows = []
    for number, files in enumerate(patients):
        volumes = {sequence: read_image(sequence, file) for sequence, file in files.images.items()}
        for target in volumes if len(volumes) > 1 else ():
            if on_progress is not None:
                on_progress(number / len(patients), f"Before and after: {target}")
            study, truth, mask = _question(volumes, target)
            figures = [compare(method.predict(study, target), truth, mask, study.grid.spacing) for method in methods]
            sources = tuple(source.sequence for source in study.sources)
            rows.append(Row(files.name, target, sources, *(
                tuple(float(getattr(one, name)) for one in figures) for name in ("ssim", "psnr", "mae"))))
    if not rows:
        raise InputError("No patient that was held out has two sequences: there is nothing to compare.")
    return rows


def _question(volumes: dict, target: str) -> tuple[Study, np.ndarray, np.ndarray]:
    """(sources on the target's grid, the target on its own scale, where to judge), the middle slices."""
    grid = volumes[target].grid
    one_grid = all(grid.matches(volume.grid, 1e-2) for volume in volumes.values())
    whole = build_study(volumes, reference=target, register=not one_grid)
    sources = tuple(source for source in whole.sources if source.sequence != target)
    seen = np.sum([source.inside for source in sources], axis=0)
    votes = np.sum([body_mask(s.array, grid.spacing) & s.inside for s in sources], axis=0)
    mask = body_mask(volumes[target].array, grid.spacing) & (seen > 0)
    rows = np.flatnonzero(mask.any(axis=(1, 2)))
    first = max(0, int(rows[0] + rows[-1] + 1 - _SLICES) // 2)
    part = slice(first, first + _SLICES)
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, 3] += matrix[:3, 2] * first
    sources = tuple(replace(s, array=s.array[part], inside=s.inside[part]) for s in sources)
    body = ((votes > 0) & (2 * votes >= seen))[part]
    study = replace(whole, grid=replace(grid, shape=body.shape, ijk_to_lps=matrix), reference=sources[0].sequence,
                    sources=sources, body=body)
    return study, whole.source(target).array[part], mask[part]


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
