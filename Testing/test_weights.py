"""Weights are verified before use, and what is wrong is said."""

import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")

from tiny_weights import write_tiny_weights

from NPCSynthLib.errors import OutputError, WeightsError
from NPCSynthLib.model.weights import load_weights
from NPCSynthLib.vocabulary import canonical_prompt, get_sequence


@pytest.fixture
def folder(tmp_path):
    return write_tiny_weights(tmp_path / "weights")


def test_round_trip_keeps_the_model(folder):
    first, second = load_weights(folder), load_weights(folder)
    assert first.identity["name"] == "tiny" and len(first.identity["sha256"]) == 64
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(first.model.encode(image).invariant[0], second.model.encode(image).invariant[0])


def test_full_disk_leaves_the_weights_before_as_they_were(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write = Path.write_bytes

    def full(path, content):
        if path.name == "text.safetensors.part":
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        write_tiny_weights(folder, ("T1",))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_canonical_prompts_need_no_open_clip(folder, monkeypatch):
    loaded = load_weights(folder)
    monkeypatch.setattr(loaded, "text_tower", lambda: pytest.fail("the text tower was used"))
    features, unknown = loaded.text_features(canonical_prompt(get_sequence("T1C")))
    assert features.pooled.shape == (1, 32) and unknown == []


def test_shipped_prompt_features_are_those_of_the_tower(folder):
    loaded = load_weights(folder)
    prompt = canonical_prompt(get_sequence("T2FS"))
    shipped, _ = loaded.text_features(prompt)
    fresh, _ = loaded.text_tower().encode([prompt])
    torch.testing.assert_close(shipped.pooled, fresh.pooled, atol=5e-3, rtol=5e-3)
    torch.testing.assert_close(shipped.tokens, fresh.tokens, atol=5e-3, rtol=5e-3)


def test_free_text_reports_unknown_words(folder):
    features, unknown = load_weights(folder).text_features("T2-weighted zebra image")
    assert unknown == ["zebra"] and features.pooled.shape == (1, 32)


def test_nonsense_prompt_is_refused(folder):
    with pytest.raises(WeightsError, match="knows none of the words"):
        load_weights(folder).text_features("zebra giraffe")


def test_missing_folder(tmp_path):
    with pytest.raises(WeightsError, match="manifest.json is missing"):
        load_weights(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.safetensors", "text.safetensors"])
def test_flipped_byte_is_found(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[-100] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(WeightsError, match=f"{name} is damaged"):
        load_weights(folder).text_features("T2 image")


def test_missing_file(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="model.safetensors is missing"):
        load_weights(folder)


def test_manifest_of_another_model(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["model"]["channels"] = [8, 16]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WeightsError, match="does not fit"):
        load_weights(folder)


@pytest.mark.parametrize("text", ["", "{}", "[1, 2]", '{"model": 3}'])
def test_broken_manifest(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(WeightsError, match="cannot be read or is incomplete"):
        load_weights(folder)
