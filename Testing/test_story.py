"""The whole story through the panel, over the real scene: from the Sample Data module to the report.

Without a network and in this process: what is looked at is the way, not the images. The worker with a network is in
test_module.py, test_worker.py and test_run_mishaps.py.
"""

import sys
import unittest

import numpy as np
import pytest
from panel_cases import (  # noqa: F401
    MODULE_FILE,
    MeanOfSources,
    module,
    open_panel_fixture,
    qt,
    scene_fixture,
    slicer,
    synthetic_names,
    wait_until,
)

pytest.importorskip("monai")

from slicer_stand_in import load_module, sample_data

from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.phantom import patient as phantom
from NPCSynthPanel.parameters import COMPARED, IMAGE, REFERENCE

ROOT = MODULE_FILE.parents[1]
load_module(ROOT / "NPCSynth" / "DICOMNPCSynthPlugin.py")


@pytest.fixture(scope="module")
def patient():
    return phantom.make_patient(1, sequences=("T1", "T2"), size="small")


@pytest.fixture(autouse=True)
def one_patient(patient, monkeypatch):
    """The digital patient of the Sample Data module is a small one, and made once."""
    monkeypatch.setattr(phantom, "make_patient", lambda *_arguments, **_keywords: patient)


@pytest.fixture
def computer():
    return InProcess(MeanOfSources(pause=0.01))


@pytest.fixture
def agree(monkeypatch):
    """The user agrees to every question. In testing mode Slicer's own answer would be no."""
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_k: asked.append(text) or True)
    return asked


@pytest.fixture
def panel(scene, computer, agree, open_panel):
    return open_panel(computer)


def section(panel, name):
    """By name: after a reload the classes are others."""
    return next(one for one in panel.sections if type(one).__name__ == name)


def load_sample(panel):
    """What a user does in the Sample Data module."""
    slicer.app.standInEmit("startupCompleted()")
    (source,) = slicer.modules.sampleDataSources["NPCSynth"]
    nodes = sample_data.click(source)
    wait_until(lambda: panel._parameterNode.sources())
    return {name.GetName().split()[-1]: name for name in nodes}


def choose(panel, *targets):
    """Do what a user does: choose what to do with each sequence."""
    for sequence, row in panel.study.rows.items():
        texts = [row.action.itemText(number) for number in range(row.action.count)]
        if "use" not in texts:
            row.action.currentIndex = texts.index("synthesize" if sequence in targets else "leave")


def run(panel):
    """Press the button and follow; gives what the progress bar and the line below it showed."""
    panel.run.runButton.click()
    assert panel.run.cancelButton.enabled and not panel.run.runButton.enabled
    values, texts = [], []

    def look():
        values.append(panel.run.progressBar.value)
        texts.append(panel.run.statusLabel.text)
        return not panel.runner.running

    wait_until(look)
    assert "Done" in panel.run.statusLabel.text, panel.run.statusLabel.text
    return values, texts


def test_from_sample_data_to_the_report(panel, agree, monkeypatch, tmp_path):
    # Load: recognized, and what is missing is to be made.
    nodes = load_sample(panel)
    assert panel._parameterNode.sources() == nodes and set(nodes) == {"T1", "T2"}
    assert "FLAIR" in panel._parameterNode.targets() and panel.run.runButton.enabled

    # Check: nothing runs, nothing is added.
    before = slicer.mrmlScene.GetNumberOfNodes()
    choose(panel, "T1C", "FLAIR")
    panel.run.checkButton.click()
    wait_until(lambda: not panel.runner.running)
    assert "Checked" in panel.run.statusLabel.text and slicer.mrmlScene.GetNumberOfNodes() == before

    # Run: the bar goes on, the stages are named, the results lie on the grid of a source.
    _values, texts = run(panel)
    assert any("%" in text for text in texts)
    names = {"T1C (synthetic)", "FLAIR (synthetic)", "T1C uncertainty (synthetic)", "FLAIR uncertainty (synthetic)"}
    assert names < synthetic_names()
    made = slicer.util.getNode("T1C (synthetic)")
    size = made.GetImageData().GetDimensions()
    assert size in [node.GetImageData().GetDimensions() for node in nodes.values()]

    # Results: a row each.
    results = section(panel, "ResultsSection")
    rows = [results.table.item(row, 0).text() for row in range(results.table.rowCount)]
    assert sorted(rows) == ["FLAIR (synthetic)", "T1C (synthetic)"]

    # Contour QA: the proposal against itself under another name; a comparison that must agree wholly.
    proposed = slicer.util.getNode("NPCSynth segmentation (synthetic)")
    drawn = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "drawn")
    drawn.GetSegmentation().DeepCopy(proposed.GetSegmentation())
    drawn.SetReferenceImageGeometryParameterFromVolumeNode(made)
    contours = section(panel, "ContourSection")
    for role, node in ((REFERENCE, drawn), (COMPARED, proposed), (IMAGE, nodes["T1"])):
        contours.selectors[role].choose(node)
    contours.compareButton.click()
    wait_until(lambda: not panel.runner.running)
    assert contours.table.rowCount > 0, contours.stateLabel.text

    # Report: one page, nameless.
    page = tmp_path / "report.html"
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_a: str(page))
    monkeypatch.setattr(qt.QDesktopServices, "openUrl", lambda url: True)
    section(panel, "ReportSection").writeButton.click()
    wait_until(lambda: not panel.runner.running)
    text = page.read_text(encoding="utf-8")
    assert "T1C" in text and "mean of sources" in text and "Phantom T1" not in text, panel.run.statusLabel.text


