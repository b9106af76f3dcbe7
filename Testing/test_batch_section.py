"""The panel's section Several patients."""

import threading

import pytest
from panel_cases import (  # noqa: F401
    errors_fixture,
    open_panel_fixture,
    opened_fixture,
    qt,
    scene_fixture,
    slicer,
    wait_for,
    wait_until,
)
from test_batch import MeanOfSources, write_patient

from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.inference.process import WorkerProcess
from NPCSynthPanel.batch import BatchSection


@pytest.fixture
def make_panel(scene, open_panel):
    def make(synthesizer=None, computer=None):
        panel = open_panel(computer or InProcess(synthesizer or MeanOfSources()))
        return panel, panel.section(BatchSection)

    return make


@pytest.fixture
def choose(monkeypatch):
    """What the user chooses in the next dialogs for folders."""
    chosen = []
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *a: str(chosen.pop(0))))
    return chosen


@pytest.fixture
def patients(tmp_path):
    for name in ("anna", "bert"):
        write_patient(tmp_path / "cohort" / name)
    (tmp_path / "cohort" / "empty").mkdir()
    return tmp_path / "cohort"


def outcomes(section):
    section.refresh()
    return {section.table.item(row, 0).text(): section.table.item(row, 1).text()
            for row in range(section.table.rowCount)}


def begin(section, choose, out, patients):
    section.reportCheckBox.checked = False
    choose.append(out)
    section.folderButton.click()
    choose.append(patients)
    section.addAllButton.click()


def test_first_a_folder_then_patients_then_run(make_panel, choose, errors, patients, tmp_path):
    panel, section = make_panel()
    assert section.folderButton.enabled
    for button in (section.addButton, section.runButton, section.pauseButton, section.retryButton,
                   section.summaryButton, section.removeButton):
        assert not button.enabled
    begin(section, choose, tmp_path / "out", patients)
    assert outcomes(section) == {"anna": "waiting", "bert": "waiting", "empty": "waiting"}
    assert section.runButton.enabled and not section.numberedCheckBox.enabled
    before = slicer.mrmlScene.GetNumberOfNodes()
    scene = slicer.mrmlScene
    section.runButton.click()
    assert section.pauseButton.enabled and not section.addButton.enabled
    wait_for(panel)
    assert outcomes(section) == {"anna": "✓ done", "bert": "✓ done", "empty": "✗ failed"}
    assert "2 done, 1 failed" in panel.run.statusLabel.text and not errors
    assert "empty" in section.table.item(2, 6).text()
    assert slicer.mrmlScene is scene and slicer.mrmlScene.GetNumberOfNodes() == before
    assert not (tmp_path / "out" / "anna" / "scene.mrb").exists()
    assert section.summaryButton.enabled and section.retryButton.enabled and not section.runButton.enabled


def test_closing_the_scene_does_not_stop_the_list(make_panel, choose, errors, patients, tmp_path):
    """It reads and writes files alone, often overnight."""
    panel, section = make_panel()
    begin(section, choose, tmp_path / "out", patients)
    section.runButton.click()
    slicer.mrmlScene.Clear(0)
    assert panel.runner.running
    wait_for(panel)
    assert all((tmp_path / "out" / name / "T1C_synthetic.nii.gz").exists() for name in ("anna", "bert"))
    assert not errors
    panel.initializeParameterNode()
    panel.refresh()
    assert outcomes(section) == {"anna": "✓ done", "bert": "✓ done", "empty": "✗ failed"}
    assert section.summaryButton.enabled and section.retryButton.enabled


def test_the_list_says_whether_it_makes_contours_whatever_the_settings_say_now(make_panel, choose, patients, tmp_path):
    panel, section = make_panel()
    panel._parameterNode.segment = False
    begin(section, choose, tmp_path / "out", patients)
    panel._parameterNode.segment = True
    panel.refresh()
    assert "Without contours" in section.contoursLabel.text and not section.cohort.settings.segment


def test_retry_does_the_failed_ones_alone(make_panel, choose, patients, tmp_path):
    synthesizer = MeanOfSources()
    panel, section = make_panel(synthesizer)
    begin(section, choose, tmp_path / "out", patients)
    section.runButton.click()
    wait_for(panel)
    (patients / "empty").rmdir()
    write_patient(patients / "empty")
    section.retryButton.click()
    wait_for(panel)
    assert len(synthesizer.runs) == 3 and set(outcomes(section).values()) == {"✓ done"}


