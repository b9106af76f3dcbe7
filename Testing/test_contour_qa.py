"""The panel's section Contour QA, over the real scene of slicer-core."""

import csv
import math
import threading

import numpy as np
import pytest
from panel_cases import errors_fixture, open_panel_fixture, qt, scene_fixture, slicer, wait_for  # noqa: F401

pytest.importorskip("monai")

from PySide6 import QtCore, QtTest
from scipy import ndimage
from segmentation_cases import (
    CENTER,
    GRIDS,
    add_image,
    add_labels,
    add_planes,
    add_transform,
    ball,
    circles,
)
from test_belonging import OTHER_PATIENT, OURS, Database
from vtk.util import numpy_support

from NPCSynthLib.errors import NPCSynthError, UsageError
from NPCSynthLib.inference.result import Segment, SegmentationResult, SynthesisResult, SynthesizedSequence
from NPCSynthLib.phantom.patient import make_patient, structures_on
from NPCSynthLib.scene import add_result, add_volume, study_volumes
from NPCSynthLib.scene.results import SYNTHETIC_TAG
from NPCSynthLib.study.build import build_study
from NPCSynthLib.study.volume import Grid
from NPCSynthLib.vocabulary import load_structures
from NPCSynthPanel.contour_qa import ContourSection
from NPCSynthPanel.parameters import COMPARED, IMAGE, REFERENCE

THICK = GRIDS["oblique, thick slices"]


@pytest.fixture
def make_panel(open_panel):
    def make():
        panel = open_panel()
        return panel, panel.section(ContourSection)

    return make


def compare(panel, section):
    section.compareButton.click()
    wait_for(panel)


def titles(section):
    return [section.table.horizontalHeaderItem(n).text().replace("\n", " ") for n in range(section.table.columnCount)]


def column(section, title):
    """Texts of a column from top to bottom."""
    number = titles(section).index(title)
    return [section.table.item(row, number).text() for row in range(section.table.rowCount)]


def slice_nodes(scene):
    made = []
    for name in ("Red", "Green"):
        node = slicer.vtkMRMLSliceNode()
        node.SetLayoutName(name)
        made.append(scene.AddNode(node))
    made[1].SetOrientationToCoronal()
    return made


def center_of(slice_node):
    return np.array([slice_node.GetSliceToRAS().GetElement(row, 3) for row in range(3)])


@pytest.fixture
def balls(scene):
    """An oblique image of thick slices, the contours of two on it: a ball each, of the parotid one side only."""
    image = add_image(scene, THICK, "Doe Jane T1")
    image.SetAttribute("NPCSynth.Test", "image")
    parotid = ball(THICK, 4, CENTER + THICK.direction @ (14, 0, 0))
    wider = ball(THICK)
    middle = np.argwhere(wider)[:, 0].mean().round().astype(int)
    wider[middle, 25:29, 34:44] = True
    mine = add_labels(scene, THICK, {"GTVnx": ball(THICK), "Lt Parotid": parotid, "bump": parotid},
                      "Doe Jane RTSTRUCT", drawn_on=image, shared=False)
    yours = add_labels(scene, THICK, {"GTVp": wider, "swelling": parotid}, "Doe Jane second", shared=False)
    return image, mine, yours, int(middle)


# ---- from a study to a table -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def patient():
    return make_patient(4, ("T1", "T2"), "small")


def patient_mask(patient, name):
    return structures_on(patient.anatomy, patient.volumes["T1"].grid)[name] > 0.5


def load(scene, patient):
    """A study as it lies in the scene: two sequences, the contours drawn on T1, and a run that made T2 and contours."""
    nodes = {s: add_volume(scene, patient.volumes[s], f"Phantom {s}") for s in ("T1", "T2")}
    grid = patient.volumes["T1"].grid
    shares = structures_on(patient.anatomy, grid)
    drawn = {name: shares[name] > 0.5 for name in ("GTVp", "Brainstem", "Parotid_L")}
    reference = add_labels(
        scene, grid, {"GTVnx": drawn["GTVp"], "Brain_Stem": drawn["Brainstem"], "Left parotid": drawn["Parotid_L"]},
        "Contours", drawn_on=nodes["T1"], shared=False)
    study = build_study(study_volumes({"T1": nodes["T1"]}))
    known = {s.name: s for s in load_structures()}
    labelmap = np.zeros(grid.shape, np.uint8)
    for name in ("GTVp", "Brainstem"):
        labelmap[np.roll(drawn[name], 1, axis=2)] = known[name].label
    segments = tuple(Segment(s.name, s.label, s.color, s.code) for s in known.values() if s.name in drawn)
    image = (1000 * study.sources[0].array).clip(0, 1000).astype(np.int16)
    made = SynthesizedSequence("T2", image, np.full_like(image, 50), "T2-weighted", 50.0)
    result = SynthesisResult(
        study.grid, (made,), SegmentationResult(labelmap, study.body, segments), ("T1",),
        {"name": "test", "version": "0", "sha256": "0" * 64}, "CPU")
    return nodes, reference, add_result(result, study, nodes, scene)


