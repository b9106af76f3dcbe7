"""The worker process: the same answer as in this process, killable at any moment, and nothing left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tiny_weights import write_tiny_weights

from NPCSynthLib.errors import Cancelled, OutputError, UsageError, WorkerError
from NPCSynthLib.inference.exchange import read_job, read_outcome, write_job, write_outcome
from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.inference.process import _JOB_PREFIX, WorkerProcess
from NPCSynthLib.inference.request import SynthesisRequest
from NPCSynthLib.study.volume import Grid, Volume

HOME = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def private_temp(tmp_path, monkeypatch):
    """Whatever is left in the folder for temporary files can be seen."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    left = [path for path in folder.glob("npcsynth*") if "inbox" not in path.name or list(path.iterdir())]
    assert not left, "temporary files were left behind"


@pytest.fixture(scope="module")
def warm(weights):
    """One worker for the tests that leave it alive."""
    worker = WorkerProcess(weights=weights)
    yield worker
    worker.close()


@pytest.fixture
def cold(weights):
    worker = WorkerProcess(weights=weights)
    yield worker
    worker.close()


def head(shape=(8, 40, 36), sequence="T1") -> Volume:
    """An oblique, anisotropic ellipsoid of noise."""
    rng = np.random.default_rng(list(sequence.encode()))
    a = 0.3
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, -1]])
    grid = Grid.from_parts(shape, (1.1, 0.9, 4.0), (20.0, -7.5, 100.0), turn)
    k, j, i = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    inside = k**2 + j**2 + i**2 < 0.8
    return Volume((inside * rng.uniform(200, 900, shape)).astype(np.int16), grid, sequence, {"EchoTime": 12.0})


def wait_for_end(pid: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker still lives"
        time.sleep(0.02)


def test_answer_is_that_of_the_same_call_in_this_process(warm, weights):
    volumes = {"T1": head(), "T2": head(sequence="T2")}
    study, result = warm.compute(volumes, SynthesisRequest(("FLAIR", "T1C"), reference="T2", device="cpu"))
    own_study, own = InProcess(weights=weights).compute(
        volumes, SynthesisRequest(("FLAIR", "T1C"), reference="T2", device="cpu")
    )
    for there, here in zip(result.sequences, own.sequences, strict=True):
        np.testing.assert_array_equal(there.array, here.array)
        np.testing.assert_array_equal(there.uncertainty, here.uncertainty)
        assert there.interval_factors == here.interval_factors != ()
    np.testing.assert_array_equal(result.segmentation.labelmap, own.segmentation.labelmap)
    assert result.segmentation.segments == own.segmentation.segments
    assert result.grid.matches(own.grid, 1e-9) and result.warnings == own.warnings
    assert study.reference == own_study.reference == "T2" and study.source("T1").original is volumes["T1"]
    np.testing.assert_array_equal(study.source("T1").array, own_study.source("T1").array)


def test_second_job_finds_the_worker_warm(warm):
    volumes = {"T1": head()}
    warm.compute(volumes, SynthesisRequest(("T2",), segment=False))
    first = warm.pid
    warm.compute(volumes, SynthesisRequest(("T1C",), segment=False))
    assert warm.pid == first is not None


def test_progress_names_stage_device_and_memory(warm):
    seen = []
    warm.compute(
        {"T1": head((60, 160, 160))},
        SynthesisRequest(("T2",), device="cpu"),
        on_progress=lambda f, s: seen.append((f, s)),
    )
    fractions = [fraction for fraction, _ in seen]
    assert fractions == sorted(fractions)
    assert any("slice" in stage and "CPU" in stage and "GB" in stage for _, stage in seen)


def test_wrong_request_is_said_as_it_is_here(warm):
    with pytest.raises(UsageError, match="both a source and a target"):
        warm.compute({"T1": head()}, SynthesisRequest(("T1",)))
    assert warm.pid is not None


@pytest.mark.parametrize("stage", ["Starting", "Synthesizing"])
def test_cancel_ends_the_worker_whatever_it_does(cold, stage):
    """Nothing more is heard of the job, and the worker is gone. Testing/benchmarks/worker.py measures how soon."""
    asked, heard = [], []

    def on_progress(_fraction, words):
        if asked:
            heard.append(words)
        elif words.startswith(stage):
            asked.append(cold.pid)

    with pytest.raises(Cancelled):
        cold.compute(
            {"T1": head((60, 256, 256))},
            SynthesisRequest(("T2", "T1C", "FLAIR")),
            on_progress=on_progress,
            cancel=lambda: bool(asked),
        )
    assert not heard and cold.pid is None and not psutil.pid_exists(asked[0])


def test_worker_killed_from_outside_is_said_and_the_next_job_has_a_new_one(cold):
    def kill(_fraction, _stage):
        os.kill(cold.pid, signal.SIGKILL)

    with pytest.raises(WorkerError, match="memory ran out"):
        cold.compute({"T1": head()}, SynthesisRequest(("T2",)), on_progress=kill)
    _, result = cold.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
    assert result.sequences[0].sequence == "T2"


def test_worker_that_is_not_needed_ends_by_itself(weights):
    worker = WorkerProcess(weights=weights, idle_seconds=0.5)
    worker.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
    wait_for_end(worker._process.pid, 10)
    worker.close()


def test_worker_ends_and_removes_its_files_when_its_parent_is_killed(weights, private_temp):
    script = (
        f"import sys, tempfile; sys.path[:0] = [{str(HOME)!r}, {str(HOME / 'Testing')!r}]\n"
        f"tempfile.tempdir = {str(private_temp)!r}\n"
        "from test_worker import SynthesisRequest, WorkerProcess, head\n"
        f"worker = WorkerProcess(weights={str(weights)!r})\n"
        "worker.compute({'T1': head((60, 256, 256))}, SynthesisRequest(('T2', 'T1C', 'FLAIR')),\n"
        "               on_progress=lambda f, s: print(worker.pid, flush=True))\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker_pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for_end(worker_pid, 5)


@pytest.mark.parametrize("when", ["Registering", "Synthesizing"])
def test_worker_leaves_no_images_when_its_parent_is_killed_while_it_computes(weights, private_temp, when):
    """The next thing that it says finds nobody."""
    script = (
        f"import os, signal, sys, tempfile; sys.path[:0] = [{str(HOME)!r}, {str(HOME / 'Testing')!r}]\n"
        f"tempfile.tempdir = {str(private_temp)!r}\n"
        "from test_worker import SynthesisRequest, WorkerProcess, head\n"
        f"worker = WorkerProcess(weights={str(weights)!r})\n"
        "def told(fraction, stage):\n"
        f"    if stage.startswith({when!r}):\n"
        "        print(worker.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
        "volumes = {'T1': head((60, 256, 256)), 'T2': head((60, 256, 256), 'T2')}\n"
        "worker.compute(volumes, SynthesisRequest(('T1C', 'FLAIR')), on_progress=told)\n"
    )
    parent = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    wait_for_end(int(parent.stdout), 10)
    assert not list(private_temp.glob("npcsynth*"))


def test_a_job_that_somebody_else_looks_at_is_taken_later(cold, private_temp, monkeypatch):
    """On Windows a virus scanner does: for a moment the file can be neither renamed nor removed."""
    cold.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
    rename, refused = Path.replace, []

    def refuse(path, target):
        if str(target).endswith(".job") and len(refused) < 3:
            refused.append(path)
            raise PermissionError(13, "The process cannot access the file")
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert cold.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))[1].sequences and len(refused) == 3


