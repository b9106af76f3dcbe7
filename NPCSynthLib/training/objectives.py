"""What the model is trained for. Each loss is one function; ``TrainingModule`` puts them together."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.network import AnyToAll, ModelConfig, TextFeatures
from ..model.text import TextTower
from ..vocabulary import canonical_prompt, load_classes, load_sequences
from .dataset import Batch
from .sample import IGNORE, POSSIBLE_CLASSES
from .wordings import Meanings, looking

#: Same place in another sequence: closer than this no other place counts as a negative.
NEGATIVE_MM = 8.0
_PLACES = 20  # anchors a sample and level
_TEMPERATURE = 0.1
#: So often the decoder is not told what a source is and must see it for itself.
_SOURCE_TEXT_DROPOUT = 0.15
#: Each finer level is contrasted by this much less. A few pixels cannot tell which tissue they see, so at full
#: weight the finest features would have to give up contrast altogether and keep edges alone.
_LEVEL_SHARE = 0.4

#: What a run may leave to learn.
LEARNS = ("everything", "segmentation", "words")

WEIGHTS = {
    "l1": 1.0, "mse": 2.0, "ssim": 0.4, "gradient": 0.3, "scale": 0.05, "contrast": 0.02, "variance": 0.02,
    "recognition": 0.05, "segmentation": 0.15, "wordings": 0.5,
}  # fmt: skip


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    """Mean of (M, ...) under a weight of the same shape."""
    return (values * weight).sum() / weight.sum().clamp_min(1e-6)


def laplace_scale_loss(error: Tensor, log_scale: Tensor) -> Tensor:
    """Negative log-likelihood of a Laplace distribution, up to a constant: |e| / b + log b.

    The error is taken as it is, so that the scale learns from the mean without holding it back.
    """
    return error.detach() * torch.exp(-log_scale) + log_scale


def ssim_map(a: Tensor, b: Tensor, window: int = 7) -> Tensor:
    """Structural similarity of (M, H, W) images, data range 1, uniform window (Wang et al., IEEE TIP 2004;13:600)."""
    c1, c2 = 0.01**2, 0.03**2

    def blur(x: Tensor) -> Tensor:
        return F.avg_pool2d(x[:, None], window, 1, window // 2, count_include_pad=False)[:, 0]

    ma, mb = blur(a), blur(b)
    va, vb, cov = blur(a * a) - ma * ma, blur(b * b) - mb * mb, blur(a * b) - ma * mb
    return ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma * ma + mb * mb + c1) * (va.clamp_min(0) + vb.clamp_min(0) + c2))


def gradient_loss(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """L1 between the finite differences of (M, H, W) images."""
    rows = (a.diff(dim=1) - b.diff(dim=1)).abs()
    columns = (a.diff(dim=2) - b.diff(dim=2)).abs()
    return weighted_mean(rows, weight[:, 1:]) + weighted_mean(columns, weight[:, :, 1:])


def segmentation_loss(logits: Tensor, structures: Tensor) -> Tensor:
    """Cross-entropy plus soft Dice over the classes that occur; rows without labels are left out.

    Where only a kind of tissue is known, any of its POSSIBLE_CLASSES is right and the others are wrong; IGNORE carries
    no loss.
    """
    rows = (structures != IGNORE).flatten(1).any(dim=1)
    if not rows.any():
        return logits.sum() * 0
    logits, structures = logits[rows], structures[rows]
    classes = load_classes()
    known = structures < len(classes)
    weight = torch.ones(logits.shape[1], device=logits.device)
    weight[[classes.index(name) for name in ("GTVp", "GTVn", "Eye")]] = 3.0  # they are small
    log_probability = logits.log_softmax(dim=1)
    truth = torch.where(known, structures, -100)
    entropy = F.nll_loss(log_probability, truth, weight=weight, ignore_index=-100) if known.any() else logits.sum() * 0
    told = known[:, None].expand_as(logits)
    for kind, names in POSSIBLE_CLASSES.items():
        here = structures == kind
        if here.any():
            possible = torch.tensor([name in names for name in classes], device=logits.device)
            entropy = entropy - log_probability[:, possible].logsumexp(dim=1)[here].mean()
            told = told | (here[:, None] & ~possible[None, :, None, None])
    probability = log_probability.exp() * told
    truth = F.one_hot(torch.where(known, structures, 0), logits.shape[1]).movedim(-1, 1) * known[:, None]
    overlap = (probability * truth).sum(dim=(0, 2, 3))
    size = probability.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    occurs = truth.sum(dim=(0, 2, 3)) > 0
    dice = 1 - (2 * overlap + 1) / (size + 1)
    return entropy + (dice[occurs].mean() if occurs.any() else 0)


def recognition_loss(images: Tensor, texts: Tensor, same: Tensor, scale: Tensor) -> Tensor:
    """CLIP's symmetric contrast where every text of the same sequence is right.

    Args:
        images: (N, W) unit vectors; texts: (U, W) unit vectors; same: (N, U) bool.
    """
    with torch.autocast(images.device.type, enabled=False):  # bfloat16 is too coarse for close logits
        logits = images @ texts.T * scale.exp().clamp(max=100)
    to_text = -(logits.log_softmax(dim=1) * same).sum(dim=1) / same.sum(dim=1).clamp_min(1)
    rows = same.any(dim=0)
    to_image = -(logits.log_softmax(dim=0) * same).sum(dim=0)[rows] / same.sum(dim=0)[rows]
    return to_text.mean() + to_image.mean()


def place_contrast(a: Tensor, b: Tensor, body: Tensor, pixel_mm: Tensor, place: Tensor, generator) -> tuple:
    """Dense InfoNCE between two sequences of the same places.

    An anchor's positive is the most similar of the 3 x 3 pixels around its place in the other sequence, so
    that a misregistration of a pixel costs nothing; negatives are places of other patients, and of the same
    patient when farther than ``NEGATIVE_MM``.

    Args:
        a, b: (R, D, h, w) projected features of two sequences.
        body: (R, h, w) in 0..1; pixel_mm: (R,) pixel size at this level; place: (R,) patient number.

    Returns:
        the contrast and a hinge on the features' spread (against collapse).
    """
    rows, _, height, width = a.shape
    a, b = F.normalize(a.float(), dim=1), F.normalize(b.float(), dim=1)
    chance = (body.flatten(1) > 0.5).float() + 1e-6
    index = torch.multinomial(chance, _PLACES, replacement=True, generator=generator)
    r, c = index // width, index % width
    batch = torch.arange(rows, device=a.device)[:, None].expand_as(index)
    anchor = a[batch, :, r, c].flatten(0, 1)
    padded = F.pad(b, (1, 1, 1, 1), mode="replicate")
    around = torch.stack([padded[batch, :, r + dr, c + dc] for dr in range(3) for dc in range(3)], dim=2)
    positive = (anchor[:, None] * around.flatten(0, 1)).sum(dim=2).amax(dim=1) / _TEMPERATURE
    other = b[batch, :, r, c].flatten(0, 1)
    with torch.autocast(anchor.device.type, enabled=False):
        logits = anchor @ other.T / _TEMPERATURE
    position = torch.stack([r, c], dim=2).float() * pixel_mm[:, None, None]
    position = position.flatten(0, 1)
    far = torch.cdist(position, position) > NEGATIVE_MM
    same_row = batch.flatten()[:, None] == batch.flatten()[None]
    same_patient = place[batch].flatten()[:, None] == place[batch].flatten()[None]
    negative = torch.where(same_row, far, ~same_patient)
    logits = logits.masked_fill(~negative, -1e4)
    contrast = (torch.logsumexp(torch.cat([positive[:, None], logits], dim=1), dim=1) - positive).mean()
    spread = torch.cat([anchor, other]).std(dim=0)
    variance = F.relu(0.6 / anchor.shape[1] ** 0.5 - spread).mean() * anchor.shape[1] ** 0.5
    return contrast, variance


def image_losses(made: Tensor, truth: Tensor, batch: Batch) -> dict[str, Tensor]:
    """How far synthetic images are from the real ones, (M, H, W) each, for the wanted targets of a batch in order."""
    body, known, weight = _target_weights(batch)
    error = (made - truth).abs()
    return {
        "l1": weighted_mean(error, weight),
        "mse": weighted_mean(error**2, weight),
        "ssim": 1 - weighted_mean(ssim_map(made, truth), (body + 1e-3) * known),
        "gradient": gradient_loss(made, truth, weight),
    }


def _target_weights(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Body, where the target was acquired, and the weight of a pixel, (M, H, W) each."""
    rows = batch.wanted.nonzero()[:, 0]
    body, lesion = batch.body[rows].float(), batch.lesion[rows].float()
    known = batch.known[batch.wanted].float()
    return body, known, (0.1 + 0.9 * body + 2 * lesion) * known