def test_a_study_with_drawn_contours_is_compared_with_the_prediction(scene, patient, make_panel, errors):
    nodes, reference, created = load(scene, patient)
    panel, section = make_panel()
    shown = {role: selector.currentNode() for role, selector in section.selectors.items()}
    assert shown == {REFERENCE: reference, COMPARED: created.segmentation, IMAGE: nodes["T1"]}
    assert panel._parameterNode.contourNode(REFERENCE) is None, "what goes without saying is not written down"
    before = scene.GetNumberOfNodes()
    compare(panel, section)
    assert not errors and scene.GetNumberOfNodes() == before
    rows = dict(zip(column(section, "Structure"), zip(column(section, "Name in the reference"),
                                                        column(section, "Name compared"))))
    assert rows == {"GTVp": ("GTVnx", "GTVp^SYN"), "Brainstem": ("Brain_Stem", "Brainstem^SYN"),
                    "Parotid_L": ("Left parotid", "Parotid_L^SYN")}
    table = panel.logic.contours.table
    by_name = {one.name: one for one in table.agreements}
    assert 0.3 < by_name["Brainstem"].dice < 1 and 0 < by_name["Brainstem"].mean_distance_mm < 5
    assert by_name["Parotid_L"].predicted_ml == 0 and "Empty in the compared contours." in by_name["Parotid_L"].remark
    assert table.images == {"T1": None, "T2": None, "T2 (synthetic)": "T2"}
    assert all(by_name["Brainstem"].edges[image] > 0 for image in table.images)
    assert any("The compared contours were made by a program" in note for note in table.notes)
    assert not any("The reference contours were made by a program" in note for note in table.notes)
    assert "made by a program" in section.notesLabel.text and not section.table.isHidden()
    assert {"Edges in T2", "Edges in T2 (synthetic)"} < set(titles(section))


def test_the_choice_is_saved_with_the_scene_and_emptied_with_its_nodes(scene, balls, make_panel):
    image, mine, yours, _ = balls
    panel, section = make_panel()
    section.selectors[REFERENCE].choose(yours)
    section.selectors[COMPARED].choose(mine)
    assert panel._parameterNode.contourNode(REFERENCE) is yours and panel._parameterNode.contourNode(COMPARED) is mine
    again, other = make_panel()
    assert other.selectors[REFERENCE].currentNode() is yours
    scene.RemoveNode(yours)
    panel.refresh()
    assert panel._parameterNode.contourNode(REFERENCE) is None
    assert section.selectors[REFERENCE].currentNode() is None and not section.compareButton.enabled
    assert "choose two segmentations" in section.compareButton.toolTip


def test_a_scene_that_is_loaded_brings_the_choice_back(scene, balls, make_panel):
    image, mine, yours, _ = balls
    panel, section = make_panel()
    section.selectors[REFERENCE].choose(yours)
    section.selectors[COMPARED].choose(mine)
    section.selectors[IMAGE].choose(image)
    panel._parameterNode.setPairs(yours, mine, {"swelling": "bump"})
    scene.SetSaveToXMLString(1)
    scene.Commit()
    scene.Clear(0)
    assert section.selectors[REFERENCE].currentNode() is None
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(scene.GetSceneXMLString())
    scene.Import()
    names = {role: selector.currentNode().GetName() for role, selector in section.selectors.items()}
    assert names == {REFERENCE: "Doe Jane second", COMPARED: "Doe Jane RTSTRUCT", IMAGE: "Doe Jane T1"}
    chosen = [section.selectors[role].currentNode() for role in (REFERENCE, COMPARED)]
    assert panel._parameterNode.pairsOf(*chosen) == {"swelling": "bump"}
    assert panel._parameterNode.pairsOf(*reversed(chosen)) == {}, "pairs are of the contours that they were made for"


