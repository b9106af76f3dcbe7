"""Small cohorts in the layouts that are met, made from the digital phantom."""

from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from NPCSynthLib.phantom.patient import Patient, make_patient, structures_on, write_dicom
from NPCSynthLib.study.volume import Grid, Volume, to_sitk

_A = 0.2
#: Oblique, anisotropic, slices from top to bottom.
GRID = Grid.from_parts((20, 36, 32), (2.0, 2.2, 4.0), (-30.0, 12.0, 50.0), np.array(
    [[np.cos(_A), -np.sin(_A), 0], [np.sin(_A), np.cos(_A), 0], [0, 0, -1]]))

_SEGMENTS = {"T1": ("T1WI", "ROI-T1"), "T2": ("T2WI", "ROI-T2"), "T1C": ("CE-T1WI", "ROI-CE-T1")}


@cache
def phantom(seed: int, sequences: tuple[str, ...] = ("T1", "T2")) -> Patient:
    """A coarse phantom (4 mm); its sequences lie on grids of their own, most of them oblique and anisotropic."""
    return make_patient(seed, sequences, "small")


def write_nifti(path: Path, array: np.ndarray, grid: Grid) -> Path:
    """An image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(to_sitk(np.ascontiguousarray(array), grid), str(path))
    return path


def tumor_on(patient: Patient, grid: Grid) -> np.ndarray:
    """(k, j, i) bool, the primary tumor."""
    return structures_on(patient.anatomy, grid)["GTVp"] > 0.5


def write_sequence_files(folder: Path, seed: int, sequences=("T1", "T2"), label=True) -> Path:
    """``T1.nii.gz`` … and ``label_gtv.nii.gz`` on the grid of the first."""
    patient = phantom(seed, tuple(sequences))
    for sequence, volume in patient.volumes.items():
        write_nifti(folder / f"{sequence}.nii.gz", volume.array.astype(np.int16), volume.grid)
    if label:
        grid = patient.volumes[sequences[0]].grid
        write_nifti(folder / "label_gtv.nii.gz", tumor_on(patient, grid).astype(np.uint8), grid)
    return folder


def write_segments(folder: Path, seed: int, turns: dict[str, tuple[int, int, int]], sequences=("T1", "T2")) -> Path:
    """A patient as the public NPC set has it: ``T1WI/*.dcm`` …, and masks whose headers say nothing true.

    Args:
        turns: sequence -> signs of (slices, rows, columns) of its mask's array against its image's.
    """
    patient = phantom(seed, sequences)
    study = folder / "all"
    *series, contours = write_dicom(patient, study)
    contours.unlink()
    for sequence, source in zip(patient.volumes, series, strict=True):
        source.rename(folder / _SEGMENTS[sequence][0])
        if sequence not in turns:
            continue
        volume = patient.volumes[sequence]
        mask = tumor_on(patient, volume.grid)[tuple(slice(None, None, sign) for sign in turns[sequence])]
        plain = Grid.from_parts(volume.grid.shape, volume.grid.spacing, (0, 0, 0), np.eye(3))
        write_nifti(folder / f"{_SEGMENTS[sequence][1]}.nii", mask.astype(np.uint8), plain)
    study.rmdir()
    return folder


def write_boxes(folder: Path, seed: int, sequences=("T1", "T2"), name="{}.nii.gz", label="label_lesion") -> Path:
    """A tiny patient without anatomy: boxes of another gray in each sequence, a label in the middle, on one grid."""
    rng = np.random.default_rng(seed)
    boxes = np.zeros((20, 36, 32), int)
    for n in range(1, 5):
        boxes[n : -n, 2 * n : -2 * n, 2 * n : -2 * n] = n
    for sequence in sequences:
        gray = np.concatenate([[0], rng.permutation([200, 400, 700, 1000])])
        image = gray[boxes] + rng.integers(0, 20, boxes.shape)
        write_nifti(folder / name.format(sequence), image.astype(np.int16), GRID)
    if label:
        write_nifti(folder / f"{label}.nii.gz", (boxes == 4).astype(np.uint8), GRID)
    return folder


def as_volume(patient: Patient, sequence: str) -> Volume:
    """An image as it is read: float32."""
    volume = patient.volumes[sequence]
    return Volume(volume.array.astype(np.float32), volume.grid, sequence)
