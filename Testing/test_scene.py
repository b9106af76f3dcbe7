"""MRML in and out, with the real scene of slicer-core."""

import zipfile

import numpy as np
import pytest
from lattice import at_the_voxels_of

slicer = pytest.importorskip(
    "slicer", reason="slicer-core or a system library that it needs is missing", exc_type=ImportError
)
vtk = pytest.importorskip("vtk")

from bundles import let_read_bundles  # noqa: E402

from NPCSynthLib.errors import InputError, OutputError  # noqa: E402
from NPCSynthLib.inference.result import (  # noqa: E402
    Segment,
    SegmentationResult,
    SynthesisResult,
    SynthesizedSequence,
)
from NPCSynthLib.scene import (  # noqa: E402
    add_result,
    is_synthetic,
    latest_result,
    result_nodes,
    save_mrb,
    study_volumes,
    volume_from_node,
    volumes,
    write_scene,
)
from NPCSynthLib.scene.matrices import ijk_to_ras, swap_ras_lps, to_vtk  # noqa: E402
from NPCSynthLib.study.study import DIGITAL_PATIENT, Source, Study, is_simulated  # noqa: E402
from NPCSynthLib.study.volume import Grid, Volume  # noqa: E402
from NPCSynthLib.vocabulary import load_structures  # noqa: E402

SHAPE = (4, 7, 6)


def _rotation(axis, degrees):
    axis = np.asarray(axis, float) / np.linalg.norm(axis)
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


GRIDS = {
    "axial": Grid.from_parts(SHAPE, (1, 1, 5), (-20, -30, 10), np.eye(3)),
    "oblique": Grid.from_parts(SHAPE, (0.9, 1.1, 4.4), (12.3, -45.6, 78.9), _rotation((1, 2, 3), 27)),
    "flipped": Grid.from_parts(SHAPE, (0.7, 0.7, 3), (5, 6, 7), np.diag([1, -1, -1])),
    "left-handed": Grid.from_parts(SHAPE, (1, 2, 3), (5, 6, 7), np.diag([1, 1, -1])),
}


@pytest.fixture
def scene():
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    colors = slicer.vtkMRMLColorLogic()
    colors.SetMRMLScene(scene)
    yield scene
    colors.SetMRMLScene(None)


def add_volume(scene, grid, name="T1", array=None, class_name="vtkMRMLScalarVolumeNode"):
    node = scene.AddNewNodeByClass(class_name, name)
    array = np.arange(np.prod(grid.shape), dtype=np.int16).reshape(grid.shape) if array is None else array
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(to_vtk(swap_ras_lps(grid.ijk_to_lps)))
    return node


def add_transform(scene, matrix, name="transform"):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(to_vtk(matrix))
    return node


def rigid(axis, degrees, shift):
    matrix = np.eye(4)
    matrix[:3, :3] = _rotation(axis, degrees)
    matrix[:3, 3] = shift
    return matrix