# ---- the table -------------------------------------------------------------------------------------------------


def test_ratings_are_words_signs_and_colors(scene, balls, make_panel):
    panel, section = make_panel()
    compare(panel, section)
    assert column(section, "Agreement") == [
        "~ fair" if section.rows[0].hd95_mm > 3 else "✓ good", "✗ only in the reference: missed",
        "✗ only in the reference: missed", "only in the compared"]
    assert section.table.item(1, titles(section).index("Agreement")).background().color().name() == "#f6cfc8"
    cell = section.table.item(0, titles(section).index("Dice"))
    assert cell.text().startswith("✓ 0.9") and cell.background().color().name() == "#d5ecd4"
    assert "good from 0.8" in cell.toolTip() and "no criterion" in cell.toolTip()
    empty = section.table.item(1, titles(section).index("Dice"))
    assert empty.text() == "" and "Not drawn in the compared contours." in empty.toolTip()
    assert column(section, "Difference (ml)")[0].split()[1].startswith("+")


def test_contours_of_two_people_are_not_called_a_prediction(scene, balls, make_panel):
    image, mine, yours, _ = balls
    bent = circles(THICK)[3] + np.linspace(0, 9, 120)[:, None] * THICK.direction[:, 2]
    loaded = add_planes(scene, {"GTVp": [bent], "Lens_L": circles(THICK)}, "resident")
    panel, section = make_panel()
    section.selectors[COMPARED].choose(loaded)
    compare(panel, section)
    remarks = {one.name: one.remark for one in section.rows}
    assert remarks["Parotid_L"] == "Not drawn in the compared contours."
    assert remarks["Lens_L"] == "Not drawn in the reference."
    assert remarks["GTVp"].startswith("Of the compared contours, GTVp was left out")
    cells = [section.table.item(row, n) for row in range(len(section.rows)) for n in range(len(section.columns))]
    told = [section.notesLabel.text, *(text for cell in cells for text in (cell.text(), cell.toolTip()))]
    assert not [text for text in told if "predict" in text.lower()]


def test_contours_that_the_network_drew_are_never_taken_for_drawn_ones(scene, balls, make_panel):
    """Also where a predicted structure has taken a drawn one's place: name and number of structures are as before."""
    _, mine, yours, _ = balls
    panel, _ = make_panel()
    contours = panel.logic.contours
    assert contours.chosen(panel._parameterNode)[REFERENCE] is mine and not contours.isPredicted(mine)
    segmentation = mine.GetSegmentation()
    segmentation.RemoveSegment(segmentation.GetNthSegmentID(0))
    segmentation.AddEmptySegment("GTVp", "GTVp")
    segmentation.GetSegment("GTVp").SetTag(SYNTHETIC_TAG, "YES")
    assert contours.isPredicted(mine)
    assert contours.chosen(panel._parameterNode)[REFERENCE] is yours


def test_every_column_sorts_both_ways_and_what_is_unknown_stays_below(scene, balls, make_panel):
    panel, section = make_panel()
    compare(panel, section)
    header = section.table.horizontalHeader()
    for number, title in enumerate(titles(section)):
        value = section.columns[number].value
        header.sectionClicked.emit(number)
        up = [value(one) for one in section.rows]
        header.sectionClicked.emit(number)
        down = [value(one) for one in section.rows]
        known = [v for v in up if v == v and v != ""]
        assert known == sorted(known) and up[:len(known)] == known, title
        assert down[:len(known)] == known[::-1], title
    assert sorted(column(section, "Structure")) == ["GTVp", "Parotid_L", "bump", "swelling"]


def test_what_was_missed_comes_first_when_the_worst_are_on_top(scene, balls, make_panel):
    image, mine, yours, _ = balls
    elsewhere = ball(THICK, 4, CENTER - THICK.direction @ (14, 0, 0))
    add = add_labels(scene, THICK, {"Parotid_L": elsewhere}, "poor", shared=False).GetSegmentation()
    yours.GetSegmentation().CopySegmentFromSegmentation(add, add.GetNthSegmentID(0))
    panel, section = make_panel()
    compare(panel, section)
    number = titles(section).index("Agreement")
    section.table.horizontalHeader().sectionClicked.emit(number)
    assert column(section, "Structure")[:2] == ["bump", "Parotid_L"] and column(section, "Structure")[3] == "swelling"
    assert column(section, "Agreement")[:2] == ["✗ only in the reference: missed", "✗ poor"]


