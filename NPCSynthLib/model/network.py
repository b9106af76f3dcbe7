"""AnyToAll: one network that makes any MR sequence from any non-empty set of others.

Shape letters: N images, B anatomies (slices), S sources, C channels, H x W pixels, L text tokens.
Every operation is local in space (channel normalization, not group statistics over the slice), so
that a tile with enough margin gives exactly the pixels of the whole slice.
"""

from dataclasses import asdict, dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: The image is halved once by the stem and once for each further level.
IN_SLICES = 3
LOG_SCALE_RANGE = (-6.0, 1.0)
#: Length that a prompt's pooled vector is brought to. CLIP's own vectors are several times as long, and FiLM layers
#: driven by them learn by leaps.
TEXT_LENGTH = 4.0


@dataclass(frozen=True)
class ModelConfig:
    """What is needed to build the network again.

    Attributes:
        channels: invariant channels at 1/2, 1/4, 1/8 and 1/16 of the resolution.
        specific: channels of the sequence-specific part at the same levels.
        encoder_blocks, decoder_blocks: residual blocks a level.
        text_width, text_layers, text_heads, context_length: the text tower.
        fusion_width: hidden channels of the source attention.
        classes: channels of the segmentation head, in order.
    """

    channels: tuple[int, ...] = (32, 64, 128, 192)
    specific: tuple[int, ...] = (8, 8, 16, 32)
    encoder_blocks: int = 2
    decoder_blocks: int = 2
    text_width: int = 256
    text_layers: int = 4
    text_heads: int = 4
    context_length: int = 48
    fusion_width: int = 16
    classes: tuple[str, ...] = field(default=("background", "body"))

    def to_dict(self) -> dict:
        """Plain JSON types."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict) -> "ModelConfig":
        """Inverse of :meth:`to_dict`."""
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})

    @property
    def stride(self) -> int:
        """Image sides must be multiples of this."""
        return 2 ** len(self.channels)


@dataclass(frozen=True)
class TextFeatures:
    """What the decoder knows of prompts: ``pooled`` (B, W), ``tokens`` (B, L, W), ``mask`` (B, L) True at tokens."""

    pooled: Tensor
    tokens: Tensor
    mask: Tensor

    def select(self, index) -> "TextFeatures":
        """Rows of the batch."""
        return TextFeatures(self.pooled[index], self.tokens[index], self.mask[index])

    def to(self, device) -> "TextFeatures":
        """The same on another device."""
        return TextFeatures(self.pooled.to(device), self.tokens.to(device), self.mask.to(device))


@dataclass(frozen=True)
class Encoding:
    """Features of N single images, finest level first.

    ``invariant[l]`` is (N, C_l, H/2^(l+1), W/2^(l+1)); ``specific[l]`` likewise with fewer channels.
    """

    invariant: tuple[Tensor, ...]
    specific: tuple[Tensor, ...]


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of each pixel, (N, C, H, W) in and out."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Pre-activation residual block; with ``text_width`` its second normalization is modulated by text (FiLM)."""

    def __init__(self, channels: int, text_width: int = 0):
        super().__init__()
        self.norm1 = ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)
        self.film = nn.Linear(text_width, 2 * channels) if text_width else None
        if self.film is not None:
            nn.init.zeros_(self.film.weight)
            nn.init.zeros_(self.film.bias)

    def forward(self, x: Tensor, text: Tensor | None = None) -> Tensor:
        h = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.film is not None:
            scale, shift = self.film(text)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return x + self.conv2(F.silu(h))


