"""The Slicer module: its panel over PySide6 without a display, its logic over the real scene of slicer-core."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from panel_cases import (  # noqa: F401
    MODULE_FILE,
    Held,
    MeanOfSources,
    act,
    actions,
    errors_fixture,
    head,
    make_panel_fixture,
    module,
    nodes_fixture,
    open_panel_fixture,
    qt,
    real_worker_fixture,
    scene_fixture,
    slicer,
    synthetic_names,
    tiny_weights_fixture,
    wait_until,
    want,
)

from NPCSynthLib.errors import Cancelled, InputError, UsageError
from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.scene import add_volume
from NPCSynthLib.vocabulary import load_sequences
from NPCSynthPanel.export import ExportSection
from NPCSynthPanel.settings import SettingsSection

ROOT = MODULE_FILE.parents[1]


def sources(panel):
    return panel._parameterNode.sources()


def targets(panel):
    return panel._parameterNode.targets()


# ---- the file --------------------------------------------------------------------------------------------------


def test_the_module_finds_the_library_from_its_own_folder_alone():
    """As in a source checkout that was added to Slicer's module paths."""
    code = (
        f"import sys; sys.path = [p for p in sys.path if p not in ('', {str(MODULE_FILE.parents[1])!r})]\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from slicer_stand_in import install, load_module\n"
        f"install(); m = load_module({str(MODULE_FILE)!r})\n"
        "import NPCSynthLib; print(NPCSynthLib.__file__)\n"
        "print(sorted(n for n in ('torch', 'open_clip', 'SimpleITK') if n in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/", timeout=120,
        env={**__import__("os").environ, "PYTHONPATH": ""},
    )
    lines = done.stdout.splitlines()
    assert lines[-2] == str(MODULE_FILE.parents[1] / "NPCSynthLib" / "__init__.py")
    assert lines[-1] == "[]", "importing the module must stay light: Slicer imports it at every start"


def test_help_says_research_use_and_the_category_is_radiotherapy():
    parent = slicer.qSlicerScriptedLoadableModule(str(MODULE_FILE))
    module.NPCSynth(parent)
    assert "Research use only" in parent.helpText
    assert parent.categories == ["Radiotherapy"]


# ---- the panel -------------------------------------------------------------------------------------------------


def test_volumes_are_assigned_and_all_missing_sequences_are_targets(nodes, make_panel):
    panel = make_panel()
    assert {s: n.GetID() for s, n in sources(panel).items()} == {s: n.GetID() for s, n in nodes.items()}
    for sequence, row in panel.study.rows.items():
        assert row.selector.currentNode() is nodes.get(sequence)
        assert row.action.currentText == ("use" if sequence in nodes else "synthesize")
        assert ("use" in actions(row)) == (sequence in nodes)
        assert row.confidence.text.endswith("%") == (sequence in nodes)
    assert targets(panel) == [s for s in load_sequences() if s not in nodes]
    assert panel.run.runButton.enabled and not panel.run.cancelButton.enabled
    assert "T1" in panel.study.rows["T1"].selector.toolTip and "%" in panel.study.rows["T1"].selector.toolTip


def test_every_sequence_of_the_vocabulary_has_a_row(scene, make_panel):
    assert list(make_panel().study.rows) == list(load_sequences())


def test_an_empty_scene_cannot_be_run(scene, make_panel):
    panel = make_panel()
    assert not panel.run.runButton.enabled
    assert "Load" in panel.run.runButton.toolTip
    assert "No MR volume" in panel.study.notesLabel.text


def test_volumes_loaded_later_are_assigned(scene, make_panel):
    panel = make_panel()
    node = add_volume(scene, head(0), "t2_tse_tra")
    wait_until(lambda: sources(panel))
    assert sources(panel)["T2"] is node


def test_volumes_loaded_one_after_the_other_are_all_assigned(nodes, make_panel):
    panel = make_panel()
    node = add_volume(slicer.mrmlScene, head(2), "t1 gd fs tra")
    again = add_volume(slicer.mrmlScene, head(3), "T2 again")
    wait_until(lambda: "T1CFS" in sources(panel))
    assert sources(panel) == {**nodes, "T1CFS": node}
    assert again.GetName() in panel.study.notesLabel.text and "kept" in panel.study.notesLabel.text


