"""Weights on disk: ``manifest.json`` beside ``*.safetensors``; verified before use, no pickle anywhere.

A matrix or kernel lies there as 8 bits a value and a scale for each row (output channel), half the size of float16;
what is small as float16. Packed so, the mean SSIM of an earlier edition over 41 cells stayed 0.615.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..errors import WeightsError
from .manifest import MANIFEST, MODEL, REMEDY, TEXT, read_manifest, verify_file, write_manifest
from .network import AnyToAll, ModelConfig, TextFeatures
from .text import TextTower

#: Ends the name of the scales of the tensor before it.
_SCALE = ".row_scale"
_FEW = 2048  # values: not worth it


@dataclass
class LoadedModel:
    """Verified weights, ready to run.

    Attributes:
        model: the image side, in eval mode, float32.
        manifest: the whole manifest.
        folder: where it came from.
    """

    model: AnyToAll
    manifest: dict
    folder: Path
    _prompts: dict[str, TextFeatures] = field(default_factory=dict)
    _tower: TextTower | None = None

    @property
    def identity(self) -> dict:
        """{"name", "version", "sha256", "text_sha256"} for provenance; the latter of what reads words of one's own."""
        return {
            "name": self.manifest["name"],
            "version": self.manifest["version"],
            "sha256": self.manifest["files"][MODEL]["sha256"],
            "text_sha256": self.manifest["files"][TEXT]["sha256"],
        }

    def text_features(self, prompt: str) -> tuple[TextFeatures, list[str]]:
        """Features (batch of one) of a prompt, and the words in it that the model has never met.

        A canonical prompt that the weights know needs no open_clip; any other one does.
        """
        if prompt not in self._prompts:
            features, unknown = self.text_tower().encode([prompt])
            if not features.mask.sum() > 2:
                raise WeightsError(f'The model knows none of the words of the prompt "{prompt}". Use other words.')
            return features, unknown
        return self._prompts[prompt], []

    def canonical(self) -> dict[str, TextFeatures]:
        """What the weights mean by each sequence (its id): features, batch of one, of its canonical prompt."""
        return {sequence: self.text_features(prompt)[0] for sequence, prompt in self.manifest["prompts"].items()}

    def text_tower(self) -> TextTower:
        """The tower that reads any prompt, verified and read when first asked for."""
        if self._tower is None:
            tensors = _read(self.folder, TEXT, self.manifest)
            self._tower = TextTower(self.model.config, self.manifest["tokens"])
            _fill(self._tower, tensors, TEXT)
            self._tower.eval().requires_grad_(False)
        return self._tower

    def further(self, name: str) -> dict | None:
        """Tensors of a further file of the weights, verified; None when the manifest names no such file."""
        return _read(self.folder, name, self.manifest) if name in self.manifest["files"] else None


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters as they lie on disk."""
    packed = {}
    for name, value in tensors.items():
        if value.ndim < 2 or value.numel() < _FEW:
            packed[name] = value.half().contiguous()
            continue
        rows = value.float().flatten(1)
        scale = rows.abs().amax(dim=1).clamp_min(torch.finfo(torch.float32).tiny) / 127
        packed[name] = (rows / scale[:, None]).round().to(torch.int8).reshape(value.shape)
        packed[name + _SCALE] = scale
    return packed


def _unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float32 parameters of what :func:`_packed` made, or of plain ones."""
    values = {name: value.float() for name, value in tensors.items() if not name.endswith(_SCALE)}
    for name in tensors:
        if name.endswith(_SCALE):
            value = values[name.removesuffix(_SCALE)]
            value *= tensors[name].reshape(-1, *[1] * (value.ndim - 1))
    return values


def _fill(module: torch.nn.Module, tensors: dict, name: str) -> None:
    try:
        module.load_state_dict(_unpacked(tensors))
    except (RuntimeError, KeyError) as error:
        raise WeightsError(f"{name} does not fit the model that its manifest describes. {REMEDY}") from error


def _read(folder: Path, name: str, manifest: dict) -> dict:
    path = verify_file(folder, name, manifest)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise WeightsError(f"The weights file {path} cannot be read. {REMEDY}") from error


