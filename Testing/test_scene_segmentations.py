"""Segmentation nodes of every kind to masks on an image's grid, over the real scene of slicer-core."""

import re

import numpy as np
import pytest

slicer = pytest.importorskip(
    "slicer", reason="slicer-core or a system library that it needs is missing", exc_type=ImportError
)
import vtk  # noqa: E402
from segmentation_cases import (  # noqa: E402
    CENTER,
    GRIDS,
    add_image,
    add_labels,
    add_planes,
    add_surface,
    add_transform,
    ball,
    circles,
    sphere,
)

from NPCSynthLib.errors import Cancelled, InputError  # noqa: E402
from NPCSynthLib.inference.result import Segment, SegmentationResult  # noqa: E402
from NPCSynthLib.scene import copy_segmentation, drawn_on, is_predicted  # noqa: E402
from NPCSynthLib.scene.matrices import ijk_to_ras  # noqa: E402
from NPCSynthLib.scene.results import add_segmentation  # noqa: E402
from NPCSynthLib.study.volume import Grid  # noqa: E402
from NPCSynthLib.vocabulary import load_structures  # noqa: E402

AXIAL, THICK = GRIDS["axial"], GRIDS["oblique, thick slices"]
#: Turned about a tilted axis and shifted, RAS.
MOVED = np.array([[0.36, 0.48, -0.8, 11], [-0.8, 0.6, 0, -7], [0.48, 0.64, 0.6, 23], [0, 0, 0, 1.0]])


@pytest.fixture
def scene():
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    logic = slicer.vtkSlicerSegmentationsModuleLogic()  # knows how representations are converted
    logic.SetMRMLScene(scene)
    yield scene
    logic.SetMRMLScene(None)


def mask_of(node, image, name="GTVp"):
    return copy_segmentation(node, image).contours("the reference").structure(name).mask


def notes_of(node, image):
    return " ".join(copy_segmentation(node, image).contours("the reference").notes)


def overlap(first, second):
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_labels_on_the_images_own_voxels_stay_as_they_are(scene, grid, shared):
    image = add_image(scene, grid)
    drawn = {"GTVp": ball(grid), "Parotid_L": ball(grid, 3, CENTER + (15, 0, 0))}
    node = add_labels(scene, grid, drawn, drawn_on=image, shared=shared)
    found = copy_segmentation(node, image).contours("the reference")
    for name, mask in drawn.items():
        np.testing.assert_array_equal(found.structure(name).mask, mask)
    assert found.notes == ()


@pytest.mark.parametrize("there", GRIDS.values(), ids=GRIDS)
def test_labels_on_other_voxels_come_to_lie_at_the_same_place(scene, there):
    node, image = add_labels(scene, there, {"GTVp": ball(there)}), add_image(scene, AXIAL)
    mask = mask_of(node, image)
    index = np.argwhere(mask).mean(axis=0)[::-1]
    center = AXIAL.ijk_to_lps[:3, :3] @ index + AXIAL.origin
    assert np.abs(center - CENTER).max() < 0.5 and overlap(mask, ball(AXIAL)) > 0.88
    assert ("another voxel grid" in notes_of(node, image)) == (there is not AXIAL)


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_surfaces_and_planar_contours_are_filled_on_the_grid(scene, grid):
    image = add_image(scene, grid)
    assert overlap(mask_of(add_surface(scene, {"GTVp": sphere()}), image), ball(grid)) > 0.96
    assert overlap(mask_of(add_planes(scene, {"GTVp": circles(grid)}), image), ball(grid)) > 0.99


def test_planar_contours_of_other_slices_are_filled_on_the_grid(scene):
    mask = mask_of(add_planes(scene, {"GTVp": circles(AXIAL)}), add_image(scene, THICK))
    assert overlap(mask, ball(THICK)) > 0.95