def test_no_room_for_the_images_is_said(warm, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match="Free some disk space"):
        warm.compute({"T1": head()}, SynthesisRequest(("T2",)))


def test_interpreter_that_cannot_be_started_is_said(weights, tmp_path):
    worker = WorkerProcess(python=str(tmp_path / "no python"), weights=weights)
    with pytest.raises(WorkerError, match="could not be started"):
        worker.compute({"T1": head()}, SynthesisRequest(("T2",)))


def test_what_two_killed_processes_left_is_removed_by_the_next_job(warm, private_temp):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    orphan = private_temp / f"{_JOB_PREFIX}{dead.pid}-abc"
    elsewhere = private_temp / f"npcsynth-job-00000000-{dead.pid}-abc"  # of another computer that shares the folder
    orphan.mkdir()
    elsewhere.mkdir()
    warm.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
    assert not orphan.exists() and elsewhere.exists()
    elsewhere.rmdir()


def test_job_crosses_with_exact_geometry_and_without_objects(tmp_path):
    volume = head()
    given = Volume(volume.array, volume.grid, "T1 tra", {"EchoTime": 12.0, "matrix": np.eye(4)})
    asked = SynthesisRequest(("T2", "T1C"), "T1", False, "cpu", {"T2": "T2-weighted"}, tmp_path.resolve())
    write_job(tmp_path, {"T1": given}, asked)
    volumes, request = read_job(tmp_path)
    np.testing.assert_array_equal(volumes["T1"].array, given.array)
    assert volumes["T1"].grid.matches(given.grid, 0) and volumes["T1"].metadata == {"EchoTime": 12.0}
    assert request == asked


def test_outcome_crosses_whole(tmp_path, study, result):
    write_outcome(tmp_path, study, result)
    there, made = read_outcome(tmp_path, {s.sequence: s.original for s in study.sources})
    assert there.warnings == study.warnings and there.source("T2").original is study.source("T2").original
    assert made.segmentation.segments == result.segmentation.segments and made.model == result.model
    np.testing.assert_array_equal(made.segmentation.external, result.segmentation.external)
    np.testing.assert_array_equal(made.sequences[0].array, result.sequences[0].array)


def test_jobs_need_no_standard_input_and_the_inbox_goes_with_the_worker(cold, private_temp):
    """Slicer's Python is started by a launcher that does not pass standard input on everywhere."""
    cold.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
    assert cold._process.stdin is None
    (inbox,) = private_temp.glob("npcsynth-inbox-*")
    cold.close()
    assert not inbox.exists()


def test_a_worker_whose_inbox_is_gone_ends(cold, private_temp):
    cold.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
    pid = cold.pid
    (inbox,) = private_temp.glob("npcsynth-inbox-*")
    inbox.rmdir()
    wait_for_end(pid, 5)
    assert cold.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))[1].sequences
