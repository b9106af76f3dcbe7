"""Weights are verified before use, and what is wrong is said."""

import hashlib
import json
from pathlib import Path

import pytest
import torch

pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")

from safetensors.torch import save
from tiny_weights import write_tiny_weights

from NPCSynthLib.errors import OutputError, WeightsError
from NPCSynthLib.model.network import AnyToAll, ModelConfig
from NPCSynthLib.model.text import TextTower, tokens_of_vocabulary
from NPCSynthLib.model.weights import load_weights, save_weights
from NPCSynthLib.vocabulary import canonical_prompt, get_sequence


@pytest.fixture
def folder(tmp_path):
    return write_tiny_weights(tmp_path / "weights")


def test_round_trip_keeps_the_model(folder):
    first, second = load_weights(folder), load_weights(folder)
    assert first.identity["name"] == "tiny" and len(first.identity["sha256"]) == 64
    image = torch.rand(1, 3, 16, 16)
    assert torch.equal(first.model.encode(image).invariant[0], second.model.encode(image).invariant[0])


def written(folder, network):
    """The parameters of a tiny network once it has lain on disk, and the bytes that it took."""
    tower = TextTower(network.config, tokens_of_vocabulary())
    save_weights(folder, network, tower, {"name": "tiny", "version": "0.0", "prompts": {}})
    return load_weights(folder).model.state_dict(), (folder / "model.safetensors").stat().st_size


@pytest.fixture
def network():
    torch.manual_seed(0)
    config = ModelConfig(channels=(16, 64), specific=(2, 2), text_width=32, text_layers=1, text_heads=2)
    network = AnyToAll(config)
    for value in network.parameters():
        if value.ndim > 1:  # rows of very different size, and one that is nothing at all
            value.data = torch.randn_like(value) * torch.logspace(-4, 1, len(value)).view(-1, *[1] * (value.ndim - 1))
    network.encoder.down[0].weight.data[3] = 0
    return network


def test_weights_take_a_byte_a_value_and_keep_each_row_to_a_hundredth(folder, network):
    kept, size = written(folder, network)
    values = sum(value.numel() for value in network.parameters())
    assert size < 1.3 * values
    for name, value in network.state_dict().items():
        rows, back = (x.reshape(len(x) if x.ndim > 1 else 1, -1) for x in (value, kept[name]))
        assert ((back - rows).abs().amax(dim=1) <= rows.abs().amax(dim=1) / 250 + 1e-7).all(), name


def test_weights_that_are_written_again_stay_the_same(folder, network):
    once, _ = written(folder, network)
    network.load_state_dict(once)
    twice, _ = written(folder, network)
    for name, value in once.items():
        torch.testing.assert_close(twice[name], value, rtol=1e-6, atol=0)


def test_weights_of_plain_float16_are_read_too(folder):
    """Such were those of the editions before."""
    before = load_weights(folder).model.state_dict()
    content = save({name: value.half() for name, value in before.items()})
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = {"sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model.safetensors").write_bytes(content)
    for name, value in load_weights(folder).model.state_dict().items():
        torch.testing.assert_close(value, before[name].half().float(), rtol=0, atol=0)


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
    for before, now in ((shipped.pooled, fresh.pooled), (shipped.tokens, fresh.tokens)):
        assert (now - before).norm() < 0.03 * before.norm()


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