def load_weights(folder: Path | str | None = None) -> LoadedModel:
    """Read and verify weights; the shipped ones when ``folder`` is None.

    Raises WeightsError naming the file when anything is missing, damaged or does not fit.
    """
    folder, manifest = read_manifest(folder)
    try:
        config = ModelConfig.from_dict(manifest["model"])
    except (TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / MANIFEST} cannot be read or is incomplete. {REMEDY}") from error
    tensors = _read(folder, MODEL, manifest)
    prompts = {}
    for name in [n for n in tensors if n.startswith("prompt.") and n.endswith(".pooled")]:
        sequence = name.split(".")[1]
        pooled, tokens = tensors.pop(name), tensors.pop(f"prompt.{sequence}.tokens")
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        if sequence not in manifest["prompts"]:
            raise WeightsError(f"{folder / MANIFEST} lacks the words for {sequence}. {REMEDY}")
        prompts[manifest["prompts"][sequence]] = TextFeatures(pooled.float(), tokens.float(), mask)
    model = AnyToAll(config)
    _fill(model, tensors, MODEL)
    return LoadedModel(model.eval().requires_grad_(False), manifest, folder, prompts)


def save_weights(
    folder: Path, model: AnyToAll, tower: TextTower, about: dict
) -> dict:
    """Write the weights and their manifest; returns the manifest.

    Args:
        about: further entries of the manifest; needs "name", "version" and "prompts" {sequence id: prompt}.

    Raises OutputError, and the folder is as it was then.
    """
    tensors = _packed(model.state_dict())
    with torch.inference_mode():
        for sequence, prompt in about["prompts"].items():
            features, _ = tower.encode([prompt])
            tensors[f"prompt.{sequence}.pooled"] = features.pooled.half().contiguous()
            tensors[f"prompt.{sequence}.tokens"] = features.tokens.half().contiguous()
    contents = {MODEL: save(tensors), TEXT: save(_packed(tower.state_dict()))}
    files = {name: {"sha256": hashlib.sha256(content).hexdigest()} for name, content in contents.items()}
    manifest = {**about, "files": files, "model": model.config.to_dict(), "tokens": tower.tokens}
    write_manifest(folder, manifest, contents)
    return manifest


def save_with_head(folder: Path, base: LoadedModel, model: AnyToAll, about: dict) -> dict:
    """Write finished weights with the segmentation head of ``model``; returns the manifest.

    All else is that of ``base`` to the bit: what it reads in prompts, its calibration and its further files.

    Args:
        folder: may be that of ``base``.
        about: entries of the manifest that change.

    Raises OutputError, and the folder is as it was then; WeightsError: ``base`` has been damaged meanwhile.
    """
    tensors = _read(base.folder, MODEL, base.manifest)
    tensors |= _packed({f"segmentation.{name}": value for name, value in model.segmentation.state_dict().items()})
    return _save_again(folder, base, MODEL, tensors, about)


def save_with_words(folder: Path, base: LoadedModel, tower: TextTower, about: dict) -> dict:
    """Write finished weights with another text tower; returns the manifest.

    All else is that of ``base`` to the bit, what it means by the canonical prompts too. Arguments and errors are those
    of :func:`save_with_head`.
    """
    return _save_again(folder, base, TEXT, _packed(tower.state_dict()), {**about, "tokens": tower.tokens})


def _save_again(folder: Path, base: LoadedModel, changed: str, tensors: dict, about: dict) -> dict:
    """Finished weights with these tensors in one of their files."""
    contents = {name: verify_file(base.folder, name, base.manifest).read_bytes() for name in base.manifest["files"]}
    contents[changed] = save(tensors)
    files = {**base.manifest["files"], changed: {"sha256": hashlib.sha256(contents[changed]).hexdigest()}}
    manifest = {**base.manifest, **about, "files": files}
    write_manifest(folder, manifest, contents)
    return manifest


def add_file(folder: Path, name: str, arrays: dict, about: Mapping = MappingProxyType({})) -> None:
    """Write NumPy arrays as a further file of weights that lie in ``folder``, and its hash into their manifest.

    Args:
        about: further entries of the manifest.

    Raises OutputError; the weights are as they were then. WeightsError: there are none.
    """
    from safetensors.numpy import save as to_bytes

    folder, manifest = read_manifest(folder)
    content = to_bytes(arrays)
    manifest.update(about)
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest()}
    write_manifest(folder, manifest, {name: content})