def test_entering_again_connects_nothing_twice(nodes, make_panel):
    panel = make_panel()
    first = panel._parameterNode
    panel.enter()
    assert panel._parameterNode is first


def test_a_scene_that_is_loaded_brings_its_choice(scene, make_panel):
    panel = make_panel()
    add_volume(scene, head(0), "T2 tra")
    wait_until(lambda: sources(panel))
    scene.SetSaveToXMLString(1)
    scene.Commit()
    scene.Clear(0)
    assert panel.study.rows["T2"].selector.currentNode() is None
    # The parameter node comes first in the file, the volume that it refers to later.
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(scene.GetSceneXMLString())
    scene.Import()
    assert sources(panel)["T2"].GetName() == "T2 tra"
    assert panel.study.rows["T2"].selector.currentNode() is sources(panel)["T2"]
    assert panel.study.rows["T2"].action.currentText == "use"


def test_closing_the_panel_ends_its_run(nodes, make_panel):
    synthesizer = MeanOfSources(pause=0.1)
    panel = make_panel(synthesizer)
    panel.run.runButton.click()
    wait_until(synthesizer.started.is_set)
    panel.cleanup()
    assert not synthesizer.threads[0].is_alive()


def test_unrecognized_volumes_are_named(scene, make_panel):
    add_volume(scene, head(0), "localizer")
    panel = make_panel()
    assert "localizer" in panel.study.notesLabel.text
    assert not sources(panel)


def test_own_results_are_not_taken_for_sources(nodes, make_panel):
    node = add_volume(slicer.mrmlScene, head(5), "FLAIR (synthetic)")
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    assert "FLAIR" not in sources(make_panel())


def test_changing_the_assignment_changes_the_targets(nodes, make_panel):
    panel = make_panel()
    panel.study.rows["T2FS"].selector.choose(nodes["T2"])
    assert sources(panel)["T2FS"] is nodes["T2"]
    assert "T2" not in sources(panel), "one volume is one sequence"
    assert "T2" in targets(panel) and "T2FS" not in targets(panel)
    assert panel.study.rows["T2"].action.currentText == "synthesize"
    assert panel.study.rows["T2FS"].action.currentText == "use"
    assert panel.study.rows["T2FS"].confidence.text == "your choice"
    assert "looks like T2:" in panel.study.rows["T2FS"].confidence.toolTip


def test_targets_left_out_stay_so_and_are_saved_with_the_scene(nodes, make_panel):
    panel = make_panel()
    act(panel, "PD", "leave")
    assert "PD" not in targets(panel)
    assert "PD" not in targets(make_panel())


def test_an_acquired_sequence_can_be_synthesized_for_comparison_or_left_out(nodes, make_panel):
    panel = make_panel()
    act(panel, "T2", "synthesize")
    assert sources(panel) == {"T1": nodes["T1"]} and "T2" in targets(panel)
    assert panel._parameterNode.assigned() == nodes, "it stays known, to be compared with"
    act(panel, "T2", "leave")
    assert sources(panel) == {"T1": nodes["T1"]} and "T2" not in targets(panel)
    act(panel, "T2", "use")
    assert sources(panel) == nodes


@pytest.fixture
def two_studies(nodes):
    """T1 and T2 of one patient, T2 and FLAIR of another, as the DICOM module files them. The second has more."""
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    others = {s: add_volume(slicer.mrmlScene, head(9), f"{s} other") for s in ("T2", "FLAIR", "T1C")}
    for number, volumes in enumerate((nodes, others)):
        patient = tree.CreateSubjectItem(tree.GetSceneItemID(), f"Patient {number}")
        study = tree.CreateStudyItem(patient, "Head and neck")
        tree.SetItemUID(study, "DICOM", f"1.2.{number}")
        for node in volumes.values():
            tree.CreateItem(study, node)
    return nodes, others


def choose_study(panel, index):
    """Do what a user does: open the list and click."""
    panel.study.studyComboBox.currentIndex = index
    panel.study.studyComboBox.activated.emit(index)


def test_without_studies_there_is_nothing_to_choose(nodes, make_panel):
    assert make_panel().study.studyRow.isHidden()