def test_sorting_works_from_the_keyboard_and_keeps_the_chosen_structure(scene, balls, make_panel):
    panel, section = make_panel()
    compare(panel, section)
    section.table.setCurrentCell([one.name for one in section.rows].index("bump"), 0)
    section.sortButton.click()
    assert column(section, "Structure") == ["bump", "GTVp", "Parotid_L", "swelling"]
    assert section.table.currentRow() == 0
    section.sortButton.click()
    assert column(section, "Structure")[-1] == "bump" and section.table.currentRow() == 3


@pytest.mark.parametrize("moved", [False, True])
def test_a_click_or_enter_shows_where_the_contours_differ_most(scene, balls, make_panel, moved):
    image, mine, yours, middle = balls
    views = slice_nodes(scene)
    matrix = np.eye(4)
    if moved:
        matrix[:3] = [[0, -1, 0, 40], [1, 0, 0, -10], [0, 0, 1, 5]]
        transform = add_transform(scene, matrix)
        for node in balls[:3]:
            node.SetAndObserveTransformNodeID(transform.GetID())
    panel, section = make_panel()
    compare(panel, section)
    (one,) = [one for one in section.rows if one.name == "GTVp"]
    assert one.worst_slice == middle
    row = section.rows.index(one)
    i, j = 39, 27  # within the bump
    wanted = (matrix @ np.diag([-1, -1, 1, 1]) @ THICK.ijk_to_lps @ (i, j, middle, 1))[:3]
    for act in (
        lambda: section.table.cellClicked.emit(row, 3),
        lambda: (section.table.setCurrentCell(row, 0), section.table.show(),
                 QtTest.QTest.keyClick(section.table, QtCore.Qt.Key_Return)),
        lambda: (section.table.setCurrentCell(row, 0), section.showButton.click()),
    ):
        for view in views:
            view.JumpSliceByCentering(0, 0, 0)
        act()
        for view in views:
            assert np.linalg.norm(center_of(view) - wanted) < 6
    assert np.allclose(center_of(views[0]), center_of(views[1]))


def test_what_is_drawn_on_one_side_only_can_be_looked_at_too(scene, balls, make_panel, errors):
    views = slice_nodes(scene)
    panel, section = make_panel()
    compare(panel, section)
    section.show([one.name for one in section.rows].index("Parotid_L"))
    wanted = np.diag([-1, -1, 1]) @ (CENTER + THICK.direction @ (14, 0, 0))
    assert np.linalg.norm(center_of(views[0]) - wanted) < 3 and not errors


def test_structures_whose_names_do_not_match_are_paired_by_hand(scene, balls, make_panel):
    panel, section = make_panel()
    compare(panel, section)
    row = [one.name for one in section.rows].index("bump")
    section.table.setCurrentCell(row, 0)
    offered = [section.pairComboBox.itemText(n) for n in range(section.pairComboBox.count)]
    assert offered == ["what its name means", "GTVp", "swelling"] and section.pairComboBox.enabled
    section.pairComboBox.activated.emit(2)
    wait_for(panel)
    (one,) = [one for one in section.rows if one.name == "bump"]
    assert one.predicted_name == "swelling" and one.dice == 1
    assert panel._parameterNode.pairs == {"bump": "swelling"}
    section.table.setCurrentCell(section.rows.index(one), 0)
    assert section.pairComboBox.currentText == "swelling"
    section.pairComboBox.activated.emit(0)
    wait_for(panel)
    assert panel._parameterNode.pairs == {} and "swelling" in column(section, "Structure")
    section.table.setCurrentCell([one.name for one in section.rows].index("swelling"), 0)
    assert not section.pairComboBox.enabled, "the compared side's own"


