"""Another patient's image is not held against a run's results: the rule, the panel and the report."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest
from page_reader import Page
from panel_cases import module, slicer
from segmentation_cases import add_labels
from slicer_stand_in import new_scene, open_panel

from NPCSynthLib.errors import InputError
from NPCSynthLib.scene import acquired_belonging, add_result, add_volume, belonging, study_volumes
from NPCSynthLib.scene.review import compared_contours, copy_review
from NPCSynthLib.study.build import build_study
from NPCSynthPanel.results import ResultsSection

OURS = {"PatientID": "A-1", "StudyInstanceUID": "1.2.3", "FrameOfReferenceUID": "1.2.3.4", "StudyDate": "20230517"}
OTHER_PATIENT = {
    "PatientID": "B-2", "StudyInstanceUID": "1.2.9", "FrameOfReferenceUID": "1.2.9.4", "StudyDate": "20240101",
}


class Database:
    """As ctkDICOMDatabase: the file of an instance, "" where it is not known."""

    def __init__(self, folder):
        self.folder, self.files = folder, {}

    def fileForInstance(self, uid):
        return self.files.get(uid, "")

    def filesForSeries(self, uid):
        return ()

    def add(self, node, **facts):
        """Let a node be loaded from a series with these facts in its header."""
        uid = f"1.2.826.{len(self.files) + 1}"
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.4", uid, "MR"
        for key, value in facts.items():
            setattr(dataset, key, value)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        self.files[uid] = str(self.folder / f"{uid}.dcm")
        pydicom.dcmwrite(self.files[uid], dataset, enforce_file_format=True)
        node.SetAttribute("DICOM.instanceUIDs", uid)
        return node


@pytest.fixture
def database(tmp_path, monkeypatch):
    database = Database(tmp_path)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    return database


def add_run(study, result, nodes):
    """The result of these nodes, whose headers are in its provenance."""
    volumes = study_volumes(nodes)
    sources = tuple(replace(source, original=volumes[source.sequence]) for source in study.sources)
    return add_result(result, replace(study, sources=sources), nodes, slicer.mrmlScene)


@pytest.fixture
def run(database, study, result):
    """Two acquired sources with headers and what was made of them; and an acquired T2FS with none yet."""
    scene = new_scene()
    nodes = {s.sequence: database.add(add_volume(scene, s.original, f"{s.sequence} tra"), **OURS)
             for s in study.sources}  # fmt: skip
    made = add_run(study, result, nodes)
    real = add_volume(scene, study.source("T2").original, "T2 fs tra Doe")
    return SimpleNamespace(nodes=nodes, image=made.volumes["T2FS"], made=made, real=real)


@pytest.fixture
def panel(run):
    panel = open_panel(module.NPCSynthWidget)
    panel._parameterNode.assign({**run.nodes, "T2FS": run.real})
    yield panel
    panel.cleanup()


def test_the_same_examination_has_nothing_to_note(run, database):
    database.add(run.real, **OURS)
    assert acquired_belonging(run.image, run.real, "T2FS").sentences == ()


@pytest.mark.parametrize("change, words", [
    ({"FrameOfReferenceUID": "1.2.3.5"}, "another DICOM frame of reference"),
    ({"StudyDate": "20230601"}, "another day"),
])
def test_another_frame_or_day_is_allowed_and_said(run, database, change, words):
    found = acquired_belonging(run.image, database.add(run.real, **{**OURS, **change}), "T2FS")
    assert not found.refusal and len(found.notes) == 1 and words in found.notes[0]


@pytest.mark.parametrize("sources_there", [True, False])
def test_another_patient_is_refused_also_after_the_sources_are_gone(run, database, sources_there):
    database.add(run.real, **OTHER_PATIENT)
    if not sources_there:
        for node in run.nodes.values():
            slicer.mrmlScene.RemoveNode(node)
    found = acquired_belonging(run.image, run.real, "T2FS")
    assert "another patient" in found.refusal and found.sentences == (found.refusal,)
    assert "Doe" not in found.refusal and "B-2" not in found.refusal


def test_without_a_header_on_one_side_it_is_said(run, database):
    assert "same patient" in acquired_belonging(run.image, run.real, "T2FS").notes[0]


def test_plain_files_have_nothing_to_note(study, result):
    scene = new_scene()
    bare = {s.sequence: replace(s.original, metadata={}) for s in study.sources}
    made = add_run(study, result, {s: add_volume(scene, volume, s) for s, volume in bare.items()})
    assert acquired_belonging(made.volumes["T2FS"], add_volume(scene, bare["T2"], "x"), "T2FS").sentences == ()


def test_neither_a_source_nor_a_synthetic_image_is_the_truth(run):
    assert "made from" in acquired_belonging(run.image, run.nodes["T2"], "T2FS").refusal
    assert "synthesized" in acquired_belonging(run.image, run.made.uncertainties["T2FS"], "T2FS").refusal


def test_results_of_another_patient_are_another_patients(run, database, study, result):
    others = {s.sequence: database.add(add_volume(slicer.mrmlScene, s.original, f"{s.sequence} B"), **OTHER_PATIENT)
              for s in study.sources}  # fmt: skip
    theirs = add_run(study, result, others)
    assert "another patient" in belonging(run.image, theirs.segmentation, "The segmentation").refusal
    assert belonging(run.image, run.made.segmentation, "The segmentation").sentences == ()


def test_the_panel_does_not_compare_with_another_patient_and_says_why(run, database, panel):
    section = panel.section(ResultsSection)
    assert section.differenceButton.enabled
    database.add(run.real, **OTHER_PATIENT)
    panel.refresh()
    for button in (section.differenceButton, section.checkerboardButton):
        assert not button.enabled and "another patient" in button.toolTip
    assert section._acquired(section.chosen()) is run.nodes["T1"], "flicker takes the run's own source"
    assert "another patient" in section.aboutLabel.text


def test_the_panel_says_what_was_acquired_on_another_day(run, database, panel):
    section = panel.section(ResultsSection)
    database.add(run.real, **{**OURS, "StudyDate": "20230601"})
    panel.refresh()
    assert section.differenceButton.enabled and "another day" in section.aboutLabel.text


@pytest.mark.parametrize("header, told, used", [
    (OURS, "", True), ({**OURS, "StudyDate": "20230601"}, "another day", True),
    (OTHER_PATIENT, "another patient", False),
])
def test_the_report_holds_an_image_of_this_patient_alone_against_the_result(run, database, monkeypatch, header, told,
                                                                          used):
    pytest.importorskip("monai")
    seen = []
    monkeypatch.setattr("NPCSynthLib.output.report.picture", lambda *a: seen.append(a[3]) or b"\x89PNG")
    monkeypatch.setattr("NPCSynthLib.scene.review.build_study", _without_registration)
    database.add(run.real, **header)
    page = Page(copy_review(slicer.mrmlScene, {**run.nodes, "T2FS": run.real}).report())
    assert ("T2FS" in seen[0].images) is used
    assert any("SSIM" in table[0] for table in page.tables) is used
    assert told in page.text and (told or "another" not in page.text.split("Agreement with")[1].split("Checklist")[0])


def _without_registration(volumes, **choices):
    return build_study(volumes, register=False, **choices)


def test_contours_drawn_on_another_patient_are_not_drawn_into_the_pictures(run, database, study):
    theirs = database.add(add_volume(slicer.mrmlScene, study.source("T1").original, "T1 B"), **OTHER_PATIENT)
    with pytest.raises(InputError, match="another patient"):
        copy_review(slicer.mrmlScene, drawn=drawn_by_hand(study.grid, drawn_on=theirs))


def drawn_by_hand(grid, **choices):
    mask = np.zeros(grid.shape, bool)
    mask[3:6, 10:20, 10:20] = True
    return add_labels(slicer.mrmlScene, grid, {"GTVp": mask}, **choices)


def test_a_comparison_says_whose_contours_it_is_of(run, study, result):
    scene, image = slicer.mrmlScene, run.nodes["T1"]
    first, second = drawn_by_hand(study.grid, drawn_on=image), drawn_by_hand(study.grid, drawn_on=image)
    caption = compared_contours(scene, first, run.made.segmentation, image).caption
    assert caption == "This run's contours against drawn contours as the reference."
    caption = compared_contours(scene, first, second, image).caption
    assert caption == "Drawn contours against drawn contours as the reference."
    caption = compared_contours(scene, run.made.segmentation, second, image).caption
    assert "against this run's contours as the reference" in caption
    second.SetName("structures (synthetic)")
    caption = compared_contours(scene, second, run.made.segmentation, image).caption
    assert "against contours that a program made" in caption
    run.made.segmentation.GetSegmentation().RemoveSegment("GTVp")
    assert "changed since" in compared_contours(scene, first, run.made.segmentation, image).caption
    for node in (*run.made.volumes.values(), *run.made.uncertainties.values(), run.made.segmentation):
        text = node.GetAttribute("NPCSynth.Provenance")
        node.SetAttribute("NPCSynth.Provenance", text.replace('"created": "2', '"created": "1'))
    add_run(study, result, run.nodes)
    caption = compared_contours(scene, first, run.made.segmentation, image).caption
    assert caption.startswith("An earlier run's contours against")


@pytest.mark.parametrize("stranger", ["image", "reference", "compared", "earlier run"])
def test_a_comparison_of_another_patient_is_refused(run, database, study, result, stranger):
    scene = slicer.mrmlScene
    theirs = database.add(add_volume(scene, study.source("T1").original, "T1 B"), **OTHER_PATIENT)
    mine = {"image": run.nodes["T1"], "reference": drawn_by_hand(study.grid, drawn_on=run.nodes["T1"]),
            "compared": run.made.segmentation}
    assert not compared_contours(scene, *(mine[key] for key in ("reference", "compared", "image"))).refusal
    if stranger == "earlier run":
        others = {s.sequence: database.add(add_volume(scene, s.original, f"{s.sequence} B"), **OTHER_PATIENT)
                  for s in study.sources}  # fmt: skip
        theirs_made = add_run(study, result, others)
        mine["compared"] = theirs_made.segmentation
        for node in (*theirs_made.volumes.values(), *theirs_made.uncertainties.values(), theirs_made.segmentation):
            text = node.GetAttribute("NPCSynth.Provenance")
            node.SetAttribute("NPCSynth.Provenance", text.replace('"created": "2', '"created": "1'))
    else:
        mine[stranger] = theirs if stranger == "image" else drawn_by_hand(study.grid, drawn_on=theirs)
    told = compared_contours(scene, *(mine[key] for key in ("reference", "compared", "image")))
    assert told.refusal.startswith("The comparison of contours was left out.") and "another patient" in told.refusal


def test_a_comparison_elsewhere_is_refused(study, result):
    scene = new_scene()
    bare = {s.sequence: replace(s.original, metadata={}) for s in study.sources}
    made = add_run(study, result, {s: add_volume(scene, volume, s) for s, volume in bare.items()})
    far = study.grid.ijk_to_lps.copy()
    far[:3, 3] += 900
    elsewhere = add_volume(scene, replace(bare["T1"], grid=replace(study.grid, ijk_to_lps=far)), "x")
    drawn = drawn_by_hand(study.grid)
    assert "lies elsewhere" in compared_contours(scene, drawn, made.segmentation, elsewhere).refusal
    assert not compared_contours(scene, drawn, made.segmentation, add_volume(scene, bare["T2"], "y")).refusal
    told = copy_review(scene, {"T2FS": elsewhere})
    assert not told.acquired and "lies elsewhere" in told.acquired_notes[0]


@pytest.mark.parametrize("theirs", [False, True])
def test_the_panels_table_is_in_the_report_only_for_this_patient(run, database, study, panel, monkeypatch, theirs):
    pytest.importorskip("monai")
    monkeypatch.setattr("NPCSynthLib.output.report.picture", lambda *_what: b"\x89PNG")
    monkeypatch.setattr("NPCSynthLib.scene.review.build_study", _without_registration)
    other = database.add(add_volume(slicer.mrmlScene, study.source("T1").original, "T1 B"), **OTHER_PATIENT)
    image = other if theirs else run.nodes["T1"]
    panel.logic.contours.compare(drawn_by_hand(study.grid, drawn_on=image), drawn_by_hand(study.grid), image)
    compute = panel.logic.reports.prepare(panel._parameterNode)
    page = Page(compute(lambda fraction, stage: None, lambda: False))
    assert any("Dice" in table[0] for table in page.tables) is not theirs
    assert ("The comparison of contours was left out." in page.text) is theirs
    assert ("Drawn contours against drawn contours" in page.text) is not theirs
