"""DICOM and the scene: results leave it for the source's study, and come back marked and whole."""

import dataclasses

import numpy as np
import pydicom
import pytest
from dicom_cases import dicom_files, make_result, read_study, write_study
from lattice import at_the_voxels_of

slicer = pytest.importorskip(
    "slicer", reason="slicer-core or a system library that it needs is missing", exc_type=ImportError
)
pytest.importorskip("highdicom")
from vtk.util.numpy_support import vtk_to_numpy  # noqa: E402

from NPCSynthLib.errors import InputError  # noqa: E402
from NPCSynthLib.output.dicom_export import export_dicom  # noqa: E402
from NPCSynthLib.output.provenance import provenance  # noqa: E402
from NPCSynthLib.scene import add_result, add_volume, latest_result, study_volumes  # noqa: E402
from NPCSynthLib.scene.dicom import load_exported  # noqa: E402
from NPCSynthLib.scene.matrices import ijk_to_ras, swap_ras_lps  # noqa: E402

GRIDS = ["axial", "oblique", "sagittal"]


@pytest.fixture(scope="module", params=GRIDS)
def exported(request, tmp_path_factory):
    """A study, a result of it, and the folder that it was exported to."""
    folder = tmp_path_factory.mktemp(request.param)
    files = dicom_files(write_study(folder / "study", request.param))
    study = read_study(folder / "study")
    result = make_result(study)
    series = export_dicom(result, provenance(result, study), files, folder / "out")
    return study, result, {s.description: [folder / "out" / f for f in s.files] for s in series}, files


@pytest.fixture
def scene():
    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    logics = [slicer.vtkMRMLColorLogic(), slicer.vtkSlicerSegmentationsModuleLogic()]
    for logic in logics:
        logic.SetMRMLScene(scene)
    yield scene
    logics[0].SetMRMLScene(None)


@pytest.mark.parametrize("enhanced", [False, True], ids=["classic", "enhanced"])
def test_an_exported_image_comes_back_at_its_place(exported, scene, tmp_path, enhanced):
    study, result, series, files = exported
    if enhanced:
        written = export_dicom(result, provenance(result, study), files, tmp_path / "out", enhanced=True)
        series = {s.description: [tmp_path / "out" / f for f in s.files] for s in written}
    made = result.sequences[0]
    for description, array in (("SYNTH T1C", made.array), ("SYNTH T1C uncertainty", made.uncertainty)):
        node = load_exported(series[description])
        there = swap_ras_lps(ijk_to_ras(node))
        voxels = slicer.util.arrayFromVolume(node)
        np.testing.assert_array_equal(
            at_the_voxels_of(voxels, there, result.grid.shape, result.grid.ijk_to_lps), array, description
        )
        assert node.GetName() == description.removeprefix("SYNTH ") + " (synthetic)"
        assert node.GetAttribute("NPCSynth.Synthetic") == "YES"
        assert node.GetAttribute("NPCSynth.WeightsSHA256") == result.model["sha256"]
        assert node.GetAttribute("NPCSynth.Prompt") == made.prompt


def test_exported_structures_come_back_with_names_colors_and_codes(exported, scene):
    _, result, series, _ = exported
    node = load_exported(series["SYNTH structures"])
    assert node.GetName() == "NPCSynth segmentation (synthetic)" and node.GetAttribute("NPCSynth.Synthetic") == "YES"
    found = node.GetSegmentation()
    names = [found.GetNthSegment(n).GetName() for n in range(found.GetNumberOfSegments())]
    assert names == [f"{s.name}^SYN" for s in result.segmentation.segments]
    for segment in result.segmentation.segments:
        np.testing.assert_allclose(found.GetSegment(segment.name).GetColor(), segment.color, atol=1e-6)
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(segment.name, image)
        voxels = 0 if image.IsEmpty() else np.count_nonzero(vtk_to_numpy(image.GetPointData().GetScalars()))
        assert voxels == np.count_nonzero(result.segmentation.mask(segment)), segment.name


