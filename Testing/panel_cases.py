"""What the tests of the panel share: Slicer's stand-in with the module loaded, a run without a network, and waiting.

Test files import the fixtures that they ask for, with those that these ask for in turn. The functions have other names
than the fixtures, so that a test's argument does not shadow what was imported.
"""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip(
    "slicer", reason="slicer-core or a system library that it needs is missing", exc_type=ImportError
)
pytest.importorskip(
    "PySide6.QtUiTools", reason="PySide6 or a system library that it needs is missing", exc_type=ImportError
)

import slicer_stand_in

from NPCSynthLib.errors import Cancelled
from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.inference.process import WorkerProcess
from NPCSynthLib.inference.result import Segment, SegmentationResult, SynthesisResult, SynthesizedSequence
from NPCSynthLib.model.manifest import network_sha256
from NPCSynthLib.study.volume import Grid, Volume
from NPCSynthLib.vocabulary import canonical_prompt, get_sequence, load_structures

MODULE_FILE = Path(__file__).resolve().parents[1] / "NPCSynth" / "NPCSynth.py"
slicer = slicer_stand_in.install()
module = slicer_stand_in.load_module(MODULE_FILE)

import qt  # noqa: E402

from NPCSynthLib.scene import add_volume  # noqa: E402

TILT = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])


class MeanOfSources:
    """Synthesizer without a network: each target is the mean of the sources. Slow and failing on demand."""

    def __init__(self, pause=0.0, error=None):
        self.pause, self.error, self.devices = pause, error, []
        self.started = threading.Event()
        self.threads = []

    def __call__(self, weights, device):
        self.devices.append(device)
        return self

    def check(self, study, targets, segment=True, prompts=None):
        """As Synthesizer.check; nothing to note."""
        return []

    def run(self, study, targets, segment=True, prompts=None, on_progress=None, cancel=None):
        """As Synthesizer.run."""
        self.threads.append(threading.current_thread())
        self.started.set()
        if self.error is not None:
            raise self.error
        outputs = []
        for number, target in enumerate(targets):
            for part in range(20):
                if cancel is not None and cancel():
                    raise Cancelled()
                time.sleep(self.pause)
                if on_progress is not None:
                    on_progress((number + part / 20) / len(targets), f"Synthesizing {target}")
            array = (1000 * np.mean([s.array for s in study.sources], axis=0)).astype(np.int16)
            prompt = canonical_prompt(get_sequence(target))
            outputs.append(SynthesizedSequence(target, array, np.full_like(array, 50), prompt, 50.0))
        segmentation = None
        if segment:
            segments = tuple(Segment(s.name, s.label, s.color, s.code) for s in load_structures())
            segmentation = SegmentationResult(study.body.astype(np.uint8), study.body, segments)
        return SynthesisResult(
            study.grid, tuple(outputs), segmentation, tuple(s.sequence for s in study.sources),
            {"name": "mean of sources", "version": "0", "sha256": network_sha256()}, "CPU", {}, ("A warning to show.",),
        )


class Held(MeanOfSources):
    """MeanOfSources that, once begun, does nothing until ``release`` is set."""

    def __init__(self):
        super().__init__()
        self.release = threading.Event()

    def run(self, *arguments, **keywords):
        """As Synthesizer.run."""
        self.threads.append(threading.current_thread())
        self.started.set()
        if not self.release.wait(60):
            raise TimeoutError("nobody released it: whoever should have done so waits for it")
        return super().run(*arguments, **keywords)


def head(seed, spacing=(4, 4, 6), shape=(12, 28, 24)):
    """A ball of tissue with structure, on a tilted grid."""
    k, j, i = np.indices(shape)
    center = [(n - 1) / 2 for n in shape]
    radius = np.sqrt(sum(((axis - c) / (0.42 * n)) ** 2 for axis, c, n in zip((k, j, i), center, shape)))
    rng = np.random.default_rng(seed)
    array = np.where(radius < 1, 200 + 80 * np.cos(5 * radius + seed), 0) + rng.normal(0, 3, shape)
    return Volume(array.astype(np.int16), Grid.from_parts(shape, spacing, (-40, -50, -30), TILT))


