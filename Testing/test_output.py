"""Results on disk: exact geometry, names and codes, provenance without identity, and all or nothing."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from NPCSynthLib.errors import InputError, OutputError, UsageError
from NPCSynthLib.output.folder import check_free, new_folder
from NPCSynthLib.output.picture import _figure, picture
from NPCSynthLib.output.provenance import provenance
from NPCSynthLib.output.report import report
from NPCSynthLib.output.segmentation import write_segmentation
from NPCSynthLib.output.slices import slice_view, telling_slices
from NPCSynthLib.output.truth import Truth
from NPCSynthLib.output.write import SCENE, write_files, write_nifti, write_result
from NPCSynthLib.study.identify import SURE_REFUSAL
from NPCSynthLib.study.image_files import named_synthetic
from NPCSynthLib.study.read import list_series, read_file, read_folder
from NPCSynthLib.study.study import DIGITAL_PATIENT
from NPCSynthLib.study.volume import Grid, from_sitk


def test_images_come_back_with_the_same_voxels_on_the_same_grid(result, study, tmp_path):
    write_result(result, study, tmp_path / "out")
    for name, array in (
        ("T2FS_synthetic", result.sequences[0].array), ("T2FS_synthetic_uncertainty", result.sequences[0].uncertainty),
    ):  # fmt: skip
        image = sitk.ReadImage(str(tmp_path / "out" / f"{name}.nii.gz"))
        volume = from_sitk(image)
        assert volume.array.dtype == np.int16
        np.testing.assert_array_equal(volume.array, array)
        assert volume.grid.matches(result.grid, tolerance_mm=1e-3)


def test_the_nifti_header_itself_says_synthetic(result, study, tmp_path):
    nibabel = pytest.importorskip("nibabel")
    write_result(result, study, tmp_path / "out")
    for name, what in (("T2FS_synthetic", "T2FS"), ("T2FS_synthetic_uncertainty", "error of T2FS")):
        header = nibabel.load(tmp_path / "out" / f"{name}.nii.gz").header
        assert header["descrip"].item().decode() == f"SYNTHETIC, research use: {what}"


def test_own_results_are_refused_as_sources(result, study, tmp_path):
    """Copied elsewhere and named like an acquired image, a synthetic one still says what it is."""
    write_result(result, study, tmp_path / "out")
    copy = tmp_path / "T2FS.nii.gz"
    copy.write_bytes((tmp_path / "out" / "T2FS_synthetic.nii.gz").read_bytes())
    with pytest.raises(InputError, match="T2FS.nii.gz was synthesized by NPCSynth, not acquired"):
        read_file(copy)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_own_results_are_refused_by_their_names_once_a_program_dropped_the_description(
    result, study, tmp_path, suffix
):
    written = write_result(result, study, tmp_path / "out", scene=False)["files"]
    saved = tmp_path / "saved"
    saved.mkdir()
    for name in written:
        if name == "result.json":
            continue
        image = sitk.ReadImage(str(tmp_path / "out" / name), sitk.sitkUInt8 if ".seg." in name else sitk.sitkInt16)
        if image.GetNumberOfComponentsPerPixel() > 1:
            image = sitk.VectorIndexSelectionCast(image, 0)
        for key in image.GetMetaDataKeys():
            image.EraseMetaData(key)
        sitk.WriteImage(image, str(saved / name.replace(".nii.gz", "").replace(".nrrd", "")) + suffix)
    assert len(list(saved.iterdir())) == 3
    with pytest.raises(InputError):
        read_folder(saved)
    for entry in list_series(saved):
        assert entry.identification.sequence is None and entry.identification.confidence >= SURE_REFUSAL
    for path in saved.iterdir():
        with pytest.raises(InputError, match="says in its name that it was synthesized, not acquired"):
            read_file(path)


@pytest.mark.parametrize("name, says", [
    ("T1C_synthetic.nii.gz", True), ("T1C (synthetic)", True), ("SYNTH T1C", True), ("t1c-synthetic_1.nrrd", True),
    ("NPCSynth T1.nii.gz", False), ("T1C.nii.gz", False), ("synthseg_T1.nii.gz", False), ("photosynthetic", False),
])
def test_what_a_name_says(name, says):
    assert named_synthetic(name) == says


def test_an_empty_folder_is_tried_where_the_results_are_written(tmp_path, monkeypatch):
    """Beside it: a folder of one's own in one of somebody else's, or a mounted disk."""
    (tmp_path / "mine").mkdir()
    make = Path.mkdir

    def refuse(path, *arguments, **keywords):
        if path.parent == tmp_path:
            raise PermissionError(13, "Permission denied")
        return make(path, *arguments, **keywords)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="cannot be written to"):
        check_free(tmp_path / "mine")


def test_result_json_gives_the_volume_of_each_structure(result, study):
    segments = {s["name"]: s["volume_ml"] for s in provenance(result, study)["segments"]}
    voxel_ml = 0.9 * 1.1 * 5.0 / 1000
    assert segments["GTVp"] == pytest.approx(5 * 3 * 12 * voxel_ml, abs=0.01)
    assert segments["GTVn"] == 0


def test_result_json_tells_where_it_comes_from(result, study, tmp_path):
    returned = write_result(result, study, tmp_path / "out")
    document = json.loads((tmp_path / "out" / "result.json").read_text())
    assert document == returned
    assert document["synthetic"] is True and document["intended_use"] == "research"
    assert document["units"] == "0 and 1000 are the 0.5 and 99.5 percentiles of the body."
    assert document["weights"] == {"name": "test", "version": "0", "sha256": "0" * 64}
    assert [s["SeriesInstanceUID"] for s in document["sources"]] == [
        "1.2.826.0.1.3680043.2.1125.1", "1.2.826.0.1.3680043.2.1125.2"]
    assert document["seconds"] == {"synthesis": 1.25}
    assert document["warnings"][:2] == [
        "Two series look like T1; the finer one was taken.", "Outside the training domain."]
    assert document["outputs"][0]["prompt"] == "T2-weighted, fat-suppressed"
    found, made = result.segmentation, result.sequences[0]
    digests = [hashlib.sha256(b"".join(array.astype("<f4").tobytes() for array in arrays)).hexdigest()
               for arrays in ((made.array,), (made.uncertainty,), (found.labelmap, found.external))]
    assert digests == [document["outputs"][0]["voxels_sha256"], document["outputs"][0]["uncertainty_voxels_sha256"],
                       document["segmentation_voxels_sha256"]]
    assert provenance(replace(result, segmentation=None), study)["segmentation_voxels_sha256"] is None
    assert set(document["files"]) == {path.name for path in (tmp_path / "out").iterdir()}


def test_no_identity_of_the_patient_is_written(result, study):
    text = json.dumps(provenance(result, study))
    for secret in ("Doe", "4711", "hospital"):
        assert secret not in text


def test_header_values_of_any_kind_become_json(result, study):
    odd = {"EchoTime": np.float32(12.5), "RepetitionTime": float("nan"), "MagneticFieldStrength": np.int64(3)}
    source = study.sources[0]
    source = replace(source, original=replace(source.original, metadata=odd), registration={"matrix": np.eye(2)})
    document = provenance(result, replace(study, sources=(source,)))
    entry = json.loads(json.dumps(document, allow_nan=False))["sources"][0]
    assert (entry["EchoTime"], entry["RepetitionTime"], entry["MagneticFieldStrength"]) == (12.5, None, 3)
    assert entry["registration"]["matrix"] == [[1.0, 0.0], [0.0, 1.0]]


def test_slicer_opens_the_segmentation_with_names_colors_codes_and_voxels(result, tmp_path):
    """Read back in a process of its own: importing slicer changes the interpreter for good."""
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    path = tmp_path / "segmentation.seg.nrrd"
    write_segmentation(result.segmentation, result.grid, path)
    np.save(tmp_path / "ijk_to_ras.npy", np.diag([-1, -1, 1, 1]) @ result.grid.ijk_to_lps)
    script = """