def test_the_table_is_exported_without_identity(scene, balls, make_panel, monkeypatch, tmp_path, errors):
    panel, section = make_panel()
    compare(panel, section)
    path = tmp_path / "contours.csv"
    path.write_text("old")
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *a: str(path)))
    section.exportButton.click()
    text = path.read_text(encoding="utf-8-sig")
    assert "Doe" not in text and "Jane" not in text and "for research only" in text
    rows = {row["structure"]: row for row in csv.DictReader(text.splitlines())}
    assert float(rows["GTVp"]["dice"]) > 0.9 and rows["Parotid_L"]["remark"] == "Not drawn in the compared contours."
    assert float(rows["GTVp"]["edges_T1"]) > 0
    assert [p.name for p in tmp_path.iterdir()] == ["contours.csv"] and not errors
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *a: str(tmp_path / "no" / "a.csv")))
    section.exportButton.click()
    assert "could not be written" in errors[0]
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *a: ""))
    section.exportButton.click()
    assert len(errors) == 1


# ---- while and after it runs -----------------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch):
    """The comparison waits until it may go on."""
    from NPCSynthLib.qa import contours

    go_on, began, real = threading.Event(), threading.Event(), contours.compare_contours

    def wait(*arguments):
        began.set()
        assert go_on.wait(30)
        return real(*arguments)

    monkeypatch.setattr(contours, "compare_contours", wait)
    yield began, go_on
    go_on.set()


def begin(section, slow):
    section.compareButton.click()
    assert slow[0].wait(30)


def test_it_can_be_canceled_and_the_old_table_stays(scene, balls, make_panel, slow, errors):
    panel, section = make_panel()
    began, go_on = slow
    begin(section, slow)
    assert not section.compareButton.enabled and not section.selectors[REFERENCE].enabled
    assert not panel.run.runButton.enabled and panel.run.cancelButton.enabled
    panel.run.cancelButton.click()
    assert not panel.runner.running and section.compareButton.enabled
    go_on.set()
    wait_for(panel)
    assert panel.logic.contours.table is None and not errors and section.table.isHidden()


@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_node_deleted_during_the_comparison_is_said(scene, balls, make_panel, slow, errors, which):
    panel, section = make_panel()
    begin(section, slow)
    scene.RemoveNode(balls[which])
    slow[1].set()
    wait_for(panel)
    assert "removed from the scene while they were compared" in errors[0] and panel.logic.contours.table is None


def test_a_scene_closed_during_the_comparison_ends_it(scene, balls, make_panel, slow, errors):
    panel, section = make_panel()
    compared = panel.logic.contours
    begin(section, slow)
    scene.Clear(0)
    slow[1].set()
    wait_for(panel)
    assert compared.table is None and not errors and section.selectors[REFERENCE].currentNode() is None


def test_a_closed_scene_takes_the_table_with_it(scene, balls, make_panel):
    panel, section = make_panel()
    compare(panel, section)
    scene.Clear(0)
    panel.refresh()
    assert panel.logic.contours.table is None and section.table.rowCount == 0 and section.table.isHidden()


def test_a_table_of_contours_that_were_changed_since_says_so(scene, balls, make_panel, monkeypatch, tmp_path, errors):
    image, mine, yours, _ = balls
    panel, section = make_panel()
    compare(panel, section)
    assert section.stateLabel.isHidden() and panel.logic.contours.isCurrent()
    yours.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap").Modified()
    panel.enter()
    assert "Compare again" in section.stateLabel.text and not section.stateLabel.isHidden()
    panel.logic.contours.write(tmp_path / "a.csv")
    assert "after this table was made" in (tmp_path / "a.csv").read_text(encoding="utf-8")
    compare(panel, section)
    assert section.stateLabel.isHidden()
    scene.RemoveNode(image)
    panel.refresh()
    assert not section.stateLabel.isHidden()
    section.show(0)
    assert "image was removed" in errors[0]


def test_comparing_again_sees_what_was_redrawn_in_contours_and_in_images(scene, balls, make_panel):
    image, mine, yours, _ = balls
    panel, section = make_panel()
    compare(panel, section)
    (first,) = [one for one in section.rows if one.name == "GTVp"]
    labels = yours.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    numpy_support.vtk_to_numpy(labels.GetPointData().GetScalars()).reshape(labels.GetDimensions()[::-1])[:4] = 0
    labels.Modified()
    voxels = slicer.util.arrayFromVolume(image)
    voxels[:] = ndimage.gaussian_filter(voxels, (0, 3, 3))
    slicer.util.arrayFromVolumeModified(image)
    compare(panel, section)
    (second,) = [one for one in section.rows if one.name == "GTVp"]
    assert second.dice < first.dice - 0.1 and second.predicted_ml < first.predicted_ml
    assert second.edges["T1"] < first.edges["T1"] - 0.1