def test_choosing_a_study_fills_the_table_from_it_alone(two_studies, make_panel):
    first, second = two_studies
    panel = make_panel()
    assert sources(panel) == second, "two patients are never mixed by themselves"
    assert "2 studies are loaded" in panel.study.notesLabel.text
    choose_study(panel, 1)
    assert sources(panel) == first and "FLAIR" in targets(panel)
    assert panel.study.studyComboBox.currentText == "Patient 0 / Head and neck"
    choose_study(panel, 0)
    assert {"T1", "T2", "FLAIR", "T1C"} == set(sources(panel)), "all of the scene, when the user wants that"


def test_studies_of_one_name_without_a_uid_are_told_apart(nodes, make_panel):
    """Two scenes of the command line, loaded into one."""
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    others = {s: add_volume(slicer.mrmlScene, head(9), f"{s} other") for s in ("T2", "FLAIR")}
    for volumes in (nodes, others):
        study = tree.CreateStudyItem(tree.GetSceneItemID(), "MR study")
        for node in volumes.values():
            tree.CreateItem(study, node)
    panel = make_panel()
    choose_study(panel, 2)
    assert panel.study.studyComboBox.currentText == "MR study (2)" and sources(panel) == others
    choose_study(panel, 1)
    assert sources(panel) == nodes


def test_the_study_is_saved_with_the_scene(two_studies, make_panel):
    choose_study(make_panel(), 1)
    again = make_panel()
    assert again.study.studyComboBox.currentText == "Patient 0 / Head and neck"
    assert sources(again) == two_studies[0]


def test_another_patient_that_is_loaded_later_does_not_mix_in(two_studies, make_panel):
    first, second = two_studies
    panel = make_panel()
    choose_study(panel, 1)
    panel._parameterNode.study = ""
    panel.study.onVolumeAdded(second["FLAIR"])
    panel.study._onDetectTimer()
    assert sources(panel) == first and panel._parameterNode.study == "1.2.0"
    assert "another study were loaded" in panel.study.notesLabel.text and not panel.study.notesLabel.isHidden()
    panel.study._showNotes([])
    panel.study.onVolumeAdded(add_volume(slicer.mrmlScene, head(9), "resampled"))
    panel.study._onDetectTimer()
    assert panel.study.notesLabel.isHidden(), "what is filed under no study is not of another one"


def test_no_target_means_no_run(nodes, make_panel):
    panel = make_panel()
    want(panel)
    assert not panel.run.runButton.enabled
    assert "at least one" in panel.run.runButton.toolTip


def test_a_run_adds_the_results_and_says_so(nodes, make_panel):
    synthesizer = MeanOfSources()
    panel = make_panel(synthesizer)
    want(panel, "T1C", "FLAIR")
    panel.section(SettingsSection).deviceComboBox.currentIndex = list(module.DEVICES).index("CPU")
    panel.section(SettingsSection).referenceComboBox.currentIndex = 2
    panel.run.runButton.click()
    assert panel.run.cancelButton.enabled and not panel.run.runButton.enabled
    wait_until(lambda: panel.runner.current is None)
    assert synthetic_names() == {
        "T1C (synthetic)", "T1C uncertainty (synthetic)", "FLAIR (synthetic)", "FLAIR uncertainty (synthetic)",
        "NPCSynth segmentation (synthetic)",
    }
    assert synthesizer.devices == ["cpu"]
    assert synthesizer.threads[0] is not threading.main_thread()
    status = panel.run.statusLabel.text
    assert "Done" in status and "A warning to show." in status
    assert panel.run.runButton.enabled


def test_a_run_in_the_worker_with_a_real_network(nodes, make_panel, real_worker, monkeypatch):
    # An untrained network on tiny images: the checks before the run have doubts.
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_k: "Run all the same?" in text)
    panel = make_panel(real_worker)
    want(panel, "T1C")
    panel.run.runButton.click()
    wait_until(lambda: panel.runner.current is None, seconds=120)
    assert "Done" in panel.run.statusLabel.text, panel.run.statusLabel.text
    node = slicer.util.getNode("T1C (synthetic)")
    assert node.GetAttribute("NPCSynth.ModelName") == "tiny"
    assert slicer.util.arrayFromVolume(node).dtype == np.int16
    assert "NPCSynth segmentation (synthetic)" in synthetic_names()