@pytest.mark.parametrize("make", [
    lambda scene: add_labels(scene, GRIDS["flipped"], {"GTVp": ball(GRIDS["flipped"])}),
    lambda scene: add_surface(scene, {"GTVp": sphere()}),
    lambda scene: add_planes(scene, {"GTVp": circles(GRIDS["flipped"])}),
], ids=["labels", "surface", "planes"])
def test_parent_transforms_are_applied(scene, make):
    """The segmentation is moved away, the image is moved to where it went."""
    node, image = make(scene), add_image(scene, THICK)
    before = mask_of(node, image)
    node.SetAndObserveTransformNodeID(add_transform(scene, MOVED).GetID())
    elsewhere = add_transform(scene, MOVED @ MOVED)
    elsewhere.SetAndObserveTransformNodeID(add_transform(scene, np.linalg.inv(MOVED)).GetID())
    image.SetAndObserveTransformNodeID(elsewhere.GetID())
    follower = add_transform(scene, np.linalg.inv(MOVED) @ MOVED @ MOVED)
    node.SetAndObserveTransformNodeID(follower.GetID())
    assert overlap(mask_of(node, image), before) > 0.99


def test_a_shift_of_some_voxels_is_exact(scene):
    grid = GRIDS["left-handed"]
    image, node = add_image(scene, grid), add_labels(scene, grid, {"GTVp": ball(grid)})
    shift = np.eye(4)
    shift[:3, 3] = np.diag([-1, -1, 1]) @ grid.ijk_to_lps[:3, :3] @ (3, -2, 1)
    node.SetAndObserveTransformNodeID(add_transform(scene, shift).GetID())
    np.testing.assert_array_equal(mask_of(node, image), np.roll(ball(grid), (1, -2, 3), (0, 1, 2)))


def test_a_sheared_transform_is_followed(scene):
    """Registrations of planning systems can be affine."""
    image, node = add_image(scene, AXIAL), add_labels(scene, GRIDS["flipped"], {"GTVp": ball(GRIDS["flipped"])})
    shear = np.eye(4)
    shear[0, 1] = 0.3
    shear[0, 3] = -0.3 * -CENTER[1]
    node.SetAndObserveTransformNodeID(add_transform(scene, shear).GetID())
    index = np.indices(AXIAL.shape)[::-1].reshape(3, -1)
    points = np.diag([-1, -1, 1]) @ (AXIAL.ijk_to_lps[:3, :3] @ index + AXIAL.origin[:, None])
    points = np.linalg.inv(shear)[:3, :3] @ (points - shear[:3, 3:])
    expected = np.linalg.norm(points.T - CENTER * (-1, -1, 1), axis=1).reshape(AXIAL.shape) < 12
    assert overlap(mask_of(node, image), expected) > 0.93


def test_what_was_only_read_is_not_changed(scene):
    node, image = add_surface(scene, {"GTVp": sphere()}), add_image(scene, AXIAL)
    before = scene.GetNumberOfNodes(), node.GetSegmentation().GetMTime(), node.GetMTime()
    copy_segmentation(node, image).contours("the reference")
    assert (scene.GetNumberOfNodes(), node.GetSegmentation().GetMTime(), node.GetMTime()) == before
    assert not node.GetSegmentation().ContainsRepresentation("Binary labelmap")


def test_a_copy_does_not_change_with_the_scene(scene):
    image = add_image(scene, AXIAL)
    node = add_labels(scene, AXIAL, {"GTVp": ball(AXIAL)})
    copied = copy_segmentation(node, image)
    labels = node.GetSegmentation().GetNthSegment(0).GetRepresentation("Binary labelmap")
    labels.GetPointData().GetScalars().Fill(0)
    scene.RemoveNode(node)
    scene.RemoveNode(image)
    np.testing.assert_array_equal(copied.contours("the reference").structure("GTVp").mask, ball(AXIAL))


def test_part_of_a_segmentation_may_lie_outside_the_image(scene):
    small = GRIDS["axial"].from_parts((8, 20, 20), (1, 1, 1.5), CENTER, np.eye(3))
    node = add_labels(scene, AXIAL, {"GTVp": ball(AXIAL)}, shared=False)
    assert 0 < mask_of(node, add_image(scene, small)).sum() < ball(AXIAL).sum() / 4