class Encoder(nn.Module):
    """One image (three adjacent slices) to invariant and specific features at every level."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        channels = config.channels
        self.stem = nn.Conv2d(4 * IN_SLICES, channels[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(c) for _ in range(config.encoder_blocks))) for c in channels
        )
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in zip(channels, channels[1:]))
        # no normalization here or in the decoder's head: it would take the intensity out of the features
        self.split = nn.ModuleList(nn.Conv2d(c, c + s, 1) for c, s in zip(channels, config.specific))

    def forward(self, images: Tensor) -> Encoding:
        x = self.stem(F.pixel_unshuffle(images, 2))
        invariant, specific = [], []
        for level, blocks in enumerate(self.levels):
            x = blocks(x)
            features = self.split[level](x)
            channels = x.shape[1]
            invariant.append(features[:, :channels])
            specific.append(features[:, channels:])
            if level < len(self.down):
                x = self.down[level](x)
        return Encoding(tuple(invariant), tuple(specific))


def masked_mean(features: Tensor, weight: Tensor) -> Tensor:
    """Mean over present sources: features (B, S, C, h, w), weight (B, S, 1, h|1, w|1) in {0, 1}; 0 where none is."""
    total = weight.sum(dim=1).clamp_min(1)
    return torch.where(weight > 0, features, 0).sum(dim=1) / total.to(features.dtype)


class Fusion(nn.Module):
    """Sources at one level to one map: attention from [feature, target text] beside a plain masked mean.

    Before they meet, each source's features are scaled and shifted channel by channel by what its own text and the
    target's say together: the encoder is blind to the sequence, but a bright voxel means one thing on its way from T1
    to T2 and another from FLAIR to T1. Order-free in the sources; one whose mask is 0 contributes exactly nothing.
    """

    def __init__(self, channels: int, config: ModelConfig):
        super().__init__()
        hidden = 4 * config.fusion_width
        self.adapt = nn.Sequential(nn.Linear(2 * config.text_width, hidden), nn.SiLU(), nn.Linear(hidden, 2 * channels))
        nn.init.zeros_(self.adapt[2].weight)
        nn.init.zeros_(self.adapt[2].bias)
        self.key = nn.Conv2d(channels, config.fusion_width, 1)
        self.query = nn.Linear(config.text_width, config.fusion_width)
        self.score = nn.Conv2d(config.fusion_width, 1, 1)
        self.out = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, features: Tensor, weight: Tensor, text: Tensor, source_text: Tensor) -> Tensor:
        b, s, c, h, w = features.shape
        pair = torch.cat([source_text, text[:, None].expand(-1, s, -1)], dim=2)
        scale, shift = self.adapt(pair)[..., None, None].chunk(2, dim=2)
        features = torch.where(weight > 0, features * (1 + scale) + shift, 0)
        hidden = self.key(features.flatten(0, 1)).view(b, s, -1, h, w) + self.query(text)[:, None, :, None, None]
        score = self.score(F.silu(hidden).flatten(0, 1)).view(b, s, 1, h, w).float()
        score = score.masked_fill(weight == 0, -1e4)
        attention = (score.softmax(dim=1) * (weight > 0)).to(features.dtype)
        attended = (attention * features).sum(dim=1)
        return self.out(torch.cat([attended, masked_mean(features, weight)], dim=1))


class TextCrossAttention(nn.Module):
    """Each pixel of the coarsest map looks at the words of the prompt."""

    def __init__(self, channels: int, text_width: int, heads: int = 4):
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.attention = nn.MultiheadAttention(
            channels, heads, kdim=text_width, vdim=text_width, batch_first=True
        )

    def forward(self, x: Tensor, text: TextFeatures) -> Tensor:
        b, c, h, w = x.shape
        query = self.norm(x).flatten(2).transpose(1, 2)
        answer, _ = self.attention(query, text.tokens, text.tokens, key_padding_mask=~text.mask, need_weights=False)
        return x + answer.transpose(1, 2).reshape(b, c, h, w)


class Decoder(nn.Module):
    """Fused features and text to the target's mean and log scale at full resolution."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        channels = config.channels
        self.fusion = nn.ModuleList(Fusion(c, config) for c in channels)
        self.levels = nn.ModuleList(
            nn.ModuleList(Block(c, config.text_width) for _ in range(config.decoder_blocks)) for c in channels
        )
        self.words = TextCrossAttention(channels[-1], config.text_width)
        self.up = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in zip(channels, channels[1:]))
        self.head = nn.Conv2d(channels[0], 8, 3, padding=1)

    def forward(self, invariant, weights, text: TextFeatures, source_text: Tensor) -> tuple[Tensor, Tensor]:
        pooled = TEXT_LENGTH * F.normalize(text.pooled.float(), dim=1)
        source_text = TEXT_LENGTH * F.normalize(source_text.float(), dim=2)
        x = None
        for level in reversed(range(len(self.levels))):
            skip = self.fusion[level](invariant[level], weights[level], pooled, source_text)
            if x is None:
                x = self.words(skip, text)
            else:
                x = skip + F.interpolate(self.up[level](x), scale_factor=2, mode="nearest")
            for block in self.levels[level]:
                x = block(x, pooled)
        mean, log_scale = F.pixel_shuffle(self.head(x).float(), 2).chunk(2, dim=1)
        return mean, log_scale.clamp(*LOG_SCALE_RANGE)


