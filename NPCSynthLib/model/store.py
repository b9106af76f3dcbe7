"""Weights that the user brings along: verified, and kept in a folder of the user's own, outside of the installation."""

import lzma
import os
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from ..errors import OutputError, WeightsError
from .manifest import CARD, MANIFEST, file_sha256, read_manifest, verify

_KEY_LENGTH = 16
_UNFINISHED = ".importing-"


@dataclass(frozen=True)
class StoredWeights:
    """Imported weights: ``key``, the beginning of their manifest's SHA-256, which vouches for all of them."""

    key: str
    name: str
    version: str
    folder: Path


def store_folder() -> Path:
    """Where imported weights lie: in the user's local application data. Need not exist."""
    if sys.platform == "win32":
        home = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Application Support"
    else:
        home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return home / "NPCSynth" / "weights"


def stored_weights() -> tuple[StoredWeights, ...]:
    """All imported weights, by name and version. Their files are verified when they are loaded, not here."""
    found = []
    for folder in store_folder().glob("[0-9a-f]*"):
        try:
            found.append(_stored(folder))
        except WeightsError:
            continue  # not whole: it is told when somebody chooses it
    return tuple(sorted(found, key=lambda weights: (weights.name, weights.version, weights.key)))


def weights_folder(key: str) -> Path | None:
    """The folder of the weights with this key; None, which stands for the shipped ones, when it is empty.

    Raises WeightsError when they are not on this computer, or no longer those that were imported.
    """
    if not key:
        return None
    for folder in store_folder().glob("[0-9a-f]*"):
        if folder.name == key:
            return _stored(folder).folder
    raise WeightsError(f"The weights that were chosen ({key}) are not on this computer. Import them again, or choose "
                       "those that ship with NPCSynth.")


def import_weights(source: Path) -> StoredWeights:
    """Copy weights into the store, each file verified by the manifest that came with it.

    Args:
        source: a folder, its manifest.json, or a zip file that holds them (in one folder at most).

    Raises:
        WeightsError: a file is missing, damaged or replaced. OutputError: no room. Nothing is left behind then.
    """
    source = Path(source)
    try:
        if source.is_file() and source.name != MANIFEST:
            with zipfile.ZipFile(source) as archive:
                top = _top(archive, source)
                return _import(source.name, lambda name: archive.open(str(top / name)))
        folder = source.parent if source.name == MANIFEST else source
        return _import(folder.name, lambda name: (folder / name).open("rb"))
    # damaged, encrypted, packed otherwise
    except (zipfile.BadZipFile, zlib.error, EOFError, lzma.LZMAError, RuntimeError, NotImplementedError) as error:
        raise WeightsError(f"{source.name} is no zip file that can be read, so that nothing was imported.") from error


def model_card(folder: Path | None) -> str:
    """The model card in Markdown of weights (None: the shipped ones), or what the manifest says where there is none.

    Raises WeightsError when there are no weights.
    """
    folder, manifest = read_manifest(folder)
    if (folder / CARD).is_file():
        return (folder / CARD).read_text(encoding="utf-8")
    known = ("name", "version", "created", "license", "intended_use", "training_data")
    lines = [f"- {key.replace('_', ' ')}: {manifest[key]}" for key in known if key in manifest]
    return "\n".join(["# These weights came without a model card", "", *lines])


def _top(archive: zipfile.ZipFile, source: Path) -> PurePosixPath:
    """The folder inside the archive that holds the manifest."""
    manifests = [PurePosixPath(name) for name in archive.namelist() if PurePosixPath(name).name == MANIFEST]
    if len(manifests) != 1:
        raise WeightsError(f"{source.name} holds {len(manifests)} files named {MANIFEST}; weights have just one. "
                           "Nothing was imported.")
    return manifests[0].parent


def _import(source: str, read: Callable[[str], BinaryIO]) -> StoredWeights:
    store = store_folder()
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_UNFINISHED, dir=store, ignore_cleanup_errors=True) as unfinished:
            folder = Path(unfinished) / "weights"
            folder.mkdir()
            _fetch(source, read, MANIFEST, folder)
            try:
                for name in read_manifest(folder)[1]["files"]:
                    _fetch(source, read, name, folder)
                manifest = verify(folder)
            except WeightsError as error:
                raise WeightsError(f"{str(error).replace(str(folder), source)} Nothing was imported.") from error
            try:
                _fetch(source, read, CARD, folder)
            except WeightsError:
                pass  # one without a card
            key = _key(folder)
            if (store / key).exists():
                shutil.rmtree(store / key)
            folder.rename(store / key)
    except OSError as error:
        raise OutputError(f"{source} could not be copied to {store} ({error.strerror or error}). Free some disk space "
                          "there, or see to it that it can be written.") from error
    return StoredWeights(key, manifest["name"], manifest["version"], store / key)


def _fetch(source: str, read: Callable[[str], BinaryIO], name: str, folder: Path) -> None:
    try:
        stream = read(name)
    except (FileNotFoundError, KeyError) as error:
        raise WeightsError(f"{source} holds no {name}, which is a part of these weights. Get them again.") from error
    with stream, (folder / name).open("wb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)


def _key(folder: Path) -> str:
    return file_sha256(folder / MANIFEST)[:_KEY_LENGTH]


def _stored(folder: Path) -> StoredWeights:
    _, manifest = read_manifest(folder)
    if _key(folder) != folder.name:
        raise WeightsError(f"The weights in {folder} are no longer those that were imported. Import them again, or "
                           "choose those that ship with NPCSynth.")
    return StoredWeights(folder.name, str(manifest["name"]), str(manifest["version"]), folder)