def test_a_result_of_dicom_series_is_exported_from_the_scene(exported, scene, monkeypatch, tmp_path):
    study, _, _, files = exported
    paths = {str(pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID): str(f) for f in files}

    class Database:
        def fileForInstance(self, uid):
            return paths.get(uid, "")

    monkeypatch.setattr(slicer, "dicomDatabase", Database(), raising=False)
    nodes = {}
    for source in study.sources:
        node = nodes[source.sequence] = add_volume(scene, source.original, source.sequence)
        node.SetAttribute("DICOM.instanceUIDs", " ".join(source.original.metadata["SOPInstanceUIDs"]))
    volumes = study_volumes(nodes)
    sources = tuple(dataclasses.replace(source, original=volumes[source.sequence]) for source in study.sources)
    again = dataclasses.replace(study, sources=sources)
    result = make_result(again)
    add_result(result, again, nodes, scene)
    found = latest_result(scene)
    series = export_dicom(found.result, found.document, files, tmp_path / "out")
    assert [s.modality for s in series][::2] == ["MR", "SEG"] and found.result.grid.matches(study.grid)


def test_a_series_whose_provenance_was_stripped_is_still_marked(exported, scene, tmp_path):
    _, _, series, _ = exported
    paths = []
    for file in series["SYNTH T1C"]:
        dataset = pydicom.dcmread(file)
        dataset.remove_private_tags()
        paths.append(tmp_path / file.name)
        dataset.save_as(paths[-1])
    node = load_exported(paths)
    assert node.GetName() == "T1C (synthetic)" and node.GetAttribute("NPCSynth.Synthetic") == "YES"


def test_a_series_of_another_maker_is_refused_and_nothing_is_added(exported, scene):
    files = exported[-1]
    before = scene.GetNumberOfNodes()
    with pytest.raises(InputError, match="not from NPCSynth"):
        load_exported(files[:1])
    assert scene.GetNumberOfNodes() == before


def test_what_was_made_of_slices_with_rounded_positions_comes_back_at_its_place(scene, tmp_path):
    """Some scanners write positions to 0.1 mm; multi-frame files of them are even, classic ones as the scanner's."""
    files = dicom_files(write_study(tmp_path / "study", "oblique"))
    grid = read_study(tmp_path / "study").grid
    normal = grid.ijk_to_lps[:3, 2] / np.linalg.norm(grid.ijk_to_lps[:3, 2])
    for file in files:
        dataset = pydicom.dcmread(file)
        if dataset.Modality == "MR":
            position = np.array(dataset.ImagePositionPatient, float)
            if np.abs(position - grid.ijk_to_lps[:3] @ [0, 0, 1, 1]).max() < 0.01:  # one slice, rounded up
                dataset.ImagePositionPatient = [f"{value:.4f}" for value in position + 0.09 * normal]
                dataset.save_as(file)
    study = read_study(tmp_path / "study")
    result = make_result(study)
    series = export_dicom(result, provenance(result, study), files, tmp_path / "out")
    made = result.sequences[0]
    arrays = {"SYNTH T1C": made.array, "SYNTH T1C uncertainty": made.uncertainty}
    for one in series:
        if one.description in arrays:
            node = load_exported([tmp_path / "out" / file for file in one.files])
            there, voxels = swap_ras_lps(ijk_to_ras(node)), slicer.util.arrayFromVolume(node)
            last = there @ [0, 0, len(voxels) - 1, 1]
            ends = {tuple(np.round(end, 1)) for end in (there[:, 3], last)}
            assert ends == {tuple(np.round(grid.ijk_to_lps @ [0, 0, k, 1], 1)) for k in (0, grid.shape[0] - 1)}
            np.testing.assert_array_equal(
                at_the_voxels_of(voxels, there, result.grid.shape, result.grid.ijk_to_lps), arrays[one.description]
            )
