"""A tiny study and result on an oblique, anisotropic grid, shared by the tests of output and command line."""

import os
import shutil
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # before PyTorch is loaded, which then keeps to one core in each process
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from NPCSynthLib.inference.result import Segment, SegmentationResult, SynthesisResult, SynthesizedSequence
from NPCSynthLib.model.manifest import read_manifest, write_manifest
from NPCSynthLib.study.study import Source, Study
from NPCSynthLib.study.volume import Grid, Volume
from NPCSynthLib.vocabulary import load_structures


@pytest.fixture
def oblique_grid() -> Grid:
    """12 slices of 5 mm, 40 x 32 pixels of 1.1 x 0.9 mm, tilted about two axes and with a flipped slice order."""
    a, b = 0.3, -0.2
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    turn = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return Grid.from_parts((12, 40, 32), (0.9, 1.1, 5.0), (-71.3, 15.9, 220.4), turn @ tilt @ np.diag([1, 1, -1]))


@pytest.fixture
def study(oblique_grid) -> Study:
    """T1 and T2 of a box-shaped patient."""
    rng = np.random.default_rng(0)
    body = np.zeros(oblique_grid.shape, bool)
    body[1:-1, 5:-5, 4:-4] = True
    sources = []
    for sequence in ("T1", "T2"):
        array = (body * rng.uniform(0.2, 1.0, body.shape)).astype(np.float32)
        metadata = {
            "SeriesInstanceUID": f"1.2.826.0.1.3680043.2.1125.{len(sources) + 1}", "PatientName": "Doe^Jane",
            "PatientID": "4711", "source_path": "/hospital/Doe_Jane", "EchoTime": 12.0,
        }
        original = Volume((array * 800).astype(np.int16), oblique_grid, f"{sequence} tra", metadata)
        registration = {"applied": False, "reason": "reference"}
        sources.append(Source(sequence, original, array, np.ones_like(body), registration, (0.0, 800.0)))
    return Study(oblique_grid, "T1", tuple(sources), body, ("Two series look like T1; the finer one was taken.",))


@pytest.fixture
def result(study) -> SynthesisResult:
    """T2FS with a segmentation of every structure: a small block each, GTVn left empty."""
    rng = np.random.default_rng(1)
    image = (study.body * rng.integers(0, 1000, study.body.shape)).astype(np.int16)
    labelmap = np.zeros(study.grid.shape, np.uint8)
    segments = []
    for structure in load_structures():
        segments.append(Segment(structure.name, structure.label, structure.color, structure.code))
        if structure.label and structure.name != "GTVn":
            row = 3 + 3 * structure.label
            labelmap[3:8, row:row + 3, 8:20] = structure.label
    segmentation = SegmentationResult(labelmap, study.body, tuple(segments))
    synthetic = SynthesizedSequence("T2FS", image, (image // 10).astype(np.int16), "T2-weighted, fat-suppressed", 50.0)
    model = {"name": "test", "version": "0", "sha256": "0" * 64}
    return SynthesisResult(study.grid, (synthetic,), segmentation, ("T1", "T2"), model, "CPU", {"synthesis": 1.25},
                           ("Outside the training domain.",))


@pytest.fixture
def boxes(monkeypatch):
    """Training sees a head of boxes in place of the phantom, which takes seconds to make."""
    from tiny_runs import box_labelmap

    from NPCSynthLib.training import dataset

    monkeypatch.setattr(dataset, "phantom_labelmap", box_labelmap)


@pytest.fixture(scope="session")
def first_run(tmp_path_factory) -> Path:
    """The weights of a run of ``tiny_config``; not to be changed."""
    from tiny_runs import box_labelmap, tiny_config

    from NPCSynthLib.training import dataset, trainer

    folder = tmp_path_factory.mktemp("first run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dataset, "phantom_labelmap", box_labelmap)
        return trainer.train(tiny_config(folder), folder, folder / "out")


@pytest.fixture
def first(first_run, tmp_path) -> Path:
    """A copy of the weights of a run of ``tiny_config``, the test's own."""
    return shutil.copytree(first_run, tmp_path / "first" / "weights")


@pytest.fixture
def few_sequences(tmp_path) -> Path:
    """The manifest of weights that were trained on T1, T2 and T1C alone; nothing can be computed with it."""
    _, manifest = read_manifest()
    manifest["prompts"] = {sequence: manifest["prompts"][sequence] for sequence in ("T1", "T2", "T1C")}
    folder = tmp_path / "few sequences"
    folder.mkdir()
    write_manifest(folder, manifest)
    return folder


@pytest.fixture(autouse=True)
def no_slot_raises():
    """Qt swallows what a slot raises; here it fails the test."""
    manners = sys.modules.get("slicer_stand_in.qt_manners")
    if manners is not None:
        manners.slot_errors.clear()
    yield
    if manners is not None and manners.slot_errors:
        raise manners.slot_errors[0]


_status = None


def pytest_sessionfinish(session, exitstatus):
    """Keep the outcome for the end."""
    global _status
    _status = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """After tests, leave with their outcome as it is: VTK's off-screen views now and then crash in their destructors
    when Python takes its modules down, after all is tested and said, and would turn a pass into a failure."""
    if _status in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_status)