def test_an_edge_that_only_the_synthetic_image_shows_is_not_good(scene, patient, make_panel):
    nodes, reference, created = load(scene, patient)
    made, acquired = (slicer.util.arrayFromVolume(node) for node in (created.volumes["T2"], nodes["T2"]))
    made[made > 100] = 300
    made[patient_mask(patient, "Brainstem")] = 1000
    slicer.util.arrayFromVolumeModified(created.volumes["T2"])
    acquired[:] = ndimage.gaussian_filter(acquired, (0, 4, 4))
    slicer.util.arrayFromVolumeModified(nodes["T2"])
    panel, section = make_panel()
    compare(panel, section)
    (one,) = [one for one in section.rows if one.name == "Brainstem"]
    assert one.edges["T2 (synthetic)"] > 2 * one.edges["T2"] > 0
    row = section.rows.index(one)
    cell = section.table.item(row, titles(section).index("Edges in T2 (synthetic)"))
    assert cell.text().startswith("✗") and "Stronger edge than in the acquired image" in cell.toolTip()
    assert "from 80% to 125%" in cell.toolTip() and "from 50% to 200%" in cell.toolTip()
    assert "Stronger" not in section.table.item(row, titles(section).index("Edges in T2")).toolTip()


def test_undo_brings_deleted_contours_back_to_be_compared(scene, balls, make_panel, errors):
    image, mine, yours, _ = balls
    scene.SetUndoOn()
    for node in (image, mine, yours):
        node.SetUndoEnabled(True)
    panel, section = make_panel()
    section.selectors[COMPARED].choose(yours)
    compare(panel, section)
    first = {one.name: one.dice for one in section.rows if not math.isnan(one.dice)}
    scene.SaveStateForUndo()
    scene.RemoveNode(yours)
    panel.refresh()
    assert not section.stateLabel.isHidden() and not section.compareButton.enabled
    scene.Undo()
    panel.refresh()
    (back,) = [n for n in panel.logic.contours.segmentations() if n.GetName() == "Doe Jane second"]
    section.selectors[COMPARED].choose(back)
    compare(panel, section)
    assert {one.name: one.dice for one in section.rows if not math.isnan(one.dice)} == first and not errors


def test_without_the_packages_nothing_begins(scene, balls, make_panel, errors, monkeypatch):
    panel, section = make_panel()

    def decline():
        raise NPCSynthError("NPCSynth needs Python packages that are not installed.")

    monkeypatch.setattr(panel.logic, "ensureDependencies", decline)
    section.compareButton.click()
    assert not panel.runner.running and errors == ["NPCSynth needs Python packages that are not installed."]


# ---- bad inputs ------------------------------------------------------------------------------------------------


def test_the_same_segmentation_twice_is_refused(scene, balls, make_panel, errors):
    image, mine, yours, _ = balls
    panel, section = make_panel()
    section.selectors[REFERENCE].choose(mine)
    section.selectors[COMPARED].choose(mine)
    compare(panel, section)
    assert "was chosen twice" in errors[0]
    with pytest.raises(UsageError, match="Choose two segmentations"):
        panel.logic.contours.compare(mine, None, image)


def test_a_segmentation_without_reference_geometry_needs_an_image_and_is_compared(scene, make_panel, errors):
    grid = GRIDS["flipped"]
    add_planes(scene, {"GTVp": circles(grid)}, "loaded")
    add_labels(scene, THICK, {"GTVnx": ball(THICK)}, "drawn")
    panel, section = make_panel()
    assert not section.compareButton.enabled and "Choose the image" in section.compareButton.toolTip
    section.selectors[IMAGE].choose(add_image(scene, grid))
    compare(panel, section)
    (one,) = section.rows
    assert one.dice > 0.85 and not errors
    assert "Nothing says which image the contours were drawn on" in section.notesLabel.text


