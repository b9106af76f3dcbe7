"""Views drawn off screen by Slicer's own classes: images lie where they belong, and what is synthetic says so."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import let_read_bundles
from panel_cases import module, scene_fixture, skip_without_drawing, slicer  # noqa: F401
from segmentation_cases import add_labels
from slicer_stand_in.slice_views import SliceViews, ThreeDView

from NPCSynthLib.scene import add_result, add_volume, save_mrb
from NPCSynthLib.scene import marks as marks_module
from NPCSynthLib.scene.marks import MARK, PREDICTED_MARK, UNKNOWN_MARK, SyntheticMarks
from NPCSynthLib.study.volume import Grid, Volume

skip_without_drawing()
vtk = pytest.importorskip("vtk")

OTHER_GRID = Grid.from_parts(
    (30, 44, 52), (2.0, 2.5, 3.0), (-60.0, -40.0, 150.0), np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]])
)


@pytest.fixture
def views(scene):
    return SliceViews(scene, slicer.app.applicationLogic())


@pytest.fixture
def marks(views):
    marks = SyntheticMarks(slicer.app.applicationLogic())
    yield marks
    marks.stop()


def ras_of(grid, ijk):
    return (np.diag([-1, -1, 1, 1]) @ grid.ijk_to_lps @ [*ijk, 1])[:3]


def volume_with(scene, grid, points, name="T1", value=1000, radius=3.0):
    """Volume node with balls of ``radius`` mm around points (RAS mm)."""
    indices = np.indices(grid.shape)[::-1].reshape(3, -1)
    places = (np.diag([-1, -1, 1, 1]) @ grid.ijk_to_lps @ np.vstack([indices, np.ones(indices.shape[1])]))[:3]
    array = np.zeros(indices.shape[1], np.int16)
    for point in points:
        array[np.linalg.norm(places - np.reshape(point, (3, 1)), axis=0) <= radius] = value
    node = add_volume(scene, Volume(array.reshape(grid.shape), grid), name)
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(value, value / 2)
    return node


def show(view, background=None, foreground=None, opacity=0.0):
    view.composite.SetBackgroundVolumeID(background.GetID() if background is not None else None)
    view.composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
    view.composite.SetForegroundOpacity(opacity)


def look_at(view, point, millimeters=120.0):
    """Center the view on a point (RAS mm); its shorter side covers this much."""
    columns, rows = view.window.GetSize()
    view.node.SetFieldOfView(millimeters * columns / rows, millimeters, 1.0)
    view.node.JumpSliceByCentering(*point)


def center_of(bright):
    rows, columns = np.nonzero(bright)
    return np.array([rows.mean(), columns.mean()])


def marked(view):
    """Whether the mark's yellow is to be seen; all else in these views is gray."""
    red, green, blue = (view.render()[..., channel].astype(int) for channel in range(3))
    return bool(((red > 150) & (green > 120) & (blue < red - 80)).any())


def words(view):
    """The lines of the mark that are drawn in a view."""
    view.window.Render()
    texts = [prop for prop in view.renderer.GetViewProps() if prop.IsA("vtkTextActor") and prop.GetVisibility()]
    return [line for text in texts for line in text.GetInput().split("\n")]


