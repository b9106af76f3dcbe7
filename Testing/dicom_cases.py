"""Small DICOM studies on awkward grids and results of theirs, for the tests of DICOM output."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from NPCSynthLib.inference.result import Segment, SegmentationResult, SynthesisResult, SynthesizedSequence
from NPCSynthLib.phantom.patient import Patient, make_patient, write_dicom
from NPCSynthLib.study.align import resample
from NPCSynthLib.study.read import read_folder
from NPCSynthLib.study.study import Source, Study
from NPCSynthLib.study.volume import Grid, Volume
from NPCSynthLib.vocabulary import canonical_prompt, get_sequence, load_structures


def _tilt(a: float, b: float) -> np.ndarray:
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return about_z @ about_x


_SAGITTAL = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], float)
#: name -> (shape k-j-i, spacing i-j-k mm, LPS origin, direction columns i, j, k)
GRIDS = {
    "axial": ((10, 40, 36), (4.5, 4.5, 6.0), (-80.0, -90.0, -40.0), np.eye(3)),
    "oblique": ((9, 38, 32), (4.9, 5.1, 7.3), (-71.3, -85.9, -33.4), _tilt(0.3, -0.2)),
    "sagittal": ((11, 36, 40), (4.5, 5.5, 6.1), (-33.0, -90.0, 90.0), _SAGITTAL),
}
GRIDS["against"] = GRIDS["oblique"]
#: The case whose slices run against the normal, as other programs may hand a volume over; reading never does so.
AGAINST = "against"


@cache
def _patient() -> Patient:
    return make_patient(5, ("T1", "T2"), "small")


def write_study(folder: Path, grid_name: str) -> Path:
    """A DICOM study: T1 on the grid, T2 on a coarser one of other orientation."""
    grid = Grid.from_parts(*GRIDS[grid_name])
    other = Grid.from_parts((6, 30, 30), (6.0, 6.0, 20.0), (-85.0, -90.0, -60.0), np.eye(3))
    patient = _patient()
    volumes = {}
    for sequence, where in (("T1", grid), ("T2", other)):
        volume = patient.volumes[sequence]
        array = resample(Volume(volume.array.astype(np.float32), volume.grid), where)[0].astype(np.uint16)
        spacing = float(where.spacing[2])
        facts = {**volume.metadata, "SliceThickness": round(0.9 * spacing, 4), "SpacingBetweenSlices": spacing}
        volumes[sequence] = Volume(array, where, volume.name, facts)
    write_dicom(replace(patient, volumes=volumes), folder)
    return folder


def dicom_files(folder: Path) -> list[Path]:
    """Every file below a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def read_study(folder: Path, against: bool = False) -> Study:
    """The study as it is read, on the grid of T1; nothing is registered or normalized, which takes time.

    ``against``: with the slices in the other order.
    """
    sources = []
    for volume, sequence in zip(read_folder(folder).volumes, ("T1", "T2"), strict=True):
        if against:
            matrix = volume.grid.ijk_to_lps @ np.diag([1, 1, -1, 1])
            matrix[:, 3] = volume.grid.ijk_to_lps @ [0, 0, len(volume.array) - 1, 1]
            volume = replace(volume, array=volume.array[::-1].copy(), grid=Grid(volume.grid.shape, matrix))
        inside = np.ones(volume.array.shape, bool)
        sources.append(Source(sequence, volume, volume.array, inside, {"applied": False}, (0.0, 1000.0)))
    body = sources[0].array > np.percentile(sources[0].array, 40)
    return Study(sources[0].original.grid, "T1", tuple(sources), body)


def make_result(study: Study, targets=("T1C",)) -> SynthesisResult:
    """Noise inside the body, and a segmentation: a block for every structure but GTVn, which is empty."""
    rng = np.random.default_rng(2)
    shape = study.grid.shape
    sequences = []
    for name in targets:
        image = (study.body * rng.integers(0, 1300, shape)).astype(np.int16)
        sequences.append(SynthesizedSequence(name, image, (image // 9).astype(np.int16),
                                             canonical_prompt(get_sequence(name)), 50.0))
    labelmap, segments = np.zeros(shape, np.uint8), []
    for structure in load_structures():
        segments.append(Segment(structure.name, structure.label, structure.color, structure.code))
        if structure.label and structure.name != "GTVn":
            row = 2 + 3 * structure.label
            labelmap[2:6, row:row + 3, 8 : 20 - structure.label] = structure.label
    segmentation = SegmentationResult(labelmap, study.body, tuple(segments))
    model = {"name": "test", "version": "0.1", "sha256": "ab" * 32}
    return SynthesisResult(study.grid, tuple(sequences), segmentation, ("T1", "T2"), model, "CPU")