def test_contours_of_another_examination_are_refused(scene, balls, make_panel, errors):
    image, mine, yours, _ = balls
    far = add_labels(scene, Grid(THICK.shape, THICK.ijk_to_lps + 300 * np.eye(4)[:, 3:] @ [[0, 0, 0, 1.0]]),
                     {"GTVp": ball(THICK)}, "elsewhere")
    far.SetAndObserveTransformNodeID(add_transform(scene, np.diag([1, 1, 1, 1.0]) + np.eye(4, k=3) * 500).GetID())
    panel, section = make_panel()
    section.selectors[COMPARED].choose(far)
    compare(panel, section)
    assert 'Nothing of "elsewhere" lies within' in errors[0] and panel.logic.contours.table is None


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_grids_and_transforms_of_all_kinds_give_the_same_answer(scene, make_panel, grid):
    """Two balls 2 mm apart, on whatever grid: Dice by geometry; the second one is moved there by a transform."""
    image = add_image(scene, grid)
    mine = add_labels(scene, grid, {"GTVp": ball(grid)}, drawn_on=image)
    yours = add_labels(scene, GRIDS["axial"], {"GTVp": ball(GRIDS["axial"])}, "yours")
    shift = np.eye(4)
    shift[:3, 3] = (-2, 0, 0)
    yours.SetAndObserveTransformNodeID(add_transform(scene, shift).GetID())
    panel, section = make_panel()
    table = panel.logic.contours.compare(mine, yours, image)
    (one,) = table.agreements
    radius, apart = 12, 2
    expected = 1 - 3 * apart / (4 * radius) + apart**3 / (16 * radius**3)
    assert one.dice == pytest.approx(expected, abs=0.035)
    assert one.mean_distance_mm == pytest.approx(1, abs=0.6)


def test_contours_drawn_on_a_synthetic_image_are_said_to_be(scene, make_panel):
    synthetic = add_image(scene, THICK, "T2 (synthetic)")
    mine = add_labels(scene, THICK, {"GTVp": ball(THICK)}, drawn_on=synthetic)
    yours = add_labels(scene, THICK, {"GTVp": ball(THICK)}, drawn_on=add_image(scene, THICK, "T1"))
    panel, section = make_panel()
    table = panel.logic.contours.compare(mine, yours, synthetic)
    assert "The reference contours were drawn on a synthetic image: it shows what a network expects, not what was " \
        "measured." in table.notes
    assert not any("The compared contours were drawn on a synthetic" in note for note in table.notes)


def test_contours_that_cannot_be_read_are_not_called_undrawn(scene, balls, make_panel):
    image, mine, yours, _ = balls
    bent = circles(THICK)[3] + np.linspace(0, 9, 120)[:, None] * THICK.direction[:, 2]
    loaded = add_planes(scene, {"GTVp": [bent], "bump": circles(THICK)})
    panel, section = make_panel()
    section.selectors[REFERENCE].choose(loaded)
    section.selectors[COMPARED].choose(yours)
    section.selectors[IMAGE].choose(image)
    compare(panel, section)
    row = column(section, "Structure").index("GTVp")
    assert column(section, "Agreement")[row] == "cannot be compared"
    assert "GTVp was left out: it has contours that are not flat" in section.table.item(row, 1).toolTip()


def test_an_image_under_a_bending_transform_is_left_out_of_the_edges(scene, balls, make_panel, errors):
    image, mine, yours, _ = balls
    warped = add_image(scene, THICK, "T2 tra")
    panel, section = make_panel()
    panel._parameterNode.assign({"T1": image, "T2": warped})
    warped.SetAndObserveTransformNodeID(scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp").GetID())
    compare(panel, section)
    assert list(panel.logic.contours.table.images) == ["T1"] and not errors
    assert "The edges in T2 could not be looked at" in section.notesLabel.text


def test_an_image_of_another_patient_is_left_out_of_the_edges(scene, balls, make_panel, errors, tmp_path, monkeypatch):
    image, mine, yours, _ = balls
    other = add_image(scene, THICK, "T2 tra")
    database = Database(tmp_path)
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    database.add(image, **OURS)
    database.add(other, **OTHER_PATIENT)
    panel, section = make_panel()
    panel._parameterNode.assign({"T1": image, "T2": other})
    compare(panel, section)
    assert list(panel.logic.contours.table.images) == ["T1"] and not errors
    assert "The edges in T2 were not looked at: it is of another patient" in section.notesLabel.text
