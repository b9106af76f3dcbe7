"""The panel before a run: green goes on, amber asks, red blocks; what was found is read without color."""

import gc
import weakref

import pytest
from panel_cases import (  # noqa: F401
    MeanOfSources,
    act,
    make_panel_fixture,
    nodes_fixture,
    open_panel_fixture,
    scene_fixture,
    slicer,
    synthetic_names,
    wait_until,
    want,
)

from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.inference.preflight import AMBER, GREEN, RED, Check
from NPCSynthLib.inference.request import SynthesisRequest

FINE = Check("Memory", GREEN, "The run takes about 0.5 GB, and 15 GB are free.")
LOOK = Check("T2: sequence", AMBER, "The image given as T2 looks like T1 & <PD>.")
STOP = Check("Weights", RED, "The weights file is damaged.")


class Checked(InProcess):
    """Computes the mean of the sources after a pre-flight with these findings."""

    def __init__(self, *checks):
        super().__init__(MeanOfSources())
        self.checks, self.checked, self.computed = checks, [], []

    def preflight(self, volumes, request, on_progress=None, cancel=None):
        """As InProcess.preflight."""
        self.checked.append(request)
        return self.checks

    def compute(self, volumes, request, on_progress=None, cancel=None):
        """As InProcess.compute."""
        self.computed.append(request)
        return super().compute(volumes, request, on_progress, cancel)


@pytest.fixture
def asked(monkeypatch):
    """What the user was asked; ``answer`` is what the user says."""
    questions = []

    def confirm(text, **_keywords):
        questions.append(text)
        return asked.answer

    def asked():
        return questions

    asked.answer = True
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", confirm)
    return asked


def press(panel, button):
    button.click()
    wait_until(lambda: not panel.runner.running)


def test_green_goes_on_without_a_click(nodes, make_panel, asked):
    computer = Checked(FINE)
    panel = make_panel(computer)
    want(panel, "T1C")
    press(panel, panel.run.runButton)
    assert "T1C (synthetic)" in synthetic_names() and not asked()
    assert panel.run.preflight.widget.collapsed and not panel.run.preflight.widget.isHidden()
    (checked,), (computed,) = computer.checked, computer.computed
    assert checked == computed == SynthesisRequest(("T1C",), segment=True, device=None)


def test_a_finished_run_keeps_no_copy_of_the_images(nodes, make_panel, asked):
    """On top of the scene and the worker they would double what a study takes."""
    kept = []

    class Watched(Checked):
        def compute(self, volumes, request, on_progress=None, cancel=None):
            kept.extend(weakref.ref(volume.array) for volume in volumes.values())
            return super().compute(volumes, request, on_progress, cancel)

    panel = make_panel(Watched(FINE))
    want(panel, "T1C")
    press(panel, panel.run.runButton)
    assert synthetic_names() and len(kept) == 2
    gc.collect()
    assert not any(reference() is not None for reference in kept)


@pytest.mark.parametrize("answer", [True, False])
def test_amber_asks(nodes, make_panel, asked, answer):
    asked.answer = answer
    computer = Checked(FINE, LOOK)
    panel = make_panel(computer)
    want(panel, "T1C")
    press(panel, panel.run.runButton)
    assert len(asked()) == 1 and LOOK.sentence in asked()[0] and "Run all the same?" in asked()[0]
    assert FINE.sentence not in asked()[0]
    assert bool(computer.computed) == answer == ("T1C (synthetic)" in synthetic_names())
    assert len(computer.checked) == 1
    if not answer:
        assert "Nothing was changed" in panel.run.statusLabel.text and panel.run.runButton.enabled
    assert not panel.run.preflight.widget.collapsed


def test_a_question_stays_small_enough_for_the_screen(nodes, make_panel, asked):
    panel = make_panel(Checked(*(Check(f"{n}", AMBER, f"Doubt {n}.") for n in range(20))))
    press(panel, panel.run.runButton)
    assert "Doubt 5." in asked()[0] and "Doubt 6." not in asked()[0] and "14 more" in asked()[0]
    assert "Doubt 19." in panel.run.preflight.label.text


def test_red_blocks(nodes, make_panel, asked):
    computer = Checked(LOOK, STOP)
    panel = make_panel(computer)
    press(panel, panel.run.runButton)
    assert not computer.computed and not asked() and not synthetic_names()
    assert STOP.sentence in panel.run.statusLabel.text and panel.run.runButton.enabled


def test_the_list_is_read_without_color_and_the_worst_comes_first(nodes, make_panel, asked):
    panel = make_panel(Checked(FINE, LOOK, STOP))
    press(panel, panel.run.checkButton)
    text = panel.run.preflight.label.text
    assert text.index(STOP.sentence) < text.index("looks like T1 &amp; &lt;PD&gt;.") < text.index(FINE.sentence)
    assert [text.count(f"<b>{word}</b>") for word in ("stop", "look", "fine")] == [1, 1, 1]
    assert "it cannot run" in panel.run.preflight.widget.text


def test_check_alone_runs_nothing(nodes, make_panel, asked):
    computer = Checked(FINE)
    panel = make_panel(computer)
    press(panel, panel.run.checkButton)
    assert not computer.computed and not synthetic_names() and "Press Run" in panel.run.statusLabel.text
    assert panel.run.checkButton.enabled and panel.run.runButton.enabled


def test_what_was_found_is_gone_when_something_else_is_chosen(nodes, make_panel, asked):
    panel = make_panel(Checked(LOOK))
    press(panel, panel.run.checkButton)
    panel.refresh()
    assert not panel.run.preflight.widget.isHidden()
    act(panel, "PD", "leave")
    assert panel.run.preflight.widget.isHidden()


def test_a_check_can_be_canceled(nodes, make_panel, asked):
    panel = make_panel(Checked(FINE))
    panel.run.checkButton.click()
    assert panel.run.cancelButton.enabled and not panel.run.checkButton.enabled
    panel.run.cancelButton.click()
    assert panel.run.checkButton.enabled and panel.run.preflight.widget.isHidden()