def test_a_saved_scene_brings_choices_and_results_back(panel, tmp_path):
    load_sample(panel)
    choose(panel, "T1C")
    run(panel)
    images = {name: slicer.util.arrayFromVolume(slicer.util.getNode(name)).copy() for name in ("T1C (synthetic)",)}
    scene = slicer.mrmlScene
    before = synthetic_names()
    scene.SetRootDirectory(str(tmp_path))
    for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"):
        if node.IsA("vtkMRMLVolumeNode") or node.IsA("vtkMRMLSegmentationNode"):
            node.AddDefaultStorageNode()
            suffix = "nrrd" if node.IsA("vtkMRMLVolumeNode") else "seg.nrrd"
            node.GetStorageNode().SetFileName(str(tmp_path / f"{node.GetID()}.{suffix}"))
            assert node.GetStorageNode().WriteData(node)
    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Commit()

    scene.Clear(0)
    assert not panel._parameterNode.sources() and not panel.run.runButton.enabled
    assert section(panel, "ResultsSection").table.rowCount == 0

    scene.SetURL(str(tmp_path / "scene.mrml"))
    assert scene.Import()
    slicer.app.processEvents()
    assert set(panel._parameterNode.sources()) == {"T1", "T2"} and panel._parameterNode.targets() == ["T1C"]
    assert synthetic_names() == before
    for name, array in images.items():
        np.testing.assert_array_equal(slicer.util.arrayFromVolume(slicer.util.getNode(name)), array)
        assert slicer.util.getNode(name).GetAttribute("NPCSynth.Synthetic") == "YES"
    assert section(panel, "ResultsSection").table.rowCount == 1
    assert "T1C (synthetic)" not in [node.GetName() for node in panel.logic.candidateNodes()], "never a source again"


def test_two_panels_show_one_choice_and_end_apart(panel, computer, open_panel):
    other = open_panel(computer)
    nodes = load_sample(panel)
    wait_until(lambda: other._parameterNode.sources() == nodes)
    choose(other, "PD")
    slicer.app.processEvents()
    assert panel._parameterNode.targets() == ["PD"] and panel.study.rows["FLAIR"].action.currentText == "leave"
    other.cleanup()
    choose(panel, "T1C")
    run(panel)
    assert "T1C (synthetic)" in synthetic_names()


def test_reload_makes_a_new_panel_with_the_choices_of_the_old_one(scene, computer, agree):
    """By the real slicer.util.reloadScriptedModule."""
    panel = slicer.modules.npcsynth.widgetRepresentation().self()
    panel.enter()
    nodes = load_sample(panel)
    choose(panel, "T1C")
    try:
        slicer.util.reloadScriptedModule("NPCSynth")
        new = slicer.modules.NPCSynthWidget
        assert new is not panel and type(new) is not type(panel) and not panel.sections
        assert new._parameterNode.sources() == nodes and new._parameterNode.targets() == ["T1C"]
        new.logic.computer = computer
        run(new)
        assert "T1C (synthetic)" in synthetic_names()
        new.cleanup()
    finally:
        sys.modules["NPCSynth"] = module  # for the tests after this one


def test_closing_the_scene_during_a_run_adds_nothing_to_the_next_one(panel):
    load_sample(panel)
    panel.run.runButton.click()
    wait_until(lambda: panel.runner.current is not None and panel.runner.current.stage)
    slicer.mrmlScene.Clear(0)
    assert not panel.runner.running and "scene was closed" in panel.run.statusLabel.text
    nodes = load_sample(panel)
    choose(panel, "T1C")
    assert not synthetic_names()
    run(panel)
    assert {name for name in synthetic_names() if "uncertainty" not in name and "segmentation" not in name} == {
        "T1C (synthetic)"
    }
    assert panel._parameterNode.sources() == nodes


def test_cancel_and_run_again(panel):
    load_sample(panel)
    before = slicer.mrmlScene.GetNumberOfNodes()
    panel.run.runButton.click()
    wait_until(lambda: panel.runner.current is not None and panel.runner.current.stage)
    panel.run.cancelButton.click()
    assert "Nothing was changed" in panel.run.statusLabel.text and panel.run.runButton.enabled
    wait_until(lambda: not panel.runner._fading)
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    choose(panel, "T1C")
    run(panel)
    assert "T1C (synthetic)" in synthetic_names()


def test_the_test_for_inside_slicer_passes_here(scene, computer, agree, monkeypatch):
    """Testing/Python/NPCSynthInSlicerTest.py: what Slicer runs, as far as the stand-in goes."""
    monkeypatch.syspath_prepend(str(ROOT / "Testing" / "Python"))
    import NPCSynthInSlicerTest as script

    slicer.modules.npcsynth._widget = None  # the panel of this scene
    slicer.app.standInEmit("startupCompleted()")
    monkeypatch.setattr(script.NPCSynthInSlicerTest, "computer", computer)
    # Without those that need Slicer's readers, and a module that may be changed for good.
    names = set(unittest.TestLoader().getTestCaseNames(script.NPCSynthInSlicerTest))
    names -= {"test_assignment", "test_reload"}
    suite = unittest.TestSuite(script.NPCSynthInSlicerTest(name) for name in sorted(names))
    outcome = unittest.TestResult()
    suite.run(outcome)
    assert outcome.testsRun == 7 and not outcome.errors + outcome.failures, outcome.errors + outcome.failures
    slicer.modules.NPCSynthWidget.cleanup()
    slicer.modules.npcsynth._widget = None
