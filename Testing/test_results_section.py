"""The panel's results: what the table says, and what its buttons do to the scene and the views."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from bundles import let_read_bundles
from panel_cases import module as slicer_module
from panel_cases import open_panel_fixture, scene_fixture, skip_without_drawing, slicer, wait_until  # noqa: F401
from slicer_stand_in.slice_views import SliceViews

from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.scene import add_result, add_volume, scene_outputs
from NPCSynthLib.scene.layouts import LAYOUTS
from NPCSynthPanel.results import ResultsSection

skip_without_drawing()


@pytest.fixture
def slice_views(scene):
    return SliceViews(scene, slicer.app.applicationLogic(), size=(120, 110))


@pytest.fixture
def nodes(scene, slice_views, study, result):
    """Source T1, the result of a run, and an acquired T2FS."""
    sources = {s.sequence: add_volume(scene, s.original, f"{s.sequence} tra") for s in study.sources}
    created = add_result(result, study, sources)
    real = add_volume(scene, study.source("T2").original, "T2 fs tra")
    slicer.util.setSliceViewerLayers(background=sources["T1"])
    return SimpleNamespace(
        source=sources["T1"], synthetic=created.volumes["T2FS"], uncertainty=created.uncertainties["T2FS"], real=real
    )


@pytest.fixture
def panel(nodes, open_panel):
    panel = open_panel(InProcess())
    panel._parameterNode.assign({"T1": nodes.source, "T2FS": None})
    return panel


@pytest.fixture
def section(panel):
    return panel.section(ResultsSection)


def texts(section, row=0):
    return [section.table.item(row, column).text() for column in range(section.table.columnCount)]


def shown(slice_views):
    composite = slice_views["Red"].composite
    return composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID(), composite.GetForegroundOpacity()


def test_a_row_says_how_uncertain_and_warnings_are_readable_in_full(section, nodes):
    assert section.table.rowCount == 1
    name, uncertainty, unusual, warnings = texts(section)
    assert name == "T2FS (synthetic)" and uncertainty == "5.0 %" and "nothing noticed" in unusual
    assert warnings == "2"
    for sentence in ("Outside the training domain.", "Two series look like T1; the finer one was taken."):
        assert sentence in section.aboutLabel.text
        assert sentence in section.table.item(0, 3).toolTip()


def test_an_uncertainty_that_was_never_scaled_says_so_in_plain_words(section, panel, nodes):
    assert "none with nasopharyngeal carcinoma" in section.table.item(0, 1).toolTip()
    text = nodes.synthetic.GetAttribute("NPCSynth.Provenance")
    nodes.synthetic.SetAttribute(
        "NPCSynth.Provenance", text.replace('"uncertainty_calibrated": true', '"uncertainty_calibrated": false')
    )
    panel.refresh()
    assert texts(section)[1] == "5.0 %, may be far too low"
    assert "never checked on acquired images" in section.table.item(0, 1).toolTip()


def test_a_row_leaves_out_what_is_about_other_outputs_alone(scene, nodes, study, result):
    other = replace(result.sequences[0], sequence="PD")
    about = ("The uncertainty of PD is a guess.", "That of PD, T2FS is too.", "PD was made from T1 alone.",
             "Slices lack.")
    sources = {"T1": nodes.source, "T2": nodes.real}
    created = add_result(replace(result, sequences=(*result.sequences, other), warnings=about), study, sources)
    told = {one.image: one.warnings for one in scene_outputs(scene)}
    assert [w for w in about if w not in told[created.volumes["T2FS"]]] == [about[0]]
    assert set(about) <= set(told[created.volumes["PD"]])


def test_an_unusual_study_is_flagged_with_its_reasons(section, panel, nodes):
    text = nodes.synthetic.GetAttribute("NPCSynth.Provenance")
    nodes.synthetic.SetAttribute(
        "NPCSynth.Provenance", text.replace('"unusual": []', '"unusual": ["The T1 image is <b>cut off</b>."]')
    )
    panel.refresh()
    assert "⚠" in texts(section)[2]
    assert "The T1 image is &lt;b&gt;cut off&lt;/b&gt;." in section.aboutLabel.text


def test_without_results_nothing_can_be_pressed(scene, section, nodes, panel):
    for node in (nodes.synthetic, nodes.uncertainty):
        scene.RemoveNode(node)
    panel.refresh()
    assert section.table.rowCount == 0 and section.chosen() is None
    for button in (section.compareButton, section.flickerButton, section.uncertaintyButton, section.deleteButton):
        assert not button.enabled


def test_difference_and_checkerboard_wait_for_an_acquired_volume(section, panel, nodes):
    assert not section.differenceButton.enabled and not section.checkerboardButton.enabled
    assert "T2FS" in section.differenceButton.toolTip
    panel._parameterNode.assign({"T2FS": nodes.real})
    assert section.differenceButton.enabled and section.checkerboardButton.enabled


@pytest.mark.parametrize("button", [
    "compareButton", "flickerButton", "uncertaintyButton", "checkerboardButton", "differenceButton",
])  # fmt: skip
def test_every_button_changes_the_views_and_one_brings_them_back(section, panel, nodes, slice_views, button):
    panel._parameterNode.assign({"T2FS": nodes.real})
    before = (*shown(slice_views), slice_views["Red"].node.IsMappedInLayout())
    assert not section.backButton.enabled
    getattr(section, button).click()
    assert (*shown(slice_views), slice_views["Red"].node.IsMappedInLayout()) != before
    assert section.backButton.enabled
    section.backButton.click()
    assert (*shown(slice_views), slice_views["Red"].node.IsMappedInLayout()) == before
    assert not section.backButton.enabled and not section.flickerButton.checked


def test_side_by_side_takes_the_acquired_sequence_where_there_is_one(section, panel, nodes, slice_views):
    section.compareButton.click()
    assert not slice_views.layout.GetLayoutNode().GetCurrentLayoutDescription().count("NPCSynthC")
    panel._parameterNode.assign({"T2FS": nodes.real})
    section.compareButton.click()
    panes = [slice_views[name].composite.GetBackgroundVolumeID() for name in ("NPCSynthA", "NPCSynthB", "NPCSynthC")]
    assert panes == [nodes.source.GetID(), nodes.synthetic.GetID(), nodes.real.GetID()]


def test_flicker_goes_on_by_itself_until_pressed_again(section, nodes, slice_views):
    section.speedComboBox.currentIndex = 2
    section.flickerButton.click()
    assert section.flickerButton.checked and shown(slice_views)[0] == nodes.source.GetID()
    wait_until(lambda: shown(slice_views)[2] == 1)
    wait_until(lambda: shown(slice_views)[2] == 0)
    section.flickerButton.click()
    assert not section.flickerButton.checked and not section._flickerTimer.active
    assert shown(slice_views) == (nodes.source.GetID(), nodes.synthetic.GetID(), 0.0)


@pytest.mark.parametrize("gone", ["source", "synthetic"])
def test_flicker_stops_by_itself_when_an_image_is_deleted(scene, section, nodes, slice_views, gone):
    section.speedComboBox.currentIndex = 2
    section.flickerButton.click()
    scene.RemoveNode(getattr(nodes, gone))
    wait_until(lambda: not section._flickerTimer.active)
    assert not section.flickerButton.checked
    assert shown(slice_views)[2] == 0
    section.backButton.click()


def test_flicker_stops_when_the_scene_is_closed(scene, section, nodes, slice_views):
    section.flickerButton.click()
    scene.Clear(False)
    assert not section._flickerTimer.active and not section.flickerButton.checked
    assert section.table.rowCount == 0


def test_a_closed_scene_leaves_the_normal_layout(scene, section, nodes, slice_views):
    section.compareButton.click()
    scene.Clear(False)
    assert slice_views["Red"].node.IsMappedInLayout()


def saved(scene, path):
    scene.SetURL(str(path))
    scene.Commit()
    return path.read_text()


def test_a_layout_of_ours_is_not_saved(scene, section, nodes, slice_views, tmp_path):
    """It could not be left after loading, and is unknown to a Slicer without NPCSynth. No event tells of a saving."""
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    before = layout.GetViewArrangement()
    section.compareButton.click()
    assert layout.GetViewArrangement() in LAYOUTS.values()
    text = saved(scene, tmp_path / "compared.mrml")
    assert not any(str(number) in text for number in LAYOUTS.values()) and "T2FS (synthetic)" in text
    layout.SetViewArrangement(layout.SlicerLayoutOneUpRedSliceView)  # the user's choice
    assert f'currentViewArrangement="{layout.SlicerLayoutOneUpRedSliceView}"' in saved(scene, tmp_path / "chosen.mrml")
    section.compareButton.click()
    section.backButton.click()
    before = layout.SlicerLayoutOneUpRedSliceView
    assert layout.GetViewArrangement() == before and f'currentViewArrangement="{before}"' in saved(
        scene, tmp_path / "normal.mrml")


@pytest.mark.parametrize("panel_is_open", [True, False])
def test_a_scene_that_was_saved_side_by_side_is_loaded_with_normal_views(
    scene, section, panel, nodes, slice_views, tmp_path, panel_is_open
):
    """By an earlier NPCSynth."""
    slicer_module.registerLayouts()
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    section.compareButton.click()
    layout.SetSaveWithScene(True)
    assert layout.GetViewArrangement() in LAYOUTS.values()
    assert scene.WriteToMRB(str(tmp_path / "compared.mrb"), None, slicer.vtkMRMLMessageCollection())
    scene.Clear(False)
    if not panel_is_open:
        panel.cleanup()
    let_read_bundles(scene, tmp_path)
    assert scene.ReadFromMRB(str(tmp_path / "compared.mrb"))
    assert scene.GetFirstNodeByName("T2FS (synthetic)") is not None
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView


def test_delete_takes_image_and_uncertainty_after_asking(
    scene, section, panel, nodes, slice_views, monkeypatch
):
    answers = [False, True]
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_k: answers.pop(0))
    section.uncertaintyButton.click()
    names = {node.GetName() for node in (nodes.synthetic, nodes.uncertainty)}
    section.deleteButton.click()  # not after all
    assert all(scene.GetFirstNodeByName(name) for name in names)
    section.deleteButton.click()
    panel.refresh()
    assert not any(scene.GetFirstNodeByName(name) for name in names)
    assert section.table.rowCount == 0
    assert shown(slice_views)[0] == nodes.source.GetID(), "the acquired image is in view again"


def test_a_failing_comparison_is_said_and_the_views_stay(section, panel, nodes, slice_views, caplog):
    panel._parameterNode.assign({"T2FS": nodes.real})
    slicer.util.updateVolumeFromArray(nodes.real, slicer.util.arrayFromVolume(nodes.real) * 0)
    before = shown(slice_views)
    section.differenceButton.click()
    assert shown(slice_views) == before and "Choose another" in panel.run.statusLabel.text


def test_the_chosen_row_stays_chosen(section, panel, nodes, study, result):
    add_result(result, study, {"T1": nodes.source, "T2": None})
    panel.refresh()
    assert section.table.rowCount == 2
    section.table.selectRow(1)
    chosen = section.chosen().image
    panel.refresh()
    assert section.chosen().image is chosen


def test_closing_the_panel_gives_the_views_back(section, panel, nodes, slice_views):
    before = shown(slice_views)
    section.uncertaintyButton.click()
    panel.cleanup()
    assert shown(slice_views) == before and not section._flickerTimer.active


def test_the_maps_opacity_follows_the_slider_and_the_slider_the_views(section, slice_views):
    assert not section.opacitySlider.enabled
    section.uncertaintyButton.click()
    assert section.opacitySlider.enabled and section.opacitySlider.value == 50
    section.opacitySlider.value = 100
    assert shown(slice_views)[2] == 1
    section.opacitySlider.value = 20
    assert shown(slice_views)[2] == pytest.approx(0.2)
    section.refresh()
    assert section.opacitySlider.value == 20
    section.uncertaintyButton.click()  # anew
    assert section.opacitySlider.value == 50 and shown(slice_views)[2] == 0.5
    section.backButton.click()
    assert not section.opacitySlider.enabled


@pytest.mark.parametrize("name", ["uncertaintyButton", "differenceButton"])
def test_the_maps_buttons_say_what_is_not_colored(section, panel, nodes, name):
    panel._parameterNode.assign({"T1": nodes.source, "T2FS": nodes.real})
    section.refresh()
    assert "50-300 of 1000" in getattr(section, name).toolTip and "Below 5 %" in getattr(section, name).toolTip