class SegmentationHead(nn.Module):
    """Class logits from the mean of the present sources' invariant features; text plays no part."""

    def __init__(self, config: ModelConfig, width: int = 32):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in config.channels)
        self.smooth = nn.ModuleList(Block(width) for _ in config.channels)
        self.out = nn.Sequential(
            ChannelNorm(width), nn.SiLU(), nn.Conv2d(width, 4 * len(config.classes), 3, padding=1)
        )

    def forward(self, invariant, weights) -> Tensor:
        x = None
        for level in reversed(range(len(self.lateral))):
            lateral = self.lateral[level](masked_mean(invariant[level], weights[level]))
            x = lateral if x is None else lateral + F.interpolate(x, scale_factor=2, mode="nearest")
            x = self.smooth[level](x)
        return F.pixel_shuffle(self.out(x).float(), 2)


class RecognitionHead(nn.Module):
    """CLIP's image side: the specific features of an image, pooled over the body, to a unit vector."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = sum(config.specific)
        self.project = nn.Sequential(
            nn.Linear(2 * width, config.text_width), nn.SiLU(), nn.Linear(config.text_width, config.text_width)
        )

    def forward(self, specific, body: Tensor) -> Tensor:
        pooled = []
        for features in specific:
            weight = F.adaptive_avg_pool2d(body, features.shape[-2:]) + 1e-4
            total = weight.sum(dim=(2, 3))
            mean = (features.float() * weight).sum(dim=(2, 3)) / total
            variance = ((features.float() - mean[:, :, None, None]) ** 2 * weight).sum(dim=(2, 3)) / total
            pooled += [mean, (variance + 1e-5).sqrt()]
        return F.normalize(self.project(torch.cat(pooled, dim=1)).float(), dim=1)


class AnyToAll(nn.Module):
    """The whole image side of the model. Text comes in as :class:`TextFeatures` (see ``model.text``).

    Typical use, for B slices and S sources::

        encoding = model.encode(images)                       # images (B*S, 3, H, W), intensities 0..1
        invariant = model.group(encoding.invariant, B)        # reused for every target
        mean, log_scale = model.decode(invariant, present, text)
        logits = model.segment(invariant, present)
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.segmentation = SegmentationHead(config)
        self.recognition = RecognitionHead(config)
        self.text_projection = nn.Linear(config.text_width, config.text_width)
        self.logit_scale = nn.Parameter(torch.tensor(2.6))

    def encode(self, images: Tensor) -> Encoding:
        """(N, 3, H, W) float images scaled by body percentiles; H and W multiples of ``config.stride``."""
        return self.encoder(images)

    @staticmethod
    def group(invariant, slices: int) -> tuple[Tensor, ...]:
        """(B*S, C, h, w) maps to (B, S, C, h, w)."""
        return tuple(x.unflatten(0, (slices, -1)) for x in invariant)

    def _weights(self, invariant, present: Tensor) -> list[Tensor]:
        """Presence at the size of every level: ``present`` is (B, S), or (B, S, H, W) where a source covers a part."""
        if present.ndim == 2:
            return [present[:, :, None, None, None].float()] * len(invariant)
        present = present.float()
        return [(F.adaptive_avg_pool2d(present, x.shape[-2:]) > 0.5).float()[:, :, None] for x in invariant]

    def decode(
        self, invariant, present: Tensor, text: TextFeatures, source_text: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The target that ``text`` describes.

        Args:
            invariant: per level (B, S, C, h, w); values of absent sources are ignored, NaN included.
            present: (B, S) or (B, S, H, W), True where a source exists.
            source_text: (B, S, W) pooled text of what each source is; zeros, or None, where nobody knows.

        Returns:
            mean and log scale of a Laplace distribution, each (B, 1, H, W) float32.
        """
        if source_text is None:
            source_text = text.pooled.new_zeros(*present.shape[:2], text.pooled.shape[1])
        return self.decoder(invariant, self._weights(invariant, present), text, source_text)

    def segment(self, invariant, present: Tensor) -> Tensor:
        """Class logits (B, K, H, W) float32 in the order of ``config.classes``."""
        return self.segmentation(invariant, self._weights(invariant, present))

    def image_embedding(self, specific, body: Tensor) -> Tensor:
        """(N, W) unit vectors of what each image looks like; ``body`` is (N, 1, H, W), 1 inside the patient."""
        return self.recognition(specific, body)

    def text_embedding(self, pooled: Tensor) -> Tensor:
        """(N, W) unit vectors of prompts, comparable with :meth:`image_embedding`."""
        return F.normalize(self.text_projection(pooled).float(), dim=1)
