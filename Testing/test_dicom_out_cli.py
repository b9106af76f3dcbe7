"""``npcsynth export`` and ``npcsynth synthesize --dicom``, and results read back from their folder."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import slicerio
from dicom_cases import dicom_files, make_result, read_study, write_study
from tiny_weights import write_tiny_weights
from typer.testing import CliRunner

from NPCSynthLib.cli.main import app
from NPCSynthLib.errors import InputError
from NPCSynthLib.output.result_folder import read_result
from NPCSynthLib.output.write import write_result


def npcsynth(*arguments):
    """(exit code, stdout, stderr) of a command run in this process."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def study_folder(tmp_path_factory) -> Path:
    return write_study(tmp_path_factory.mktemp("cli") / "study", "axial")


@pytest.fixture(scope="module")
def result_folder(study_folder, tmp_path_factory) -> Path:
    study = read_study(study_folder)
    folder = tmp_path_factory.mktemp("cli") / "result"
    write_result(make_result(study), study, folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return write_tiny_weights(tmp_path_factory.mktemp("weights"), ("T1", "T2", "T1C"))


def test_a_result_is_read_back_as_it_was_written(study_folder, result_folder):
    expected = make_result(read_study(study_folder))
    result, document = read_result(result_folder)
    np.testing.assert_array_equal(result.sequences[0].array, expected.sequences[0].array)
    np.testing.assert_array_equal(result.sequences[0].uncertainty, expected.sequences[0].uncertainty)
    assert result.grid.matches(expected.grid) and result.model == expected.model
    assert [s.name for s in result.segmentation.segments] == [s.name for s in expected.segmentation.segments]
    for segment in expected.segmentation.segments:
        np.testing.assert_array_equal(result.segmentation.mask(segment), expected.segmentation.mask(segment))
    assert document == json.loads((result_folder / "result.json").read_text())


def test_export_writes_the_same_voxels_as_the_result_folder_holds(study_folder, result_folder, tmp_path):
    code, out, said = npcsynth("export", result_folder, "--study", study_folder, "--out", tmp_path / "out", "--json")
    assert code == 0, said
    written = json.loads(out)
    assert [one["modality"] for one in written] == ["MR", "OT", "SEG", "RTSTRUCT"]
    assert [one["left_out"] for one in written] == [[], [], [], ["GTVn"]]
    assert "Not in the contours, because nothing was found: GTVn; they may be there all the same." in said
    files = {file for one in written for file in one["files"]}
    assert files == {p.relative_to(tmp_path / "out").as_posix() for p in dicom_files(tmp_path / "out")}
    stored = np.stack([pydicom.dcmread(tmp_path / "out" / file).pixel_array for file in written[0]["files"]])
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(result_folder / "T1C_synthetic.nii.gz")))
    np.testing.assert_array_equal(stored, image)


def test_export_enhanced_and_deidentified(study_folder, result_folder, tmp_path):
    options = ("--study", study_folder, "--out", tmp_path / "out", "--enhanced", "--deidentify")
    code, _, said = npcsynth("export", result_folder, *options)
    assert code == 0 and "research use only" in said, said
    dataset = pydicom.dcmread(tmp_path / "out" / "T1C.dcm")
    assert dataset.PatientIdentityRemoved == "YES" and dataset.NumberOfFrames == 10


