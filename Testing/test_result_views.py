"""Looking at results in the slice views: what the views then show, as they draw it, and the way back."""

import json

import numpy as np
import pytest
from panel_cases import scene_fixture, skip_without_drawing, slicer  # noqa: F401
from slicer_stand_in.slice_views import SliceViews

from NPCSynthLib.errors import InputError, UsageError
from NPCSynthLib.inference.result import NOT_CHECKED
from NPCSynthLib.scene import add_result, add_volume, scene_outputs
from NPCSynthLib.scene.layouts import LAYOUTS, PANES, add_layouts, leave_layouts
from NPCSynthLib.scene.marks import SyntheticMarks
from NPCSynthLib.scene.matrices import ijk_to_ras, to_numpy
from NPCSynthLib.scene.mixed import SQUARE_MM, display_range
from NPCSynthLib.scene.views import SHOWN_FROM, ResultViews
from NPCSynthLib.study.volume import Grid, Volume

skip_without_drawing()

#: Another grid over the same patient as conftest's: coronal slices, other spacing, turned about another axis.
C, S = np.cos(0.15), np.sin(0.15)
OTHER_GRID = Grid.from_parts(
    (24, 40, 36), (2.2, 1.9, 2.5), (-85.0, -25.0, 225.0),
    np.array([[C, 0, -S], [S, 0, C], [0, -1, 0]]),
)  # fmt: skip


@pytest.fixture
def slice_views(scene):
    return SliceViews(scene, slicer.app.applicationLogic(), size=(200, 180))


@pytest.fixture
def views(scene, slice_views):
    return ResultViews(scene, slicer.app.applicationLogic(), slicer.app.processEvents)


@pytest.fixture
def nodes(scene, slice_views, study, result):
    """Source T1, synthetic T2FS and its uncertainty, and an acquired T2FS of the same content on another grid."""
    source = add_volume(scene, study.source("T1").original, "T1 tra")
    created = add_result(result, study, {"T1": source})
    created.segmentation.GetDisplayNode().SetVisibility(False)  # predicted contours have a mark of their own
    synthetic = created.volumes["T2FS"]
    slicer.util.updateVolumeFromArray(synthetic, in_units(ball(study.grid)))
    real = add_volume(scene, Volume((3 * ball(OTHER_GRID) + 40).astype(np.int16), OTHER_GRID), "T2 fs cor")
    for view in slice_views:
        view.composite.SetBackgroundVolumeID(source.GetID())
        view.logic.FitSliceToBackground()
    return {"source": source, "synthetic": synthetic, "uncertainty": created.uncertainties["T2FS"], "real": real}


def ball(grid):
    """A head of one shape in space (LPS), whatever the grid: 900 in the middle, 500 around that, 300 at the rim."""
    indices = np.indices(grid.shape)[::-1].reshape(3, -1)
    places = (grid.ijk_to_lps @ np.vstack([indices, np.ones(indices.shape[1])]))[:3]
    center = np.array([[-50.0], [30.0], [190.0]])
    away = np.linalg.norm(places - center, axis=0)
    return np.select([away < 8, away < 18, away < 22], [900, 500, 300]).reshape(grid.shape).astype(np.int16)


def in_units(array):
    """As synthetic images are: 0 and 1000 are the 0.5 and 99.5 percentiles of the body."""
    return np.where(array > 0, np.rint((array - 300) / 0.6), 0).astype(np.int16)


def state(slice_views):
    return [
        (
            view.composite.GetBackgroundVolumeID(), view.composite.GetForegroundVolumeID(),
            view.composite.GetForegroundOpacity(), view.composite.GetLinkedControl(), view.node.IsMappedInLayout(),
        )
        for view in slice_views if view.node.GetName() not in PANES
    ]  # fmt: skip


def window(node):
    display = node.GetDisplayNode()
    return display.GetAutoWindowLevel(), display.GetWindow(), display.GetLevel()