def test_pause_and_go_on_after_a_restart(make_panel, choose, patients, tmp_path):
    panel, section = make_panel(MeanOfSources(lambda study: section._paused.set()))
    begin(section, choose, tmp_path / "out", patients)
    section.runButton.click()
    wait_for(panel)
    assert outcomes(section) == {"anna": "✓ done", "bert": "waiting", "empty": "waiting"}
    panel.cleanup()
    panel, section = make_panel()  # the parameter node of the scene names the folder
    assert outcomes(section)["anna"] == "✓ done" and section.runButton.enabled
    section.runButton.click()
    wait_for(panel)
    assert outcomes(section) == {"anna": "✓ done", "bert": "✓ done", "empty": "✗ failed"}


def test_cancel_lets_the_patient_wait_again(make_panel, choose, errors, patients, tmp_path):
    release = threading.Event()
    synthesizer = MeanOfSources(lambda study: release.wait(60))
    panel, section = make_panel(synthesizer)
    begin(section, choose, tmp_path / "out", patients)
    section.runButton.click()
    wait_until(lambda: synthesizer.runs)
    panel.run.cancelButton.click()
    assert not section.pauseButton.enabled
    release.set()
    wait_for(panel)
    wait_until(lambda: "running" not in outcomes(section).values() and "interrupted" not in outcomes(section).values())
    assert not list((tmp_path / "out").glob(".*")) and not errors
    section.runButton.click()
    wait_for(panel)
    assert outcomes(section)["anna"] == "✓ done"


def test_the_list_grows_while_it_runs(make_panel, choose, patients, tmp_path):
    turn = threading.Semaphore(0)
    panel, section = make_panel(MeanOfSources(lambda study: turn.acquire(timeout=60)))
    begin(section, choose, tmp_path / "out", patients)
    section._timer.setInterval(10)
    section.runButton.click()

    def shown():
        return [section.table.item(row, 1).text() for row in range(3)]

    wait_until(lambda: shown() == ["running", "waiting", "waiting"])
    turn.release()
    wait_until(lambda: shown() == ["✓ done", "running", "waiting"])
    turn.release()
    wait_until(lambda: shown() == ["✓ done", "✓ done", "✗ failed"])


def test_through_the_worker_process(make_panel, choose, errors, patients, tmp_path, tmp_path_factory):
    pytest.importorskip("torch")
    pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")
    from tiny_weights import write_tiny_weights

    worker = WorkerProcess(weights=write_tiny_weights(tmp_path_factory.mktemp("weights")))
    panel, section = make_panel(computer=worker)
    panel._parameterNode.segment = False
    begin(section, choose, tmp_path / "out", patients)
    section.runButton.click()
    wait_until(lambda: not panel.runner.running, seconds=180)
    assert outcomes(section) == {"anna": "⚠ done, unusual", "bert": "⚠ done, unusual", "empty": "✗ failed"}, errors
    assert (tmp_path / "out" / "bert" / "T1C_synthetic.nii.gz").exists()


def test_numbers_and_taking_off_the_list(make_panel, choose, patients, tmp_path):
    _panel, section = make_panel()
    section.numberedCheckBox.checked = True
    begin(section, choose, tmp_path / "out", patients)
    assert list(outcomes(section)) == ["patient-001", "patient-002", "patient-003"]
    section.table.setCurrentCell(1, 0)
    section.removeButton.click()
    assert list(outcomes(section)) == ["patient-001", "patient-003"]


def test_report_or_folder_and_summary_open(make_panel, choose, opened, errors, patients, tmp_path):
    panel, section = make_panel()
    begin(section, choose, tmp_path / "out", patients)
    section.runButton.click()
    wait_for(panel)
    section.table.setCurrentCell(0, 0)
    section.openPatient(0)
    (tmp_path / "out" / "anna" / "report.html").write_text("page")
    section.openPatient(0)
    section.summaryButton.click()
    assert opened == [str(tmp_path / "out" / "anna"), str(tmp_path / "out" / "anna" / "report.html"),
                      str(tmp_path / "out" / "summary.html")]
    section.openPatient(2)
    assert "no results" in errors[0]


def test_bad_folders_are_said(make_panel, choose, errors, patients, tmp_path):
    _panel, section = make_panel()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    choose.append(tmp_path / "mine")
    section.folderButton.click()
    assert "holds no batch" in errors[0] and section.cohort is None
    choose.extend([tmp_path / "out", patients / "empty"])
    section.folderButton.click()
    section.addAllButton.click()
    assert "holds no folders" in errors[1] and outcomes(section) == {}


def test_a_batch_that_another_program_runs_is_left_alone(make_panel, choose, errors, patients, tmp_path):
    from NPCSynthLib.batch import Cohort

    panel, section = make_panel()
    begin(section, choose, tmp_path / "out", patients)
    with Cohort(tmp_path / "out").locked():
        section.runButton.click()
        wait_for(panel)
    assert "Another program" in errors[0] and outcomes(section)["anna"] == "waiting"