import json, sys
import numpy as np, slicer, vtk
scene = slicer.mrmlScene = slicer.vtkMRMLScene()
node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
storage.SetFileName(sys.argv[1])
assert storage.ReadData(node) == 1
segmentation = node.GetSegmentation()
matrix = vtk.vtkMatrix4x4()
for i, row in enumerate(np.load(sys.argv[2])):
    for j, value in enumerate(row):
        matrix.SetElement(i, j, value)
reference = slicer.vtkOrientedImageData()
reference.SetDimensions(*map(int, sys.argv[3].split(",")))
reference.SetGeometryFromImageToWorldMatrix(matrix)
found = []
for index in range(segmentation.GetNumberOfSegments()):
    identifier = segmentation.GetNthSegmentID(index)
    segment = segmentation.GetSegment(identifier)
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(identifier, image)
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, reference, image)
    from vtk.util.numpy_support import vtk_to_numpy
    voxels = vtk_to_numpy(image.GetPointData().GetScalars()) != 0
    entry = vtk.mutable("")
    segment.GetTag("TerminologyEntry", entry)
    found.append([segment.GetName(), list(segment.GetColor()), str(entry), np.flatnonzero(voxels).tolist()])
print(json.dumps(found))
"""
    shape = ",".join(map(str, reversed(result.grid.shape)))
    run = subprocess.run([sys.executable, "-c", script, str(path), str(tmp_path / "ijk_to_ras.npy"), shape],
                         capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert [name for name, *_ in found] == [f"{segment.name}^SYN" for segment in result.segmentation.segments]
    for segment, (_, color, terminology, voxels) in zip(result.segmentation.segments, found, strict=True):
        assert color == pytest.approx(segment.color, abs=1e-6)
        for code in (segment.code["category"], segment.code["type"], segment.code["modifier"]):
            assert code is None or "^".join(code) in terminology
        assert voxels == np.flatnonzero(result.segmentation.mask(segment)).tolist(), segment.name


def test_scene_is_written_where_slicer_core_is_installed(result, study, tmp_path):
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    document = write_result(result, study, tmp_path / "out")
    assert SCENE in document["files"] and (tmp_path / "out" / SCENE).stat().st_size > 0


def test_without_slicer_core_the_rest_is_written_and_the_lack_is_said(result, study, tmp_path, monkeypatch):
    # None in sys.modules is how Python marks a module that cannot be imported.
    monkeypatch.setitem(sys.modules, "slicer", None)
    document = write_result(result, study, tmp_path / "out")
    assert SCENE not in document["files"] and "T2FS_synthetic.nii.gz" in document["files"]
    assert any("slicer-core" in warning for warning in document["warnings"])


def test_a_folder_with_files_is_refused_and_left_alone(result, study, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="already holds files"):
        write_result(result, study, tmp_path)
    with pytest.raises(UsageError, match="notes.txt"):
        write_result(result, study, tmp_path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_files_that_somebody_put_into_a_folder_of_the_results_are_not_overwritten(result, study, tmp_path):
    out = tmp_path / "out"
    (out / "dicom").mkdir(parents=True)
    (out / "dicom" / "made.dcm").write_text("ours")
    write_files(result, study, out, scene=False)
    (out / "dicom" / "corrected.dcm").write_text("mine")
    with pytest.raises(UsageError, match="dicom/corrected.dcm"):
        write_result(result, study, out, overwrite=True, scene=False)
    (out / "mine").mkdir()
    (out / "dicom" / "corrected.dcm").rename(out.parent / "corrected.dcm")
    with pytest.raises(UsageError, match="such as mine"):
        write_result(result, study, out, overwrite=True, scene=False)
    (out.parent / "corrected.dcm").rename(out / "dicom" / "corrected.dcm")
    assert (out / "dicom" / "corrected.dcm").read_text() == "mine"


def test_overwriting_replaces_earlier_results_as_a_whole(result, study, tmp_path):
    out = tmp_path / "out"
    write_result(result, study, out)
    renamed = replace(result, sequences=(replace(result.sequences[0], sequence="FLAIR"),))
    write_result(renamed, study, out, overwrite=True)
    names = {path.name for path in out.iterdir()}
    assert "FLAIR_synthetic.nii.gz" in names and "T2FS_synthetic.nii.gz" not in names
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_an_empty_folder_may_be_written_to(result, study, tmp_path):
    (tmp_path / "out").mkdir()
    write_result(result, study, tmp_path / "out")
    assert (tmp_path / "out" / "result.json").exists()


def test_an_output_below_a_file_is_refused(result, study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        write_result(result, study, tmp_path / "file" / "out")
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.parametrize("failure", [RuntimeError("boom"), KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_nothing_is_left_when_writing_stops_midway(tmp_path, failure):
    expected = OutputError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected), new_folder(tmp_path / "a" / "b" / "out") as folder:
        (folder / "half.nii.gz").write_bytes(b"half")
        raise failure
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit, file", [(6_000, "T2FS_synthetic.nii.gz"), (45_000, "scene.mrb")])
def test_a_full_disk_is_said_and_leaves_nothing(result, study, tmp_path, limit, file):
    """The system cuts every file off at ``limit`` bytes, as a full disk would: the NIfTI writer does not notice."""
    resource = pytest.importorskip("resource", reason="this system cannot limit the size of files")
    if file == "scene.mrb":
        pytest.importorskip("slicer", reason="slicer-core is not installed")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OutputError, match=file):
            write_result(result, study, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_nifti_refuses_a_grid_that_it_cannot_hold(tmp_path):
    matrix = np.eye(4)
    matrix[0, 1] = 0.4
    with pytest.raises(OutputError, match="sheared.nii.gz"):
        write_nifti(np.zeros((3, 4, 5), np.int16), Grid((3, 4, 5), matrix), tmp_path / "sheared.nii.gz", "T1")


@pytest.mark.parametrize("columns, expected", [
    # direction columns of (i, j); what a marked voxel at the patient's left-anterior (or superior) must show: top right
    ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], (1, 0)), ([[-1, 0, 0], [0, -1, 0], [0, 0, 1]], (1, 0)),
    ([[0, 1, 0], [1, 0, 0], [0, 0, 1]], (1, 0)), ([[1, 0, 0], [0, 0, 1], [0, -1, 0]], (1, 0)),
    ([[0, 0, 1], [1, 0, 0], [0, 1, 0]], (1, 0)),
])
def test_slices_are_shown_the_radiological_way(columns, expected):
    """Patient's left at the right of the picture, anterior or superior at its top, on axial and coronal grids."""
    direction = np.array(columns, float).T
    grid = Grid.from_parts((5, 6, 7), (1.0, 2.0, 3.0), (0, 0, 0), direction)
    k, j, i = np.indices(grid.shape)
    position = np.einsum("ab,bkji->akji", grid.ijk_to_lps[:3, :3], np.stack([i, j, k]).astype(float))
    view = slice_view(grid, 2)
    coronal = abs(direction[2, 0]) + abs(direction[2, 1]) > 0
    left, up = view.of(position[0]), view.of(position[2] if coronal else -position[1])
    assert left[0, -1] > left[0, 0]
    assert up[0, 0] > up[-1, 0]
    height, width = abs(up[0, 0] - up[1, 0]), abs(left[0, 1] - left[0, 0])
    assert view.aspect == pytest.approx(height / width)
    assert view.sides == ("R", "L")


