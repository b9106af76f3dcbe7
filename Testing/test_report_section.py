"""The panel's section Report, over the real scene of slicer-core."""

import re

import numpy as np
import pytest
from panel_cases import (  # noqa: F401
    errors_fixture,
    open_panel_fixture,
    opened_fixture,
    qt,
    scene_fixture,
    slicer,
    wait_for,
)

pytest.importorskip("monai")

from page_reader import Page
from segmentation_cases import add_labels, add_transform

from NPCSynthLib.errors import InputError, WorkerError
from NPCSynthLib.inference.result import Segment, SegmentationResult, SynthesisResult, SynthesizedSequence
from NPCSynthLib.qa.contours import StructureAgreement
from NPCSynthLib.scene import add_result, add_volume, study_volumes
from NPCSynthLib.scene.review import copy_review
from NPCSynthLib.study.build import build_study
from NPCSynthLib.study.volume import Grid, Volume
from NPCSynthLib.vocabulary import canonical_prompt, get_sequence, load_structures
from NPCSynthPanel.contour_comparison import ContourTable
from NPCSynthPanel.report import ReportSection

TILT = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, -1.0]])


def head(seed, spacing=(4, 4, 6), shape=(12, 28, 24)):
    """A ball of tissue with structure, on a tilted and flipped grid."""
    k, j, i = np.indices(shape)
    radius = np.sqrt(sum(((axis - (n - 1) / 2) / (0.42 * n)) ** 2 for axis, n in zip((k, j, i), shape)))
    noise = np.random.default_rng(seed).normal(0, 3, shape)
    array = np.where(radius < 1, 200 + 80 * np.cos(5 * radius + seed), 0) + noise
    return Volume(array.astype(np.int16), Grid.from_parts(shape, spacing, (-40, -50, -30), TILT))


@pytest.fixture
def pictures(monkeypatch):
    """What each picture was drawn from, instead of the picture."""
    drawn = []

    def draw(result, study, view, truth=None, sequences=None, changed=()):
        drawn.append((study, view, truth, sequences, changed))
        return b"\x89PNG"

    monkeypatch.setattr("NPCSynthLib.output.report.picture", draw)
    return drawn


@pytest.fixture
def nodes(scene):
    nodes = {s: add_volume(scene, head(seed), f"{s} Doe^Jane") for seed, s in enumerate(("T1", "T2"))}
    return nodes


def add_run(nodes, scene=None):
    """A result of these sources in the scene: T1C, twice as uncertain in slice 3 as elsewhere."""
    volumes = study_volumes(nodes)
    study = build_study(volumes, reference="T1")
    array = (1000 * study.sources[0].array.clip(0, 1)).astype(np.int16)
    uncertainty = np.full(array.shape, 40, np.int16)
    uncertainty[3] = 80
    labels = np.zeros(array.shape, np.uint8)
    labels[4:8, 10:14, 10:14] = 1
    segments = tuple(Segment(s.name, s.label, s.color, s.code) for s in load_structures())
    made = SynthesizedSequence("T1C", array, uncertainty, canonical_prompt(get_sequence("T1C")), 43.0)
    result = SynthesisResult(
        study.grid, (made,), SegmentationResult(labels, study.body, segments), tuple(nodes),
        {"name": "w", "version": "0", "sha256": "ab" * 32}, "CPU", {}, ("A warning to show.",),
    )  # fmt: skip
    return study, result, add_result(result, study, nodes, slicer.mrmlScene)


@pytest.fixture
def make_panel(open_panel):
    def make():
        panel = open_panel()
        return panel, panel.section(ReportSection)

    return make


def write(panel, section, monkeypatch, path):
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *a: str(path) if path else ""))
    section.writeButton.click()
    wait_for(panel)


def test_without_results_there_is_nothing_to_report_on(nodes, make_panel):
    panel, section = make_panel()
    assert not section.writeButton.enabled and "Run first" in section.writeButton.toolTip


def test_the_report_shows_the_scenes_results_and_opens(nodes, make_panel, pictures, opened, errors, monkeypatch,
                                                       tmp_path):
    study, result, _made = add_run(nodes)
    panel, section = make_panel()
    write(panel, section, monkeypatch, tmp_path / "report")
    assert not errors and opened == [str(tmp_path / "report.html")]
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert "80 (slice 4)" in page.text and "A warning to show." in page.text and "ab" * 32 in page.text
    assert "Doe" not in text and "Jane" not in text
    drawn_study, view, truth, sequences, changed = pictures[0]
    assert view.k == 3 and sequences[0].sequence == "T1C" and not truth.structures and not truth.images
    assert not changed and "Changed since" not in page.text
    for ours, theirs in zip(drawn_study.sources, study.sources, strict=True):
        np.testing.assert_array_equal(ours.array, theirs.array)
    np.testing.assert_array_equal(drawn_study.body, study.body)


