"""The networks that ours is compared with, trained by the same trainer on the same batches.

All are MONAI's. Each is told sequences by number, not by text, and makes intensities alone: no uncertainty, no
segmentation. ``forward`` gives the losses of a batch, as ``TrainingModule`` does; evaluation calls ``synthesize``.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from monai.networks.nets import BasicUNet, PatchDiscriminator, SwinUNETR
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..errors import UsageError, WeightsError
from ..model.manifest import manifest_of_any, verify_file, write_manifest
from ..model.network import IN_SLICES
from ..vocabulary import load_sequences
from .dataset import Batch
from .objectives import WEIGHTS, image_losses

_FEATURES = (32, 32, 64, 128, 192, 32)
_FILE = "model.safetensors"
#: Pairs that the per-pair networks are made for: the sequences that the validation patients have.
_PAIRED = ("T1", "T1C", "T2", "FLAIR")


def _numbers(ids: list[str], mask: Tensor) -> Tensor:
    """Sequence ids of the true entries of a (B, N) mask as (B, N) int64; -1 elsewhere."""
    order = list(load_sequences())
    numbers = torch.full(mask.shape, -1, dtype=torch.long, device=mask.device)
    numbers[mask] = torch.tensor([order.index(i) for i in ids], device=mask.device)
    return numbers


class Baseline(nn.Module):
    """What the baselines share; a subclass makes ``synthesize``.

    Shapes: images (B, S, 3, H, W) with 0..1 the body percentiles, present (B, S) bool, sources (B, S) int64 numbers of
    the sequences in the vocabulary's order, target (B,) int64. The answer is (B, H, W).
    """

    stride = 32

    def __init__(self, losses: dict | None = None):
        super().__init__()
        self.weights = WEIGHTS | (losses or {})

    def synthesize(self, images: Tensor, present: Tensor, sources: Tensor, target: Tensor) -> Tensor:
        """The target of each sample."""
        raise NotImplementedError

    def preview(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Synthetic and real image of each wanted target, (M, H, W) each."""
        rows = batch.wanted.nonzero()[:, 0]
        target = _numbers(batch.target_ids, batch.wanted)[batch.wanted]
        sources = _numbers(batch.source_ids, batch.present)
        made = self.synthesize(batch.sources[rows], batch.present[rows], sources[rows], target)
        return made, batch.targets[batch.wanted]

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Every loss by name, unweighted, and "total"."""
        made, truth = self.preview(batch)
        losses = image_losses(made, truth, batch)
        losses["total"] = sum(self.weights[name] * value for name, value in losses.items())
        return losses


class ChannelUNet(Baseline):
    """One U-Net, a channel for every sequence, those that are missing filled with zeros (Sharma and Hamarneh,
    MM-GAN, IEEE TMI 2020;39:1170)."""

    def __init__(self, losses: dict | None = None):
        super().__init__(losses)
        self.count = len(load_sequences())
        self.net = BasicUNet(2, IN_SLICES * self.count, self.count, _FEATURES)

    def synthesize(self, images, present, sources, target):
        channels = images.new_zeros(len(images), self.count, *images.shape[2:])
        for s in range(images.shape[1]):
            rows = present[:, s].nonzero()[:, 0]
            channels[rows, sources[rows, s]] = images[rows, s]
        made = self.net(channels.flatten(1, 2))
        return made[torch.arange(len(made), device=made.device), target].float()


class _Reversal(torch.autograd.Function):
    """Identity whose gradient is turned round, so that one optimizer trains both sides of an adversary."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class AdversarialChannelUNet(ChannelUNet):
    """The same with a least-squares patch adversary (Mao et al., ICCV 2017)."""

    def __init__(self, losses: dict | None = None):
        super().__init__({"adversary": 0.02, **(losses or {})})
        self.adversary = PatchDiscriminator(2, 32, 1, num_layers_d=2)

    def forward(self, batch, generator):
        made, truth = self.preview(batch)
        losses = image_losses(made, truth, batch)
        real = self.adversary(truth[:, None])[-1]
        false = self.adversary(_Reversal.apply(made[:, None]))[-1]
        losses["adversary"] = F.mse_loss(real, torch.ones_like(real)) + F.mse_loss(false, torch.zeros_like(false))
        losses["total"] = sum(self.weights[name] * value for name, value in losses.items())
        return losses


