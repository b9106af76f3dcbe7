"""What can happen to the worker from outside: said in plain words or mended silently, and nothing is left behind."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time

import numpy as np
import psutil
import pytest

pytest.importorskip("resource", reason="limits of a process are set as on Linux and macOS")
pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")

import resource

from test_worker import HOME, cold, head, private_temp, wait_for_end, weights  # noqa: F401
from tiny_weights import write_tiny_weights

from NPCSynthLib.errors import Cancelled, OutputError, WeightsError, WorkerError
from NPCSynthLib.inference.preflight import RED
from NPCSynthLib.inference.process import WorkerProcess
from NPCSynthLib.inference.request import SynthesisRequest


def kill(worker: WorkerProcess) -> None:
    """From outside, as the system does when memory runs out, and wait until it is gone."""
    pid = worker.pid
    os.kill(pid, signal.SIGKILL)
    wait_for_end(pid, 5)


def when(stage: str, action):
    """A progress callback that acts once, when the stage comes."""
    done = []

    def on_progress(_fraction, words):
        if words.startswith(stage) and not done:
            done.append(words)
            action()

    return on_progress


@pytest.mark.parametrize("stage", ["Starting", "Looking", "Synthesizing"])
def test_killed_at_any_stage_of_a_job(cold, stage):  # noqa: F811
    volumes = {"T1": head((30, 120, 120))}
    with pytest.raises(WorkerError, match="Nothing was changed") as caught:
        cold.compute(
            volumes, SynthesisRequest(("T2",)), on_progress=when(stage, lambda: os.kill(cold.pid, signal.SIGKILL))
        )
    assert caught.value.cpu_may_help and "code" in caught.value.details and cold.pid is None


def test_killed_while_idle_is_mended_silently(cold):  # noqa: F811
    """Also between the check and the run, while the user is asked."""
    volumes = {"T1": head()}
    cold.preflight(volumes, SynthesisRequest(("T2",), segment=False))
    kill(cold)
    study, result = cold.compute(volumes, SynthesisRequest(("T2",), segment=False))
    assert study.source("T1").original is volumes["T1"] and result.sequences[0].sequence == "T2"


def test_a_program_that_got_the_number_of_an_ended_worker_is_left_alone(cold):  # noqa: F811
    cold.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
    kill(cold)
    cold._process.wait()
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        cold._process.pid = stranger.pid
        cold.close()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


@pytest.mark.parametrize("stubborn", [False, True])
def test_ended_without_a_word_is_tried_once_more(weights, tmp_path, stubborn):  # noqa: F811
    """A worker that was killed and is not quite gone yet takes a job and never answers."""
    dying = tmp_path / "python-dying"
    again = f'exec "{sys.executable}" "$@"' if not stubborn else "echo no driver >&2; exit 3"
    dying.write_text(f'#!/bin/sh\nif mkdir "{tmp_path}/first"; then exit 9; fi\n{again}\n', encoding="utf-8")
    dying.chmod(0o755)
    worker = WorkerProcess(python=str(dying), weights=weights)
    try:
        if stubborn:
            with pytest.raises(WorkerError, match="Nothing was changed") as caught:
                worker.compute({"T1": head()}, SynthesisRequest(("T2",)))
            assert "code 3" in caught.value.details and "no driver" in caught.value.details
        else:
            assert worker.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))[1].sequences
    finally:
        worker.close()


def test_killed_during_the_check(cold):  # noqa: F811
    with pytest.raises(WorkerError, match="Nothing was changed"):
        cold.preflight(
            {"T1": head()},
            SynthesisRequest(("T2",)),
            on_progress=when("Starting", lambda: os.kill(cold.pid, signal.SIGKILL)),
        )


def test_a_check_that_is_canceled_ends_the_worker(cold):  # noqa: F811
    pressed = []
    with pytest.raises(Cancelled):
        cold.preflight(
            {"T1": head()},
            SynthesisRequest(("T2",)),
            on_progress=when("Starting", lambda: pressed.append(cold.pid)),
            cancel=lambda: bool(pressed),
        )
    wait_for_end(pressed[0], 1)


@pytest.mark.parametrize("call", ["compute", "preflight"])
def test_a_folder_for_temporary_files_that_cannot_be_written(cold, monkeypatch, tmp_path, call):  # noqa: F811
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the folder should be", encoding="utf-8")
    monkeypatch.setattr(tempfile, "tempdir", str(blocked))
    with pytest.raises(OutputError, match=f"{blocked} cannot be written .*Free some disk space"):
        getattr(cold, call)({"T1": head()}, SynthesisRequest(("T2",)))
    assert cold.pid is None, "nothing needs to be started for that"


def test_no_folder_for_temporary_files_at_all(cold, monkeypatch):  # noqa: F811
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/nowhere/at/all"])
    with pytest.raises(OutputError, match="the folder for temporary files cannot be written"):
        cold.compute({"T1": head()}, SynthesisRequest(("T2",)))


def test_a_disk_that_is_full_when_the_images_are_written(cold):  # noqa: F811
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OutputError, match="could not be handed to the computation.*Free some disk space"):
            cold.compute({"T1": head()}, SynthesisRequest(("T2",)))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_when_the_result_is_written(weights, tmp_path):  # noqa: F811
    limited = tmp_path / "python-limited"
    limited.write_text(f'#!/bin/sh\nulimit -f 8\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    limited.chmod(0o755)
    worker = WorkerProcess(python=str(limited), weights=weights)
    try:
        with pytest.raises(OutputError, match="result could not be handed over.*Free some disk space"):
            worker.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
        assert worker.pid is not None, "the worker itself is fine"
    finally:
        worker.close()


def test_a_weights_file_replaced_by_another_one_is_refused(tmp_path):
    folder = write_tiny_weights(tmp_path / "weights")
    worker = WorkerProcess(weights=folder)
    try:
        worker.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
        (folder / "model.safetensors").write_bytes((folder / "text.safetensors").read_bytes())
        found = [c for c in worker.preflight({"T1": head()}, SynthesisRequest(("T2",))) if c.level == RED]
        assert [c.name for c in found] == ["Weights"] and "not the one that its manifest describes" in found[0].sentence
        with pytest.raises(WeightsError, match="model.safetensors is damaged or not the one"):
            worker.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
    finally:
        worker.close()


def test_another_folder_of_weights_is_used_for_the_job_that_names_it(cold, tmp_path):  # noqa: F811
    other = write_tiny_weights(tmp_path / "other")
    manifest = (other / "manifest.json").read_text(encoding="utf-8")
    (other / "manifest.json").write_text(manifest.replace('"version": "0.0"', '"version": "7.0"'), encoding="utf-8")
    volumes, versions = {"T1": head()}, []
    for folder in (None, other, None):
        versions.append(
            cold.compute(volumes, SynthesisRequest(("T2",), segment=False, weights=folder))[1].model["version"]
        )
    assert versions == ["0.0", "7.0", "0.0"]


def test_two_programs_at_once_do_not_disturb_each_other(cold, weights, private_temp):  # noqa: F811
    """The other one starts, cleans up, computes and ends while a job of this one goes on."""
    script = (
        f"import sys, tempfile; sys.path[:0] = [{str(HOME)!r}, {str(HOME / 'Testing')!r}]\n"
        f"tempfile.tempdir = {str(private_temp)!r}\n"
        "from test_worker import SynthesisRequest, WorkerProcess, head\n"
        f"worker = WorkerProcess(weights={str(weights)!r})\n"
        "_, result = worker.compute({'T1': head()}, SynthesisRequest(('T2',), segment=False))\n"
        "print(int(result.sequences[0].array.sum())); worker.close()\n"
    )
    meanwhile = []

    def other() -> None:
        meanwhile.append(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True))

    thread = threading.Thread(target=other)
    volumes = {"T1": head((30, 120, 120))}

    def hold(_fraction, words):
        if words.startswith("Synthesizing") and not thread.is_alive() and not meanwhile:
            thread.start()
            thread.join()
            assert len(list(private_temp.glob("npcsynth-job-*"))) == 1, "the other one removed what is ours"

    study, result = cold.compute(volumes, SynthesisRequest(("T2",)), on_progress=hold)
    assert meanwhile[0].returncode == 0, meanwhile[0].stderr
    assert result.sequences[0].array.shape == (30, 120, 120)
    _, same = cold.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False))
    assert int(meanwhile[0].stdout) == int(same.sequences[0].array.sum())


def test_two_workers_in_one_program_keep_each_others_files(weights, private_temp):  # noqa: F811
    """A second instance of the module, or one that was reloaded."""
    first, second = WorkerProcess(weights=weights), WorkerProcess(weights=weights)
    inner = []

    def hold(_fraction, words):
        if words.startswith("Synthesizing") and not inner:
            inner.append(second.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False)))
            assert len(list(private_temp.glob("npcsynth-job-*"))) == 1

    try:
        _, outer = first.compute({"T1": head()}, SynthesisRequest(("T2",), segment=False), on_progress=hold)
        np.testing.assert_array_equal(outer.sequences[0].array, inner[0][1].sequences[0].array)
    finally:
        first.close()
        second.close()


def test_an_idle_worker_ends_with_its_parent(weights, private_temp):  # noqa: F811
    script = (
        f"import sys, tempfile, time; sys.path[:0] = [{str(HOME)!r}, {str(HOME / 'Testing')!r}]\n"
        f"tempfile.tempdir = {str(private_temp)!r}\n"
        "from test_worker import SynthesisRequest, WorkerProcess, head\n"
        f"worker = WorkerProcess(weights={str(weights)!r})\n"
        "worker.compute({'T1': head()}, SynthesisRequest(('T2',), segment=False))\n"
        "print(worker.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker_pid = int(parent.stdout.readline())
    assert psutil.pid_exists(worker_pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for_end(worker_pid, 5)


def test_children_of_the_worker_end_with_it(weights, tmp_path):  # noqa: F811
    """In Slicer the process that is started is a launcher, and the worker its child."""
    launcher = tmp_path / "python-launcher"
    launcher.write_text(f'#!/bin/sh\n"{sys.executable}" "$@"\nexit $?\n', encoding="utf-8")
    launcher.chmod(0o755)
    worker, seen = WorkerProcess(python=str(launcher), weights=weights), []

    def look():
        seen.extend(psutil.Process(worker.pid).children(recursive=True))

    with pytest.raises(Cancelled):
        worker.compute(
            {"T1": head()}, SynthesisRequest(("T2",)), on_progress=when("Starting", look), cancel=lambda: bool(seen)
        )
    deadline = time.monotonic() + 5
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in seen):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert seen
