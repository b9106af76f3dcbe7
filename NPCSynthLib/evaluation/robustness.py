"""How much is lost when the sources are noisy, shaded, displaced, incomplete or coarser than usual?"""

import dataclasses
from collections.abc import Sequence
from functools import cache, partial

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage

from ..inference.slicing import Slicing
from ..qa.image_metrics import compare
from ..study.normalize import CLIP, normalize, percentiles
from ..study.study import Source
from .methods import OURS, Method, ours, simple, trained
from .protocol import Case, PatientCases, validation_folders
from .section import Context, Plot, Section, Table

#: Kind of damage: what its levels are, the level of an undamaged image, and the levels that are measured.
DAMAGES = {
    "noise": ("Rician noise, standard deviation in % of the gray scale", 0, (2, 5, 10, 15)),
    "bias": ("coil shading, standard deviation of its logarithm in %", 0, (10, 20, 30, 40)),
    "shift": ("first source displaced within the slice, mm", 0, (1, 2, 3, 5)),
    "dropped slices": ("slices missing and interpolated, %", 0, (10, 25, 50)),
    "thickness": ("slices thicker, times", 1, (2, 3)),
}
#: Nearer to the scanner's zero than this, in shares of the gray scale, is what skull stripping left blank.
_BLANK = 1e-3
#: A loss of SSIM that is looked for.
LOSS = 0.05


def run(context: Context) -> Section:
    """Measure every level that is not measured yet, for ours and every baseline."""
    methods = [ours(context), *trained(context), *(m for m in simple(context) if m.name == "voxel regression")]
    curves, cells = _curves(context, methods)
    lines, verdicts = [], []
    for kind, (unit, _, _) in DAMAGES.items():
        for method in methods:
            curve = curves[kind][method.name]
            lost = level_of_loss(curve)
            most = max(curve)
            lines.append((kind, unit, method.name, curve[min(curve)], curve[most], slope(curve),
                          f"not up to {most:g}" if lost is None else lost))
            if method.name == OURS:
                verdicts.append(f"{kind} {'more than ' if lost is None else ''}{most if lost is None else lost:.3g}")
    text = (
        f"The sources of {cells} cells (all sequences of a validation patient but one make that one, 24 middle "
        "slices) are damaged at growing levels after they were brought to the common scale, and scaled again; the real "
        "target is not. Every source is damaged alike, but only the first one is displaced. Beside the baselines that "
        "were given stands voxel regression.\n\n"
        f"{OURS} loses {LOSS} SSIM at: {', '.join(verdicts)} (units in the table)."
    )
    points = [(kind, level, *(curves[kind][m.name][level] for m in methods))
              for kind in DAMAGES for level in curves[kind][methods[0].name]]
    return Section("Robustness", text, (
        Table("Loss of SSIM", ("damage", "levels in", "method", "undamaged", "at the highest level", "slope a unit",
                               f"level at which {LOSS} is lost"), tuple(lines),
              "Mean SSIM in the body. The slope is that of a straight line through all levels."),
        Table("Mean SSIM at every level", ("damage", "level", *(m.name for m in methods)), tuple(points)),
    ), (Plot("curves", "Mean SSIM in the body by level of damage", _figure(curves)),))  # fmt: skip


def damaged(case: Case, kind: str, level: float, seed: int = 0) -> Case:
    """The case with damaged sources (see ``DAMAGES``); the truth and where it is judged stay as they are."""
    across, down, right = Slicing.plan(case.study.grid, 1).order
    spacing = case.study.grid.spacing[::-1]
    sources = []
    for number, source in enumerate(case.study.sources):
        rng = np.random.default_rng([seed, number, list(DAMAGES).index(kind)])
        array, zero = source.array, _zero(source)
        if kind == "noise":
            # what skull stripping left blank stays blank
            sigma = np.float32(level / 100)
            real, imaginary = sigma * rng.standard_normal((2, *array.shape), np.float32)
            seen = source.inside & (np.abs(array - zero) > _BLANK)
            array = np.where(seen, np.hypot(array - zero + real, imaginary) + zero, array)
        elif kind == "bias":
            field = ndimage.zoom(rng.standard_normal((4, 4, 4)), np.array(array.shape) / 4, order=3, grid_mode=True,
                                 mode="grid-constant").astype(np.float32)
            field = (field - field.mean()) / field.std()
            array = (array - zero) * np.exp(np.float32(level / 100) * field) + zero
        elif kind == "shift" and number == 0:
            angle = rng.uniform(0, 2 * np.pi)
            move = np.zeros(3)
            move[[down, right]] = level * np.array((np.sin(angle), np.cos(angle))) / spacing[[down, right]]
            array = ndimage.shift(array, move, order=1, mode="nearest")
        elif kind == "dropped slices":
            count = array.shape[across]
            inner = rng.permutation(np.arange(1, count - 1))[: round(level / 100 * count)]
            array = _from_slices(array, across, np.setdiff1d(np.arange(count), inner))
        elif kind == "thickness":
            array = _thicker(array, across, int(level))
        if array is not source.array:
            array = _rescaled(array, source.array, case.study.body & source.inside)
        sources.append(dataclasses.replace(source, array=array))
    return dataclasses.replace(case, study=dataclasses.replace(case.study, sources=tuple(sources)))


def _zero(source: Source) -> np.float32:
    """Where the scanner's zero lies on the common scale, on which noise and shading would act otherwise than there."""
    low, high = source.intensity_range
    return np.float32(max(-low / (high - low), CLIP[0]))


