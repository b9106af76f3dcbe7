"""Judge a synthesis on real patients: every set of sources to every sequence that is not among them.

The prediction is made on the acquired target's own grid and compared with it there, voxel by voxel, without
interpolating the truth. The truth's scale (0 and 1 are the 0.5 and 99.5 percentiles of its own body) is the only one.
The sources' bodies alone make up the body that the method is given; the target's body is where it is judged.
"""

import dataclasses
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..qa.image_metrics import compare, errors_within, paper_style
from ..study.align import resample
from ..study.build import build_study
from ..study.image_files import sequence_files
from ..study.normalize import body_mask
from ..study.read import read_file
from ..study.study import Study
from ..study.volume import Grid, Volume, one_grid
from ..training.cohorts import patients_in
from ..training.layouts import read_image
from ..training.split import VALIDATION
from .baselines import Predict

LESION_MARGIN_MM = 5.0
_QUICK_SLICES = 24
#: Paper-style figures use every n-th slice.
_PAPER_STEP = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """One question: from these sources, make that target.

    Attributes:
        study: the sources alone, on the target's grid.
        target: sequence id.
        truth: (k, j, i) float32, the acquired target on its own scale.
        mask: (k, j, i) bool, the target's body where at least one source has data.
        lesion: (k, j, i) bool within ``mask``, dilated by 5 mm, or None.
        core: the same as it was drawn, not dilated.
    """

    study: Study
    target: str
    truth: np.ndarray
    mask: np.ndarray
    lesion: np.ndarray | None
    core: np.ndarray | None = None


class PatientCases:
    """Every case of one patient.

    Args:
        name: in tables.
        sequences: that the patient has, at least two.
        read: gives ({sequence id: volume}, the lesion label or None); called when a case is first asked for.
    """

    def __init__(self, name: str, sequences: Sequence[str], read: Callable[[], tuple[Mapping, Volume | None]]):
        self.name, self.sequences = name, tuple(sequences)
        self._read, self._volumes = read, None
        self._target, self._built = None, None

    @classmethod
    def of_folder(cls, folder: str | Path) -> "PatientCases":
        """Of files named <SEQUENCE>.nii.gz. Raises InputError for a folder without two sequences."""
        folder = Path(folder)
        return cls(f"{folder.parent.name}/{folder.name}", _files(folder), lambda: load_patient(folder))

    def questions(self, few: bool = False) -> list[tuple[tuple[str, ...], str]]:
        """(sources, target) of every case, target by target; ``few``: single sources and all of them only."""
        return [(names, target) for target in self.sequences
                for names in _subsets(tuple(s for s in self.sequences if s != target), few)]

    def case(self, sources: tuple[str, ...], target: str, middle: bool = False) -> "Case":
        """One case; ``middle`` cuts out the 24 middle slices of the body. Cheap for the target of the last call."""
        if self._target != target:
            self._target, self._built = target, self._build(target)
        whole, body, core, lesion, bodies = self._built
        used = tuple(whole.source(s) for s in sources)
        votes = np.sum([bodies[s] for s in sources], axis=0)
        seen = np.sum([s.inside for s in used], axis=0)
        inner = (votes > 0) & (2 * votes >= seen)
        study = dataclasses.replace(whole, reference=sources[0], sources=used, body=inner)
        mask = body & (seen > 0)
        found = Case(study, target, whole.source(target).array, mask,
                     *(None if label is None else label & mask for label in (lesion, core)))
        return middle_slices(found, _QUICK_SLICES) if middle else found

    def _build(self, target: str):
        if self._volumes is None:
            self._volumes = self._read()
        volumes, label = self._volumes
        whole = build_study(volumes, reference=target, register=not one_grid(v.grid for v in volumes.values()))
        body = body_mask(volumes[target].array, volumes[target].grid.spacing)
        core, lesion = (None, None) if label is None else _lesion(label, whole.grid)
        bodies = {s.sequence: body_mask(s.array, whole.grid.spacing) & s.inside
                  for s in whole.sources if s.sequence != target}
        return whole, body, core, lesion, bodies