def test_a_worker_killed_from_outside_leaves_the_scene_alone_and_the_cpu_is_offered(
    nodes, make_panel, real_worker, monkeypatch
):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_k: asked.append(text) or len(asked) == 1,
                        raising=False)
    panel = make_panel(real_worker)
    before = slicer.mrmlScene.GetNumberOfNodes()
    for _attempt in range(2):  # the second one is the retry that the user agreed to, on the CPU
        panel.run.runButton.click() if panel.runner.current is None else None
        wait_until(lambda: panel.runner.current.stage, seconds=60)
        os.kill(real_worker.pid, signal.SIGKILL)
        run = panel.runner.current
        wait_until(lambda run=run: panel.runner.current is not run, seconds=60)
    assert slicer.mrmlScene.GetNumberOfNodes() == before
    assert len(asked) == 1 and "memory ran out" in asked[0] and "on the CPU" in asked[0]
    assert panel._parameterNode.device == "CPU" and "memory ran out" in panel.run.statusLabel.text


def test_segmentation_can_be_left_out(nodes, make_panel):
    panel = make_panel()
    panel.section(SettingsSection).segmentCheckBox.checked = False
    panel.run.runButton.click()
    wait_until(lambda: panel.runner.current is None)
    assert "T1C (synthetic)" in synthetic_names()
    assert "NPCSynth segmentation (synthetic)" not in synthetic_names()


def test_progress_shows_stage_and_time_left(nodes, make_panel):
    panel = make_panel(MeanOfSources(pause=0.02))
    want(panel, "T1C")
    panel.run.runButton.click()
    panel.runner.current._began -= 60
    values, texts = [], set()

    def look():
        values.append(panel.run.progressBar.value)
        texts.add(panel.run.statusLabel.text)
        return panel.runner.current is None

    wait_until(look)
    assert values == sorted(values) and 0 < values[len(values) // 2] <= 100
    assert any("Synthesizing" in text and "left" in text for text in texts)


def test_the_window_stays_alive_during_a_run(nodes, make_panel):
    """How often its turn comes is measured by Testing/benchmarks/panel.py."""
    synthesizer = Held()
    panel = make_panel(synthesizer)
    panel.run.runButton.click()
    wait_until(synthesizer.started.is_set)
    ticks = []
    timer = qt.QTimer()
    timer.setInterval(0)
    timer.connect("timeout()", lambda: ticks.append(panel.runner.running))
    timer.start()
    wait_until(lambda: len(ticks) > 20)
    timer.stop()
    assert all(ticks) and synthesizer.threads[0].is_alive()
    synthesizer.release.set()
    wait_until(lambda: not panel.runner.running)
    assert "Done" in panel.run.statusLabel.text


def test_cancel_waits_for_nothing_and_leaves_the_scene_alone(nodes, make_panel):
    synthesizer = Held()
    panel = make_panel(synthesizer)
    before = slicer.mrmlScene.GetNumberOfNodes()
    panel.run.runButton.click()
    wait_until(synthesizer.started.is_set)
    panel.run.cancelButton.click()
    assert panel.run.runButton.enabled and not panel.run.cancelButton.enabled
    assert "Nothing was changed" in panel.run.statusLabel.text
    assert synthesizer.threads[0].is_alive()
    synthesizer.release.set()
    wait_until(lambda: not synthesizer.threads[0].is_alive())
    slicer.app.processEvents()
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_a_run_right_after_a_cancel_waits_for_the_old_one(nodes, make_panel):
    synthesizer = MeanOfSources(pause=0.1)
    panel = make_panel(synthesizer)
    panel.run.runButton.click()
    wait_until(synthesizer.started.is_set)
    panel.run.cancelButton.click()
    synthesizer.pause = 0
    panel.run.runButton.click()
    wait_until(lambda: panel.runner.current is None)
    assert len(synthesizer.threads) == 2
    assert "T1C (synthetic)" in synthetic_names()


def test_closing_the_scene_cancels(nodes, make_panel):
    synthesizer = MeanOfSources(pause=0.1)
    panel = make_panel(synthesizer)
    panel.run.runButton.click()
    wait_until(synthesizer.started.is_set)
    slicer.mrmlScene.Clear(0)
    assert panel.runner.current is None
    assert "scene was closed" in panel.run.statusLabel.text
    wait_until(lambda: not synthesizer.threads[0].is_alive())
    slicer.app.processEvents()
    assert not synthetic_names()
    assert not sources(panel)


def test_an_error_of_ours_is_shown_in_plain_words(nodes, make_panel, caplog):
    panel = make_panel(MeanOfSources(error=InputError('"T2 tra" is constant. Choose another volume.')))
    with caplog.at_level(logging.ERROR):
        panel.run.runButton.click()
        wait_until(lambda: panel.runner.current is None)
    assert panel.run.statusLabel.text == '"T2 tra" is constant. Choose another volume.'
    assert "T2 tra" in caplog.text and "Traceback" not in caplog.text
    assert panel.run.runButton.enabled and not synthetic_names()


@pytest.mark.parametrize("answer", [True, False])
def test_a_question_that_may_name_a_patient_is_asked_and_not_logged(nodes, make_panel, monkeypatch, caplog, answer):
    """slicer.util.confirmYesNoDisplay writes what it asks to the application's log."""
    asked, box = [], qt.QMessageBox
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(slicer.util, "messageBox", lambda text, **_k: asked.append(text) or (
        box.Yes if answer else box.No))
    with caplog.at_level("DEBUG"):
        assert make_panel().messages.confirm('Remove "Doe^Jane"?') is answer
    assert asked == ['Remove "Doe^Jane"?'] and "Doe" not in caplog.text


def test_something_unforeseen_is_logged_without_what_was_at_hand(nodes, make_panel, errors, monkeypatch, caplog):
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    path = "^".join(("Doe", "Jane"))
    try:
        open(path)
    except OSError as error:
        make_panel().messages.showError(error)
    assert "Doe^Jane" in errors[0]
    assert "FileNotFoundError" in caplog.text and "test_module.py" in caplog.text and "Jane" not in caplog.text


def test_an_error_that_may_name_a_patient_is_shown_and_not_logged(nodes, make_panel, errors, monkeypatch, caplog):
    """slicer.util.errorDisplay writes what it shows to the application's log."""
    monkeypatch.setattr(slicer.app, "testingEnabled", lambda: False)
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda *_args, **_keywords: pytest.fail("logged"))
    panel = make_panel()
    nodes["T1"].SetName("Doe^Jane")
    panel.messages.showError(UsageError('"Doe^Jane" cannot be used.'))
    assert errors == ['"Doe^Jane" cannot be used.'] and "Doe" not in caplog.text