@pytest.mark.parametrize("wrong, code, expected", [
    ("no result", 3, "holds no results of NPCSynth"), ("no study", 3, "does not exist"),
    ("another study", 3, "are not in the study folder"), ("full folder", 2, "already holds files"),
])
def test_export_refuses(study_folder, result_folder, tmp_path, wrong, code, expected):
    folders = {"result": result_folder, "study": study_folder, "out": tmp_path / "out"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    folders |= {"no result": {"result": tmp_path / "other"}, "no study": {"study": tmp_path / "nowhere"},
                "another study": {"study": tmp_path / "other"}, "full folder": {"out": tmp_path / "other"}}[wrong]
    found, _, said = npcsynth("export", folders["result"], "--study", folders["study"], "--out", folders["out"])
    assert found == code and expected in " ".join(said.split()), said
    assert [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")] == ["other", "other/notes.txt"]


def painted(path):
    """One voxel of an image brighter."""
    image = sitk.ReadImage(str(path))
    image[3, 3, 3] += 1
    sitk.WriteImage(image, str(path))


def cropped(path):
    sitk.WriteImage(sitk.ReadImage(str(path))[:-1, :, :], str(path))


def moved(path):
    image = sitk.ReadImage(str(path))
    image.SetOrigin([value + 1 for value in image.GetOrigin()])
    sitk.WriteImage(image, str(path))


def overwritten(path):
    """By the uncertainty: the same grid, the same type."""
    shutil.copy(path.with_name("T1C_synthetic_uncertainty.nii.gz"), path)


def twice(path):
    sitk.WriteImage(sitk.JoinSeries([sitk.ReadImage(str(path))] * 2), str(path))


def cut_short(path):
    """What is missing of a NIfTI file SimpleITK reads as zeros."""
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("file, edit", [
    ("T1C_synthetic_uncertainty.nii.gz", painted),
    *(("T1C_synthetic.nii.gz", edit) for edit in (painted, cropped, moved, overwritten, twice, cut_short)),
])
def test_changed_images_are_not_passed_off_as_the_networks(study_folder, result_folder, tmp_path, file, edit):
    shutil.copytree(result_folder, tmp_path / "result")
    edit(tmp_path / "result" / file)
    options = ("--study", study_folder, "--out", tmp_path / "out")
    code, _, said = npcsynth("export", tmp_path / "result", *options)
    assert code == 3 and f"{file} was changed since it was written, so that it is no longer what the network " \
        "proposed. Synthesize again." in " ".join(said.split()), said
    assert not (tmp_path / "out").exists()


def relabel(content):
    content["segments"][0]["labelValue"] = 77


def erase_the_tumor(content):
    content["voxels"][0][content["voxels"][0] == 1] = 0


def leave_out_the_empty(content):
    content["segments"] = [segment for segment in content["segments"] if segment["name"] != "GTVn^SYN"]


def swap_sides(content):
    left, right = (s["labelValue"] for s in content["segments"] if s["name"] in ("Parotid_L^SYN", "Parotid_R^SYN"))
    labels = content["voxels"][0]
    labels[...] = np.where(labels == left, right, np.where(labels == right, left, labels))


def swap_names(content):
    left, right = (s for s in content["segments"] if s["name"] in ("Parotid_L^SYN", "Parotid_R^SYN"))
    left["name"], right["name"] = right["name"], left["name"]


def draw_the_tumor_as_the_body(content):
    next(segment for segment in content["segments"] if segment["name"] == "GTVp^SYN")["layer"] = 1


def grow_the_body(content):
    content["voxels"][1][...] = 1


def move(content):
    content["ijkToLPS"][0, 3] += 1


@pytest.mark.parametrize("edit", [
    relabel, erase_the_tumor, leave_out_the_empty, swap_sides, swap_names, draw_the_tumor_as_the_body, grow_the_body,
    move,
])
def test_a_changed_segmentation_is_not_passed_off_as_the_networks(result_folder, tmp_path, edit):
    shutil.copytree(result_folder, tmp_path / "result")
    path = tmp_path / "result" / "segmentation_synthetic.seg.nrrd"
    content = slicerio.read_segmentation(str(path))
    edit(content)
    slicerio.write_segmentation(str(path), content)
    with pytest.raises(InputError, match="_synthetic.seg.nrrd was changed.*no longer what the network proposed"):
        read_result(tmp_path / "result")


def test_a_segmentation_that_is_cut_short_is_damaged(result_folder, tmp_path):
    shutil.copytree(result_folder, tmp_path / "result")
    cut_short(tmp_path / "result" / "segmentation_synthetic.seg.nrrd")
    with pytest.raises(InputError, match="segmentation_synthetic.seg.nrrd is missing or damaged"):
        read_result(tmp_path / "result")


@pytest.mark.parametrize("lose", ["prompt", "mean_uncertainty", "interval_factors", "segments", "weights"])
def test_a_result_json_that_lacks_something_is_damaged(result_folder, tmp_path, lose):
    shutil.copytree(result_folder, tmp_path / "result")
    document = json.loads((tmp_path / "result" / "result.json").read_text())
    (document if lose in document else document["outputs"][0]).pop(lose)
    (tmp_path / "result" / "result.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="result.json is missing or damaged"):
        read_result(tmp_path / "result")


def test_images_saved_anew_without_a_change_are_the_networks_still(result_folder, tmp_path):
    """By a program that keeps everything as fractions, and does not compress."""
    shutil.copytree(result_folder, tmp_path / "result")
    for name in ("T1C_synthetic.nii.gz", "T1C_synthetic_uncertainty.nii.gz"):
        image = sitk.Cast(sitk.ReadImage(str(tmp_path / "result" / name)), sitk.sitkFloat64)
        sitk.WriteImage(image, str(tmp_path / "result" / name), useCompression=False)
    found, expected = read_result(tmp_path / "result")[0], read_result(result_folder)[0]
    for quantity in ("array", "uncertainty"):
        array = getattr(found.sequences[0], quantity)
        assert array.dtype == np.int16
        np.testing.assert_array_equal(array, getattr(expected.sequences[0], quantity))


@pytest.mark.parametrize("empty", [(), ("labelmap",), ("external",), ("labelmap", "external")], ids=str)
def test_a_segmentation_saved_anew_by_slicer_is_the_networks_still(tmp_path, empty):
    """Slicer saves the box that is not empty, here fewer columns than the grid has, and no layer without voxels."""
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    study = read_study(write_study(tmp_path / "study", "oblique"))
    expected = make_result(study)
    body = np.zeros(study.grid.shape, bool)
    body[1:-1, 1:, 2:-3] = True
    expected = replace(expected, segmentation=replace(expected.segmentation, external=body))
    nothing = {name: np.zeros_like(getattr(expected.segmentation, name)) for name in empty}
    expected = replace(expected, segmentation=replace(expected.segmentation, **nothing))
    write_result(expected, study, tmp_path / "result", scene=False)
    path = tmp_path / "result" / "segmentation_synthetic.seg.nrrd"
    script = """
import sys, slicer
slicer.mrmlScene = slicer.vtkMRMLScene()
node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
storage.SetFileName(sys.argv[1])
assert storage.ReadData(node) == 1 and storage.WriteData(node) == 1
"""
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    saved = slicerio.read_segmentation(str(path))["voxels"]
    assert saved.shape[-3] < study.grid.shape[2], "Slicer did not crop: the test tests nothing"
    found = read_result(tmp_path / "result")[0].segmentation
    np.testing.assert_array_equal(found.labelmap, expected.segmentation.labelmap)
    np.testing.assert_array_equal(found.external, expected.segmentation.external)


@pytest.mark.parametrize("lacking", ["outputs", "segmentation"])
def test_results_of_an_edition_that_kept_no_digests_are_refused(result_folder, tmp_path, lacking):
    shutil.copytree(result_folder, tmp_path / "result")
    document = json.loads((tmp_path / "result" / "result.json").read_text())
    if lacking == "outputs":
        del document["outputs"][0]["uncertainty_voxels_sha256"]
    else:
        del document["segmentation_voxels_sha256"]
    (tmp_path / "result" / "result.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="result.json in result lacks the SHA-256 of the voxels.*Synthesize again"):
        read_result(tmp_path / "result")


def test_synthesize_writes_dicom_beside_the_rest(study_folder, weights, tmp_path):
    options = ("--out", tmp_path / "out", "--targets", "T1C", "--reference", "T1", "--weights", weights, "--json")
    code, out, said = npcsynth("synthesize", study_folder, *options, "--dicom")
    assert code == 0, said
    document = json.loads(out)
    assert {path.relative_to(tmp_path / "out").as_posix() for path in dicom_files(tmp_path / "out")} == set(
        document["files"])
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "T1C_synthetic.nii.gz")))
    slices = [pydicom.dcmread(path) for path in dicom_files(tmp_path / "out" / "dicom" / "T1C")]
    np.testing.assert_array_equal(np.stack([dataset.pixel_array for dataset in slices]), image)
    inside = json.loads(slices[0].private_block(0x0099, "NPCSynth")[0x01].value)
    assert inside["weights"] == document["weights"]
    names = {p.relative_to(tmp_path / "out" / "dicom").parts[0] for p in dicom_files(tmp_path / "out" / "dicom")}
    assert names == {"T1C", "T1C_uncertainty.dcm", "segmentation.dcm", "contours.dcm"}
    code, _, said = npcsynth("synthesize", study_folder, *options, "--overwrite")
    assert code == 0 and not (tmp_path / "out" / "dicom").exists(), said


def test_synthesize_deidentified_tells_which_files_still_identify(study_folder, weights, tmp_path):
    options = ("--out", tmp_path / "out", "--targets", "T1C", "--reference", "T1", "--weights", weights)
    code, _, said = npcsynth("synthesize", study_folder, *options, "--dicom", "--deidentify")
    assert code == 0, said
    note = next(line for line in said.splitlines() if "Only the folder dicom is de-identified" in line)
    assert [name for name in ("scene.mrb", "result.json") if (tmp_path / "out" / name).exists() != (name in note)] == []
    assert "result.json" in note


def test_how_dicom_is_written_cannot_be_said_without_asking_for_it(study_folder, weights, tmp_path):
    for option in ("--enhanced", "--deidentify"):
        code, _, said = npcsynth("synthesize", study_folder, "--out", tmp_path / "out", "--weights", weights, option)
        assert code == 2 and "Add --dicom" in said
    assert list(tmp_path.iterdir()) == []


def test_dicom_from_a_nifti_source_is_refused_before_anything_is_computed(study_folder, weights, tmp_path):
    volume = read_study(study_folder).source("T1").original
    image = sitk.GetImageFromArray(volume.array)
    image.SetSpacing(volume.grid.spacing.tolist())
    sitk.WriteImage(image, str(tmp_path / "T1.nii.gz"))
    options = ("--out", tmp_path / "out", "--targets", "T1C", "--weights", weights, "--dicom")
    code, _, said = npcsynth("synthesize", "--source", f"T1={tmp_path / 'T1.nii.gz'}", *options)
    assert code == 3 and "was not read from DICOM" in " ".join(said.split())
    assert [path.name for path in tmp_path.iterdir()] == ["T1.nii.gz"]


def test_dicom_without_a_frame_of_reference_is_refused_before_anything_is_computed(study_folder, weights, tmp_path):
    for path in dicom_files(study_folder):
        dataset = pydicom.dcmread(path)
        del dataset.FrameOfReferenceUID
        target = tmp_path / "study" / path.relative_to(study_folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        dataset.save_as(target, enforce_file_format=True)
    options = ("--out", tmp_path / "out", "--targets", "T1C", "--weights", weights, "--dicom")
    code, _, said = npcsynth("synthesize", tmp_path / "study", *options)
    assert code == 3 and "names no frame of reference" in " ".join(said.split()) and "Synthesizing" not in said
