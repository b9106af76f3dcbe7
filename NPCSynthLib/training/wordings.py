"""After a run: other wordings come to mean to the finished network what the canonical prompt means.

Images teach the text tower only as much as keeps the losses low; two wordings of one sequence still give images that
differ by more than an eye would forgive. Here the image side stays as it is and the tower alone learns, from words, to
give for any wording without numbers what it used to give for the canonical prompt, as the decoder takes it: pooled, and
through the attention of the coarsest level's pixels to the words. A wording with numbers comes to mean what the
plainest sentence with those numbers did.
"""

import copy
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from ..model.network import TextFeatures
from ..vocabulary import canonical_prompt, load_sequences
from .dataset import Batch
from .objectives import TrainingModule
from .text_pretraining import random_wording

_BATCH = 32
_PIXELS = 48  # that look at the words, a step
_RATE = 5e-4
_CANONICAL = 0.1  # of a batch: the canonical prompts must stay where they are


def _pixels(module: TrainingModule, batches: list[Batch]) -> Tensor:
    """(P, C) of the coarsest level as they look at the words, from real batches."""
    found = []
    norm = module.model.decoder.words.norm
    handle = norm.register_forward_hook(lambda _, __, out: found.append(out.movedim(1, -1).flatten(0, -2)))
    try:
        for batch in batches:
            module.preview(batch)
    finally:
        handle.remove()
    return torch.cat(found).float()


def _looked_up(module: TrainingModule, pixels: Tensor, text: TextFeatures) -> Tensor:
    """What (P, C) pixels read from each of N prompts, (N, P, C)."""
    queries = pixels[None].expand(len(text.pooled), -1, -1)
    attention = module.model.decoder.words.attention
    return attention(queries, text.tokens, text.tokens, key_padding_mask=~text.mask, need_weights=False)[0]


def settle_wordings(
    module: TrainingModule, batches: list[Batch], steps: int, seed: int, without: Collection[str] = ()
) -> list[float]:
    """Teach the text tower of a finished module in place; the image side stays as it is.

    Args:
        batches: a few of those of the training, for what pixels ask of the words.
        without: sequences that the run never met.

    Returns:
        the loss of each step: mean squared difference to what should be, as a share of that between the sequence and
        the one that is nearest to it, since a wording of T1 must come much nearer to T1 than T1C is.
    """
    tower, teacher = module.text, copy.deepcopy(module.text).eval().requires_grad_(False)
    rng = np.random.default_rng((seed, 78))
    with torch.no_grad():
        pixels = _pixels(module, batches)
        sequences = [s.id for s in load_sequences().values() if s.id not in without]
        canonical = teacher.encode([canonical_prompt(load_sequences()[s]) for s in sequences])[0]
        pooled_gap = _nearest(canonical.pooled)
        read_gap = _nearest(_looked_up(module, pixels[: 8 * _PIXELS], canonical).flatten(1))
    tower.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=_RATE, weight_decay=0.0)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
        wordings, means, ids = _lesson(rng, without)
        rows = [sequences.index(i) for i in ids]
        pick = torch.from_numpy(rng.integers(0, len(pixels), _PIXELS))
        with torch.autocast("cpu"):
            with torch.no_grad():
                right = teacher.encode(means)[0]
                read = _looked_up(module, pixels[pick], right)
            said = tower.encode(wordings)[0]
        far = ((said.pooled - right.pooled) ** 2).mean(dim=1) / pooled_gap[rows]
        misread = ((_looked_up(module, pixels[pick], said) - read) ** 2).mean(dim=(1, 2)) / read_gap[rows]
        loss = (far + misread).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    tower.eval()
    return losses


def _nearest(vectors: Tensor) -> Tensor:
    """(N,) mean squared difference of each of (N, D) to the one nearest to it."""
    gap = torch.cdist(vectors, vectors) ** 2 / vectors.shape[1]
    return gap.fill_diagonal_(torch.inf).amin(dim=1)


def _lesson(rng: np.random.Generator, without: Collection[str]) -> tuple[list[str], list[str], list[str]]:
    """Wordings, the prompt that says for each of them what the finished network takes it to mean, and its sequence."""
    wordings, means, ids = [], [], []
    for _ in range(_BATCH):
        words, sequence, times = random_wording(rng, without)
        canonical = canonical_prompt(sequence)
        if rng.random() < _CANONICAL:
            words, times = canonical, None
        wordings.append(words)
        ids.append(sequence.id)
        told = ", ".join(f"{name} {round(time)} ms" for name, time in (times or {}).items())
        means.append(f"{sequence.name} scan, {told}" if told else canonical)
    return wordings, means, ids