def test_the_slice_shown_first_goes_through_the_tumor(result, study):
    labelmap = np.zeros(study.grid.shape, np.uint8)
    labelmap[8, 10:20, 10:20] = 1
    labelmap[9, 10:12, 10:12] = 1
    result = replace(result, segmentation=replace(result.segmentation, labelmap=labelmap))
    assert telling_slices(result, study.body)[0] == 8


def test_report_is_one_page_with_pictures_limits_and_warnings(result, study):
    truth = Truth({"T2FS": result.sequences[0].array.astype(np.float32) + 20}, {"Brain": study.body})
    page = report(result, study, provenance(result, study), truth)
    assert "not a medical device" in page and "SYNTHETIC" in page and "Outside the training domain." in page
    assert page.count("data:image/png;base64,iVBOR") >= 2
    text = re.sub("base64,[^\"']*", "", page)  # pictures hold any letters
    assert "http" not in text and "Doe" not in text and "4711" not in text
    assert "<th scope='row'>T2FS</th>" in page and "SSIM" in page


def test_picture_is_a_png(result, study):
    png = picture(result, study, slice_view(result.grid, 5))
    assert png.startswith(b"\x89PNG") and len(png) > 10_000


def test_an_input_that_was_changed_since_is_not_called_acquired(result, study):
    shown = _figure(result, study, slice_view(result.grid, 5), None, result.sequences, ("T1",))
    titles = [axis.get_title() for axis in shown.axes]
    assert "T1  (changed since the run)" in titles and "T2  (acquired, input)" in titles
    assert "Contours on T1  (changed since the run)" in titles