def slope(curve: dict[float, float]) -> float:
    """Of the straight line through the points, by least squares."""
    return float(np.polyfit(list(curve), list(curve.values()), 1)[0])


def level_of_loss(curve: dict[float, float]) -> float | None:
    """The level, on straight lines between the measured ones, at which ``LOSS`` is lost; None when it never is."""
    levels = sorted(curve)
    limit = curve[levels[0]] - LOSS
    for low, high in zip(levels, levels[1:]):
        if curve[high] <= limit:
            return low + (high - low) * (curve[low] - limit) / (curve[low] - curve[high])
    return None


def _curves(context: Context, methods: Sequence[Method]) -> tuple[dict, int]:
    """{damage: {method: {level: mean SSIM over cells}}} and the number of cells."""
    kept, cells = context.kept("robustness"), []
    for folder in validation_folders(context.data / "cohorts", least=1):
        patient = PatientCases.of_folder(folder)
        targets = patient.sequences if context.full else patient.sequences[1::2][: 1 if context.quick else None]
        cells += [(patient, target) for target in targets]
    levels = {kind: (clean, *(chosen[1::2] if context.quick else chosen))
              for kind, (_, clean, chosen) in DAMAGES.items()}
    found = {kind: {m.name: {level: [] for level in levels[kind]} for m in methods} for kind in DAMAGES}
    total = len(cells) * sum(map(len, levels.values()))
    done = 0
    for number, (patient, target) in enumerate(cells):
        sources = tuple(s for s in patient.sequences if s != target)
        for kind in DAMAGES:
            for level in levels[kind]:
                context.on_progress(done / total, f"{patient.name}, {target}: {kind} {level}")
                done += 1
                clean = level == DAMAGES[kind][1]
                # made for the first method that was not measured yet, if there is one
                case = cache(partial(_case, patient, sources, target, None if clean else kind, level, number))
                for method in methods:
                    key = {"patient": patient.name, "target": target, "method": method.identity, "name": method.name,
                           "kind": "none" if clean else kind, "level": level if not clean else 0}
                    row = kept.get(key, lambda: _ssim(method, case()))
                    found[kind][method.name][level].append(row["ssim"])
    curves = {kind: {name: {level: float(np.mean(values)) for level, values in by_level.items()}
                     for name, by_level in by_method.items()} for kind, by_method in found.items()}
    return curves, len(cells)


def _case(patient: PatientCases, sources: tuple, target: str, kind: str | None, level: float, seed: int) -> Case:
    case = patient.case(sources, target, middle=True)
    return case if kind is None else damaged(case, kind, level, seed)


def _ssim(method: Method, case: Case) -> dict:
    made = np.asarray(method.predict(case.study, case.target), np.float32)
    figures = compare(made, case.truth, case.mask, case.study.grid.spacing)
    return {"ssim": figures.ssim, "psnr": figures.psnr}


def _rescaled(array: np.ndarray, clean: np.ndarray, body: np.ndarray) -> np.ndarray:
    """As normalizing the damaged image would have it: its body percentiles are brought to those of the clean one."""
    low, high = percentiles(clean, body)
    return normalize(array, *percentiles(array, body)) * np.float32(high - low) + np.float32(low)


def _from_slices(array: np.ndarray, axis: int, kept: np.ndarray) -> np.ndarray:
    """All slices from those that are kept, by linear interpolation."""
    moved = np.moveaxis(array, axis, 0)
    wanted = np.arange(len(moved))
    above = np.searchsorted(kept, wanted).clip(0, len(kept) - 1)
    below = np.where(kept[above] > wanted, above - 1, above)
    part = (wanted - kept[below]) / np.maximum(kept[above] - kept[below], 1)
    part = part.astype(np.float32)[:, None, None]
    return np.moveaxis(moved[kept[below]] * (1 - part) + moved[kept[above]] * part, 0, axis)


def _thicker(array: np.ndarray, axis: int, times: int) -> np.ndarray:
    """Slices averaged in groups, then interpolated back to where they were."""
    moved = np.moveaxis(array, axis, 0)
    groups = [moved[first : first + times] for first in range(0, len(moved), times)]
    thick = np.stack([group.mean(axis=0) for group in groups])
    centers = np.array([first + (len(group) - 1) / 2 for first, group in zip(range(0, len(moved), times), groups)])
    place = np.interp(np.arange(len(moved)), centers, np.arange(len(centers)))
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, len(thick) - 1)
    part = (place - below).astype(np.float32)[:, None, None]
    return np.moveaxis(thick[below] * (1 - part) + thick[above] * part, 0, axis).astype(np.float32)


def _figure(curves: dict) -> Figure:
    figure = Figure(figsize=(3 * len(curves), 3.4), layout="compressed")
    for axis, (kind, by_method) in zip(figure.subplots(1, len(curves), sharey=True), curves.items(), strict=True):
        for name, curve in by_method.items():
            axis.plot(list(curve), list(curve.values()), "o-", markersize=3, linewidth=2.2 if name == OURS else 1,
                      label=name)
        axis.set_title(kind, fontsize=10)
        axis.set_xlabel(DAMAGES[kind][0], fontsize=6)
        axis.grid(alpha=0.3)
    figure.axes[0].set_ylabel("SSIM in the body")
    figure.axes[0].legend(fontsize=7)
    return figure
