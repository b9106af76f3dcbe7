"""The manifest of a weights folder and the files that it vouches for; no torch here."""

import hashlib
import json
from pathlib import Path, PureWindowsPath

from ..errors import WeightsError
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


def read_manifest(folder: Path | str | None = None) -> tuple[Path, dict]:
    """The folder (the shipped one for None) and its manifest, of which what everybody needs is there.

    Raises WeightsError naming the file.
    """
    try:
        folder = resource_path("weights") if folder is None else Path(folder)
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        manifest["files"][MODEL], manifest["files"][TEXT]
        for name, entry in manifest["files"].items():
            entry["sha256"].lower()
            if PureWindowsPath(name).name != name:  # knows the separators of all systems
                raise ValueError("A file of the weights lies beside the manifest, nowhere else.")
        for key in ("name", "version", "model", "tokens", "prompts"):
            manifest[key]
    except FileNotFoundError as error:
        raise WeightsError(f"There are no weights in {folder}: {MANIFEST} is missing. {REMEDY}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / MANIFEST} cannot be read or is incomplete. {REMEDY}") from error
    return folder, manifest


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
