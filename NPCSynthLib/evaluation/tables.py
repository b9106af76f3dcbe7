"""Tables of an evaluation: Markdown for people, CSV and JSON for programs."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import OutputError

_FIGURES = ("ssim", "psnr", "mae", "sharpness")
_BOOTSTRAPS = 2000


def write_tables(rows: Sequence[dict], out: str | Path) -> list[Path]:
    """Write validation.md, validation.csv and validation.json into the folder ``out``; rows as from ``evaluate``.

    Raises OutputError when the folder cannot be written.
    """
    out = Path(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / f"validation.{kind}" for kind in ("md", "csv", "json")]
        paths[0].write_text(markdown(rows), encoding="utf-8")
        with paths[1].open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        paths[2].write_text(json.dumps({"summary": summary(rows), "rows": list(rows)}, indent=1), encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f'The tables could not be written to "{out.name}" ({error.strerror}). Choose another folder.') from error
    return paths


def summary(rows: Sequence[dict]) -> dict[str, dict]:
    """Means by method, each patient counting the same.

    Returns {method: {"patients", "cells", figure: {"mean", "low", "high"}, "best_ssim": cells in which its SSIM is the
    highest}}. low and high are a 95 % bootstrap interval over patients, None for fewer than three patients.
    """
    best = {}
    for row in rows:
        if _cell(row) not in best or row["ssim"] > best[_cell(row)]["ssim"]:
            best[_cell(row)] = row
    result = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method]
        patients = list(dict.fromkeys((row["cohort"], row["patient"]) for row in own))
        entry = {"patients": len(patients), "cells": len(own),
                 "best_ssim": sum(row["method"] == method for row in best.values())}
        for figure in _FIGURES:
            means = [np.mean([r[figure] for r in own if (r["cohort"], r["patient"]) == p]) for p in patients]
            entry[figure] = _interval(np.array(means))
        result[method] = entry
    return result


def markdown(rows: Sequence[dict]) -> str:
    """The summary and one table for each patient, in Markdown."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    lines = [
        "# Validation", "",
        "Inside the body, 3D, data range 1 = 0.5-99.5 percentile of the real target's body: SSIM / PSNR (dB) / MAE.",
        "Predictions are never rescaled by their own statistics. The best SSIM of a row is bold.", "",
        "| method | SSIM | PSNR | MAE | sharpness | best SSIM in |", "|---|---|---|---|---|---|",
    ]
    for method, entry in summary(rows).items():
        figures = " | ".join(_with_interval(entry[f], 1 if f == "psnr" else 3) for f in _FIGURES)
        lines.append(f"| {method} | {figures} | {entry['best_ssim']} of {entry['cells']} |")
    for cohort, patient in dict.fromkeys((row["cohort"], row["patient"]) for row in rows):
        own = [row for row in rows if (row["cohort"], row["patient"]) == (cohort, patient)]
        lines += ["", f"## {cohort} {patient}", "", "| sources | target | " + " | ".join(methods) + " |",
                  "|---" * (len(methods) + 2) + "|"]
        for cell in dict.fromkeys(_cell(row) for row in own):
            by_method = {row["method"]: row for row in own if _cell(row) == cell}
            top = max(row["ssim"] for row in by_method.values())
            texts = []
            for method in methods:
                row = by_method[method]
                ssim = f"**{row['ssim']:.3f}**" if row["ssim"] == top else f"{row['ssim']:.3f}"
                texts.append(f"{ssim} / {row['psnr']:.1f} / {row['mae']:.3f}")
            lines.append(f"| {cell[2]} | {cell[3]} | " + " | ".join(texts) + " |")
    lines += _part(rows, "lesion", "Lesions (label dilated by 5 mm): PSNR (dB), MAE")
    lines += _part(rows, "paper", "Paper-style (whole 224 x 224 8-bit slices, air included): PSNR (dB), SSIM. "
                                  "Not comparable with the tables above; says little about lesions")
    return "\n".join(lines) + "\n"


def _part(rows: Sequence[dict], prefix: str, title: str) -> list[str]:
    """Means of the extra figures by method, where there are any."""
    keys = [key for key in rows[0] if key.startswith(f"{prefix}_")]
    keys.sort(key=lambda key: not key.endswith("psnr"))
    lines = []
    for method in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == method and all(row[key] is not None for key in keys)]
        if own:
            lines.append(f"| {method} | " + " | ".join(f"{np.mean([r[key] for r in own]):.3f}" for key in keys) + " |")
    if not lines:
        return []
    names = [key.removeprefix(f"{prefix}_").upper() for key in keys]
    return ["", f"## {title}", "", "| method | " + " | ".join(names) + " |", "|---" * (len(keys) + 1) + "|", *lines]


def _cell(row: dict) -> tuple[str, str, str, str]:
    return row["cohort"], row["patient"], row["sources"], row["target"]


def _interval(values: np.ndarray) -> dict:
    mean = float(values.mean())
    if len(values) < 3:
        return {"mean": mean, "low": None, "high": None}
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (_BOOTSTRAPS, len(values)))].mean(axis=1)
    low, high = np.percentile(means, (2.5, 97.5))
    return {"mean": mean, "low": float(low), "high": float(high)}


def _with_interval(entry: dict, digits: int) -> str:
    text = f"{entry['mean']:.{digits}f}"
    if entry["low"] is not None:
        text += f" [{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]"
    return text