def test_images_of_a_digital_patient_are_called_simulated_and_a_persons_acquired(result, study):
    truth = Truth({"T2FS": result.sequences[0].array.astype(np.float32)}, {})
    t1 = study.sources[0]
    t1 = replace(t1, original=replace(t1.original, metadata={**t1.original.metadata, **DIGITAL_PATIENT}))
    t2 = study.sources[1]
    digital = replace(study, sources=(t1, replace(t2, original=replace(t2.original, metadata=dict(DIGITAL_PATIENT)))))
    for one, titles in (
        (study, ["T1  (acquired, input)", "T2  (acquired, input)", "Contours on T1  (acquired)"]),
        (digital, ["T1  (simulated, input)", "T2  (simulated, input)", "Contours on T1  (simulated)"]),
        (replace(study, sources=(t1, t2)), ["T1  (simulated, input)", "T2  (acquired, input)"]),
    ):
        shown = _figure(result, one, slice_view(result.grid, 5), truth, result.sequences, ())
        found = [axis.get_title() for axis in shown.axes]
        assert set(titles) <= set(found)
        how = "simulated" if one is digital else "acquired"
        assert f"T2FS  ({how}, true)" in found
        assert ("DIGITAL PATIENT, not a person" in shown.get_suptitle()) == (one is digital)


def test_files_get_ordinary_permissions(result, study, tmp_path):
    """A folder made by tempfile would be closed to colleagues on a shared drive."""
    (tmp_path / "ordinary").mkdir()
    write_result(result, study, tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode == Path(tmp_path / "ordinary").stat().st_mode