@pytest.fixture(name="scene")
def scene_fixture():
    """An empty scene."""
    return slicer_stand_in.new_scene()


@pytest.fixture(name="nodes")
def nodes_fixture(scene):
    """T1 and T2 of a patient, in the scene."""
    return {s: add_volume(scene, head(seed), f"{s} tra") for seed, s in enumerate(("T1", "T2"))}


@pytest.fixture(name="open_panel")
def open_panel_fixture():
    """Opens the panel of the module, with another computer than its own where one is given; all are closed at last."""
    panels = []

    def open_one(computer=None):
        panels.append(slicer_stand_in.open_panel(module.NPCSynthWidget))
        if computer is not None:
            panels[-1].logic.computer = computer
        return panels[-1]

    yield open_one
    for panel in panels:
        panel.cleanup()


@pytest.fixture(name="make_panel")
def make_panel_fixture(open_panel):
    """Opens a panel whose runs are those of a computer, or of a synthesizer in this process (MeanOfSources)."""

    def make(synthesizer=None):
        computes = hasattr(synthesizer, "compute")
        return open_panel(synthesizer if computes else InProcess(synthesizer or MeanOfSources()))

    return make


@pytest.fixture(name="tiny_weights", scope="module")
def tiny_weights_fixture(tmp_path_factory):
    """Folder of real weights of a tiny network."""
    pytest.importorskip("torch")
    pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")
    from tiny_weights import write_tiny_weights

    return write_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(name="real_worker")
def real_worker_fixture(tiny_weights):
    """The worker process with the real Synthesizer and tiny random weights."""
    worker = WorkerProcess(weights=tiny_weights)
    yield worker
    worker.close()


@pytest.fixture(name="errors")
def errors_fixture(monkeypatch):
    """What was shown as an error."""
    shown = []
    for name in ("errorDisplay", "messageBox"):
        monkeypatch.setattr(slicer.util, name, lambda text, **kw: shown.append(text))
    monkeypatch.setattr(slicer.util, "mainWindow", lambda: "a window")
    return shown


@pytest.fixture(name="opened")
def opened_fixture(monkeypatch):
    """Files that the browser was asked to open."""
    addresses = []

    class Services:
        openUrl = staticmethod(lambda url: addresses.append(url.toLocalFile()))

    monkeypatch.setattr(qt, "QDesktopServices", Services)
    return addresses


def skip_without_drawing():
    """For test files that look at slice views."""
    from slicer_stand_in.slice_views import can_render

    if not can_render():
        pytest.skip("this machine cannot draw without a display (EGL and OSMesa are missing)", allow_module_level=True)


def wait_until(condition, seconds=60):
    """Let Qt work until it is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        slicer.app.processEvents()
        time.sleep(0.005)


def wait_for(panel, seconds=60):
    """Until nothing computes any more, nor what was canceled, and all is shown."""
    wait_until(lambda: not panel.runner.running and not panel.runner._fading, seconds)
    slicer.app.processEvents()


def actions(row):
    """What can be done with the sequence of a row of the study table."""
    return [row.action.itemText(number) for number in range(row.action.count)]


def act(panel, sequence, text):
    """Do what a user does: choose what to do with a sequence."""
    row = panel.study.rows[sequence]
    row.action.currentIndex = actions(row).index(text)


def want(panel, *targets):
    """Synthesize these and no other sequence."""
    for sequence in panel._parameterNode.targets():
        if sequence not in targets:
            act(panel, sequence, "leave")
    for sequence in targets:
        act(panel, sequence, "synthesize")


def synthetic_names():
    """Names of all nodes of results in the scene."""
    return {n.GetName() for n in slicer.util.getNodesByClass("vtkMRMLNode") if "(synthetic)" in (n.GetName() or "")}
