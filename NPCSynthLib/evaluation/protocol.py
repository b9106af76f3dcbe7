"""Judge a synthesis on real patients: every set of sources to every sequence that is not among them.

The prediction is made on the acquired target's own grid and compared with it there, voxel by voxel, without
interpolating the truth. The truth's scale (0 and 1 are the 0.5 and 99.5 percentiles of its own body) is the only one.
The sources' bodies alone make up the body that the method is given; the target's body is where it is judged.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..qa.image_metrics import compare, errors_within, paper_style
from ..study.align import resample
from ..study.build import build_study
from ..study.normalize import body_mask
from ..study.read import read_file
from ..study.study import Study
from ..study.volume import Grid, Volume
from ..training.split import VALIDATION
from ..vocabulary import load_sequences
from .baselines import Predict, all_baselines, training_voxels
from .tables import write_tables

LESION_MARGIN_MM = 5.0
_QUICK_SLICES = 24
#: Paper-style figures use every n-th slice.
_PAPER_STEP = 4


def evaluate(
    predict: Predict | None,
    baselines: Mapping[str, Predict] | None = None,
    cohorts_dir: str | Path = "cohorts",
    out: str | Path | None = None,
    name: str = "NPCSynth",
    quick: bool = False,
    on_progress: Callable[[float, str], None] | None = None,
) -> list[dict]:
    """Run the protocol on the validation patients and write the tables.

    Args:
        predict: ``predict(study, target_id) -> (k, j, i) float32`` on ``study.grid``, 0 and 1 the body percentiles;
            None to judge the baselines alone.
        baselines: name -> predict; None fits all of ``baselines.py`` to the training patients in ``cohorts_dir``.
        cohorts_dir: folder of ``<cohort>/<patient>/<SEQUENCE>.nii.gz`` and ``label_*.nii.gz``.
        out: folder for validation.md, .csv and .json; None writes nothing.
        quick: single sources and all-but-one only, on the 24 middle slices.

    Returns:
        One row for each patient, set of sources, target and method: {"cohort", "patient", "sources" ("T1+T2"),
        "target", "method", "ssim", "psnr", "mae", "sharpness", "lesion_psnr", "lesion_mae", "paper_ssim",
        "paper_psnr", "seconds"}; lesion figures where there is a label, paper-style for ``predict`` alone, else None.
    """
    cohorts_dir = Path(cohorts_dir)
    if baselines is None:
        baselines = all_baselines(training_voxels(training_studies(cohorts_dir)))
    methods = dict(baselines) if predict is None else {name: predict, **baselines}
    rows = []
    folders = validation_folders(cohorts_dir)
    for number, folder in enumerate(folders):
        cohort, patient = folder.parent.name, folder.name
        for case in cases(folder, quick):
            sources = "+".join(s.sequence for s in case.study.sources)
            if on_progress is not None:
                on_progress(number / len(folders), f"{cohort} {patient}: {sources} to {case.target}")
            for method, call in methods.items():
                figures = judge(call, case, paper=method == name and predict is not None)
                rows.append({"cohort": cohort, "patient": patient, "sources": sources, "target": case.target,
                             "method": method, **figures})
    if out is not None:
        write_tables(rows, out)
    return rows


@dataclasses.dataclass(frozen=True)
class Case:
    """One question: from these sources, make that target.

    Attributes:
        study: the sources alone, on the target's grid.
        target: sequence id.
        truth: (k, j, i) float32, the acquired target on its own scale.
        mask: (k, j, i) bool, the target's body where at least one source has data.
        lesion: (k, j, i) bool within ``mask``, dilated by 5 mm, or None.
    """

    study: Study
    target: str
    truth: np.ndarray
    mask: np.ndarray
    lesion: np.ndarray | None


def cases(folder: str | Path, quick: bool = False) -> Iterator[Case]:
    """Every case of one patient folder, target by target."""
    volumes, label = load_patient(folder)
    for target in volumes:
        whole = build_study(volumes, reference=target, register=not _one_grid(volumes))
        truth = whole.source(target).array
        body = body_mask(volumes[target].array, volumes[target].grid.spacing)
        lesion = None if label is None else _lesion(label, whole.grid)
        bodies = {s.sequence: body_mask(s.array, whole.grid.spacing) & s.inside
                  for s in whole.sources if s.sequence != target}
        for names in _subsets(tuple(bodies), quick):
            sources = tuple(whole.source(s) for s in names)
            votes = np.sum([bodies[s] for s in names], axis=0)
            seen = np.sum([s.inside for s in sources], axis=0)
            inner = (votes > 0) & (2 * votes >= seen)
            study = dataclasses.replace(whole, reference=names[0], sources=sources, body=inner)
            mask = body & (seen > 0)
            case = Case(study, target, truth, mask, None if lesion is None else lesion & mask)
            yield _middle(case) if quick else case


def judge(predict: Predict, case: Case, paper: bool = False) -> dict:
    """Metrics of one method on one case; ``paper`` adds the paper-style figures."""
    started = time.perf_counter()
    prediction = np.asarray(predict(case.study, case.target), np.float32)
    seconds = time.perf_counter() - started
    if prediction.shape != case.truth.shape:
        raise ValueError(f"the prediction has shape {prediction.shape}, the target {case.truth.shape}")
    figures = compare(prediction, case.truth, case.mask, case.study.grid.spacing).as_dict()
    lesion = {"psnr": None, "mae": None}
    if case.lesion is not None and case.lesion.any():
        lesion = errors_within(prediction, case.truth, case.lesion)
    figures |= {f"lesion_{key}": value for key, value in lesion.items()}
    slices = slice(None, None, _PAPER_STEP)
    in_papers = {"paper_ssim": None, "paper_psnr": None}
    if paper:
        in_papers = paper_style(prediction[slices], case.truth[slices])
    return {**figures, **in_papers, "seconds": seconds}


def validation_folders(cohorts_dir: str | Path) -> list[Path]:
    """Those of the validation patients that are there."""
    folders = [Path(cohorts_dir) / cohort / patient for cohort, patient in VALIDATION]
    return [folder for folder in folders if folder.is_dir()]


def training_studies(cohorts_dir: str | Path) -> Iterator[Study]:
    """Every patient of the cohorts that is not kept for validation, each on one grid."""
    folders = [path for path in sorted(Path(cohorts_dir).glob("*/*")) if path.is_dir()]
    folders = [path for path in folders if (path.parent.name, path.name) not in VALIDATION]
    if not folders:
        raise InputError(f'There is no training patient in "{Path(cohorts_dir).name}". '
                         "It must hold <cohort>/<patient> folders.")
    for folder in folders:
        volumes, _ = load_patient(folder)
        yield build_study(volumes, register=not _one_grid(volumes))


def load_patient(folder: str | Path) -> tuple[dict[str, Volume], Volume | None]:
    """({sequence id: volume} from files named <SEQUENCE>.nii.gz, the lesion label or None)."""
    folder = Path(folder)
    found = {s: folder / f"{s}.nii.gz" for s in load_sequences()}
    volumes = {s: read_file(path) for s, path in found.items() if path.exists()}
    if len(volumes) < 2:
        raise InputError(f'"{folder.name}" needs at least two sequences, named like T1.nii.gz and T2.nii.gz.')
    labels = sorted(folder.glob("label_*.nii.gz"))
    return volumes, read_file(labels[0]) if labels else None


def _one_grid(volumes: Mapping[str, Volume]) -> bool:
    """True for cohorts that come registered: they share one grid, and registering again would only blur them."""
    first, *others = volumes.values()
    return all(first.grid.matches(other.grid, 1e-2) for other in others)


def _subsets(names: tuple[str, ...], quick: bool) -> list[tuple[str, ...]]:
    sizes = sorted({1, len(names)}) if quick else range(1, len(names) + 1)
    return [subset for size in sizes for subset in itertools.combinations(names, size)]


def _lesion(label: Volume, grid: Grid) -> np.ndarray:
    lesion = resample(Volume((label.array > 0).astype(np.uint8), label.grid), grid, order="nearest")[0] > 0
    if not lesion.any():
        return lesion
    return ndimage.distance_transform_edt(~lesion, sampling=grid.spacing[::-1]) <= LESION_MARGIN_MM


def _middle(case: Case) -> Case:
    """The case on the middle slices of the body."""
    hit = np.flatnonzero(case.mask.any(axis=(1, 2)))
    first = max(0, int(hit[0] + hit[-1] + 1 - _QUICK_SLICES) // 2)
    part = slice(first, first + _QUICK_SLICES)
    grid = case.study.grid
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, 3] += matrix[:3, 2] * first
    sources = tuple(dataclasses.replace(s, array=s.array[part], inside=s.inside[part]) for s in case.study.sources)
    study = dataclasses.replace(case.study, grid=Grid(case.truth[part].shape, matrix), sources=sources,
                                body=case.study.body[part])
    lesion = None if case.lesion is None else case.lesion[part]
    return Case(study, case.target, case.truth[part], case.mask[part], lesion)