def test_an_unforeseen_error_is_shown_too(nodes, make_panel):
    panel = make_panel(MeanOfSources(error=ZeroDivisionError("division by zero")))
    panel.run.runButton.click()
    wait_until(lambda: panel.runner.current is None)
    assert "nothing was added" in panel.run.statusLabel.text
    assert "division by zero" in panel.run.statusLabel.text


def test_a_volume_that_cannot_be_used_is_refused_before_the_run(nodes, make_panel):
    panel = make_panel()
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    warp.SetAndObserveTransformToParent(slicer.vtkOrientedBSplineTransform())
    nodes["T2"].SetAndObserveTransformNodeID(warp.GetID())
    panel.run.runButton.click()
    assert panel.runner.current is None
    assert "T2 tra" in panel.run.statusLabel.text and "harden" in panel.run.statusLabel.text


def test_deleting_a_source_makes_it_a_target(nodes, make_panel):
    panel = make_panel()
    slicer.mrmlScene.RemoveNode(nodes["T2"])
    slicer.app.processEvents()
    assert sources(panel) == {"T1": nodes["T1"]}, "its neighbor in the list must not take its place"
    assert panel.study.rows["T2"].selector.currentNode() is None
    assert panel.study.rows["T1"].selector.currentNode() is nodes["T1"]
    assert panel.study.rows["T2"].action.currentText == "synthesize"


# ---- the logic, without a panel --------------------------------------------------------------------------------


def test_process_from_a_script(nodes):
    logic = module.NPCSynthLogic(InProcess(MeanOfSources()))
    progress = []
    created = logic.process(
        nodes, ["T1C"], segment=False, reference="T2", onProgress=lambda fraction, stage: progress.append(fraction)
    )
    assert list(created.volumes) == ["T1C"] and created.segmentation is None
    assert created.volumes["T1C"].GetAttribute("NPCSynth.Sources") == "T1, T2"
    assert progress == sorted(progress) and progress[-1] > 0.9