class PairUNets(Baseline):
    """A U-Net of its own for every ordered pair of sequences; of several sources the answers are averaged."""

    def __init__(self, losses: dict | None = None):
        super().__init__(losses)
        order = list(load_sequences())
        pairs = [(order.index(a), order.index(b)) for a in _PAIRED for b in _PAIRED if a != b]
        self.nets = nn.ModuleDict({f"{a}-{b}": BasicUNet(2, IN_SLICES, 1, _FEATURES) for a, b in pairs})

    def synthesize(self, images, present, sources, target):
        # mixed precision hands over bfloat16 images; the zero that hangs on a parameter lets a batch of which no pair
        # fits (a sequence that the validation patients lack) teach nothing instead of breaking the run
        total = images.new_zeros(len(images), *images.shape[3:], dtype=torch.float32)
        total = total + 0 * next(self.parameters()).sum()
        count = images.new_zeros(len(images), 1, 1, dtype=torch.float32)
        for s in range(images.shape[1]):
            for name, net in self.nets.items():
                a, b = map(int, name.split("-"))
                rows = (present[:, s] & (sources[:, s] == a) & (target == b)).nonzero()[:, 0]
                if len(rows):
                    total = total.index_add(0, rows, net(images[rows, s])[:, 0].float())
                    count = count.index_add(0, rows, count.new_ones(len(rows), 1, 1))
        return total / count.clamp_min(1)


def check_swin_unetr() -> None:
    """Raises UsageError when the package is missing that MONAI's SwinUNETR is written with."""
    if find_spec("einops") is None:
        raise UsageError('The comparison with SwinUNETR needs einops. Install NPCSynth with its "train" extra, or '
                         "leave it out (npcsynth evaluate: name the other sections with --only).")


class LabelSwinUNETR(Baseline):
    """MONAI's SwinUNETR (Hatamizadeh et al., arXiv:2201.01266), its bottleneck scaled and shifted by an embedding
    of the target's label: the seed method's backbone. It takes one source; of several the answers are averaged."""

    def __init__(self, losses: dict | None = None, feature_size: int = 48):
        super().__init__(losses)
        check_swin_unetr()
        self.net = SwinUNETR(in_channels=IN_SLICES, out_channels=1, feature_size=feature_size, spatial_dims=2)
        self.label = nn.Embedding(len(load_sequences()), 32 * feature_size)
        nn.init.normal_(self.label.weight, std=0.1)
        self._scale_and_shift = None
        self.net.encoder10.register_forward_hook(self._condition)

    def _condition(self, module, inputs, output):
        scale, shift = self._scale_and_shift.chunk(2, dim=1)
        return output * (1 + scale) + shift

    def synthesize(self, images, present, sources, target):
        rows, which = present.nonzero(as_tuple=True)
        self._scale_and_shift = self.label(target[rows])[:, :, None, None]
        made = self.net(images[rows, which])[:, 0].float()
        total = made.new_zeros(len(images), *made.shape[1:]).index_add(0, rows, made)
        return total / present.sum(dim=1).clamp_min(1)[:, None, None]


NETWORKS = {
    "channel-unet": ChannelUNet,
    "channel-unet-gan": AdversarialChannelUNet,
    "pair-unets": PairUNets,
    "swin-unetr": LabelSwinUNETR,
}


def save_baseline(folder: Path, network: str, module: Baseline, about: dict) -> None:
    """Write a trained baseline: ``model.safetensors`` (float16) and a manifest with its "network".

    Raises OutputError, and the folder is as it was then.
    """
    tensors = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in module.state_dict().items()}
    content = save(tensors)
    files = {_FILE: {"sha256": hashlib.sha256(content).hexdigest()}}
    write_manifest(folder, {**about, "network": network, "files": files}, {_FILE: content})


def load_baseline(folder: Path) -> Baseline:
    """Read and verify what :func:`save_baseline` wrote. Raises WeightsError when that is not what it is."""
    folder, manifest = manifest_of_any(folder)
    try:
        module = NETWORKS[manifest["network"]]()
        tensors = load_file(verify_file(folder, _FILE, manifest))
        module.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in tensors.items()})
    except (OSError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f'"{folder.name}" holds no trained baseline ({error}). Train it again.') from error
    return module.eval().requires_grad_(False)