# ---- geometry --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, right, down", [
    # Radiological convention: the patient's left, or back, on the screen's right; anterior or superior on top.
    ("Red", (-1, 0, 0), (0, -1, 0)), ("Yellow", (0, -1, 0), (0, 0, -1)), ("Green", (-1, 0, 0), (0, 0, -1)),
])  # fmt: skip
@pytest.mark.parametrize("which", ["tilted, slices flipped", "axes swapped"])
def test_a_marker_appears_at_its_place_in_the_patient(scene, views, oblique_grid, name, right, down, which):
    grid = oblique_grid if which.startswith("tilted") else OTHER_GRID
    point = ras_of(grid, [n // 2 for n in reversed(grid.shape)])
    away = point + 9 * np.array(right) + 4 * np.array(down)
    node = volume_with(scene, grid, [away], radius=4.0)
    view = views[name]
    show(view, node)
    look_at(view, point)
    picture = view.render()[..., 0]
    per_mm = picture.shape[0] / 120
    middle = np.array(picture.shape) / 2
    # half a voxel of the coarsest spacing: the marker itself is made of voxels
    assert np.abs((center_of(picture > 100) - middle) / per_mm - [4, 9]).max() < 2.5


def test_images_on_different_grids_lie_on_each_other(scene, views, oblique_grid):
    point = ras_of(oblique_grid, (15, 21, 6))
    first = volume_with(scene, oblique_grid, [point], radius=6)
    second = volume_with(scene, OTHER_GRID, [point], radius=6)
    view = views["Red"]
    centers = []
    for background, foreground, opacity in ((first, second, 0.0), (first, second, 1.0)):
        show(view, background, foreground, opacity)
        look_at(view, point)
        centers.append(center_of(view.render()[..., 0] > 100))
    assert np.abs(centers[0] - centers[1]).max() / 2.5 < 2.5  # pixels of 0.4 mm


def test_a_result_and_its_contours_cover_the_image_that_they_were_made_from(scene, views, study, result):
    source = add_volume(scene, study.source("T1").original, "T1")
    nodes = add_result(result, study, {"T1": source})
    box = ras_of(study.grid, (14, 7, 5))  # middle of the first structure's block, slices 3 to 7
    view = views["Red"]
    look_at(view, box)
    show(view, source)
    nodes.segmentation.GetDisplayNode().SetOpacity2DFill(1.0)
    nodes.segmentation.GetDisplayNode().SetVisibility2DFill(True)
    first = next(s for s in result.segmentation.segments if s.label == 1)
    picture = view.render()
    seen = picture[view.pixel(box)].astype(float) / 255
    assert np.abs(seen - first.color).max() < 0.1


# ---- the mark --------------------------------------------------------------------------------------------------


def test_an_acquired_image_has_no_mark(scene, views, marks, oblique_grid):
    point = ras_of(oblique_grid, (15, 21, 6))
    for view in views:
        show(view, volume_with(scene, oblique_grid, [point]))
        look_at(view, point)
        assert not marked(view)


@pytest.mark.parametrize("name", ["Red", "Yellow", "Green"])
def test_a_synthetic_image_is_marked_in_the_views_that_show_it(scene, views, marks, oblique_grid, name):
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    show(views[name], node)
    assert [marked(view) for view in views] == [view is views[name] for view in views]


def test_an_image_whose_origin_cannot_be_found_out_is_marked_as_unknown(
    scene, views, marks, oblique_grid, monkeypatch
):
    def unreachable(self, node):
        raise OSError("the network drive is gone")

    show(views["Red"], volume_with(scene, oblique_grid, []))
    monkeypatch.setattr(marks_module.Origins, "synthetic", unreachable)
    assert words(views["Red"]) == [UNKNOWN_MARK]


def test_results_are_marked_and_the_reference_below_them_is_not(scene, views, marks, study, result):
    source = add_volume(scene, study.source("T1").original, "T1")
    nodes = add_result(result, study, {"T1": source})
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    view = views["Red"]
    for node in (*nodes.volumes.values(), *nodes.uncertainties.values()):
        show(view, source, node, 0.5)
        assert marked(view)
        show(view, source, node, 0.0)  # as after a run: the acquired image stays in view
        assert not marked(view)


def test_foreground_and_label_layers_count_when_they_show(scene, views, marks, oblique_grid):
    acquired, synthetic = (volume_with(scene, oblique_grid, []) for _ in range(2))
    synthetic.SetAttribute("NPCSynth.Synthetic", "YES")
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    slicer.util.updateVolumeFromArray(labels, np.ones(oblique_grid.shape, np.uint8))
    labels.CreateDefaultDisplayNodes()
    labels.SetAttribute("NPCSynth.Synthetic", "YES")
    view = views["Red"]
    show(view, acquired, synthetic, 0.0)
    view.composite.SetCompositing(slicer.vtkMRMLSliceCompositeNode.Add)
    assert marked(view)
    show(view, acquired)
    view.composite.SetCompositing(slicer.vtkMRMLSliceCompositeNode.Alpha)
    assert not marked(view)
    view.composite.SetLabelVolumeID(labels.GetID())
    view.composite.SetLabelOpacity(0.5)
    assert marked(view)
    view.composite.SetLabelOpacity(0.0)
    assert not marked(view)


def test_the_mark_goes_with_the_image(scene, views, marks, oblique_grid):
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    view = views["Red"]
    show(view, node)
    assert marked(view)
    scene.RemoveNode(node)
    assert not marked(view)


def test_marking_later_or_by_name_is_enough(scene, views, marks, oblique_grid):
    node = volume_with(scene, oblique_grid, [])
    view = views["Red"]
    show(view, node)
    assert not marked(view)
    node.SetName("T1C (synthetic)")
    assert marked(view)
    node.SetName("T1C")
    assert not marked(view)
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    assert marked(view)


def test_a_loaded_scene_is_marked(scene, views, marks, study, result, tmp_path):
    source = add_volume(scene, study.source("T1").original, "T1")
    nodes = add_result(result, study, {"T1": source})
    show(views["Red"], source)
    show(views["Green"], nodes.volumes["T2FS"])
    path = save_mrb(scene, tmp_path / "scene.mrb")
    scene.Clear(False)
    let_read_bundles(scene, tmp_path)
    assert not any(marked(view) for view in views)
    assert scene.ReadFromMRB(str(path))
    assert {view.node.GetName(): words(view) for view in views} == {
        "Red": [PREDICTED_MARK], "Yellow": [PREDICTED_MARK], "Green": [MARK, PREDICTED_MARK]}


def test_views_that_come_later_are_marked(scene, views, marks, oblique_grid):
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    layout = views.layout.GetLayoutNode()
    layout.AddLayoutDescription(777, (
        '<layout type="horizontal"><item><view class="vtkMRMLSliceNode" singletontag="Other">'
        '<property name="orientation" action="default">Coronal</property></view></item></layout>'
    ))  # fmt: skip
    layout.SetViewArrangement(777)
    show(views["Other"], node)
    assert marked(views["Other"])


def test_the_mark_stays_when_the_renderers_are_made_anew(scene, views, marks, oblique_grid):
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    view = views["Red"]
    show(view, node)
    assert marked(view)
    overlay, fresh = vtk.vtkRenderer(), vtk.vtkRenderer()
    overlay.SetLayer(1)
    view.window.SetNumberOfLayers(2)
    view.window.AddRenderer(overlay)
    view.window.RemoveRenderer(view.renderer)
    view.window.AddRenderer(fresh)  # the overlay's comes first now
    assert marked(view)
    assert fresh.GetViewProps().GetNumberOfItems() == 1 and overlay.GetViewProps().GetNumberOfItems() == 0


def test_other_corner_annotations_are_left_alone_and_leave_the_mark_alone(scene, views, marks, oblique_grid):
    """DataProbe clears and writes the view's vtkCornerAnnotation."""
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    view = views["Red"]
    annotation = vtk.vtkCornerAnnotation()
    view.renderer.AddViewProp(annotation)
    show(view, node)
    annotation.SetText(vtk.vtkCornerAnnotation.UpperRight, "Hospital")
    assert marked(view) and annotation.GetText(vtk.vtkCornerAnnotation.UpperRight) == "Hospital"
    annotation.ClearAllTexts()
    assert marked(view)


def test_the_mark_fits_into_small_views(scene, views, marks, oblique_grid):
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    view = views["Red"]
    show(view, node)
    for size in ((150, 120), (700, 500)):
        view.window.SetSize(*size)
        view.logic.ResizeSliceNode(*size)
        yellow = np.nonzero(view.render()[..., 0] > 150)[1]
        assert 1 < yellow.min() < yellow.max() < size[0] - 1


def test_a_copy_of_a_result_that_lost_its_name_is_marked(scene, views, marks, study, result):
    synthetic = result.sequences[0]
    copy = add_volume(scene, Volume(synthetic.array, result.grid), "t1c")
    view = views["Red"]
    show(view, copy)
    assert words(view) == []
    nodes = add_result(result, study, {"T1": add_volume(scene, study.source("T1").original, "T1")})
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    assert words(view) == [MARK]
    slicer.util.arrayFromVolume(copy)[:] += 1
    slicer.util.arrayFromVolumeModified(copy)
    assert words(view) == []


# ---- predicted contours ----------------------------------------------------------------------------------------


@pytest.fixture
def predicted(scene, study, result):
    """The acquired T1 and the nodes of a run on it."""
    source = add_volume(scene, study.source("T1").original, "T1")
    return source, add_result(result, study, {"T1": source})


def test_predicted_contours_over_an_acquired_image_say_so(scene, views, marks, predicted):
    source, nodes = predicted
    view = views["Red"]
    show(view, source)
    assert words(view) == [PREDICTED_MARK] and marked(view)
    show(view, nodes.volumes["T2FS"])
    assert words(view) == [MARK, PREDICTED_MARK]
    scene.RemoveNode(nodes.segmentation)
    assert words(view) == [MARK]


def hide_all_2d(display, segments):
    display.SetVisibility2DFill(False)
    display.SetVisibility2DOutline(False)


HIDING = {
    "the node": lambda display, segments: display.SetVisibility(False),
    "in slices": lambda display, segments: display.SetVisibility2D(False),
    "fill and outline": hide_all_2d,
    "each segment": lambda display, segments: [display.SetSegmentVisibility(one, False) for one in segments],
    "fill and outline of each segment": lambda display, segments: [
        (display.SetSegmentVisibility2DFill(one, False), display.SetSegmentVisibility2DOutline(one, False))
        for one in segments],
    "in this view": lambda display, segments: display.AddViewNodeID("vtkMRMLSliceNodeGreen"),
}


@pytest.mark.parametrize("how", HIDING)
def test_hidden_contours_need_no_mark(scene, views, marks, predicted, how):
    source, nodes = predicted
    show(views["Red"], source)
    segmentation = nodes.segmentation.GetSegmentation()
    segments = [segmentation.GetNthSegmentID(n) for n in range(segmentation.GetNumberOfSegments())]
    assert words(views["Red"]) == [PREDICTED_MARK]
    HIDING[how](nodes.segmentation.GetDisplayNode(), segments)
    assert words(views["Red"]) == []
    assert words(views["Green"]) == ([PREDICTED_MARK] if how == "in this view" else [])


def beside_hidden_predictions(scene, views, predicted, name):
    """The nodes of a result whose contours are hidden, and an empty segmentation of another origin."""
    source, nodes = predicted
    show(views["Red"], source)
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    other = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    other.CreateDefaultDisplayNodes()
    return nodes, other


def test_contours_of_a_person_need_no_mark_and_copied_predictions_do(scene, views, marks, predicted):
    nodes, drawn = beside_hidden_predictions(scene, views, predicted, "Dr. Doe")
    drawn.GetSegmentation().AddEmptySegment("GTVp", "GTVp")
    assert words(views["Red"]) == []
    theirs, ours = drawn.GetSegmentation(), nodes.segmentation.GetSegmentation()
    theirs.CopySegmentFromSegmentation(ours, ours.GetNthSegmentID(1))
    assert words(views["Red"]) == [PREDICTED_MARK]
    drawn.GetDisplayNode().SetSegmentVisibility(ours.GetNthSegmentID(1), False)
    assert words(views["Red"]) == []


def test_contours_that_another_program_loaded_from_our_export_are_known_by_their_names(scene, views, marks, predicted):
    """As SlicerRT loads an RTSTRUCT."""
    nodes, loaded = beside_hidden_predictions(scene, views, predicted, "RTSTRUCT")
    theirs, ours = loaded.GetSegmentation(), nodes.segmentation.GetSegmentation()
    theirs.CopySegmentFromSegmentation(ours, ours.GetNthSegmentID(1))
    segment = theirs.GetNthSegment(0)
    name = segment.GetName()
    segment.RemoveTag("NPCSynth.Synthetic")
    segment.SetName("GTVp")
    assert words(views["Red"]) == []
    segment.SetName(name)
    assert words(views["Red"]) == [PREDICTED_MARK]


# ---- 3D views --------------------------------------------------------------------------------------------------


@pytest.fixture
def three_d(scene, views):
    return ThreeDView(slicer.app.applicationLogic(), scene)


def rendering(scene, volume):
    display = scene.AddNode(slicer.vtkMRMLGPURayCastVolumeRenderingDisplayNode())
    volume.AddAndObserveDisplayNodeID(display.GetID())
    return display


def test_a_volume_rendering_of_a_synthetic_image_is_marked(scene, three_d, marks, oblique_grid):
    acquired, synthetic = (volume_with(scene, oblique_grid, []) for _ in range(2))
    synthetic.SetAttribute("NPCSynth.Synthetic", "YES")
    rendering(scene, acquired)
    assert words(three_d) == []
    display = rendering(scene, synthetic)
    assert words(three_d) == [MARK]
    display.SetVisibility(False)
    assert words(three_d) == []
    display.SetVisibility(True)
    display.AddViewNodeID("vtkMRMLViewNodeOther")
    assert words(three_d) == []
    display.RemoveAllViewNodeIDs()
    assert words(three_d) == [MARK]
    scene.RemoveNode(synthetic)
    assert words(three_d) == []


def test_a_synthetic_slice_in_a_3d_view_is_marked_there(scene, views, three_d, marks, oblique_grid):
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    show(views["Green"], node)
    assert words(three_d) == []
    views["Green"].node.SetSliceVisible(True)
    assert words(three_d) == [MARK]
    views["Green"].node.AddThreeDViewID("vtkMRMLViewNodeOther")
    assert words(three_d) == []


def test_predicted_surfaces_are_marked_once_they_are_there(scene, three_d, marks, predicted):
    source, nodes = predicted
    assert words(three_d) == []
    nodes.segmentation.CreateClosedSurfaceRepresentation()
    assert words(three_d) == [PREDICTED_MARK]
    nodes.segmentation.GetDisplayNode().SetVisibility3D(False)
    assert words(three_d) == []


# ---- what Slicer exports of predicted contours -----------------------------------------------------------------


def export_models(scene, segmentation):
    """Module Segmentations, Export to models: {name: vtkMRMLModelNode}; the segmentation is hidden then."""
    before = slicer.util.getNodesByClass("vtkMRMLModelNode", scene)
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = tree.CreateFolderItem(tree.GetSceneItemID(), "models")
    assert slicer.vtkSlicerSegmentationsModuleLogic.ExportVisibleSegmentsToModels(segmentation, folder)
    segmentation.GetDisplayNode().SetVisibility(False)
    made = [node for node in slicer.util.getNodesByClass("vtkMRMLModelNode", scene) if node not in before]
    return {node.GetName(): node for node in made}


def export_labels(scene, segmentation, names=None, reference=None):
    """Module Segmentations, Export to labelmap; the segmentation is hidden then."""
    node = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Label map")
    ids = names or segmentation.GetSegmentation().GetSegmentIDs()
    assert slicer.vtkSlicerSegmentationsModuleLogic.ExportSegmentsToLabelmapNode(segmentation, ids, node, reference)
    segmentation.GetDisplayNode().SetVisibility(False)
    return node


def show_labels(view, background, labels):
    show(view, background)
    view.composite.SetLabelVolumeID(labels.GetID())
    view.composite.SetLabelOpacity(1.0)


def drawn_by_hand(scene, grid, source):
    """A segmentation of a person: a ball."""
    place = ras_of(grid, [n // 2 for n in reversed(grid.shape)])
    ball = slicer.util.arrayFromVolume(volume_with(scene, grid, [place], radius=12)) > 0
    return add_labels(scene, grid, {"GTVp": ball}, "Dr. Doe", drawn_on=source)


def test_models_of_predicted_segments_are_marked_where_they_show(scene, views, three_d, marks, predicted):
    source, nodes = predicted
    models = export_models(scene, nodes.segmentation)
    assert len(models) > 5 and words(three_d) == [PREDICTED_MARK]
    show(views["Red"], source)
    assert words(views["Red"]) == []
    models["GTVp^SYN"].GetDisplayNode().SetVisibility2D(True)
    assert words(views["Red"]) == [PREDICTED_MARK]
    for model in models.values():
        model.GetDisplayNode().SetVisibility(False)
    assert words(three_d) == [] and words(views["Red"]) == []
    models["GTVp^SYN"].GetDisplayNode().SetVisibility(True)
    models["GTVp^SYN"].GetDisplayNode().AddViewNodeID("vtkMRMLViewNodeOther")
    assert words(three_d) == []


def test_models_and_label_maps_of_a_person_need_no_mark(scene, views, three_d, marks, predicted, oblique_grid):
    source, nodes = predicted
    nodes.segmentation.CreateClosedSurfaceRepresentation()
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    drawn = drawn_by_hand(scene, oblique_grid, source)
    assert export_models(scene, drawn) and words(three_d) == []
    show_labels(views["Red"], source, export_labels(scene, drawn))
    assert words(views["Red"]) == []


def test_a_label_map_around_predicted_structures_needs_no_mark(scene, views, marks, predicted):
    """A person's head around the predicted brain, with a lesion within it; labels may be any numbers."""
    source, nodes = predicted
    labels = export_labels(scene, nodes.segmentation)
    nodes.segmentation.GetSegmentation().RemoveSegment("External")  # here it fills the image
    body = np.ones(slicer.util.arrayFromVolume(labels).shape, np.int32)
    body[tuple(n // 2 for n in body.shape)] = 2**31 - 1
    slicer.util.updateVolumeFromArray(labels, body)
    show_labels(views["Red"], source, labels)
    assert words(views["Red"]) == []
    show_labels(views["Red"], nodes.volumes["T2FS"], labels)
    assert words(views["Red"]) == [MARK]


def test_an_empty_label_map_leaves_the_other_marks(scene, views, marks, predicted):
    _, nodes = predicted
    labels = export_labels(scene, nodes.segmentation)
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(0, 0, 0)
    labels.SetAndObserveImageData(image)
    show_labels(views["Red"], nodes.volumes["T2FS"], labels)
    assert words(views["Red"]) == [MARK]


def test_a_model_stays_marked_without_its_segmentation_and_in_a_saved_scene(
    scene, views, three_d, marks, predicted, tmp_path
):
    source, nodes = predicted
    models = export_models(scene, nodes.segmentation)
    for name, model in models.items():
        model.GetDisplayNode().SetVisibility(name == "Brain^SYN")
    seen = []
    models["Brain^SYN"].AddObserver(vtk.vtkCommand.AnyEvent, lambda caller, event: seen.append(event))
    assert words(three_d) == [PREDICTED_MARK]
    assert seen == []  # an event would have the view drawn once more
    scene.RemoveNode(nodes.segmentation)
    assert words(three_d) == [PREDICTED_MARK]
    path = save_mrb(scene, tmp_path / "scene.mrb")
    scene.Clear(False)
    let_read_bundles(scene, tmp_path)
    assert words(three_d) == []
    assert scene.ReadFromMRB(str(path))
    assert words(three_d) == [PREDICTED_MARK]
    model = next(node for node in slicer.util.getNodesByClass("vtkMRMLModelNode") if node.GetName() == "Brain^SYN")
    model.GetPolyData().GetPoints().SetPoint(0, 1.0, 2.0, 3.0)
    model.GetPolyData().GetPoints().Modified()
    model.GetPolyData().Modified()
    assert words(three_d) == []  # another surface, such as that of a later export


@pytest.mark.parametrize("which", ["all", "one", "all on another grid", "one on another grid", "moved"])
def test_label_maps_of_predicted_segments_are_marked(scene, views, marks, predicted, oblique_grid, which):
    source, nodes = predicted
    names = ["Brain"] if which.startswith("one") else None
    reference = None
    if which.endswith("another grid"):
        middle = (oblique_grid.ijk_to_lps @ [16, 20, 6, 1])[:3]
        grid = Grid.from_parts((30, 40, 40), (1.7, 1.3, 2.1), middle - [34, 26, 31], np.eye(3))
        reference = volume_with(scene, grid, [])
    labels = export_labels(scene, nodes.segmentation, names, reference)
    if which == "moved":
        matrix, transform = vtk.vtkMatrix4x4(), scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        matrix.SetElement(0, 3, 7.0)
        transform.SetMatrixTransformToParent(matrix)
        labels.SetAndObserveTransformNodeID(transform.GetID())
    view = views["Red"]
    show(view, source)
    assert words(view) == []
    show_labels(view, source, labels)
    assert words(view) == [PREDICTED_MARK]
    view.composite.SetLabelOpacity(0.0)
    assert words(view) == []


def test_a_label_map_with_predicted_segments_among_a_persons_is_marked_until_it_is_another(
    scene, views, marks, predicted, oblique_grid
):
    source, nodes = predicted
    drawn = drawn_by_hand(scene, oblique_grid, source)
    theirs, ours = drawn.GetSegmentation(), nodes.segmentation.GetSegmentation()
    for name in ("External", "GTVp"):
        theirs.CopySegmentFromSegmentation(ours, name)
    labels = export_labels(scene, drawn)
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    view = views["Red"]
    show_labels(view, source, labels)
    assert words(view) == [PREDICTED_MARK]
    scene.RemoveNode(drawn)
    scene.RemoveNode(nodes.segmentation)
    assert words(view) == [PREDICTED_MARK]
    slicer.util.arrayFromVolume(labels)[:] = 0
    slicer.util.arrayFromVolumeModified(labels)
    assert words(view) == []


def test_a_label_map_that_was_there_before_its_segmentation_is_marked_once_that_comes(
    scene, views, marks, study, result, oblique_grid
):
    source = add_volume(scene, study.source("T1").original, "T1")
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "GTVp of a file")
    slicer.util.updateVolumeFromArray(labels, (result.segmentation.labelmap == 1).astype(np.uint8))
    labels.CopyOrientation(source)
    view = views["Red"]
    show_labels(view, source, labels)
    assert words(view) == []
    nodes = add_result(result, study, {"T1": source})
    nodes.segmentation.GetDisplayNode().SetVisibility(False)
    assert words(view) == [PREDICTED_MARK]


@pytest.mark.parametrize("word", ["name", "attribute"])
def test_a_model_that_says_so_itself_is_marked(scene, views, three_d, marks, word):
    model, sphere = scene.AddNewNodeByClass("vtkMRMLModelNode", "Mean"), vtk.vtkSphereSource()
    model.SetPolyDataConnection(sphere.GetOutputPort())
    model.CreateDefaultDisplayNodes()
    assert words(three_d) == []
    if word == "name":
        model.SetName("Smooth (synthetic)")
    else:
        model.SetAttribute("NPCSynth.Synthetic", "YES")
    assert words(three_d) == [PREDICTED_MARK]


def test_a_label_map_in_a_3d_view_is_marked_there(scene, views, three_d, marks, predicted):
    source, nodes = predicted
    show_labels(views["Green"], source, export_labels(scene, nodes.segmentation))
    assert words(three_d) == []
    views["Green"].node.SetSliceVisible(True)
    assert words(three_d) == [PREDICTED_MARK]


def test_3d_views_that_come_later_are_marked_until_marking_stops(scene, views, oblique_grid):
    marks = SyntheticMarks(slicer.app.applicationLogic())
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    rendering(scene, node)
    later = ThreeDView(slicer.app.applicationLogic(), scene, "2")
    assert words(later) == [MARK]
    marks.stop()
    assert words(later) == []


def test_the_application_can_lead_to_a_3d_views_window(scene, views, oblique_grid):
    """It may do so only after the view has come into the layout."""
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    rendering(scene, node)
    view, windows = ThreeDView(slicer.app.applicationLogic(), scene, leads_to_window=False), {}
    marks = SyntheticMarks(slicer.app.applicationLogic(), lambda node: windows.get(node.GetID()))
    assert words(view) == []
    windows[view.node.GetID()] = view.window
    view.node.SetMappedInLayout(False)
    view.node.SetMappedInLayout(True)
    assert words(view) == [MARK]
    marks.stop()
    assert words(view) == []


def test_the_layout_manager_leads_to_the_window(scene, views, monkeypatch, oblique_grid):
    """As qMRMLLayoutManager does: threeDViewCount, threeDWidget(n).threeDView()."""
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    rendering(scene, node)
    shown = [ThreeDView(slicer.app.applicationLogic(), scene, name, leads_to_window=False) for name in "12"]
    widgets = [SimpleNamespace(threeDView=lambda view=view: SimpleNamespace(
        mrmlViewNode=lambda: view.node, renderWindow=lambda: view.window)) for view in shown]
    monkeypatch.setattr(slicer.app, "layoutManager", lambda: SimpleNamespace(
        threeDViewCount=2, threeDWidget=lambda n: widgets[n]))
    module.startMarking()
    assert [words(view) for view in shown] == [[MARK], [MARK]]
    slicer.app.standInEmit("aboutToQuit()")
    assert [words(view) for view in shown] == [[], []]


def test_slicer_marks_from_its_start_without_the_panel(scene, views, oblique_grid):
    slicer.app.standInEmit("startupCompleted()")
    node = volume_with(scene, oblique_grid, [])
    node.SetAttribute("NPCSynth.Synthetic", "YES")
    show(views["Red"], node)
    assert marked(views["Red"])
    module.startMarking()  # the panel is opened, or the module is loaded anew: still one mark
    assert marked(views["Red"])
    texts = [prop for prop in views["Red"].renderer.GetViewProps() if prop.IsA("vtkTextActor")]
    assert len(texts) == 1
    slicer.app.standInEmit("aboutToQuit()")
    assert not marked(views["Red"])


def test_what_slicer_loads_at_its_start_is_light():
    """The marks and the layouts are made known at every start of Slicer."""
    code = (
        "import sys, numpy, NPCSynthLib.scene.marks, NPCSynthLib.scene.layouts\n"
        "print(sorted(name for name in ('torch', 'scipy', 'SimpleITK', 'pydicom') if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "[]"