def world_matrix(node):
    """IJK to world RAS as Slicer itself sees it."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, transform)
    corners = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    points = [
        np.array(transform.TransformPoint((ijk_to_ras(node) @ [*corner, 1])[:3].tolist())) for corner in corners
    ]
    matrix = np.eye(4)
    matrix[:3, 3] = points[0]
    for column in range(3):
        matrix[:3, column] = points[column + 1] - points[0]
    return matrix


def make_study(volumes, reference="T1", moved=()):
    grid = volumes[reference].grid
    sources = tuple(
        Source(
            sequence, volume, np.full(grid.shape, 0.5, np.float32), np.ones(grid.shape, bool),
            {"applied": sequence in moved}, (0.0, 200.0),
        )
        for sequence, volume in volumes.items()
    )
    return Study(grid, reference, sources, np.ones(grid.shape, bool))


def make_result(study, targets=("T1C",), segment=True):
    rng = np.random.default_rng(3)
    shape = study.grid.shape
    sequences = tuple(
        SynthesizedSequence(
            target, rng.integers(0, 1000, shape).astype(np.int16), rng.integers(0, 90, shape).astype(np.int16),
            f"{target} MR image; <test> & \"more\"", 45.0,
        )
        for target in targets
    )
    segmentation = None
    if segment:
        labelmap = rng.integers(0, 10, shape).astype(np.uint8)
        segments = tuple(Segment(s.name, s.label, s.color, s.code) for s in load_structures())
        segmentation = SegmentationResult(labelmap, np.ones(shape, bool), segments)
    return SynthesisResult(
        study.grid, sequences, segmentation, tuple(s.sequence for s in study.sources),
        {"name": "any-to-all", "version": "0.1", "sha256": "ab" * 32}, "CPU",
    )


def image_to_world(image):
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])


def node_ids(scene):
    return [scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())]


def hierarchy_items(scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    return {items.GetId(i) for i in range(items.GetNumberOfIds())}


def segment_mask(node, name, shape):
    """Mask of a segment on the grid that the segmentation was made on."""
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(name, image)
    mask = np.zeros(shape, bool)
    low_i, high_i, low_j, high_j, low_k, high_k = image.GetExtent()
    if high_i < low_i:
        return mask
    from vtk.util.numpy_support import vtk_to_numpy

    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(
        high_k - low_k + 1, high_j - low_j + 1, high_i - low_i + 1
    )
    mask[low_k:high_k + 1, low_j:high_j + 1, low_i:high_i + 1] = array > 0
    return mask


# ---- volumes in ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GRIDS)
def test_volume_from_node_keeps_voxels_and_geometry(scene, kind):
    node = add_volume(scene, GRIDS[kind])
    volume = volume_from_node(node)
    assert volume.grid.matches(GRIDS[kind], 1e-4)
    assert volume.name == "T1"
    np.testing.assert_array_equal(volume.array, slicer.util.arrayFromVolume(node))


def test_the_array_is_a_copy(scene):
    node = add_volume(scene, GRIDS["axial"])
    volume = volume_from_node(node)
    slicer.util.arrayFromVolume(node)[:] = 0
    assert volume.array.max() > 0
    assert volume_from_node(node, copy=False).array.max() == 0


def test_a_shared_linear_transform_leaves_the_own_frame(scene):
    nodes = {"T1": add_volume(scene, GRIDS["oblique"]), "T2": add_volume(scene, GRIDS["axial"], "T2")}
    transform = add_transform(scene, rigid((0, 0, 1), 30, (5, 0, 0)))
    for node in nodes.values():
        node.SetAndObserveTransformNodeID(transform.GetID())
    volumes = study_volumes(nodes)
    assert volumes["T1"].grid.matches(GRIDS["oblique"], 1e-4)
    assert volumes["T2"].grid.matches(GRIDS["axial"], 1e-4)


def test_sources_under_different_transforms_meet_in_the_world(scene):
    nodes = {"T1": add_volume(scene, GRIDS["axial"]), "T2": add_volume(scene, GRIDS["oblique"], "T2")}
    nodes["T2"].SetAndObserveTransformNodeID(add_transform(scene, rigid((1, 0, 0), 20, (0, 9, 0))).GetID())
    volumes = study_volumes(nodes)
    for sequence, node in nodes.items():
        np.testing.assert_allclose(swap_ras_lps(volumes[sequence].grid.ijk_to_lps), world_matrix(node), atol=1e-4)


def _refusal(node):
    with pytest.raises(InputError) as caught:
        volume_from_node(node)
    assert node.GetName() in str(caught.value)
    return str(caught.value)


def test_a_nonlinear_transform_is_refused_with_the_remedy(scene):
    node = add_volume(scene, GRIDS["axial"], "T2 tse")
    warp = scene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "warp")
    spline = slicer.vtkOrientedBSplineTransform()
    warp.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(warp.GetID())
    assert "harden" in _refusal(node)


def test_a_label_map_is_refused(scene):
    node = add_volume(scene, GRIDS["axial"], "contour", class_name="vtkMRMLLabelMapVolumeNode")
    assert "label map" in _refusal(node)


def test_a_color_image_is_refused(scene):
    array = np.zeros((*SHAPE, 3), np.uint8)
    node = add_volume(scene, GRIDS["axial"], "photo", array, "vtkMRMLVectorVolumeNode")
    assert "3 values" in _refusal(node)


def test_a_node_without_image_data_is_refused(scene):
    assert "no image data" in _refusal(scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "ghost"))


def test_a_sheared_grid_is_refused(scene):
    matrix = np.eye(4)
    matrix[0, 1] = 0.3
    assert "sheared" in _refusal(add_volume(scene, Grid(SHAPE, matrix), "tilted"))


def test_one_node_for_two_sequences_is_refused(scene):
    node = add_volume(scene, GRIDS["axial"], "only one")
    with pytest.raises(InputError, match="only one.*T1.*T2"):
        study_volumes({"T1": node, "T2": node})


@pytest.mark.parametrize("mark", ["attribute", "name", "header", "file", "name of the file"])
def test_an_image_of_our_own_making_is_no_source(scene, mark, tmp_path, monkeypatch):
    node = add_volume(scene, GRIDS["axial"], "T2 (synthetic)" if mark == "name" else "T2")
    if mark == "attribute":
        node.SetAttribute("NPCSynth.Synthetic", "YES")
    if mark == "header":
        monkeypatch.setattr("NPCSynthLib.scene.volumes.header_from_node", lambda node: {"SyntheticData": "YES"})
    if mark in ("file", "name of the file"):
        sitk = pytest.importorskip("SimpleITK")
        image = sitk.Image(3, 3, 3, sitk.sitkInt16)
        if mark == "file":
            image.SetMetaData("ITK_FileNotes", "SYNTHETIC, research use")
        path = str(tmp_path / ("T2.nii.gz" if mark == "file" else "T2_synthetic.nii.gz"))
        sitk.WriteImage(image, path)
        storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName(path)
        node.SetAndObserveStorageNodeID(storage.GetID())
    with pytest.raises(InputError, match="synthesized, not acquired"):
        study_volumes({"T2": node})


def test_a_volume_whose_file_gives_two_orientations_is_no_source_until_it_was_saved_anew(scene, tmp_path):
    """Slicer, too, takes one of them and does not tell: left and right may be swapped."""
    nibabel = pytest.importorskip("nibabel")
    path = str(tmp_path / "T1.nii.gz")
    image = nibabel.Nifti1Image(np.arange(60, dtype=np.int16).reshape(5, 4, 3), None)
    image.set_qform(np.diag([1.1, 0.9, 4, 1]), 1)
    image.set_sform(np.diag([-1.1, 0.9, 4, 1]), 1)
    nibabel.save(image, path)
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(path)
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "T1")
    assert storage.ReadData(node)
    node.SetAndObserveStorageNodeID(storage.GetID())
    with pytest.raises(InputError, match="T1.nii.gz gives two different orientations"):
        study_volumes({"T1": node})
    assert storage.WriteData(node)
    assert study_volumes({"T1": node})["T1"].array.shape == (3, 4, 5)


@pytest.mark.parametrize("of_dicom", [True, False])
def test_a_series_that_a_scanner_calls_synthetic_is_a_source(scene, of_dicom):
    """Computed by the scanner from what it acquired; files have no header that could tell, so their name counts."""
    node = add_volume(scene, GRIDS["oblique"], "5: SYNTHETIC T2 FLAIR")
    if of_dicom:
        node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    assert is_synthetic(node) == (not of_dicom)


@pytest.mark.parametrize("suffix", ["nii.gz", "nrrd"])
def test_a_result_that_slicer_saved_and_loaded_again_is_no_source(scene, created, suffix, tmp_path):
    """NIfTI keeps neither its name nor its attributes: the voxels are those of a result in the scene."""
    _, _, _, nodes, made = created
    path = str(tmp_path / f"t1c.{suffix}")
    storage_class = "vtkMRMLVolumeArchetypeStorageNode" if suffix == "nii.gz" else "vtkMRMLNRRDStorageNode"
    for node, step in ((made.volumes["T1C"], "WriteData"),
                       (scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "t1c"), "ReadData")):
        storage = scene.AddNewNodeByClass(storage_class)
        storage.SetFileName(path)
        assert getattr(storage, step)(node)
    loaded = scene.GetFirstNodeByName("t1c")
    assert is_synthetic(loaded)
    with pytest.raises(InputError, match="synthesized, not acquired"):
        study_volumes({"T1C": loaded})


def test_an_image_of_a_digital_patient_stays_one_in_the_scene(scene):
    array = np.ones(GRIDS["axial"].shape, np.int16)
    for metadata in ({}, dict(DIGITAL_PATIENT)):
        node = volumes.add_volume(scene, Volume(array, GRIDS["axial"], "T1", metadata), "T1")
        assert is_simulated(volume_from_node(node).metadata) == bool(metadata)


def test_voxels_make_a_volume_synthetic_only_while_they_are_all_a_results(scene, created):
    _, _, _, nodes, made = created
    array = slicer.util.arrayFromVolume(made.volumes["T1C"])
    node = add_volume(scene, GRIDS["oblique"], "copy", array.astype(np.float32))
    assert is_synthetic(node) and not any(is_synthetic(source) for source in nodes.values())
    slicer.util.arrayFromVolume(node)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(node)
    assert not is_synthetic(node)
    slicer.util.arrayFromVolume(node)[0, 0, 0] -= 1
    slicer.util.arrayFromVolumeModified(node)
    assert is_synthetic(node)
    scene.RemoveNode(made.volumes["T1C"])
    assert not is_synthetic(node)  # nothing is left that could tell


def test_the_header_comes_from_slicers_dicom_database(scene, tmp_path, monkeypatch):
    import pydicom
    from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

    header = pydicom.Dataset()
    header.SOPClassUID, header.SOPInstanceUID = MRImageStorage, generate_uid()
    header.SeriesDescription, header.RepetitionTime, header.ImageType = "t1 tse", 512.0, ["ORIGINAL", "PRIMARY"]
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.save_as(tmp_path / "a.dcm", enforce_file_format=True)

    class Database:
        def fileForInstance(self, uid):
            return str(tmp_path / "a.dcm") if uid == header.SOPInstanceUID else ""

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    node = add_volume(scene, GRIDS["axial"])
    node.SetAttribute("DICOM.instanceUIDs", header.SOPInstanceUID)
    metadata = volume_from_node(node).metadata
    assert metadata["SeriesDescription"] == "t1 tse"
    assert metadata["RepetitionTime"] == 512.0
    assert metadata["ImageType"] == ["ORIGINAL", "PRIMARY"]


# ---- results out -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", GRIDS)
def test_results_lie_on_the_grid_of_the_reference(scene, kind):
    nodes = {"T1": add_volume(scene, GRIDS[kind])}
    study = make_study(study_volumes(nodes))
    result = make_result(study)
    created = add_result(result, study, nodes, scene)
    np.testing.assert_allclose(ijk_to_ras(created.volumes["T1C"]), ijk_to_ras(nodes["T1"]), atol=1e-4)
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(created.volumes["T1C"]), result.sequences[0].array)
    np.testing.assert_array_equal(
        slicer.util.arrayFromVolume(created.uncertainties["T1C"]), result.sequences[0].uncertainty
    )
    for segment in result.segmentation.segments:
        np.testing.assert_array_equal(
            segment_mask(created.segmentation, segment.name, SHAPE), result.segmentation.mask(segment)
        )
    image = created.segmentation.GetSegmentation().GetSegment("GTVp").GetRepresentation("Binary labelmap")
    np.testing.assert_allclose(image_to_world(image), ijk_to_ras(nodes["T1"]), atol=1e-4)


@pytest.mark.parametrize("shared", [True, False])
def test_results_follow_the_transform_of_the_reference(scene, shared):
    nodes = {"T1": add_volume(scene, GRIDS["oblique"]), "T2": add_volume(scene, GRIDS["axial"], "T2")}
    transform = add_transform(scene, rigid((0, 1, 1), 25, (3, -8, 2)))
    nodes["T1"].SetAndObserveTransformNodeID(transform.GetID())
    if shared:
        nodes["T2"].SetAndObserveTransformNodeID(transform.GetID())
    study = make_study(study_volumes(nodes))
    created = add_result(make_result(study), study, nodes, scene)
    for node in (created.volumes["T1C"], created.uncertainties["T1C"], created.segmentation):
        assert node.GetTransformNodeID() == transform.GetID()
    np.testing.assert_allclose(world_matrix(created.volumes["T1C"]), world_matrix(nodes["T1"]), atol=1e-4)


def test_the_reference_geometry_of_the_segmentation_is_that_of_the_volume_under_the_same_transform(scene):
    nodes = {"T1": add_volume(scene, GRIDS["axial"])}
    transform = add_transform(scene, rigid((0, 1, 1), 25, (3, -8, 2)))
    nodes["T1"].SetAndObserveTransformNodeID(transform.GetID())
    study = make_study(study_volumes(nodes))
    segmentation = add_result(make_result(study), study, nodes, scene).segmentation.GetSegmentation()
    geometry = slicer.vtkOrientedImageData()
    text = segmentation.GetConversionParameter(slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName())
    assert slicer.vtkSegmentationConverter.DeserializeImageGeometry(text, geometry, False)
    np.testing.assert_allclose(image_to_world(geometry), ijk_to_ras(nodes["T1"]), atol=1e-4)


def test_moving_the_reference_during_the_run_moves_the_result_with_it(scene):
    nodes = {"T1": add_volume(scene, GRIDS["oblique"]), "T2": add_volume(scene, GRIDS["axial"], "T2")}
    transform = add_transform(scene, rigid((0, 1, 1), 25, (3, -8, 2)))
    nodes["T1"].SetAndObserveTransformNodeID(transform.GetID())
    study = make_study(study_volumes(nodes))
    transform.SetMatrixTransformToParent(to_vtk(rigid((1, 0, 0), 80, (50, 0, 0))))
    created = add_result(make_result(study), study, nodes, scene)
    np.testing.assert_allclose(world_matrix(created.volumes["T1C"]), world_matrix(nodes["T1"]), atol=1e-4)


@pytest.fixture
def created(scene):
    nodes = {"T1": add_volume(scene, GRIDS["oblique"]), "T2": add_volume(scene, GRIDS["axial"], "T2")}
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study_item = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    for node in nodes.values():
        hierarchy.CreateItem(study_item, node)
    study = make_study(study_volumes(nodes))
    result = make_result(study, ("T1C", "T2FS"))
    return study_item, study, result, nodes, add_result(result, study, nodes, scene)


def test_every_name_ends_in_synthetic_also_the_second_time(scene, created):
    _, study, result, nodes, first = created
    second = add_result(result, study, nodes, scene)
    both = [
        node.GetName()
        for nodes in (first, second)
        for node in (*nodes.volumes.values(), *nodes.uncertainties.values(), nodes.segmentation)
    ]
    assert all(name.endswith("(synthetic)") for name in both)
    assert len(set(both)) == len(both)
    assert "T1C (synthetic)" in both and "T1C uncertainty (synthetic)" in both


def test_nodes_carry_their_provenance(created):
    nodes = created[-1]
    node = nodes.volumes["T2FS"]
    wanted = {
        "Synthetic": "YES", "Sequence": "T2FS", "Sources": "T1, T2", "ModelName": "any-to-all",
        "ModelVersion": "0.1", "WeightsSHA256": "ab" * 32, "Prompt": 'T2FS MR image; <test> & "more"',
        "Units": "0 and 1000 are the 0.5 and 99.5 percentiles of the body",
    }
    assert {key: node.GetAttribute(f"NPCSynth.{key}") for key in wanted} == wanted
    assert nodes.segmentation.GetAttribute("NPCSynth.Synthetic") == "YES"
    assert {node.GetNthNodeReference("NPCSynth.Source", i).GetName() for i in range(2)} == {"T1", "T2"}


def test_window_and_level_show_the_fixed_units(created):
    nodes = created[-1]
    display = nodes.volumes["T1C"].GetDisplayNode()
    assert (display.GetWindow(), display.GetLevel(), display.GetAutoWindowLevel()) == (1000, 500, 0)
    assert nodes.uncertainties["T1C"].GetDisplayNode().GetColorNodeID() == "vtkMRMLColorTableNodeIron"


def test_results_stand_beside_the_reference_in_the_hierarchy(scene, created):
    study_item, *_, nodes = created
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    for node in (*nodes.volumes.values(), *nodes.uncertainties.values(), nodes.segmentation):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study_item


def test_segments_have_names_colors_labels_and_codes(created):
    node = created[-1].segmentation
    for structure in load_structures():
        segment = node.GetSegmentation().GetSegment(structure.name)
        assert segment.GetName() == f"{structure.name}^SYN"
        np.testing.assert_allclose(segment.GetColor(), structure.color)
        assert segment.GetLabelValue() == (structure.label or 1)
        text = vtk.reference("")
        assert segment.GetTag(segment.GetTerminologyEntryTagName(), text)
        assert str(text).split("~")[1:3] == ["^".join(structure.code[key]) for key in ("category", "type")]
    # External overlaps all the others; they exclude each other and share one image.
    assert node.GetSegmentation().GetNumberOfLayers() == 2


def test_the_modifier_of_a_paired_organ_is_kept(created):
    text = vtk.reference("")
    segment = created[-1].segmentation.GetSegmentation().GetSegment("Parotid_L")
    segment.GetTag(segment.GetTerminologyEntryTagName(), text)
    assert str(text).split("~")[3] == "SCT^7771000^Left"


def test_the_segmentation_knows_its_reference_volume(created):
    *_, sources, nodes = created
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    assert nodes.segmentation.GetNodeReference(role) is sources["T1"]


# ---- results read back ---------------------------------------------------------------------------------------------


def assert_same_result(found, result):
    assert found.grid.matches(result.grid)
    assert [s.sequence for s in found.sequences] == [s.sequence for s in result.sequences]
    for there, here in zip(found.sequences, result.sequences):
        np.testing.assert_array_equal(there.array, here.array)
        np.testing.assert_array_equal(there.uncertainty, here.uncertainty)
        assert (there.prompt, there.mean_uncertainty) == (here.prompt, here.mean_uncertainty)
    np.testing.assert_array_equal(found.segmentation.labelmap, result.segmentation.labelmap)
    assert found.segmentation.segments == result.segmentation.segments
    assert found.model == result.model and found.sources == result.sources


@pytest.mark.parametrize("kind", GRIDS)
def test_a_result_is_read_back_from_the_scene_as_it_was(scene, kind):
    nodes = {"T1": add_volume(scene, GRIDS[kind])}
    study = make_study(study_volumes(nodes))
    result = make_result(study, ("T1C", "T2"))
    add_result(result, study, nodes, scene)
    found = latest_result(scene)
    assert_same_result(found.result, result)
    assert found.document["reference_grid"]["sequence"] == "T1" and not found.left_out


@pytest.mark.parametrize("kind", ["axial", "oblique"])
def test_a_result_survives_saving_and_loading(scene, tmp_path, kind):
    nodes = {"T1": add_volume(scene, GRIDS[kind])}
    study = make_study(study_volumes(nodes))
    result = make_result(study)
    add_result(result, study, nodes, scene)
    path = save_mrb(scene, tmp_path / "scene.mrb")
    scene.Clear(1)
    again, _ = read_bundle(path, tmp_path)
    found = latest_result(again)
    assert_same_result(found.result, result)
    assert not found.left_out


def test_the_frame_of_a_result_under_a_transform_is_that_of_the_series(scene):
    nodes = {"T1": add_volume(scene, GRIDS["oblique"]), "T2": add_volume(scene, GRIDS["axial"], "T2")}
    nodes["T1"].SetAndObserveTransformNodeID(add_transform(scene, rigid((0, 0, 1), 20, (5, 6, 7))).GetID())
    study = make_study(study_volumes(nodes))
    add_result(make_result(study), study, nodes, scene)
    found = latest_result(scene)
    assert found.result.grid.matches(GRIDS["oblique"])
    np.testing.assert_allclose(found.document["reference_grid"]["ijk_to_lps"], GRIDS["oblique"].ijk_to_lps, atol=1e-9)


def test_the_latest_of_two_results_is_taken(scene, created):
    made = created[-1]
    nodes = {"T1": made.volumes["T1C"].GetNodeReference("NPCSynth.Source")}
    study = make_study(study_volumes(nodes))
    result = make_result(study, ("FLAIR",), segment=False)
    add_result(result, study, nodes, scene)
    found = latest_result(scene).result
    assert [s.sequence for s in found.sequences] == ["FLAIR"] and found.segmentation is None


def test_an_image_changed_by_hand_is_named_and_left_out(scene, created):
    made = created[-1]
    slicer.util.arrayFromVolume(made.volumes["T1C"])[0, 0, 0] += 1
    found = latest_result(scene)
    assert found.left_out == ("T1C (synthetic)",) and "T1C" not in [s.sequence for s in found.result.sequences]


def test_contours_changed_by_hand_are_named_and_left_out(scene, created):
    made = created[-1]
    made.segmentation.GetSegmentation().RemoveSegment("Brain")
    found = latest_result(scene)
    assert found.left_out == ("NPCSynth segmentation (synthetic)",) and found.result.segmentation is None


def test_an_image_that_was_moved_is_left_out_and_the_others_stay_where_they_were(scene, created):
    made, result = created[-1], created[2]
    made.volumes["T1C"].SetOrigin(1, 2, 3)
    found = latest_result(scene)
    assert found.left_out == ("T1C (synthetic)",)
    assert [s.sequence for s in found.result.sequences] == ["T2FS"]
    assert found.result.grid.matches(result.grid) and found.result.segmentation is not None


def test_a_copy_of_an_older_result_is_not_the_latest(scene, created):
    made, nodes = created[-1], created[3]
    study = created[1]
    result = make_result(study, ("FLAIR",), segment=False)
    later = add_result(result, study, nodes, scene)
    for node in (later.volumes["FLAIR"], later.uncertainties["FLAIR"]):
        text = node.GetAttribute("NPCSynth.Provenance").replace('"created": "20', '"created": "21')
        node.SetAttribute("NPCSynth.Provenance", text)  # as if an hour had passed
    scene.AddNode(slicer.vtkMRMLScalarVolumeNode()).Copy(made.volumes["T1C"])
    assert [s.sequence for s in latest_result(scene).result.sequences] == ["FLAIR"]


def test_an_edited_copy_does_not_hide_the_original(scene, created):
    made = created[-1]
    copy = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "copy")
    copy.CopyContent(made.volumes["T1C"])
    for name in made.volumes["T1C"].GetAttributeNames():
        copy.SetAttribute(name, made.volumes["T1C"].GetAttribute(name))
    slicer.util.arrayFromVolume(copy)[0, 0, 0] += 1
    found = latest_result(scene)
    assert "T1C" in [s.sequence for s in found.result.sequences] and found.left_out == ("copy",)


def test_a_deleted_image_is_left_out(scene, created):
    made = created[-1]
    scene.RemoveNode(made.volumes["T1C"])
    found = latest_result(scene)
    assert "T1C" not in [s.sequence for s in found.result.sequences] and not found.left_out


def test_a_scene_without_results_has_none(scene):
    add_volume(scene, GRIDS["axial"])
    assert latest_result(scene) is None and result_nodes(scene) == []


# ---- all or nothing --------------------------------------------------------------------------------------------


def test_a_failure_midway_leaves_the_scene_as_it_was(scene, monkeypatch):
    nodes = {"T1": add_volume(scene, GRIDS["axial"])}
    study = make_study(study_volumes(nodes))
    result = make_result(study, ("T1C", "T2"))
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    hierarchy.CreateItem(hierarchy.GetSceneItemID(), nodes["T1"])
    before, items = node_ids(scene), hierarchy_items(scene)

    def no_memory(*arguments):
        # By now two images, two uncertainty maps and their display nodes are in the scene.
        assert len(node_ids(scene)) > len(before) + 4
        raise MemoryError("too big")

    monkeypatch.setattr("NPCSynthLib.scene.results.terminology_entry", no_memory)
    with pytest.raises(MemoryError):
        add_result(result, study, nodes, scene)
    assert node_ids(scene) == before
    assert hierarchy_items(scene) == items


def test_a_bad_array_leaves_the_scene_as_it_was(scene):
    nodes = {"T1": add_volume(scene, GRIDS["axial"])}
    study = make_study(study_volumes(nodes))
    result = make_result(study, ("T1C",))
    bad = SynthesizedSequence("T2", np.zeros(SHAPE, np.int64), np.zeros(SHAPE, np.int64), "", 0.0)
    result = SynthesisResult(
        result.grid, (*result.sequences, bad), result.segmentation, result.sources, result.model, "CPU"
    )
    before = node_ids(scene)
    with pytest.raises(RuntimeError):
        add_result(result, study, nodes, scene)
    # The hierarchy node is Slicer's own and comes into being when first looked for.
    assert [i for i in node_ids(scene) if i not in before] == []


def test_a_reference_removed_meanwhile_is_said(scene):
    nodes = {"T1": add_volume(scene, GRIDS["axial"])}
    study = make_study(study_volumes(nodes))
    scene.RemoveNode(nodes["T1"])
    before = node_ids(scene)
    with pytest.raises(InputError, match="T1 volume.*removed"):
        add_result(make_result(study), study, nodes, scene)
    assert node_ids(scene) == before


def harden(node):
    node.SetIJKToRASMatrix(to_vtk(world_matrix(node)))
    node.SetAndObserveTransformNodeID(None)


def crop(node):
    slicer.util.updateVolumeFromArray(node, slicer.util.arrayFromVolume(node)[:, 1:])


@pytest.mark.parametrize("change", [harden, crop])
def test_a_reference_with_another_grid_than_at_the_start_is_said(scene, change):
    """Slicer can be worked with during a run; results must not lie beside the image that they are checked on."""
    nodes = {"T1": add_volume(scene, GRIDS["oblique"])}
    transform = add_transform(scene, rigid((0, 1, 1), 25, (3, -8, 2)))
    nodes["T1"].SetAndObserveTransformNodeID(transform.GetID())
    study = make_study(study_volumes(nodes))
    change(nodes["T1"])
    before = node_ids(scene)
    with pytest.raises(InputError, match="T1 volume.*moved, resampled or cropped during the run"):
        add_result(make_result(study), study, nodes, scene)
    assert node_ids(scene) == before


# ---- bundles ---------------------------------------------------------------------------------------------------


def read_bundle(path, tmp_path):
    scene = slicer.vtkMRMLScene()
    (tmp_path / "cache").mkdir(exist_ok=True)
    let_read_bundles(scene, tmp_path / "cache")
    keep = [slicer.vtkMRMLColorLogic(), slicer.vtkSlicerSegmentationsModuleLogic(),
            slicer.vtkSlicerSequencesLogic()]
    for logic in keep:
        logic.SetMRMLScene(scene)
    assert scene.ReadFromMRB(str(path))
    return scene, keep


@pytest.mark.parametrize("kind", GRIDS)
def test_a_written_scene_reads_back_whole(tmp_path, kind):
    volumes = {
        "T1": Volume(np.arange(np.prod(SHAPE), dtype=np.int64).reshape(SHAPE), GRIDS[kind], "t1"),
        "T2": Volume(np.ones(SHAPE, np.float32), GRIDS["axial"], "t2"),
    }
    study = make_study(volumes, moved=("T2",))
    result = make_result(study)
    before = slicer.vtkMRMLScene()
    slicer.mrmlScene = before
    path = write_scene(result, study, tmp_path / "scene.mrb")
    assert slicer.mrmlScene is before
    assert [p.name for p in tmp_path.iterdir()] == ["scene.mrb"]

    scene, _keep = read_bundle(path, tmp_path)
    slicer.mrmlScene = scene
    ras = swap_ras_lps(GRIDS[kind].ijk_to_lps)

    def image(name):
        node = scene.GetFirstNodeByName(name)
        return at_the_voxels_of(slicer.util.arrayFromVolume(node), ijk_to_ras(node), SHAPE, ras)

    np.testing.assert_array_equal(image("T1"), volumes["T1"].array)
    np.testing.assert_allclose(image("T2 (registered to T1)"), 100)
    np.testing.assert_array_equal(image("T1C (synthetic)"), result.sequences[0].array)
    np.testing.assert_array_equal(image("T1C uncertainty (synthetic)"), result.sequences[0].uncertainty)
    node = scene.GetFirstNodeByName("T1C (synthetic)")
    assert node.GetAttribute("NPCSynth.Prompt") == result.sequences[0].prompt
    assert node.GetDisplayNode().GetWindow() == 1000
    segmentation = scene.GetFirstNodeByName("NPCSynth segmentation (synthetic)")
    # External fills the grid here, so that its extent gives the geometry that was stored.
    external = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation("External", external)
    assert external.GetExtent() == (0, SHAPE[2] - 1, 0, SHAPE[1] - 1, 0, SHAPE[0] - 1)
    for segment in result.segmentation.segments:
        mask = at_the_voxels_of(
            segment_mask(segmentation, segment.name, SHAPE), image_to_world(external), SHAPE, ras
        )
        np.testing.assert_array_equal(mask, result.segmentation.mask(segment))
        np.testing.assert_allclose(
            segmentation.GetSegmentation().GetSegment(segment.name).GetColor(), segment.color, atol=1e-5
        )


def test_a_written_scene_names_no_patient(study, result, tmp_path):
    # The study of conftest.py carries "Doe^Jane", "4711" and a path in its metadata.
    path = write_scene(result, study, tmp_path / "scene.mrb")
    with zipfile.ZipFile(path) as bundle:
        for name in bundle.namelist():
            content = bundle.read(name).split(b"\n\n")[0] if name.endswith(".nrrd") else bundle.read(name)
            for secret in (b"Doe", b"4711", b"hospital"):
                assert secret not in content + name.encode(), f"{secret} in {name}"


def test_a_scene_that_cannot_be_saved_leaves_nothing(scene, tmp_path):
    add_volume(scene, GRIDS["axial"])
    with pytest.raises(OutputError, match="scene.mrb.*folder exists"):
        save_mrb(scene, tmp_path / "nowhere" / "scene.mrb")
    assert list(tmp_path.iterdir()) == []


def test_an_older_scene_stays_when_saving_fails(scene, tmp_path, monkeypatch):
    add_volume(scene, GRIDS["axial"])
    path = save_mrb(scene, tmp_path / "scene.mrb")
    old = path.read_bytes()

    def disk_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", disk_full)
    with pytest.raises(OutputError, match="No space left"):
        save_mrb(scene, path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["scene.mrb"]
    assert zipfile.is_zipfile(path)


def test_only_a_bundle_name_is_taken(scene, tmp_path):
    with pytest.raises(OutputError, match="mrb"):
        save_mrb(scene, tmp_path / "scene.zip")
