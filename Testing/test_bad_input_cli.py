"""Wrong requests and unusable input on the command line: exit code, message, and nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_weights import write_tiny_weights
from typer.testing import CliRunner

from NPCSynthLib.cli.main import app


def npcsynth(*arguments):
    """(exit code, stdout, stderr with its line breaks turned to spaces) of a command run in this process."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Untrained: enough for everything that fails before or during a run."""
    return write_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def nifti(tmp_path) -> Path:
    """A tiny T1-like head: a bright ellipsoid in air."""
    k, j, i = np.indices((12, 48, 48))
    head = ((k - 6) / 7) ** 2 + ((j - 24) / 18) ** 2 + ((i - 24) / 15) ** 2 < 1
    rng = np.random.default_rng(0)
    array = (head * rng.uniform(300, 900, head.shape) + rng.uniform(0, 20, head.shape)).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((4.0, 4.0, 5.0))
    path = tmp_path / "input" / "T1.nii.gz"
    path.parent.mkdir()
    sitk.WriteImage(image, str(path))
    return path


def _write_ct(folder: Path, slices: int = 4) -> None:
    import pydicom
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    for k in range(slices):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.FrameOfReferenceUID = study, series, frame
        dataset.Modality, dataset.SeriesDescription, dataset.InstanceNumber = "CT", "Planning CT", k + 1
        dataset.PatientID, dataset.PatientName = "phantom", "phantom"
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 3 * k], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 3
        dataset.Rows = dataset.Columns = 16
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 1
        dataset.PixelData = np.full((16, 16), k, np.int16).tobytes()
        dataset.save_as(folder / f"{k}.dcm", enforce_file_format=True)


def test_empty_folder(tmp_path, weights):
    (tmp_path / "empty").mkdir()
    code, _, said = npcsynth("synthesize", "--weights", weights, tmp_path / "empty", "--out", tmp_path / "out")
    assert code == 3 and "empty" in said
    assert [p.name for p in tmp_path.iterdir()] == ["empty"]


def test_folder_that_is_not_there(tmp_path, weights):
    code, _, said = npcsynth("synthesize", "--weights", weights, tmp_path / "nowhere", "--out", tmp_path / "out")
    assert code == 3 and "nowhere" in said
    assert list(tmp_path.iterdir()) == []


def test_only_a_ct(tmp_path, weights):
    _write_ct(tmp_path / "ct")
    code, _, said = npcsynth("synthesize", "--weights", weights, tmp_path / "ct", "--out", tmp_path / "out")
    assert code == 3 and "no MR images, only CT" in said
    assert [p.name for p in tmp_path.iterdir()] == ["ct"]


def test_identify_says_why_a_ct_is_not_used(tmp_path):
    _write_ct(tmp_path / "ct")
    code, out, _ = npcsynth("identify", tmp_path / "ct", "--json")
    assert code == 0
    entry, = json.loads(out)
    assert entry["sequence"] is None and "CT" in entry["reason"] and entry["series_uid"]


@pytest.mark.parametrize("wrong, nearest", [("T1CSF", "T1CFS"), ("FLAR", "FLAIR"), ("T2FSS", "T2FS")])
def test_unknown_sequence_suggests_the_nearest(tmp_path, nifti, wrong, nearest):
    code, _, said = npcsynth("synthesize", nifti.parent, "--targets", wrong, "--out", tmp_path / "out")
    assert code == 2 and f'"{wrong}"' in said and f"Did you mean {nearest}?" in said
    assert not (tmp_path / "out").exists()


def test_target_that_is_also_a_source_file(tmp_path, nifti):
    code, _, said = npcsynth("synthesize", "--source", f"T1={nifti}", "--targets", "T2,T1", "--out", tmp_path / "out")
    assert code == 2 and "T1" in said and "source" in said
    assert not (tmp_path / "out").exists()


def test_target_that_is_also_found_in_the_folder(tmp_path, nifti, weights):
    options = ("--weights", weights, "--targets", "T1", "--out", tmp_path / "out")
    code, _, said = npcsynth("synthesize", nifti.parent, *options)
    assert code == 2 and "T1" in said
    assert not (tmp_path / "out").exists()