def test_process_makes_all_missing_sequences_that_the_weights_know_by_default(nodes, few_sequences):
    logic = module.NPCSynthLogic(InProcess(MeanOfSources()))
    assert list(logic.process(nodes, weights=few_sequences).volumes) == ["T1C"]


def test_process_makes_all_missing_sequences_by_default(nodes):
    created = module.NPCSynthLogic(InProcess(MeanOfSources())).process(nodes)
    assert list(created.volumes) == [s for s in load_sequences() if s not in nodes]


@pytest.mark.parametrize("targets, words", [
    (["T1"], "T1 is both a source and a target"),
    ([], "Nothing to synthesize"),
    (["T1X"], "T1X.*Did you mean"),
])
def test_a_senseless_request_is_refused(nodes, targets, words):
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(UsageError, match=words):
        module.NPCSynthLogic(InProcess(MeanOfSources())).process(nodes, targets)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_a_request_without_sources_is_refused(scene):
    with pytest.raises(UsageError, match="No source"):
        module.NPCSynthLogic(InProcess(MeanOfSources())).process({}, ["T1"])


@pytest.fixture
def from_dicom(scene, tmp_path, monkeypatch):
    """T1 and T2 of a study that Slicer loaded through its DICOM database; gives nodes and files."""
    pytest.importorskip("highdicom")
    import pydicom
    from dicom_cases import dicom_files, read_study, write_study

    files = dicom_files(write_study(tmp_path / "study", "oblique"))
    headers = {str(f): pydicom.dcmread(f, stop_before_pixels=True) for f in files}

    class Database:
        isOpen = True

        def fileForInstance(self, uid):
            return next((f for f, header in headers.items() if header.SOPInstanceUID == uid), "")

        def filesForSeries(self, uid):
            return [f for f, header in headers.items() if header.SeriesInstanceUID == uid]

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    nodes = {}
    for source in read_study(tmp_path / "study").sources:
        node = nodes[source.sequence] = add_volume(scene, source.original, f"{source.sequence} tra")
        node.SetAttribute("DICOM.instanceUIDs", " ".join(source.original.metadata["SOPInstanceUIDs"]))
    return nodes


@pytest.fixture
def answers(monkeypatch, tmp_path):
    """The user agrees to every question and chooses a folder; gives the questions."""
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_k: asked.append(text) or True)
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_a: str(tmp_path))
    return asked


def run(panel, *targets):
    want(panel, *targets)
    panel.run.runButton.click()
    wait_until(lambda: panel.runner.current is None, seconds=60)
    assert "Done" in panel.run.statusLabel.text, panel.run.statusLabel.text


def test_results_are_exported_into_the_study_of_their_source(from_dicom, make_panel, answers, tmp_path):
    import DICOMLib
    import pydicom

    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    filed = tree.CreateStudyItem(tree.CreateSubjectItem(tree.GetSceneItemID(), "Doe"), "Neck")
    for node in from_dicom.values():
        tree.CreateItem(filed, node)
    panel = make_panel()
    assert not panel.section(ExportSection).exportButton.enabled
    run(panel, "T1C")
    panel.section(ExportSection).exportButton.click()
    wait_until(lambda: panel.runner.current is None, seconds=60)
    assert "Wrote 4 DICOM series" in panel.run.statusLabel.text, panel.run.statusLabel.text
    assert "nothing was found: GTVn" in panel.run.statusLabel.text
    assert "Do not send them" in answers[0] and "T1C (synthetic)" in answers[0] and "of Doe / Neck" in answers[0]
    (folder,) = tmp_path.glob("NPCSynth *")
    assert DICOMLib.DICOMUtils.imported[-1] == (str(folder), True)
    written = [pydicom.dcmread(f, stop_before_pixels=True) for f in folder.rglob("*.dcm")]
    uid = from_dicom["T1"].GetAttribute("DICOM.instanceUIDs").split()[0]
    source = pydicom.dcmread(slicer.dicomDatabase.fileForInstance(uid), stop_before_pixels=True)
    assert {d.StudyInstanceUID for d in written} == {source.StudyInstanceUID}
    assert {d.SyntheticData for d in written} == {"YES"}


