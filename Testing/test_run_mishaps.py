"""What can happen to the scene during a run, and sources that cannot be used: a clear sentence, and nothing lost."""

import pytest
from panel_cases import (  # noqa: F401
    MeanOfSources,
    make_panel_fixture,
    module,
    nodes_fixture,
    open_panel_fixture,
    real_worker_fixture,
    scene_fixture,
    slicer,
    synthetic_names,
    tiny_weights_fixture,
    wait_until,
    want,
)
from test_worker import private_temp, wait_for_end  # noqa: F401

from NPCSynthLib.errors import InputError, UsageError
from NPCSynthLib.inference.job import InProcess


@pytest.fixture
def running(nodes, make_panel):
    """A panel whose run goes on; "T1" gives the grid."""
    synthesizer = MeanOfSources(pause=0.02)
    panel = make_panel(synthesizer)
    panel._parameterNode.reference = "T1"
    want(panel, "T1C")
    panel.run.runButton.click()
    wait_until(synthesizer.started.is_set)
    return panel


def finish(panel):
    wait_until(lambda: not panel.runner.running)
    return panel.run.statusLabel.text


def test_the_reference_volume_is_deleted_during_a_run(running, nodes):
    slicer.mrmlScene.RemoveNode(nodes["T1"])
    before = slicer.mrmlScene.GetNumberOfNodes()
    assert "T1 volume that gives the grid was removed" in finish(running)
    assert slicer.mrmlScene.GetNumberOfNodes() == before and not synthetic_names()


def test_another_source_is_deleted_during_a_run(running, nodes):
    slicer.mrmlScene.RemoveNode(nodes["T2"])
    assert "Done" in finish(running)
    node = slicer.util.getNode("T1C (synthetic)")
    assert node.GetAttribute("NPCSynth.Sources") == "T1, T2"
    assert [node.GetNthNodeReference("NPCSynth.Source", n) for n in range(2)] == [nodes["T1"], None]
    assert running._parameterNode.sources() == {"T1": nodes["T1"]}


def test_a_source_without_image_data(nodes, make_panel):
    panel = make_panel()
    empty = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "FLAIR empty")
    panel._parameterNode.assign({"FLAIR": empty})
    panel.run.runButton.click()
    assert not panel.runner.running and not synthetic_names()
    assert '"FLAIR empty" has no image data' in panel.run.statusLabel.text


def test_image_data_that_went_after_the_choice(nodes, make_panel):
    panel = make_panel()
    nodes["T2"].SetAndObserveImageData(None)
    panel.run.checkButton.click()
    assert '"T2 tra" has no image data' in panel.run.statusLabel.text and not panel.runner.running


def test_the_same_volume_twice_from_a_script(nodes):
    logic = module.NPCSynthLogic(InProcess(MeanOfSources()))
    with pytest.raises((InputError, UsageError), match='"T1 tra" is assigned to both T1 and T2'):
        logic.process({"T1": nodes["T1"], "T2": nodes["T1"]}, ["FLAIR"])


def test_the_same_volume_twice_in_a_scene_made_elsewhere(nodes, make_panel):
    panel = make_panel()
    panel._parameterNode.parameterNode.SetNodeReferenceID("Source.T2", nodes["T1"].GetID())
    panel.run.runButton.click()
    assert not panel.runner.running
    assert '"T1 tra" is assigned to both T1 and T2' in panel.run.statusLabel.text


def test_closing_the_scene_ends_the_worker_and_leaves_no_files(
    nodes, make_panel, real_worker, private_temp  # noqa: F811
):
    panel = make_panel(real_worker)
    panel.run.runButton.click()
    wait_until(lambda: panel.runner.current.stage, seconds=60)
    pid, thread = real_worker.pid, panel.runner.current.thread
    slicer.mrmlScene.Clear(0)
    assert not panel.runner.running and "scene was closed" in panel.run.statusLabel.text
    wait_for_end(pid, 5)
    wait_until(lambda: not thread.is_alive())
    slicer.app.processEvents()
    assert not synthetic_names() and not list(private_temp.glob("npcsynth-job*"))


@pytest.mark.parametrize("happens", ["the scene is closed", "a source is deleted"])
def test_nothing_runs_when_the_scene_changes_while_the_user_is_asked(nodes, make_panel, monkeypatch, happens):
    from test_preflight_panel import LOOK, Checked

    def change(text, **_keywords):
        if happens == "the scene is closed":
            slicer.mrmlScene.Clear(0)
        else:
            slicer.mrmlScene.RemoveNode(nodes["T2"])
            slicer.app.processEvents()
        return True

    computer = Checked(LOOK)
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", change)
    panel = make_panel(computer)
    panel.run.runButton.click()
    assert "Press Run again" in finish(panel) and not computer.computed


def test_progress_says_stage_per_cent_and_time_left(running):
    running.runner.current._began -= 60
    texts = set()

    def look():
        texts.add(running.run.statusLabel.text)
        return not running.runner.running

    wait_until(look)
    assert any(text.startswith("Synthesizing T1C · ") and " % · about " in text for text in texts), texts


def test_the_reference_is_centered_during_a_run(running, nodes):
    """As "Center volume" of the module Volumes does."""
    before = slicer.mrmlScene.GetNumberOfNodes()
    nodes["T1"].SetOrigin(5.0, 6.0, 7.0)
    assert "T1 volume that gives the grid was moved" in finish(running)
    assert slicer.mrmlScene.GetNumberOfNodes() == before and not synthetic_names()


def test_a_second_click_that_waited_starts_nothing_more(nodes, make_panel, monkeypatch):
    """A wait cursor lets events through."""
    synthesizer = MeanOfSources(pause=0.01)
    panel = make_panel(synthesizer)
    want(panel, "T1C")
    prepare, clicks = panel.logic.prepare, []

    def impatient(*arguments):
        if not clicks:
            clicks.append(1)
            panel.run.runButton.click()
        return prepare(*arguments)

    monkeypatch.setattr(panel.logic, "prepare", impatient)
    panel.run.runButton.click()
    assert panel.runner.running and "Done" in finish(panel)
    assert len(synthetic_names()) == 3, "an image, its uncertainty and the contours, once"


def test_closing_ends_the_worker_even_when_qt_was_faster(nodes, make_panel, monkeypatch):
    shiboken6 = pytest.importorskip("shiboken6")
    panel = make_panel()
    closed = []
    monkeypatch.setattr(panel.logic.computer, "close", lambda: closed.append(1), raising=False)
    for section in panel.sections:
        section.widget.setParent(None)
    shiboken6.delete(panel.sections[1].segmentCheckBox)
    panel.cleanup()
    assert closed