def test_unknown_reference(tmp_path, nifti, weights):
    options = ("--weights", weights, "--reference", "T2", "--out", tmp_path / "out")
    code, _, said = npcsynth("synthesize", nifti.parent, *options)
    assert code == 2 and "T2" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments, expected", [
    ([], "study folder"), (["{folder}", "--source", "T1={file}"], "not both"), (["--source", "{file}"], "T1=a.nii.gz"),
    (["--source", "T1={file}", "--source", "t1w={file}"], "twice"), (["{folder}", "--targets", ","], "No sequence"),
    (["{folder}", "--prompt", "T2FS"], "--prompt"),
    (["{folder}", "--targets", "T1C", "--prompt", "T2FS=fat-suppressed T2"], "not among the --targets"),
])
def test_contradictory_requests(tmp_path, nifti, arguments, expected):
    arguments = [a.format(folder=nifti.parent, file=nifti) for a in arguments]
    code, _, said = npcsynth("synthesize", *arguments, "--out", tmp_path / "out")
    assert code == 2 and expected in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [
    ["synthesize"], ["synthesise"], ["identify", "--nonsense"], ["phantom", "--seed", "x"],
])
def test_a_slip_on_the_command_line_is_wrong_use(arguments):
    code, out, said = npcsynth(*arguments)
    assert code == 2 and out == "" and said


def test_truncated_file(tmp_path, nifti, weights):
    nifti.write_bytes(nifti.read_bytes()[:2000])
    options = ("--weights", weights, "--targets", "T2", "--out", tmp_path / "out")
    code, _, said = npcsynth("synthesize", "--source", f"T1={nifti}", *options)
    assert code == 3 and "T1.nii.gz" in said
    assert not (tmp_path / "out").exists()


def test_output_folder_with_files_in_it_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("mine")
    code, _, said = npcsynth("synthesize", tmp_path / "nowhere", "--out", tmp_path / "out", "--overwrite")
    assert code == 2 and "thesis.doc" in said
    assert (tmp_path / "out" / "thesis.doc").read_text() == "mine"


@pytest.mark.parametrize("command", [["synthesize", "{folder}"], ["phantom"], ["demo"]])
def test_output_that_cannot_be_written(tmp_path, nifti, command):
    (tmp_path / "file").write_text("")
    for place, said in ((tmp_path / "file" / "out", "is a file"), (Path("/proc/npcsynth/out"), "cannot be written")):
        code, _, stderr = npcsynth(*(part.format(folder=nifti.parent) for part in command), "--out", place)
        assert code == 5 and said in stderr
    assert (tmp_path / "file").read_text() == ""


def test_weights_that_are_not_there(tmp_path, nifti):
    code, _, said = npcsynth("synthesize", nifti.parent, "--weights", tmp_path / "none", "--out", tmp_path / "out")
    assert code == 3 and "none" in said
    assert not (tmp_path / "out").exists()


def test_weights_that_were_altered(tmp_path, nifti, weights):
    shutil.copytree(weights, tmp_path / "weights")
    for path in (tmp_path / "weights").glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    code, _, said = npcsynth("synthesize", nifti.parent, "--weights", tmp_path / "weights", "--out", tmp_path / "out")
    assert code == 3 and "safetensors" in said
    assert not (tmp_path / "out").exists()


def test_device_that_is_not_there(tmp_path, nifti, weights):
    options = ("--device", "abacus", "--weights", weights, "--out", tmp_path / "out")
    code, _, said = npcsynth("synthesize", nifti.parent, *options)
    assert code == 2 and "abacus" in said
    assert not (tmp_path / "out").exists()


def test_training_without_data_or_with_an_unknown_configuration(tmp_path):
    pytest.importorskip("lightning_fabric", reason="training needs the train extra")
    code, _, _ = npcsynth("train", "small", "--data", tmp_path / "none", "--out", tmp_path / "out")
    assert code == 2
    code, _, said = npcsynth("train", "gigantic", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and "gigantic" in said
    code, _, said = npcsynth("train", "small", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and "none of cohorts/, heads/, labelmaps/, npc_t2/" in said
    assert list(tmp_path.iterdir()) == []


def test_training_without_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    code, _, said = npcsynth("train", "small", "--data", tmp_path, "--out", tmp_path / "out")
    assert code == 2 and "Training needs lightning_fabric" in said and '"train" extra' in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_cancelled_midway_leaves_nothing(tmp_path, weights, sent):
    """Stopped while the demo writes the patient's DICOM into its temporary folder; all the rest is still to come."""
    command = [sys.executable, "-m", "NPCSynthLib", "demo", "--out", str(tmp_path / "out"), "--weights", str(weights),
               "--size", "small"]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=Path(__file__).resolve().parent.parent, stderr=subprocess.PIPE, text=True,
        # Jobs in the background of a script start with Ctrl-C ignored; a person's does not.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not list(tmp_path.glob(".out.*.partial/dicom")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        os.kill(process.pid, sent)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 4, said
    assert "Canceled" in said
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_program_says_how_to_get_the_traceback(tmp_path, monkeypatch):
    import NPCSynthLib.study.read

    def broken(*_, **__):
        raise ZeroDivisionError("Doe^Jane")

    monkeypatch.setattr(NPCSynthLib.study.read, "list_series", broken)
    code, _, said = npcsynth("identify", tmp_path)
    assert code == 5 and "ZeroDivisionError" in said and "--debug" in said
    assert "Doe" not in said and "Traceback" not in said
