"""``npcsynth evaluate`` and ``calibrate``: sections alone, comparison networks of every kind, wrong requests."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from tiny_weights import write_tiny_weights
from typer.testing import CliRunner

pytest.importorskip("skimage", reason="the evaluation needs scikit-image (extra: train)")

from NPCSynthLib.cli.main import app
from NPCSynthLib.study.volume import Grid, to_sitk
from NPCSynthLib.training import baseline_networks
from NPCSynthLib.training.baseline_networks import ChannelUNet, save_baseline


def npcsynth(*arguments):
    """(exit code, stdout, stderr with its line breaks turned to spaces) of a command run in this process."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four patients, one of them for validation, whose T2 follows from T1 voxel by voxel."""
    home = tmp_path_factory.mktemp("data")
    grid = Grid.from_parts((16, 36, 32), (4, 4, 6), (-60, -70, -40), np.eye(3))
    k, j, i = np.indices(grid.shape)
    body = ((k - 8) / 7) ** 2 + ((j - 18) / 15) ** 2 + ((i - 16) / 13) ** 2 < 1
    for seed, name in enumerate(("a/p1", "a/p2", "b/p1", "glioma/gli00001")):
        rng = np.random.default_rng(seed)
        folder = home / "cohorts" / name
        folder.mkdir(parents=True)
        a = ndimage.gaussian_filter(rng.random(grid.shape), 1.5)
        a = (a - a.min()) / np.ptp(a)
        for sequence, image in {"T1": 300 + 600 * a, "T2": 200 + 800 * (1 - a) ** 2}.items():
            image = np.where(body, image, 0) + np.abs(rng.normal(0, 6, grid.shape))
            sitk.WriteImage(to_sitk(image.astype(np.int16), grid), str(folder / f"{sequence}.nii.gz"))
    return home


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_weights(tmp_path_factory.mktemp("weights") / "w")


def test_one_section_beside_networks_of_both_kinds_and_again_with_another(data, weights, tmp_path):
    network = tmp_path / "runs" / "channel-unet" / "weights"
    save_baseline(network, "channel-unet", ChannelUNet(), {"name": "U-Net", "version": "0"})
    labels = write_tiny_weights(tmp_path / "runs" / "labels" / "weights")
    common = ("evaluate", "--data", data, "--out", tmp_path / "out", "--weights", weights, "--only", "any-to-all",
              "--quick", "--device", "cpu", "--baseline", network.parent)  # fmt: skip
    code, _, said = npcsynth(*common)
    assert code == 0 and "Any to all:" in said, said
    kept = (tmp_path / "out" / "kept" / "cells.jsonl").read_text()
    code, _, error = npcsynth(*common, "--baseline", labels)
    assert code == 0, error
    document = json.loads((tmp_path / "out" / "any-to-all.json").read_text())
    assert [row[0] for row in document["tables"][0]["rows"]][:3] == ["NPCSynth", "channel-unet", "labels"]
    now = (tmp_path / "out" / "kept" / "cells.jsonl").read_text()
    assert now.startswith(kept) and now[len(kept):].count("labels") == 2  # nothing but the new network was computed
    assert (tmp_path / "out" / "index.html").exists()


@pytest.mark.parametrize(("options", "code", "said"), [
    (("--only", "beauty"), 2, "no section"),
    (("--quick", "--full"), 2, "exclude each other"),
    (("--only", "any-to-all", "--baseline", "data"), 3, "There are no weights in"),
    (("--only", "out-of-distribution", "--baseline", "data"), 3, "There are no weights in"),  # where it takes no part
])
def test_wrong_requests_are_refused_before_anything_is_written(options, code, said, data, weights, tmp_path):
    options = [data if option == "data" else option for option in options]
    found, _, error = npcsynth("evaluate", "--data", data, "--out", tmp_path / "out", "--weights", weights, *options)
    assert found == code and said in error
    assert not (tmp_path / "out").exists()


def test_data_without_validation_patients_is_refused(weights, tmp_path):
    for section in ("any-to-all", "robustness", "uncertainty"):
        code, _, error = npcsynth("evaluate", "--data", tmp_path, "--out", tmp_path / "out", "--weights", weights,
                                  "--only", section)
        assert code == 3 and "validation patient" in error


def test_calibrate_finishes_weights_that_had_been_trained(data, tmp_path):
    folder = write_tiny_weights(tmp_path / "w")
    before = (folder / "model.safetensors").read_bytes()
    code, _, said = npcsynth("calibrate", folder, "--data", data)
    assert code == 0, said
    assert "T1, T2 was calibrated" in said and "will be noticed" in said
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["calibration"]) == {"T1", "T2"}
    assert "usual.safetensors" in manifest["files"]
    assert (folder / "model.safetensors").read_bytes() == before


def test_calibrate_says_what_could_not_be_done(tmp_path):
    folder = write_tiny_weights(tmp_path / "w")
    code, _, said = npcsynth("calibrate", folder, "--data", tmp_path)
    assert code == 0, said
    assert "not calibrated" in said and "unnoticed" in said


def test_a_missing_package_of_the_last_section_is_told_before_the_first(data, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(baseline_networks, "find_spec", lambda name: None)
    code, _, said = npcsynth("evaluate", "--data", data, "--out", tmp_path / "out", "--weights", weights)
    assert code == 2 and '"train" extra' in said and not (tmp_path / "out").exists()