class LabelTower(nn.Module):
    """Sequences by number instead of text: what the text tower is compared with. Knows ids and canonical prompts."""

    tokens: tuple[int, ...] = ()

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.row_of = {}
        for row, sequence in enumerate(load_sequences().values()):
            self.row_of[sequence.id] = self.row_of[canonical_prompt(sequence)] = row
        self.table = nn.Embedding(len(load_sequences()), config.text_width)

    def encode(self, names: list[str]) -> tuple[TextFeatures, list[str]]:
        """Features as the text tower gives them, of one token each."""
        rows = torch.tensor([self.row_of[n] for n in names], device=self.table.weight.device)
        pooled = self.table(rows)
        return TextFeatures(pooled, pooled[:, None], torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)), []


class TrainingModule(nn.Module):
    """Model, text tower and the projections that only training needs; ``forward`` gives the losses of a batch.

    Args:
        text: a TextTower, or a LabelTower, which is given ids instead of prompts.
        losses: weights that differ from ``WEIGHTS``.
        learns: one of ``LEARNS``; see ``TrainingConfig``. "words" needs ``meanings`` before the first step.
    """

    def __init__(
        self, model: AnyToAll, text: TextTower | LabelTower, contrast_width: int = 32, losses: dict | None = None,
        learns: str = "everything",
    ):  # fmt: skip
        super().__init__()
        self.model, self.text = model, text
        self.weights = WEIGHTS | (losses or {})
        self.projections = nn.ModuleList(nn.Conv2d(c, contrast_width, 1) for c in model.config.channels)
        self.learns = learns
        self.meanings: Meanings | None = None
        if learns != "everything":
            self.requires_grad_(False)
            {"segmentation": model.segmentation, "words": text}[learns].requires_grad_(True)

    def _words(self, batch: Batch) -> tuple[list[str], list[str]]:
        """How sources and targets are named to the tower."""
        if isinstance(self.text, LabelTower):
            return batch.source_ids, batch.target_ids
        return batch.source_prompts, batch.target_prompts

    def _encode(self, batch: Batch):
        """Encoding of the present sources, and its invariant features per level as (B, S, C, h, w), 0 where none is."""
        encoding = self.model.encode(batch.sources[batch.present].contiguous(memory_format=torch.channels_last))
        invariant = []
        for features in encoding.invariant:
            grouped = features.new_zeros(*batch.present.shape, *features.shape[1:])
            grouped[batch.present] = features
            invariant.append(grouped)
        return encoding, invariant

    def _synthesize(self, batch: Batch, told: Tensor):
        """Mean and log scale of the wanted targets, (M, H, W) each, and what they were made from.

        ``told`` (B, S) says of which sources the decoder is told what they are.
        """
        source_words, target_words = self._words(batch)
        words = list(dict.fromkeys(source_words + target_words))
        row_of = {p: n for n, p in enumerate(words)}
        text, _ = self.text.encode(words)
        device = batch.sources.device
        encoding, invariant = self._encode(batch)
        rows = batch.wanted.nonzero()[:, 0]
        wanted_text = text.select(torch.tensor([row_of[p] for p in target_words], device=device))
        source_rows = torch.tensor([row_of[p] for p in source_words], device=device)
        source_text = text.pooled.new_zeros(*batch.present.shape, text.pooled.shape[1])
        source_text[batch.present] = text.pooled[source_rows]
        source_text = source_text * told[..., None]
        mean, log_scale = self.model.decode(
            [x[rows] for x in invariant], batch.present[rows], wanted_text, source_text[rows]
        )
        return mean[:, 0], log_scale[:, 0], encoding, invariant, text, words

    def preview(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Synthetic and real image of each wanted target, (M, H, W) each."""
        return self._synthesize(batch, batch.present)[0], batch.targets[batch.wanted]

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Every loss by name, unweighted, and "total"."""
        if self.learns == "segmentation":
            loss = segmentation_loss(self.model.segment(self._encode(batch)[1], batch.present), batch.structures)
            return {"segmentation": loss, "total": loss}
        if self.learns == "words":
            with looking(self.model.decoder.words) as pixels:
                losses = image_losses(*self.preview(batch), batch)
            losses["wordings"] = self.meanings.loss(self.text, self.model.decoder.words, pixels[0], generator)
            losses["total"] = sum(self.weights[name] * value for name, value in losses.items())
            return losses
        model, device = self.model, batch.sources.device
        told = batch.present.clone()
        told[told.clone()] = (
            torch.rand(int(told.sum()), generator=generator, device=device) > _SOURCE_TEXT_DROPOUT
        )
        mean, log_scale, encoding, invariant, text, words = self._synthesize(batch, told)
        truth = batch.targets[batch.wanted]
        losses = image_losses(mean, truth, batch)
        body, known, _weight = _target_weights(batch)
        losses["scale"] = weighted_mean(laplace_scale_loss((mean - truth).abs(), log_scale), (body + 0.02) * known)

        source_body = batch.body.float()[batch.present.nonzero()[:, 0], None]
        image_vectors = model.image_embedding(encoding.specific, source_body)
        text_vectors = model.text_embedding(text.pooled)
        source_words, target_words = self._words(batch)
        id_of = dict(zip(source_words + target_words, batch.source_ids + batch.target_ids, strict=True))
        same = torch.tensor([[id_of[w] == i for w in words] for i in batch.source_ids], device=device)
        losses["recognition"] = recognition_loss(image_vectors, text_vectors, same, model.logit_scale)
        losses["segmentation"] = segmentation_loss(model.segment(invariant, batch.present), batch.structures)

        pairs = batch.present.sum(dim=1) >= 2
        contrast, variance = mean.sum() * 0, mean.sum() * 0
        if pairs.sum() >= 2:
            for level, (project, x) in enumerate(zip(self.projections, invariant, strict=True)):
                a, b = project(x[pairs, 0]), project(x[pairs, 1])
                small = F.adaptive_avg_pool2d(batch.body[pairs].float()[:, None], a.shape[-2:])[:, 0]
                pixel = batch.pixel_mm[pairs] * 2 ** (level + 1)
                c, v = place_contrast(a, b, small, pixel, batch.place[pairs], generator)
                share = _LEVEL_SHARE ** (len(invariant) - 1 - level)
                contrast, variance = contrast + share * c, variance + share * v
        losses["contrast"], losses["variance"] = contrast, variance
        losses["total"] = sum(self.weights[name] * value for name, value in losses.items())
        return losses