def looks(node):
    display = node.GetDisplayNode()
    return (
        *window(node), display.GetApplyThreshold(), display.GetLowerThreshold(), display.GetUpperThreshold(),
        display.GetColorNodeID(), node.GetNumberOfDisplayNodes(),
    )  # fmt: skip


def ids(scene):
    return {scene.GetNthNode(number).GetID() for number in range(scene.GetNumberOfNodes())}


WAYS = {
    "compare": lambda views, n: views.compare([n["source"], n["synthetic"], n["real"]]),
    "flicker": lambda views, n: (views.flicker(n["real"], n["synthetic"]), views.turn()),
    "checkerboard": lambda views, n: views.checkerboard(n["real"], n["synthetic"]),
    "difference": lambda views, n: views.difference(n["real"], n["synthetic"]),
    "uncertainty": lambda views, n: views.uncertainty(n["synthetic"], n["uncertainty"]),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_looking_can_be_undone(scene, slice_views, views, nodes, way):
    WAYS["compare"](views, nodes)  # the panes stay in the scene: only what they show is of a while
    views.back()
    before, windows, present = state(slice_views), [looks(n) for n in nodes.values()], ids(scene)
    WAYS[way](views, nodes)
    assert views.changed
    assert state(slice_views) != before
    views.back()
    assert not views.changed
    assert state(slice_views) == before
    assert [looks(n) for n in nodes.values()] == windows
    assert ids(scene) == present


def test_side_by_side_shows_the_same_place_at_the_same_size_linked(scene, slice_views, views, nodes):
    red = slice_views["Red"].node
    red.JumpSliceByCentering(50, -30, 185)
    views.compare([nodes["source"], nodes["synthetic"], nodes["real"]])
    panes = [slice_views[name] for name in PANES]
    assert [pane.composite.GetBackgroundVolumeID() for pane in panes] == [
        nodes[which].GetID() for which in ("source", "synthetic", "real")
    ]
    assert all(pane.node.IsMappedInLayout() for pane in panes) and not red.IsMappedInLayout()
    for pane in panes:
        assert np.abs(to_numpy(pane.node.GetXYToRAS()) - to_numpy(panes[0].node.GetXYToRAS())).max() < 1e-4
        assert abs(pane.logic.GetSliceOffset() - slice_views["Red"].logic.GetSliceOffset()) < 1e-4
        assert pane.composite.GetLinkedControl() and pane.composite.GetHotLinkedControl()
    groups = {pane.node.GetViewGroup() for pane in panes}
    assert len(groups) == 1 and red.GetViewGroup() not in groups
    # the core of the ball is drawn at the same pixels in the synthetic and in the acquired image
    drawn = [pane.render()[..., 0] > 200 for pane in panes[1:]]
    assert all(one.any() for one in drawn)
    first, second = (np.array(np.nonzero(one)).mean(axis=1) for one in drawn)
    assert np.abs(first - second).max() < 4


def test_side_by_side_shows_the_whole_image_the_first_time(scene, study):
    """Panes are narrow, and are fitted to the size that they get, not to the one that they are made with."""
    slice_views = SliceViews(scene, slicer.app.applicationLogic(), size=(120, 300))
    source = add_volume(scene, study.source("T1").original, "T1 tra")
    views = ResultViews(scene, slicer.app.applicationLogic(), slicer.app.processEvents)
    views.compare([source, source])
    slicer.app.processEvents()
    for name in list(PANES)[:2]:
        shown, size = slice_views[name].node.GetFieldOfView(), [0.0] * 3
        slice_views[name].logic.GetVolumeSliceDimensions(source, size, [0.0] * 3)
        assert shown[0] >= 0.98 * size[0] and shown[1] >= 0.98 * size[1], (shown, size)


def test_slicer_that_was_closed_side_by_side_comes_up_in_its_own_layout(scene, slice_views):
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    add_layouts(scene)
    layout.SetViewArrangement(LAYOUTS[2])
    leave_layouts(scene)
    assert layout.GetViewArrangement() == layout.SlicerLayoutFourUpView
    layout.SetViewArrangement(layout.SlicerLayoutConventionalView)
    leave_layouts(scene)
    assert layout.GetViewArrangement() == layout.SlicerLayoutConventionalView


def test_scrolling_one_view_scrolls_the_others(scene, slice_views, views, nodes):
    link = slicer.vtkMRMLSliceLinkLogic() if hasattr(slicer, "vtkMRMLSliceLinkLogic") else None
    if link is None:
        pytest.skip("slicer-core does not wrap vtkMRMLSliceLinkLogic")
    link.SetMRMLApplicationLogic(slicer.app.applicationLogic())
    link.SetMRMLScene(scene)
    views.compare([nodes["source"], nodes["synthetic"]])
    first, second = (slice_views[name] for name in list(PANES)[:2])
    before = slice_views["Red"].logic.GetSliceOffset()
    first.logic.StartSliceOffsetInteraction()
    first.logic.SetSliceOffset(first.logic.GetSliceOffset() + 7)
    first.logic.EndSliceOffsetInteraction()
    assert abs(second.logic.GetSliceOffset() - first.logic.GetSliceOffset()) < 1e-6
    assert slice_views["Red"].logic.GetSliceOffset() == before


def test_two_images_take_two_views(scene, slice_views, views, nodes):
    views.compare([nodes["source"], nodes["synthetic"]])
    assert slice_views.layout.GetLayoutNode().GetViewArrangement() == LAYOUTS[2]


def test_acquired_and_synthetic_get_the_same_grays(scene, slice_views, views, nodes):
    low, high = display_range(nodes["real"])
    views.compare([nodes["source"], nodes["synthetic"], nodes["real"]])
    assert window(nodes["real"]) == (0, high - low, (high + low) / 2)
    assert window(nodes["synthetic"]) == (0, 1000, 500)


def test_only_the_views_with_the_synthetic_image_are_marked(scene, slice_views, views, nodes):
    marks = SyntheticMarks(slicer.app.applicationLogic())
    views.compare([nodes["source"], nodes["synthetic"], nodes["real"]])
    assert [yellow(slice_views[name]) for name in PANES] == [False, True, False]
    views.checkerboard(nodes["real"], nodes["synthetic"])
    assert yellow(slice_views["Red"])
    views.difference(nodes["real"], nodes["synthetic"])
    assert yellow(slice_views["Red"])
    views.back()
    assert not yellow(slice_views["Red"])
    marks.stop()


def yellow(view):
    """The mark, at the top of the view."""
    top = view.render()[:20].astype(int)
    return bool(((top[..., 0] > 150) & (top[..., 1] > 120) & (top[..., 2] < top[..., 0] - 80)).any())


def test_flicker_shows_the_one_and_the_other(scene, slice_views, views, nodes):
    marks = SyntheticMarks(slicer.app.applicationLogic())
    views.flicker(nodes["real"], nodes["synthetic"])
    view = slice_views["Red"]
    seen = [yellow(view)]
    for _turn in range(3):
        assert views.turn()
        seen.append(yellow(view))
    assert seen == [False, True, False, True]
    views.stop_flicker()
    assert not yellow(view) and view.composite.GetBackgroundVolumeID() == nodes["real"].GetID()
    marks.stop()


@pytest.mark.parametrize("gone", ["real", "synthetic"])
def test_flicker_ends_by_itself_when_an_image_is_deleted(scene, slice_views, views, nodes, gone):
    views.flicker(nodes["real"], nodes["synthetic"])
    views.turn()
    scene.RemoveNode(nodes[gone])
    assert not views.turn()
    assert all(view.composite.GetForegroundOpacity() == 0 for view in slice_views)
    views.back()
    assert {view.composite.GetBackgroundVolumeID() for view in slice_views} == {nodes["source"].GetID()}


def test_flicker_ends_by_itself_when_the_views_are_used_otherwise(scene, slice_views, views, nodes):
    """As when a run ends meanwhile: the acquired image is put into the views and must stay there."""
    views.flicker(nodes["real"], nodes["synthetic"])
    views.turn()
    slicer.util.setSliceViewerLayers(
        background=nodes["source"], foreground=nodes["uncertainty"], foregroundOpacity=0.0
    )
    assert not views.turn()
    assert all(view.composite.GetForegroundOpacity() == 0 for view in slice_views)


@pytest.mark.parametrize("gone", ["source", "synthetic", "real"])
def test_the_way_back_survives_deleted_images(scene, slice_views, views, nodes, gone):
    views.compare([nodes["source"], nodes["synthetic"], nodes["real"]])
    scene.RemoveNode(nodes[gone])
    views.back()
    wanted = None if gone == "source" else nodes["source"].GetID()
    assert slice_views["Red"].composite.GetBackgroundVolumeID() == wanted
    assert slice_views["Red"].node.IsMappedInLayout()


@pytest.mark.parametrize("way", WAYS)
def test_a_scene_closed_meanwhile_leaves_nothing_behind(scene, slice_views, views, nodes, way):
    WAYS[way](views, nodes)
    scene.Clear(False)
    assert not views.turn()
    views.back()
    assert not slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
    assert slice_views["Red"].node.IsMappedInLayout()
    assert all(not view.composite.GetBackgroundVolumeID() for view in slice_views)


def test_who_chose_another_layout_keeps_it(scene, slice_views, views, nodes):
    views.compare([nodes["source"], nodes["synthetic"]])
    layout = slice_views.layout.GetLayoutNode()
    layout.SetViewArrangement(layout.SlicerLayoutOneUpRedSliceView)
    views.back()
    assert layout.GetViewArrangement() == layout.SlicerLayoutOneUpRedSliceView


def test_without_slice_views_it_is_said_and_nothing_changes(scene, slice_views, views, nodes):
    layout = slice_views.layout.GetLayoutNode()
    layout.SetViewArrangement(layout.SlicerLayoutOneUp3DView)
    present = ids(scene)
    with pytest.raises(UsageError, match="layout"):
        views.checkerboard(nodes["real"], nodes["synthetic"])
    assert not views.changed and ids(scene) == present


# ---- images made for looking -----------------------------------------------------------------------------------


def foreground(scene, slice_views):
    return scene.GetNodeByID(slice_views["Red"].composite.GetForegroundVolumeID())


def test_the_difference_of_one_content_on_two_grids_is_small_and_where_it_differs_large(
    scene, slice_views, views, nodes, study
):
    raw = ball(study.grid)
    array = in_units(raw)
    array[raw == 900] = 200  # what should be bright is dark
    slicer.util.updateVolumeFromArray(nodes["synthetic"], array)
    views.difference(nodes["real"], nodes["synthetic"])
    node = foreground(scene, slice_views)
    assert slice_views["Red"].composite.GetBackgroundVolumeID() == nodes["real"].GetID()
    assert np.abs(ijk_to_ras(node) - ijk_to_ras(nodes["synthetic"])).max() < 1e-4
    found = slicer.util.arrayFromVolume(node)
    assert np.median(found[raw == 900]) > 600
    assert np.median(found[raw == 500]) < 120
    assert np.median(found[raw == 0]) == 0


def test_the_difference_follows_a_parent_transform(scene, slice_views, views, nodes):
    """Real and synthetic image are both moved by the same way, the real one's matrix already holds it."""
    move = slicer.vtkMRMLLinearTransformNode()
    scene.AddNode(move)
    matrix = move.GetMatrixTransformToParent()
    matrix.SetElement(0, 3, 15.0)
    move.SetMatrixTransformToParent(matrix)
    views.difference(nodes["real"], nodes["synthetic"])
    before = slicer.util.arrayFromVolume(foreground(scene, slice_views)).copy()
    for which in ("real", "synthetic"):
        nodes[which].SetAndObserveTransformNodeID(move.GetID())
    views.difference(nodes["real"], nodes["synthetic"])
    node = foreground(scene, slice_views)
    assert node.GetTransformNodeID() == move.GetID()
    assert np.abs(slicer.util.arrayFromVolume(node).astype(int) - before).max() <= 1


def test_the_checkerboard_is_acquired_and_synthetic_by_turns(scene, slice_views, views, nodes):
    slicer.util.updateVolumeFromArray(nodes["synthetic"], np.full((12, 40, 32), 333, np.int16))
    views.checkerboard(nodes["real"], nodes["synthetic"])
    node = scene.GetNodeByID(slice_views["Red"].composite.GetBackgroundVolumeID())
    found = slicer.util.arrayFromVolume(node) == 333
    side = round(SQUARE_MM / 0.9)
    assert not found[2, 5, 5] or not found[2, 5, side + 2]
    assert found.any() and not found.all()
    assert node.GetAttribute("NPCSynth.Synthetic") == "YES" and node.GetName().endswith("(synthetic)")
    assert not node.GetSaveWithScene()


def test_images_that_do_not_overlap_are_refused_and_the_views_stay(scene, slice_views, views, nodes):
    far = Grid(OTHER_GRID.shape, OTHER_GRID.ijk_to_lps + np.array([[0, 0, 0, 5000.0]] + [[0] * 4] * 3))
    other = add_volume(scene, Volume(ball(OTHER_GRID), far), "other patient")
    before, present = state(slice_views), ids(scene)
    with pytest.raises(InputError, match="other patient"):
        views.difference(other, nodes["synthetic"])
    assert state(slice_views) == before and ids(scene) == present and not views.changed


def test_the_uncertainty_lies_over_the_image_with_a_legend(scene, slice_views, views, nodes, study):
    array = np.zeros((12, 40, 32), np.int16)
    array[:, 10:30, 8:24] = 290
    array[:, :10] = SHOWN_FROM - 1  # little uncertainty: the image itself is to be seen
    slicer.util.updateVolumeFromArray(nodes["uncertainty"], array)
    view = slice_views["Red"]
    before = view.render()
    views.uncertainty(nodes["synthetic"], nodes["uncertainty"])
    picture = view.render().astype(int)
    colored = np.abs(picture[..., 0] - picture[..., 2]) > 40
    place = np.diag([-1, -1, 1, 1]) @ study.grid.ijk_to_lps
    view.node.JumpSliceByCentering(*(place @ [16, 4, 6, 1])[:3])
    little = view.render().astype(int)[view.pixel((place @ [16, 4, 6, 1])[:3])]
    assert np.ptp(little) == 0, "colored where there is little uncertainty"
    view.logic.FitSliceToBackground()
    assert colored[:, : picture.shape[1] * 3 // 4].any(), "the map is not drawn in color"
    legend = np.ptp(picture[:, picture.shape[1] * 4 // 5:], axis=(0, 1))
    assert legend.max() > 100, "there is no legend at the right"
    views.back()
    assert np.array_equal(view.render(), before)


@pytest.mark.parametrize("way", ["difference", "uncertainty"])
def test_the_legend_shows_the_colors_that_are_there_and_says_what_has_none(scene, slice_views, views, nodes, way):
    WAYS[way](views, nodes)
    display = foreground(scene, slice_views).GetDisplayNode()
    shown = display.GetLevel() - display.GetWindow() / 2, display.GetLevel() + display.GetWindow() / 2
    assert shown == (SHOWN_FROM, 300) and display.GetLowerThreshold() == SHOWN_FROM
    (legend,) = slicer.util.getNodesByClass("vtkMRMLColorLegendDisplayNode", scene)
    assert legend.GetTitleText().split("\n")[1:] == ["50-300 of 1000", "below 50: not colored"]
    assert legend.GetNumberOfLabels() == 6  # 50, 100 ... 300


def test_opaque_the_map_has_the_colors_of_the_legend(scene, slice_views, views, nodes, study):
    slicer.util.updateVolumeFromArray(nodes["uncertainty"], np.full(study.grid.shape, 175, np.int16))
    assert views.map_opacity is None
    views.uncertainty(nodes["synthetic"], nodes["uncertainty"])
    assert views.map_opacity == 0.5
    view = slice_views["Red"]
    middle = ([-1, -1, 1] * np.array([-50.0, 30.0, 190.0])).tolist()
    view.node.JumpSliceByCentering(*middle)
    colors = scene.GetNodeByID(foreground(scene, slice_views).GetDisplayNode().GetColorNodeID())
    expected = np.zeros(4)
    colors.GetColor(colors.GetNumberOfColors() // 2, expected)
    difference = []
    for opacity in (0.5, 1.0):
        views.set_map_opacity(opacity)
        difference.append(np.abs(view.render()[view.pixel(middle)] / 255 - expected[:3]).max())
    assert difference[0] > 0.2 and difference[1] < 0.03
    assert views.map_opacity == 1
    view.composite.SetForegroundVolumeID(nodes["source"].GetID())  # the user's own choice is left alone
    views.set_map_opacity(0.2)
    assert view.composite.GetForegroundOpacity() == 1
    views.back()
    assert views.map_opacity is None


def test_a_map_of_errors_covers_the_body_alone(scene, slice_views, views, nodes, study):
    slicer.util.updateVolumeFromArray(nodes["uncertainty"], np.full(study.grid.shape, 120, np.int16))
    views.uncertainty(nodes["synthetic"], nodes["uncertainty"])
    found = slicer.util.arrayFromVolume(foreground(scene, slice_views))
    raw = ball(study.grid)
    assert np.median(found[raw == 900]) == 120
    assert (found[0] == 0).all() and (found[:, 0, 0] == 0).all()
    assert foreground(scene, slice_views).GetAttribute("NPCSynth.Synthetic") == "YES"


def test_a_map_that_was_moved_away_is_refused(scene, slice_views, views, nodes):
    nodes["uncertainty"].SetOrigin(0, 0, 0)
    before = state(slice_views)
    with pytest.raises(InputError, match="moved"):
        views.uncertainty(nodes["synthetic"], nodes["uncertainty"])
    assert state(slice_views) == before


# ---- the list --------------------------------------------------------------------------------------------------


def test_outputs_are_listed_with_what_is_known_of_them(scene, nodes):
    (output,) = scene_outputs(scene)
    assert output.image is nodes["synthetic"] and output.uncertainty is nodes["uncertainty"]
    assert output.sequence == "T2FS" and output.mean_uncertainty == pytest.approx(0.05)
    assert output.source is nodes["source"]
    assert output.warnings and output.unusual == ()


def test_a_result_whose_file_has_gone_is_listed_all_the_same(scene, nodes):
    nodes["synthetic"].SetAndObserveImageData(None)
    (output,) = scene_outputs(scene)
    assert output.image is nodes["synthetic"] and output.source is nodes["source"]


def test_older_provenance_says_nothing_of_unusual_images(scene, nodes):
    text = nodes["synthetic"].GetAttribute("NPCSynth.Provenance")
    nodes["synthetic"].SetAttribute("NPCSynth.Provenance", text.replace('"unusual"', '"other"'))
    assert scene_outputs(scene)[0].unusual is None


def test_weights_that_cannot_tell_what_is_unusual_do_not_count_as_having_looked(scene, nodes):
    document = json.loads(nodes["synthetic"].GetAttribute("NPCSynth.Provenance"))
    document["warnings"].append(NOT_CHECKED)
    nodes["synthetic"].SetAttribute("NPCSynth.Provenance", json.dumps(document))
    assert scene_outputs(scene)[0].unusual is None


def test_outputs_without_their_uncertainty_or_source_are_listed_all_the_same(scene, nodes):
    scene.RemoveNode(nodes["uncertainty"])
    scene.RemoveNode(nodes["source"])
    (output,) = scene_outputs(scene)
    assert output.uncertainty is None and output.source is None