def test_an_image_changed_by_hand_is_not_exported_as_ours(from_dicom, make_panel, answers, tmp_path):
    panel = make_panel()
    run(panel, "T1C", "FLAIR")
    slicer.util.arrayFromVolume(slicer.util.getNode("T1C (synthetic)"))[0, 0, 0] += 1
    panel.section(ExportSection).exportButton.click()
    wait_until(lambda: panel.runner.current is None, seconds=60)
    assert "changed after" in panel.run.statusLabel.text and "T1C (synthetic)" in panel.run.statusLabel.text
    assert not list(tmp_path.glob("NPCSynth */T1C*")) and list(tmp_path.glob("NPCSynth */FLAIR*"))


def test_results_of_files_cannot_be_exported_and_the_reason_is_said(nodes, make_panel, answers, tmp_path):
    panel = make_panel()
    run(panel, "T1C")
    panel.section(ExportSection).exportButton.click()
    wait_until(lambda: panel.runner.current is None, seconds=60)
    assert "not read from DICOM" in panel.run.statusLabel.text
    assert not list(tmp_path.glob("NPCSynth*"))


def test_the_latest_results_are_removed_on_request(nodes, make_panel, answers):
    panel = make_panel()
    before = slicer.mrmlScene.GetNumberOfNodes()
    run(panel, "T1C")
    panel.section(ExportSection).removeButton.click()
    assert "T1C (synthetic)" in answers[-1]
    assert slicer.mrmlScene.GetNumberOfNodes() == before and not synthetic_names()
    slicer.app.processEvents()
    export = panel.section(ExportSection)
    assert not export.removeButton.enabled and not export.exportButton.enabled


def test_nothing_is_imported_that_slicer_lacks():
    """The panel, its worker, the scene and the DICOM export do without packages that only the command line has."""
    code = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('slicerio', 'matplotlib', 'rich', 'typer', 'skimage', 'contourpy',\n"
        "                                  'monai', 'open_clip', 'lightning_fabric', 'dicomanonymizer'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Absent())\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import NPCSynthLib.inference.worker, NPCSynthLib.inference.process, NPCSynthLib.inference.synthesizer\n"
        "import NPCSynthLib.study.build, NPCSynthLib.study.read, NPCSynthLib.phantom.patient\n"
        "import NPCSynthLib.scene, NPCSynthLib.scene.dicom, NPCSynthLib.output.dicom_export\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_cancel_from_a_script(nodes):
    before = slicer.mrmlScene.GetNumberOfNodes()
    with pytest.raises(Cancelled):
        module.NPCSynthLogic(InProcess(MeanOfSources())).process(nodes, ["T1C"], cancel=lambda: True)
    assert slicer.mrmlScene.GetNumberOfNodes() == before


def test_several_volumes_of_one_sequence_are_said(nodes):
    add_volume(slicer.mrmlScene, head(7, spacing=(8, 8, 9)), "T2 coarse")
    proposals, notes = module.NPCSynthLogic().proposeAssignment()
    assert proposals["T2"] is nodes["T2"]
    assert any("T2 coarse" in note and "T2 tra" in note for note in notes)


#: What the library may import in Slicer beside the standard library: what Slicer 5.12 brings, and torch.
IN_SLICER = {
    "PIL", "SimpleITK", "certifi", "highdicom", "idna", "jpeg_ls", "numpy", "packaging", "pydicom", "pyparsing",
    "requests", "scipy", "slicer", "torch", "urllib3", "vtk", "vtkmodules",
}


@pytest.mark.parametrize("room", ["vocabulary", "study", "model", "inference", "scene", "phantom"])
def test_what_slicer_installs_is_enough_for(room):
    """Imports at the top of the files; those inside functions are for uses that Slicer does not have."""
    import ast

    from packaging.requirements import Requirement

    lines = (ROOT / "Resources" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    installed = {Requirement(line).name for line in lines if line and not line.startswith("#")}
    imported = set()
    for path in (ROOT / "NPCSynthLib" / room).glob("*.py"):
        for statement in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in statement.names}
            elif isinstance(statement, ast.ImportFrom) and statement.level == 0:
                imported.add(statement.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) - IN_SLICER - installed == set()


# ---- the self-test that ships with the module, on the real thing -----------------------------------------------


def test_the_modules_own_test_passes(scene, real_worker, monkeypatch):
    """On a simulated patient, with a small network that was never trained."""
    logic_class = module.NPCSynthLogic
    monkeypatch.setattr(module, "NPCSynthLogic", lambda: logic_class(real_worker))
    module.NPCSynthTest().runTest()
