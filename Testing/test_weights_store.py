"""Weights that the user brings along: verified before they are kept, and kept outside of the installation."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")

from tiny_weights import write_tiny_weights

from NPCSynthLib.errors import OutputError, WeightsError
from NPCSynthLib.model import store
from NPCSynthLib.model.store import import_weights, model_card, store_folder, stored_weights, weights_folder
from NPCSynthLib.model.weights import add_file, load_weights


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_tiny_weights(tmp_path_factory.mktemp("made"))


@pytest.fixture
def given(made, tmp_path) -> Path:
    """A folder of weights as a colleague sends them."""
    return Path(shutil.copytree(made, tmp_path / "given"))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The user's own folder."""
    folder = tmp_path / "user data" / "NPCSynth" / "weights"
    monkeypatch.setattr(store, "store_folder", lambda: folder)
    yield folder
    if folder.is_dir():
        assert not [path for path in folder.iterdir() if path.name.startswith(".")], "something unfinished was left"


def zipped(folder: Path, inside: str = "") -> Path:
    path = folder.parent / "weights.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"{inside}{file.name}")
    return path


@pytest.mark.parametrize("form", ["folder", "manifest", "zip", "zip with a folder"])
def test_weights_come_as_a_folder_a_manifest_or_a_zip_file(given, home, form):
    (given / "MODEL_CARD.md").write_text("# Mine", encoding="utf-8")
    source = {
        "folder": lambda: given, "manifest": lambda: given / "manifest.json", "zip": lambda: zipped(given),
        "zip with a folder": lambda: zipped(given, "my weights/"),
    }[form]()  # fmt: skip
    imported = import_weights(source)
    assert imported.folder.parent == home and (imported.name, imported.version) == ("tiny", "0.0")
    shutil.rmtree(given)
    assert stored_weights() == (imported,) and weights_folder(imported.key) == imported.folder
    assert load_weights(imported.folder).identity["name"] == "tiny"
    assert model_card(imported.folder) == "# Mine"


def test_the_folder_is_the_users_own_and_not_the_extensions(monkeypatch, tmp_path):
    monkeypatch.undo()
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert store_folder() == tmp_path / "NPCSynth" / "weights"
    monkeypatch.setattr("sys.platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert store_folder() == tmp_path / "local" / "NPCSynth" / "weights"


def test_nothing_is_chosen_means_the_shipped_ones():
    assert weights_folder("") is None and "NPCSynth" in model_card(None)


def test_further_files_of_the_weights_come_along(given):
    add_file(given, "usual.safetensors", {"mean": np.zeros(3, np.float32)})
    imported = import_weights(given)
    np.testing.assert_array_equal(load_weights(imported.folder).further("usual.safetensors")["mean"], np.zeros(3))
    (given / "usual.safetensors").write_bytes(b"another")
    with pytest.raises(WeightsError, match="usual.safetensors is damaged"):
        import_weights(given)


@pytest.mark.parametrize("name", ["../elsewhere.safetensors", "C:\\elsewhere.safetensors", "/etc/passwd"])
def test_files_that_lie_elsewhere_are_refused(given, name):
    manifest = json.loads((given / "manifest.json").read_text(encoding="utf-8"))
    manifest["files"][name] = {"sha256": "0" * 64}
    (given / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(WeightsError, match="incomplete"):
        import_weights(given)


@pytest.mark.parametrize("name", ["model.safetensors", "text.safetensors"])
def test_a_file_replaced_by_another_one_is_refused(given, home, name):
    (given / name).write_bytes(b"another network")
    with pytest.raises(WeightsError, match=rf"given/{name} is damaged or not the one .* Nothing was imported"):
        import_weights(given)
    assert not stored_weights()


@pytest.mark.parametrize("name", ["manifest.json", "model.safetensors", "text.safetensors"])
def test_what_is_missing_is_named(given, name):
    (given / name).unlink()
    with pytest.raises(WeightsError, match=f"holds no {name}"):
        import_weights(given)


def test_an_incomplete_manifest_is_refused(given):
    (given / "manifest.json").write_text('{"name": "tiny"}', encoding="utf-8")
    with pytest.raises(WeightsError, match="incomplete"):
        import_weights(given)


def test_a_damaged_packed_file_is_refused_whatever_its_unpacker_says(given):
    path = given.parent / "weights.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in given.iterdir():
            archive.write(file, file.name)
    whole, refused = path.read_bytes(), 0
    for place in range(60, len(whole), len(whole) // 40):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            import_weights(path)
        except WeightsError:  # any other error would end the test
            refused += 1
    assert refused > 30


def test_what_is_no_zip_file_is_refused(tmp_path):
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04 or not")
    with pytest.raises(WeightsError, match="model.pt is no zip file"):
        import_weights(path)


def test_a_zip_file_with_two_sets_is_refused(given, tmp_path):
    path = tmp_path / "two.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(2):
            archive.write(given / "manifest.json", f"{number}/manifest.json")
    with pytest.raises(WeightsError, match="holds 2 files named manifest.json"):
        import_weights(path)


def test_files_of_a_zip_that_point_elsewhere_are_not_unpacked(given, home):
    path = zipped(given)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../../outside.txt", "x")
    imported = import_weights(path)
    assert not (home.parent / "outside.txt").exists() and not (home.parents[1] / "outside.txt").exists()
    kept = sorted(file.name for file in imported.folder.iterdir())
    assert kept == ["manifest.json", "model.safetensors", "text.safetensors"]


def test_importing_again_mends_what_was_damaged(given):
    imported = import_weights(given)
    (imported.folder / "model.safetensors").write_bytes(b"")
    assert import_weights(given) == imported
    load_weights(imported.folder)


def test_a_store_that_cannot_be_written_is_said(given, home):
    home.parent.parent.mkdir(parents=True)
    home.parent.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(OutputError, match="could not be copied"):
        import_weights(given)


def test_a_choice_that_is_not_on_this_computer_is_said():
    with pytest.raises(WeightsError, match="not on this computer"):
        weights_folder("0123456789abcdef")
    with pytest.raises(WeightsError, match="not on this computer"):
        weights_folder("../../etc")


def test_imported_weights_whose_manifest_was_exchanged_are_refused(given):
    imported = import_weights(given)
    manifest = json.loads((imported.folder / "manifest.json").read_text(encoding="utf-8"))
    (imported.folder / "manifest.json").write_text(json.dumps({**manifest, "version": "9"}), encoding="utf-8")
    with pytest.raises(WeightsError, match="no longer those that were imported"):
        weights_folder(imported.key)
    assert not stored_weights()


def test_weights_without_a_card_say_what_their_manifest_knows(given):
    assert "name: tiny" in model_card(given)
