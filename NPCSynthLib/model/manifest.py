"""The manifest of a weights folder and the files that it vouches for; no torch here."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PureWindowsPath
from types import MappingProxyType

from ..errors import OutputError, WeightsError
from ..resources import resource_path

MANIFEST, CARD = "manifest.json", "MODEL_CARD.md"
#: The image side with the features of the canonical prompts; the text tower, which only a prompt in free text needs.
MODEL, TEXT = "model.safetensors", "text.safetensors"
REMEDY = "Install NPCSynth again, or choose other weights."


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def manifest_of_any(folder: Path | str) -> tuple[Path, dict]:
    """The folder and the manifest of weights of any kind of network, comparison networks too.

    The folder of a training run stands for the weights in it. Raises WeightsError naming the file.
    """
    folder = Path(folder)
    try:
        if not (folder / MANIFEST).exists() and (folder / "weights" / MANIFEST).exists():
            folder = folder / "weights"
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        for name, entry in manifest["files"].items():
            entry["sha256"].lower()
            if PureWindowsPath(name).name != name:  # knows the separators of all systems
                raise ValueError("A file of the weights lies beside the manifest, nowhere else.")
    except FileNotFoundError as error:
        raise WeightsError(f"There are no weights in {folder}: {MANIFEST} is missing. {REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / MANIFEST} cannot be read or is incomplete. {REMEDY}") from error
    return folder, manifest


def read_manifest(folder: Path | str | None = None) -> tuple[Path, dict]:
    """The folder (the shipped one for None) and its manifest, of which what everybody needs is there.

    The folder of a training run stands for the weights in it. Raises WeightsError naming the file.
    """
    folder, manifest = manifest_of_any(resource_path("weights") if folder is None else folder)
    if "network" in manifest:
        raise WeightsError(
            f"The weights in {folder} are of a comparison network ({manifest['network']}), which npcsynth evaluate "
            "takes with --baseline and nothing else can use. Choose weights of NPCSynth."
        )
    try:
        manifest["files"][MODEL], manifest["files"][TEXT]
        for key in ("name", "version", "model", "tokens", "prompts"):
            manifest[key]
    except (KeyError, TypeError) as error:
        raise WeightsError(f"{folder / MANIFEST} cannot be read or is incomplete. {REMEDY}") from error
    return folder, manifest


def trained_sequences(folder: Path | str | None = None) -> tuple[str, ...]:
    """Ids of the sequences that weights were trained to make: what "all that are missing" is taken from.

    Raises WeightsError as :func:`read_manifest` does.
    """
    _, manifest = read_manifest(folder)
    return tuple(manifest["prompts"])


def network_sha256(folder: Path | str | None = None) -> str:
    """SHA-256 of the network's file, by which results say what made them. From the manifest: the file is not read.

    Raises WeightsError as :func:`read_manifest` does.
    """
    _, manifest = read_manifest(folder)
    return manifest["files"][MODEL]["sha256"]


def verify_file(folder: Path, name: str, manifest: dict) -> Path:
    """The path of a file that is exactly what the manifest says. Raises WeightsError naming it."""
    path = folder / name
    if not path.is_file():
        raise WeightsError(f"The weights file {path} is missing. {REMEDY}")
    if file_sha256(path) != manifest["files"][name]["sha256"]:
        raise WeightsError(f"The weights file {path} is damaged or not the one that its manifest describes. {REMEDY}")
    return path


def verify(folder: Path | str | None = None) -> dict:
    """The manifest of a folder all of whose files are what it says. Raises WeightsError naming what is not."""
    folder, manifest = read_manifest(folder)
    for name in manifest["files"]:
        verify_file(folder, name, manifest)
    return manifest


def write_manifest(folder: Path, manifest: dict, files: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Write a manifest, and files that it vouches for; nothing is replaced before all of it is written.

    Raises OutputError; the folder is as it was then.
    """
    contents = {**files, MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode("utf-8")}
    partial = {name: folder / f"{name}.part" for name in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            partial[name].write_bytes(content)
        for name, path in partial.items():
            path.replace(folder / name)
    except OSError as error:
        for path in partial.values():
            path.unlink(missing_ok=True)
        raise OutputError(f"Nothing could be written to the weights in {folder} ({error.strerror or error}); they are "
                          "as they were. Make room on the disk, or see to it that it can be written.") from error
