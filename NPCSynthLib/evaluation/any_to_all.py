"""Every set of sources to every sequence that is not among them, beside every baseline."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.figure import Figure

from .methods import OURS, Method, ours, simple, trained
from .protocol import PatientCases, judge, validation_folders
from .section import Context, Plot, Section, Table
from .statistics import INTERVAL_NOTE, WORSE, cell, mean_and_interval, more_sources, paired, with_interval

#: Figure, heading, digits, and whether more is better.
_FIGURES = (("ssim", "SSIM", 3), ("psnr", "PSNR (dB)", 1), ("mae", "MAE", 3), ("sharpness", "sharpness", 2))


def run(context: Context) -> Section:
    """Measure every cell that is not measured yet, and compare."""
    methods = [ours(context), *trained(context), *simple(context)]
    rows = list(measure(context, methods))
    names = [method.name for method in methods]
    own = {name: [row for row in rows if row["method"] == name] for name in names}
    behind = _behind(rows)
    gain = more_sources(own[OURS])
    cells = len(own[OURS])
    extent = "all slices" if context.full else "the 24 middle slices"
    text = (
        "Every set of acquired sequences of a validation patient makes each sequence that is not in it, on the "
        f"acquired one's own grid, and is compared with it: {cells} cells, {extent}"
        f"{', single sources and all of them only' if context.quick else ''}. Inside the body, in 3D; 0 and 1 are the "
        "0.5 and 99.5 percentiles of the real image's body, and no prediction is rescaled by its own statistics.\n\n"
        f"{OURS} has the highest SSIM in {cells - len(behind)} of {cells} cells. " + _gain_text(gain)
    )
    tables = [
        _summary(own), _comparison(own), *([_deficits(behind)] if behind else []), _gains(own),
        *_parts(own), _cells(rows, names),
    ]  # fmt: skip
    plots = (Plot("cells", "SSIM of every cell, by method", _cells_figure(rows, names)),
             Plot("sources", "Mean SSIM by number of sources", _gain_figure(own)))
    return Section("Any to all", text, tuple(tables), plots)


def measure(context: Context, methods: Sequence[Method]) -> Iterator[dict]:
    """A row for each cell and method: what ``judge`` gives, and "patient", "sources" ("T1+T2"), "target", "method".

    Raises InputError when no validation patient is there.
    """
    patients = [PatientCases.of_folder(folder) for folder in validation_folders(context.data / "cohorts", least=1)]
    kept = context.kept("cells")
    asked = [(patient, *question) for patient in patients for question in patient.questions(few=context.quick)]
    for number, (patient, sources, target) in enumerate(asked):
        told = {"patient": patient.name, "sources": "+".join(sources), "target": target}
        for method in methods:
            context.on_progress(number / len(asked),
                                f"{patient.name}: {told['sources']} to {target}, {method.name}")
            key = {**told, "method": method.identity, "name": method.name, "middle": not context.full}
            case = lambda: patient.case(sources, target, middle=not context.full)  # noqa: E731
            yield {**told, "method": method.name, **kept.get(key, lambda: judge(method.predict, case()))}


def _summary(own: dict) -> Table:
    best = {}
    for rows in own.values():
        for row in rows:
            best[cell(row)] = max(best.get(cell(row), -np.inf), row["ssim"])
    lines = []
    for name, rows in own.items():
        top = sum(row["ssim"] == best[cell(row)] for row in rows)
        figures = [with_interval(rows, figure, digits) for figure, _, digits in _FIGURES]
        lines.append((name, *figures, f"{top} of {len(rows)}", float(np.median([row["seconds"] for row in rows]))))
    return Table("Methods", ("method", *(title for _, title, _ in _FIGURES), "highest SSIM in", "seconds a cell"),
                 tuple(lines), f"Means of {len({c[0] for c in best})} patients, each counting the same. "
                               f"{INTERVAL_NOTE} Sharpness below 1 is blurred.")  # fmt: skip


def _comparison(own: dict) -> Table:
    lines = []
    for name, rows in own.items():
        if name != OURS:
            for figure, title, _ in _FIGURES[:2]:
                found = paired(own[OURS], rows, figure)
                lines.append((name, title, f"{found['ahead']} of {found['cells']}", found["median"], found["worst"],
                              found["p"]))
    return Table(f"{OURS} against each method, cell by cell",
                 ("method", "figure", "ahead in", "median difference", "worst difference", "Wilcoxon p"), tuple(lines),
                 "Differences are ours minus theirs. Signed-rank test over cells, two-sided, not corrected for the "
                 "number of comparisons; cells of one patient are not independent, so that p is too small.")


def _behind(rows: Sequence[dict]) -> list[tuple]:
    """(patient, sources, target, ours, best method, its SSIM, deficit) of cells in which another method is ahead."""
    by_cell: dict = {}
    for row in rows:
        by_cell.setdefault(cell(row), {})[row["method"]] = row["ssim"]
    found = []
    for place, ssim in by_cell.items():
        best = max(ssim, key=ssim.get)
        if ssim[best] > ssim[OURS]:
            found.append((*place, ssim[OURS], best, ssim[best], ssim[OURS] - ssim[best]))
    return sorted(found, key=lambda line: line[-1])


def _deficits(behind: list[tuple]) -> Table:
    return Table(f"Where another method is ahead of {OURS}",
                 ("patient", "sources", "target", OURS, "best method", "its SSIM", "difference"), tuple(behind),
                 "SSIM, largest deficit first.")


def _gains(own: dict) -> Table:
    found = {name: more_sources(rows) for name, rows in own.items()}
    numbers = sorted({n for gain in found.values() for n in gain["means"]})
    lines = [(name, *(gain["means"].get(n) for n in numbers), gain["pairs"], gain["worse"], gain["change"])
             for name, gain in found.items()]
    heads = ("method", *(f"SSIM from {n}" for n in numbers), "pairs", "share worse", "mean change")
    return Table("More sources", heads, tuple(lines),
                 "Means over patients and targets that have the largest number of sources. Pairs: a set of sources "
                 f"and one that holds it and more; worse: SSIM lower by more than {WORSE}.")


def _gain_text(gain: dict) -> str:
    if not gain["pairs"]:
        return ""
    means = list(gain["means"].values())
    order = "rises with every further source" if all(a <= b for a, b in zip(means, means[1:])) else (
        "does not rise with every further source")
    return (f"Its mean SSIM {order} ({', '.join(f'{mean:.3f} from {n}' for n, mean in gain['means'].items())}); in "
            f"{gain['worse']:.0%} of {gain['pairs']} pairs the larger set of sources is worse.")


def _parts(own: dict) -> Iterator[Table]:
    """Lesions, and figures as papers give them."""
    lines = []
    for name, rows in own.items():
        here = [row for row in rows if row["lesion_psnr"] is not None]
        if here:
            lines.append((name, len(here), with_interval(here, "lesion_psnr", 1), with_interval(here, "lesion_mae")))
    if lines:
        yield Table("In lesions", ("method", "cells", "PSNR (dB)", "MAE"), tuple(lines),
                    f"Inside the lesion label dilated by 5 mm. {INTERVAL_NOTE}")
    lines = [(name, mean_and_interval(rows, "paper_ssim")[0], mean_and_interval(rows, "paper_psnr")[0])
             for name, rows in own.items()]
    yield Table("Paper-style", ("method", "SSIM", "PSNR (dB)"), tuple(lines),
                "Whole 224 x 224 8-bit slices, air included, as papers often report. Not comparable with the other "
                "tables, and hardly moved by a lesion that vanishes.")


def _cells(rows: Sequence[dict], names: Sequence[str]) -> Table:
    by_cell: dict = {}
    for row in rows:
        by_cell.setdefault(cell(row), {})[row["method"]] = row
    lines = [(*place, *(text for name in names for text in (
        f"{found[name]['ssim']:.3f} / {found[name]['psnr']:.1f} / {found[name]['mae']:.3f}",)))
        for place, found in by_cell.items()]  # fmt: skip
    return Table("Every cell", ("patient", "sources", "target", *names), tuple(lines), "SSIM / PSNR (dB) / MAE.")


def _cells_figure(rows: Sequence[dict], names: Sequence[str]) -> Figure:
    targets = list(dict.fromkeys((row["patient"], row["target"]) for row in rows))
    figure = Figure(figsize=(10, 4.5), layout="compressed")
    axis = figure.subplots()
    for shift, name in zip(np.linspace(-0.3, 0.3, len(names)), names, strict=True):
        own = [row for row in rows if row["method"] == name]
        axis.plot([targets.index((row["patient"], row["target"])) + shift for row in own],
                  [row["ssim"] for row in own], "o", markersize=5 if name == OURS else 3, alpha=0.8, label=name)
    axis.set_xticks(range(len(targets)), [f"{patient.split('/')[-1]}\n{target}" for patient, target in targets],
                    fontsize=8)
    axis.set_ylabel("SSIM in the body")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=7, ncols=2)
    return figure


def _gain_figure(own: dict) -> Figure:
    figure = Figure(figsize=(6, 4), layout="compressed")
    axis = figure.subplots()
    for name, rows in own.items():
        means = more_sources(rows)["means"]
        axis.plot(list(means), list(means.values()), "o-", linewidth=2.5 if name == OURS else 1, label=name)
    axis.set_xticks(sorted({n for rows in own.values() for n in more_sources(rows)["means"]}))
    axis.set_xlabel("number of sources")
    axis.set_ylabel("mean SSIM in the body")
    axis.legend(fontsize=7)
    return figure