@pytest.mark.parametrize("make", [
    lambda scene: add_labels(scene, AXIAL, {"GTVp": ball(AXIAL)}),
    lambda scene: add_labels(scene, GRIDS["flipped"], {"GTVp": ball(GRIDS["flipped"])}, shared=False),
    lambda scene: add_surface(scene, {"GTVp": sphere()}),
    lambda scene: add_planes(scene, {"GTVp": circles(AXIAL)}),
], ids=["labels on the same lattice", "labels on another grid", "surface", "planes"])
def test_what_leaves_the_image_is_told(scene, make):
    node = make(scene)
    half = Grid(AXIAL.shape[:2] + (AXIAL.shape[2] // 2,), AXIAL.ijk_to_lps)
    notes = notes_of(node, add_image(scene, half))
    assert "GTVp of the reference leaves the image with" in notes and "it was cut off there" in notes
    if found := re.search(r"with ([0-9.]+) of its ([0-9.]+) ml", notes):
        whole = 4 / 3 * np.pi * 1.2**3
        assert float(found[2]) == pytest.approx(whole, rel=0.05)
        kept = mask_of(node, scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")).sum() * 1.5 / 1000
        assert float(found[1]) == pytest.approx(whole - kept, rel=0.1)
    for grid in GRIDS.values():
        assert "cut off" not in notes_of(node, add_image(scene, grid))


@pytest.mark.parametrize("make", [
    lambda scene, grid: add_labels(scene, grid, {"GTVp": ball(grid), "GTVn": ball(grid, 4, CENTER + (15, 0, 0))}),
    lambda scene, grid: add_surface(scene, {"GTVp": sphere(), "GTVn": sphere(4, CENTER + (15, 0, 0))}),
], ids=["labels", "surface"])
def test_a_structure_all_outside_the_image_is_told(scene, make):
    half = Grid(AXIAL.shape[:2] + (AXIAL.shape[2] // 2,), AXIAL.ijk_to_lps)
    assert "GTVn of the reference lies outside the image." in notes_of(make(scene, AXIAL), add_image(scene, half))


def test_a_saved_and_loaded_prediction_is_known_as_one_by_its_segments(scene, tmp_path):
    image = add_image(scene, THICK)
    structure = load_structures()[0]
    found = SegmentationResult(
        (ball(THICK) * structure.label).astype(np.uint8), ball(THICK),
        (Segment(structure.name, structure.label, structure.color, structure.code),))
    made = add_segmentation(scene, found, ijk_to_ras(image), image)
    made.SetAttribute("NPCSynth.Synthetic", None)
    made.AddDefaultStorageNode()
    made.GetStorageNode().SetFileName(str(tmp_path / "mine.seg.nrrd"))
    assert made.GetStorageNode().WriteData(made)
    scene.RemoveNode(made)
    loaded = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Contours of Dr. Doe")
    loaded.AddDefaultStorageNode()
    loaded.GetStorageNode().SetFileName(str(tmp_path / "mine.seg.nrrd"))
    assert loaded.GetStorageNode().ReadData(loaded)
    np.testing.assert_array_equal(mask_of(loaded, image), ball(THICK))
    assert is_predicted(loaded) and not is_predicted(add_labels(scene, THICK, {"GTVp": ball(THICK)}))


# ---- bad inputs ------------------------------------------------------------------------------------------------


def test_what_is_gone_or_not_there_is_said(scene):
    image, node = add_image(scene, AXIAL), add_labels(scene, AXIAL, {"GTVp": ball(AXIAL)})
    with pytest.raises(InputError, match="no longer in the scene"):
        copy_segmentation(None, image)
    with pytest.raises(InputError, match="no image to compare \"drawn\" on"):
        copy_segmentation(node, None)
    with pytest.raises(InputError, match="has no image data"):
        copy_segmentation(node, scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty"))
    with pytest.raises(InputError, match='"bare" has no segments'):
        copy_segmentation(scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "bare"), image)


@pytest.mark.parametrize("make", [
    lambda scene: add_labels(scene, AXIAL, {"GTVp": ball(AXIAL, 0), "GTVn": ball(AXIAL, 0)}),
    lambda scene: add_surface(scene, {"GTVp": vtk.vtkPolyData(), "GTVn": vtk.vtkPolyData()}),
    lambda scene: add_planes(scene, {"GTVp": [], "GTVn": []}),
], ids=["labels", "surface", "planes"])
def test_a_segmentation_in_which_nothing_is_drawn_is_refused(scene, make):
    with pytest.raises(InputError, match="is empty: nothing is drawn in any of its 2 segments"):
        copy_segmentation(make(scene), add_image(scene, AXIAL)).contours("the reference")


def test_one_empty_segment_is_an_empty_mask(scene):
    node = add_labels(scene, AXIAL, {"GTVp": ball(AXIAL), "GTVn": ball(AXIAL, 0)}, shared=False)
    node.GetSegmentation().AddEmptySegment("", "Parotid_L")
    found = copy_segmentation(node, add_image(scene, AXIAL)).contours("the reference")
    assert [s.name for s in found.structures if not s.mask.any()] == ["GTVn", "Parotid_L"]


def test_a_segmentation_elsewhere_is_refused(scene):
    far = GRIDS["axial"].from_parts(AXIAL.shape, AXIAL.spacing, AXIAL.origin + 400, AXIAL.direction)
    for node in (add_labels(scene, AXIAL, {"GTVp": ball(AXIAL)}), add_surface(scene, {"GTVp": sphere()}),
                 add_planes(scene, {"GTVp": circles(AXIAL)})):
        with pytest.raises(InputError, match='Nothing of ".*" lies within "T1"'):
            copy_segmentation(node, add_image(scene, far)).contours("the reference")


def test_without_reference_geometry_it_is_placed_by_its_coordinates_and_said(scene):
    image = add_image(scene, AXIAL)
    node = add_labels(scene, AXIAL, {"GTVp": ball(AXIAL)})
    assert drawn_on(node) is None and "Nothing says which image the contours were drawn on" in notes_of(node, image)
    known = add_labels(scene, AXIAL, {"GTVp": ball(AXIAL)}, drawn_on=image)
    assert drawn_on(known) is image and notes_of(known, image) == ""
    other = add_image(scene, AXIAL, "T2")
    assert "drawn on another image" in notes_of(known, other)


def test_a_non_linear_transform_is_refused(scene):
    image, node = add_image(scene, AXIAL), add_labels(scene, AXIAL, {"GTVp": ball(AXIAL)})
    grid = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    node.SetAndObserveTransformNodeID(grid.GetID())
    with pytest.raises(InputError, match='"drawn" lies under the non-linear transform "warp"'):
        copy_segmentation(node, image)


def test_a_representation_that_cannot_be_drawn_is_refused_with_what_to_do(scene):
    node = add_labels(scene, AXIAL, {})
    node.GetSegmentation().SetSourceRepresentationName("Ribbon model")
    segment = slicer.vtkSegment()
    segment.SetName("GTVp")
    segment.AddRepresentation("Ribbon model", sphere())
    node.GetSegmentation().AddSegment(segment, "GTVp")
    with pytest.raises(InputError, match='as "Ribbon model".*create the binary labelmap'):
        copy_segmentation(node, add_image(scene, AXIAL))


def test_hidden_and_unnamed_segments_are_named(scene):
    image = add_image(scene, AXIAL)
    node = add_labels(scene, AXIAL, {
        "GTVp": ball(AXIAL), "  ": ball(AXIAL, 3, CENTER + 12), "": ball(AXIAL, 3, CENTER - 12)}, drawn_on=image)
    node.GetDisplayNode().SetSegmentVisibility("Segment_1", False)
    found = copy_segmentation(node, image).contours("the reference")
    assert [s.name for s in found.structures] == ["GTVp", "Segment 2", "Segment 3"]
    assert "called by their place: Segment 2, Segment 3" in " ".join(found.notes)
    assert "Hidden in the views, and compared all the same: GTVp." in found.notes


def test_two_segments_that_mean_the_same_are_listed_apart(scene):
    image = add_image(scene, AXIAL)
    node = add_labels(scene, AXIAL, {
        "GTVnx": ball(AXIAL, 5), "GTVp": ball(AXIAL, 3, CENTER + 12), "GTV-T": ball(AXIAL, 3, CENTER - 12)})
    found = copy_segmentation(node, image).contours("the reference")
    assert [s.name for s in found.structures] == ["GTVnx", "GTVp", "GTV-T"]


def test_contours_that_cannot_be_filled_are_left_out_and_named(scene):
    bent = [circles(AXIAL)[5] + np.linspace(0, 9, 120)[:, None] * (0, 0, 1)]
    node = add_planes(scene, {"GTVp": circles(AXIAL), "Brain": bent})
    found = copy_segmentation(node, add_image(scene, AXIAL)).contours("the reference")
    assert [s.name for s in found.structures] == ["GTVp"] and found.left_out[0][0] == "Brain"
    assert "not flat" in found.left_out[0][1]
    with pytest.raises(InputError, match='"RTSTRUCT" holds no contours that can be used. Brain was left out'):
        copy_segmentation(add_planes(scene, {"Brain": bent}), add_image(scene, AXIAL)).contours("the reference")


def test_filling_can_be_canceled(scene):
    node = add_labels(scene, AXIAL, {"GTVp": ball(AXIAL)})
    with pytest.raises(Cancelled):
        copy_segmentation(node, add_image(scene, AXIAL)).contours("the reference", cancel=lambda: True)


# ---- DICOM -----------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path, monkeypatch):
    """An image and two RTSTRUCTs as Slicer's DICOM database knows them: "mine" fits the image, "other" does not."""
    pydicom = pytest.importorskip("pydicom")
    from contour_cases import FRAME, SERIES, write_structures
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage

    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID, header.SeriesInstanceUID = MRImageStorage, f"{SERIES}.1", SERIES
    header.FrameOfReferenceUID, header.Modality = FRAME, "MR"
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.save_as(tmp_path / "image.dcm", enforce_file_format=True)
    write_structures(tmp_path / "mine.dcm", {"GTVp": []})
    write_structures(tmp_path / "other.dcm", {"GTVp": []}, frame="1.2.3.4")

    class Database:
        def fileForInstance(self, uid):
            return str(tmp_path / "image.dcm") if uid == f"{SERIES}.1" else ""

        def filesForSeries(self, uid):
            return [str(tmp_path / f"{uid}.dcm")]

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    return f"{SERIES}.1"


def loaded(scene, node, series):
    """File a node in the subject hierarchy as the DICOM module does."""
    tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = tree.CreateItem(tree.GetSceneItemID(), node)
    tree.SetItemUID(item, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName(), series)
    return node


def test_contours_of_another_frame_of_reference_are_refused_unless_they_were_moved(scene, database):
    image = add_image(scene, AXIAL)
    image.SetAttribute("DICOM.instanceUIDs", database)
    mine = loaded(scene, add_planes(scene, {"GTVp": circles(AXIAL)}), "mine")
    assert notes_of(mine, image) == ""
    other = loaded(scene, add_planes(scene, {"GTVp": circles(AXIAL)}), "other")
    with pytest.raises(InputError, match="another DICOM frame of reference"):
        copy_segmentation(other, image)
    other.SetAndObserveTransformNodeID(add_transform(scene, np.eye(4), "registration").GetID())
    assert "they are compared where the transform places them" in notes_of(other, image)