def cases(folder: str | Path, quick: bool = False) -> Iterator[Case]:
    """Every case of one patient folder, target by target."""
    patient = PatientCases.of_folder(folder)
    for sources, target in patient.questions(few=quick):
        yield patient.case(sources, target, middle=quick)


def judge(predict: Predict, case: Case) -> dict:
    """Metrics of one method on one case.

    Returns:
        {"ssim", "psnr", "mae", "sharpness" in the body, "lesion_psnr", "lesion_mae" (None without a lesion),
        "paper_ssim", "paper_psnr" (``qa.image_metrics.paper_style``, every fourth slice), "seconds"}.
    """
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
    in_papers = paper_style(prediction[slices], case.truth[slices])
    return {**figures, **in_papers, "seconds": seconds}


def validation_folders(cohorts_dir: str | Path, least: int = 0) -> list[Path]:
    """Those of the validation patients that are there. Raises InputError when they are fewer than ``least``."""
    folders = [Path(cohorts_dir) / cohort / patient for cohort, patient in VALIDATION]
    found = [folder for folder in folders if folder.is_dir()]
    if len(found) < least:
        raise InputError(f'"{Path(cohorts_dir).name}" holds {len(found)} of the validation patients, and this takes '
                         f"{least} at least. Put them there: {', '.join('/'.join(one) for one in VALIDATION)}.")
    return found


def training_studies(cohorts_dir: str | Path) -> Iterator[Study]:
    """Every patient of the cohorts with two sequences or more that is not kept for validation, each on one grid."""
    patients = [one for one in patients_in(Path(cohorts_dir), ()) if not one.validation and len(one.images) > 1]
    if not patients:
        raise InputError(f'There is no training patient in "{Path(cohorts_dir).name}". '
                         "It must hold <cohort>/<patient> folders.")
    for one in patients:
        volumes = {sequence: read_image(sequence, file) for sequence, file in one.images.items()}
        yield build_study(volumes, register=not one_grid(v.grid for v in volumes.values()))


def load_patient(folder: str | Path) -> tuple[dict[str, Volume], Volume | None]:
    """({sequence id: volume} from files named <SEQUENCE>.nii.gz, the lesion label or None). Raises InputError."""
    folder = Path(folder)
    volumes = {sequence: read_file(path) for sequence, path in _files(folder).items()}
    labels = sorted(folder.glob("label_*.nii.gz"))
    return volumes, read_file(labels[0]) if labels else None


def _files(folder: Path) -> dict[str, Path]:
    found = sequence_files(folder)
    if len(found) < 2:
        raise InputError(f'"{folder.name}" needs at least two sequences, named like T1.nii.gz and T2.nii.gz.')
    return found


def _subsets(names: tuple[str, ...], quick: bool) -> list[tuple[str, ...]]:
    sizes = sorted({1, len(names)}) if quick else range(1, len(names) + 1)
    return [subset for size in sizes for subset in itertools.combinations(names, size)]


def _lesion(label: Volume, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """The label on the grid, as it is and dilated by 5 mm."""
    core = resample(Volume((label.array > 0).astype(np.uint8), label.grid), grid, order="nearest")[0] > 0
    if not core.any():
        return core, core
    return core, ndimage.distance_transform_edt(~core, sampling=grid.spacing[::-1]) <= LESION_MARGIN_MM


def middle_slices(case: Case, count: int) -> Case:
    """The case on so many middle slices of the body."""
    hit = np.flatnonzero(case.mask.any(axis=(1, 2)))
    first = max(0, int(hit[0] + hit[-1] + 1 - count) // 2)
    part = slice(first, first + count)
    grid = case.study.grid
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, 3] += matrix[:3, 2] * first
    sources = tuple(dataclasses.replace(s, array=s.array[part], inside=s.inside[part]) for s in case.study.sources)
    study = dataclasses.replace(case.study, grid=Grid(case.truth[part].shape, matrix), sources=sources,
                                body=case.study.body[part])
    labels = (None if label is None else label[part] for label in (case.lesion, case.core))
    return Case(study, case.target, case.truth[part], case.mask[part], *labels)
