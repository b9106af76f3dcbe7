"""The command line on a digital patient, from DICOM to results."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_weights import write_tiny_weights
from typer.testing import CliRunner

from NPCSynthLib.cli.main import app

ROOT = Path(__file__).resolve().parent.parent
COMMANDS = ("demo", "phantom", "identify", "synthesize", "batch", "contours", "train", "doctor")


def npcsynth(*arguments):
    """(exit code, stdout, stderr) of a command run in this process."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "patient"
    code, _, said = npcsynth("phantom", "--out", folder, "--seed", 3, "--sequences", "T1,T2", "--size", "small")
    assert code == 0, said
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Untrained, which is enough to see what is written where; the demo runs on the weights that ship."""
    return write_tiny_weights(tmp_path_factory.mktemp("weights"), ("T1", "T2", "T1C", "T2FS"))


@pytest.fixture(scope="module")
def synthesized(patient, weights, tmp_path_factory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("synthesize") / "new" / "out"
    options = ("--out", out, "--targets", "T2FS,T1C", "--json", "--weights", weights)
    code, stdout, said = npcsynth("synthesize", patient, *options)
    assert code == 0, said
    return out, json.loads(stdout)


def test_help_loads_nothing_heavy():
    script = ("import sys, NPCSynthLib.cli.main; "
              "print({'torch', 'SimpleITK', 'scipy', 'matplotlib', 'pydicom', 'slicer'} & set(sys.modules))")
    found = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command):
    code, out, _ = npcsynth(command, "--help")
    assert code == 0 and f"npcsynth {command}" in out and "Example" in out


def test_version():
    from NPCSynthLib import __version__

    assert npcsynth("--version")[:2] == (0, f"npcsynth {__version__}\n")


def test_identify_finds_the_phantoms_sequences(patient):
    code, out, _ = npcsynth("identify", patient, "--json")
    assert code == 0
    entries = json.loads(out)
    found = {entry["sequence"] for entry in entries if entry["sequence"]}
    assert found == {"T1", "T2"}
    for entry in entries:
        assert set(entry) == {"series_uid", "description", "sequence", "confidence", "reason"}
        assert 0 <= entry["confidence"] <= 1 and entry["reason"] and entry["series_uid"]


def test_identify_without_json_prints_a_table(patient):
    code, out, _ = npcsynth("identify", patient)
    assert code == 0 and "T1" in out and "T2" in out


def test_synthesize_writes_what_it_says(synthesized):
    out, document = synthesized
    names = {path.name for path in out.iterdir()}
    assert {"T2FS_synthetic.nii.gz", "T2FS_synthetic_uncertainty.nii.gz", "T1C_synthetic.nii.gz",
            "T1C_synthetic_uncertainty.nii.gz", "segmentation_synthetic.seg.nrrd", "result.json"} <= names
    assert set(document["files"]) == names
    assert json.loads((out / "result.json").read_text()) == document
    assert [entry["sequence"] for entry in document["outputs"]] == ["T2FS", "T1C"]
    assert [entry["sequence"] for entry in document["sources"]] == ["T1", "T2"]
    assert len(document["weights"]["sha256"]) == 64 and document["seconds"] and document["device"]


def test_results_lie_on_the_reference_grid_and_hold_an_image(synthesized):
    out, document = synthesized
    reference = document["reference_grid"]
    for name in ("T2FS_synthetic", "T1C_synthetic", "T2FS_synthetic_uncertainty"):
        image = sitk.ReadImage(str(out / f"{name}.nii.gz"))
        array = sitk.GetArrayFromImage(image)
        assert list(array.shape) == reference["shape_kji"] and array.dtype == np.int16
        origin = [row[3] for row in reference["ijk_to_lps"][:3]]
        assert image.GetOrigin() == pytest.approx(origin, abs=1e-2)
        assert array.std() > 0


def test_all_missing_sequences_that_the_weights_know_are_made_unless_targets_are_named(patient, weights, tmp_path):
    options = ("--out", tmp_path / "out", "--no-segment", "--json", "--weights", weights)
    code, out, said = npcsynth("synthesize", patient, *options)
    assert code == 0, said
    made = {entry["sequence"] for entry in json.loads(out)["outputs"]}
    assert made == {"T1C", "T2FS"}
    assert not (tmp_path / "out" / "segmentation_synthetic.seg.nrrd").exists()


def test_the_folder_of_a_series_is_a_source_too(patient, weights, tmp_path):
    t1, t2 = (min(patient.glob(f"*{name}*")) for name in ("t1", "t2"))
    options = ("--targets", "T1C", "--no-segment", "--json", "--weights", weights)
    code, out, said = npcsynth("synthesize", "--source", f"T1={t1}", *options, "--dicom", "--out", tmp_path / "out")
    assert code == 0, said
    assert json.loads(out)["sources"][0]["sequence"] == "T1" and (tmp_path / "out" / "dicom" / "T1C").is_dir()
    (tmp_path / "both").mkdir()
    for folder in (t1, t2):
        shutil.copytree(folder, tmp_path / "both" / folder.name)
    code, _, said = npcsynth("synthesize", "--source", f"T1={tmp_path / 'both'}", *options, "--out", tmp_path / "no")
    assert code == 2 and "both holds 2 images" in said and not (tmp_path / "no").exists()


def test_overwrite_replaces_earlier_results(synthesized, patient, weights):
    out, _ = synthesized
    again = ("synthesize", patient, "--out", out, "--targets", "T2FS", "--reference", "T2", "--weights", weights)
    code, _, said = npcsynth(*again)
    assert code == 2 and "--overwrite" in said
    code, _, said = npcsynth(*again, "--overwrite")
    assert code == 0, said
    assert json.loads((out / "result.json").read_text())["reference_grid"]["sequence"] == "T2"
    assert not (out / "T1C_synthetic.nii.gz").exists()


def test_the_same_seed_gives_the_same_patient(patient, tmp_path):
    import pydicom

    def pixels(folder):
        files = sorted(folder.rglob("*.dcm"))
        return {str(file.relative_to(folder)): pydicom.dcmread(file).get("PixelData") for file in files}

    again = ("--out", tmp_path / "again", "--seed", 3, "--sequences", "T1,T2", "--size", "small")
    code, _, said = npcsynth("phantom", *again)
    assert code == 0, said
    assert sorted(pixels(patient).values(), key=str) == sorted(pixels(tmp_path / "again").values(), key=str)


def test_doctor_finds_this_environment_healthy():
    code, out, said = npcsynth("doctor", "--device", "cpu", "--json")
    document = json.loads(out)
    assert document["ok"] is (code == 0)
    assert code == 0, [check for check in document["checks"] if not check["ok"]]
    assert {"Python", "Device", "Weights", "torch"} <= {check["name"] for check in document["checks"]}


def test_doctor_looks_at_every_file_of_the_weights(tmp_path):
    for file in ROOT.joinpath("weights").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    damaged = bytearray((tmp_path / "usual.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "usual.safetensors").write_bytes(damaged)
    code, out, _ = npcsynth("doctor", "--device", "cpu", "--weights", tmp_path, "--json")
    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 5 and "usual.safetensors" in found["Weights"]["found"]


def test_doctor_tells_of_packages_that_are_missing_or_cannot_be_loaded(monkeypatch):
    """PyTorch without a library of Windows raises OSError."""
    class Broken:
        def find_spec(self, name, *_):
            if name == "contourpy" or name.startswith("NPCSynthLib.inference.device"):
                raise OSError("[WinError 126] c10.dll")

    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    for name in ("contourpy", "NPCSynthLib.inference.device"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "monai", None)
    code, out, _ = npcsynth("doctor", "--device", "cpu", "--json")
    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert code == 5 and "c10.dll" in found["contourpy"]["found"] and "c10.dll" in found["Device"]["found"]
    assert not found["monai"]["ok"] and found["monai"]["found"] == "missing"


def test_names_that_an_old_code_page_lacks_are_printed_all_the_same(tmp_path):
    """As on Windows, where output that goes to a file has one."""
    folder = tmp_path / "p\u00e4t \u6a2a"
    folder.mkdir()
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 900, (6, 20, 20)).astype(np.int16))
    sitk.WriteImage(image, str(folder / "T2_\u8f74\u4f4d.nii.gz"))
    command = [sys.executable, "-c", "from NPCSynthLib.cli.main import main; main()", "identify", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="cp1252", cwd=ROOT,
                          env={**os.environ, "PYTHONIOENCODING": "cp1252"})  # fmt: skip
    assert done.returncode == 0 and "T2" in done.stdout, done.stderr


def test_doctor_says_what_is_wrong_with_weights(tmp_path):
    code, out, _ = npcsynth("doctor", "--device", "cpu", "--weights", tmp_path, "--json")
    assert code == 5
    weights = next(check for check in json.loads(out)["checks"] if check["name"] == "Weights")
    assert weights["ok"] is False and weights["remedy"]


def test_demo_shows_inputs_synthetic_true_error_and_uncertainty(tmp_path):
    out = tmp_path / "demo"
    code, stdout, said = npcsynth("demo", "--out", out, "--size", "small")
    assert code == 0, said
    assert stdout == ""
    assert (out / "demo.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "index.html").read_text()
    assert "SYNTHETIC" in page and "SSIM" in page and "not a medical device" in page
    assert "A digital patient, not a person" in page and "Agreement with the simulated images" in page
    document = json.loads((out / "result.json").read_text())
    assert {file.split("/")[0] for file in document["files"]} == {path.name for path in out.iterdir()}
    made = [entry["sequence"] for entry in document["outputs"]]
    sources = [entry["sequence"] for entry in document["sources"]]
    assert len(made) == 2 and not set(made) & set(sources)
    for name in made:
        assert f"<th scope='row'>{name}</th>" in page