def test_identity_only_with_the_box_ticked_which_is_off_each_time(nodes, make_panel, pictures, opened, monkeypatch,
                                                                  tmp_path):
    add_run(nodes)
    panel, section = make_panel()
    assert not section.identityCheckBox.checked
    section.identityCheckBox.checked = True
    write(panel, section, monkeypatch, tmp_path / "report.html")
    assert "T1 Doe^Jane" in (tmp_path / "report.html").read_text(encoding="utf-8")
    section.setParameterNode(panel._parameterNode)
    assert not section.identityCheckBox.checked


def test_chosen_contours_and_the_acquired_image_lie_in_the_pictures_where_they_belong(
    nodes, make_panel, pictures, opened, errors, monkeypatch, tmp_path
):
    add_run(nodes)
    panel, section = make_panel()
    real = add_volume(slicer.mrmlScene, head(5), "T1C acquired")
    panel._parameterNode.assign({"T1C": real})
    mask = np.zeros((12, 28, 24), bool)
    mask[2:5, 6:12, 5:9] = True
    drawn = add_labels(slicer.mrmlScene, head(0).grid, {"GTVp": mask, "Lens_L": mask[::-1]})
    section.contoursSelector.choose(drawn)
    assert panel._parameterNode.reportContours() is drawn
    write(panel, section, monkeypatch, tmp_path / "report.html")
    assert not errors
    _study, _view, truth, _sequences, _changed = pictures[0]
    np.testing.assert_array_equal(truth.structures["GTVp"], mask)
    assert set(truth.images) == {"T1C"}
    assert "Agreement with the acquired images" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_page_says_what_became_of_the_contours_that_it_draws(nodes, make_panel, opened, errors, monkeypatch,
                                                                 tmp_path):  # fmt: skip
    """Half a voxel beside the image's lattice, of a program, and under a name that somebody chose."""
    add_run(nodes)
    panel, section = make_panel()
    mask = np.zeros((12, 28, 24), bool)
    mask[2:5, 6:12, 5:9] = True
    beside = Grid(mask.shape, head(0).grid.ijk_to_lps @ np.array(
        [[1, 0, 0, 0.4], [0, 1, 0, 0.4], [0, 0, 1, 0], [0, 0, 0, 1]]))
    drawn = add_labels(slicer.mrmlScene, beside, {"GTV Mueller": mask})
    drawn.SetAttribute("NPCSynth.Synthetic", "YES")
    section.contoursSelector.choose(drawn)
    write(panel, section, monkeypatch, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not errors and "another voxel grid than the image" in page and "were made by a program" in page
    assert "Mueller" not in page


def test_sources_under_a_transform_give_the_same_study(nodes):
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = TILT.T, (12, -7, 30)
    transform = add_transform(slicer.mrmlScene, turn)
    for node in nodes.values():
        node.SetAndObserveTransformNodeID(transform.GetID())
    study, _result, _made = add_run(nodes)
    review = copy_review(slicer.mrmlScene)
    for sequence in ("T1", "T2"):
        assert review.sources[sequence].grid.matches(study.source(sequence).original.grid)
    real = add_volume(slicer.mrmlScene, head(5), "T1C acquired")
    real.SetAndObserveTransformNodeID(transform.GetID())
    moved = copy_review(slicer.mrmlScene, {"T1C": real}).acquired["T1C"]
    assert moved.grid.matches(review.sources["T1"].grid)
    shift = np.eye(4)
    shift[:3, 3] = 4, 0, 0
    further = add_transform(slicer.mrmlScene, shift)
    further.SetAndObserveTransformNodeID(transform.GetID())
    real.SetAndObserveTransformNodeID(further.GetID())
    moved = copy_review(slicer.mrmlScene, {"T1C": real}).acquired["T1C"]
    assert not moved.grid.matches(review.sources["T1"].grid)
    real.SetAndObserveTransformNodeID(None)
    review = copy_review(slicer.mrmlScene, {"T1C": real})
    assert not review.acquired and "lies elsewhere" in review.acquired_notes[0]


def table_of(panel, image, reference, compared):
    told = StructureAgreement("GTVp", 0.7512, (0.5, 0.7, 0.9), 4.2, 1.3, 10.0, 12.0, 6)
    from NPCSynthLib.scene import content_of

    three = (reference, compared, image)
    return ContourTable((told,), (), {}, (), tuple(n.GetID() for n in three), tuple(content_of(n) for n in three))


@pytest.mark.parametrize("image", ["T1", "T2"])
def test_the_last_comparison_is_in_it(nodes, make_panel, pictures, opened, monkeypatch, tmp_path, image):
    _study, _result, made = add_run(nodes)
    panel, section = make_panel()
    assert not section.tableCheckBox.enabled
    mask = np.zeros((12, 28, 24), bool)
    mask[2:5, 6:12, 5:9] = True
    drawn = add_labels(slicer.mrmlScene, head(0).grid, {"GTVp": mask})
    panel.logic.contours.table = table_of(panel, nodes[image], drawn, made.segmentation)
    section.refresh()
    assert section.tableCheckBox.enabled and section.tableCheckBox.checked
    write(panel, section, monkeypatch, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    table = next(table for table in page.tables if "Dice" in table[0])
    assert table[1][:2] == ["GTVp", "0.7512"]
    # slices of another image than the one that gave the grid are not those of the pictures
    assert ("contours of GTVp differ most" in page.text) is (image == "T1")
    assert table[1][table[0].index("Worst slice")] == ("7" if image == "T1" else "")
    section.tableCheckBox.checked = False
    write(panel, section, monkeypatch, tmp_path / "report.html")
    assert "0.7512" not in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_what_was_changed_since_is_left_out_and_said(nodes, make_panel, pictures, opened, monkeypatch, tmp_path):
    _study, _result, made = add_run(nodes)
    made.segmentation.GetSegmentation().RemoveSegment("GTVp")
    panel, section = make_panel()
    write(panel, section, monkeypatch, tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Not in this report, because it was changed" in page.text
    assert not any("Volume" in table[0] for table in page.tables)


@pytest.mark.parametrize("what", ["voxels", "place", "size", "reference's place"])
def test_a_source_that_was_edited_since_is_not_shown_as_what_went_in(nodes, pictures, what):
    turn = np.eye(4)
    turn[:3, :3], turn[:3, 3] = TILT.T, (12, -7, 30)
    for node in nodes.values():
        node.SetAndObserveTransformNodeID(add_transform(slicer.mrmlScene, turn).GetID())
    add_run(nodes)
    assert not copy_review(slicer.mrmlScene)._changed(), "of two transforms that do the same"
    nodes["T1"].SetAndObserveTransformNodeID(nodes["T2"].GetTransformNodeID())
    assert not copy_review(slicer.mrmlScene)._changed(), "the common frame is another one, the images are the same"
    array = slicer.util.arrayFromVolume(nodes["T2"]).copy()
    if what == "voxels":
        array[5, 14, 12] += 1
        slicer.util.updateVolumeFromArray(nodes["T2"], array)
    elif what == "size":
        slicer.util.updateVolumeFromArray(nodes["T2"], array[:-1])
    elif what == "place":
        nodes["T2"].SetOrigin(*(np.array(nodes["T2"].GetOrigin()) + (0.3, 0, 0)))
    else:
        for node in nodes.values():
            node.SetOrigin(*(np.array(node.GetOrigin()) + (0.3, 0, 0)))
        assert copy_review(slicer.mrmlScene)._changed() == ("T1",), "the results stayed where they were"
        return
    page = Page(copy_review(slicer.mrmlScene).report())
    assert "Changed since the run: T2. The pictures show what is there now" in page.text
    assert all(changed == ("T2",) for *_others, changed in pictures)


def test_without_its_source_there_is_no_report(nodes, make_panel, pictures, errors, opened, monkeypatch, tmp_path):
    add_run(nodes)
    slicer.mrmlScene.RemoveNode(nodes["T2"])
    assert set(copy_review(slicer.mrmlScene).sources) == {"T1"}
    slicer.mrmlScene.RemoveNode(nodes["T1"])
    with pytest.raises(InputError, match="T1 volume"):
        copy_review(slicer.mrmlScene)
    panel, section = make_panel()
    write(panel, section, monkeypatch, tmp_path / "report.html")
    assert "was removed" in errors[0] and not opened and not list(tmp_path.iterdir())


def test_cancel_writes_nothing(nodes, make_panel, opened, errors, monkeypatch, tmp_path):
    add_run(nodes)
    panel, section = make_panel()
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *a: str(tmp_path / "report.html")))
    section.writeButton.click()
    assert panel.runner.running and not section.writeButton.enabled
    panel.run.cancelButton.click()
    write(panel, section, monkeypatch, "")
    assert not list(tmp_path.iterdir()) and not opened and not errors


@pytest.mark.parametrize("error", [ZeroDivisionError("division by zero"), WorkerError("It broke down.")])
def test_an_error_here_says_nothing_of_the_scene_and_offers_no_other_run(
    nodes, make_panel, opened, errors, monkeypatch, tmp_path, error
):
    def fail(*_what):
        raise error

    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **kw: asked.append(text))
    monkeypatch.setattr("NPCSynthLib.output.report.picture", fail)
    add_run(nodes)
    panel, section = make_panel()
    write(panel, section, monkeypatch, tmp_path / "report.html")
    assert str(error) in errors[0] and "scene" not in errors[0] and not asked


def test_a_path_that_cannot_be_written_is_said(nodes, make_panel, pictures, opened, errors, monkeypatch, tmp_path):
    add_run(nodes)
    (tmp_path / "file").write_text("")
    panel, section = make_panel()
    write(panel, section, monkeypatch, tmp_path / "file" / "report.html")
    assert re.search("could not be written", errors[0]) and not opened
