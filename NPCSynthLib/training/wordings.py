"""A text tower for finished weights: it learns what they mean by any wording, and what echo times do to an image.

The tower that the image side learned with need not be the one that reads what people write. By the end of a long run
it has often lost what digits mean, and two wordings of one sequence give images that differ by more than an eye would
forgive. So a new one is taught, all else staying as it is to the bit: from words alone what acquisition they describe
(``text_pretraining``); then, from simulated T2-weighted images at any echo time, where between the images that the
decoder can make those with this echo time lie, and beside them from words what the weights mean by the canonical
prompt, as the decoder takes it (pooled, and through the attention of the coarsest level's pixels to the words).
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from ..model.network import TextCrossAttention, TextFeatures
from ..phantom.signal import ANY_ECHO
from ..vocabulary import canonical_prompt
from .text_pretraining import nearest, random_wording

_BATCH = 48
_PIXELS = 48  # that look at the words, a step
_CANONICAL = 0.1  # of a lesson: the canonical prompts themselves


@contextmanager
def looking(words: TextCrossAttention) -> Iterator[list[Tensor]]:
    """Collects the pixels (B, C, h, w) of the coarsest level as they look at the words meanwhile."""
    pixels = []
    handle = words.norm.register_forward_hook(lambda _, __, out: pixels.append(out.detach()))
    try:
        yield pixels
    finally:
        handle.remove()


class Meanings(nn.Module):
    """What finished weights mean by the sequences, and how far a tower is from it.

    Args:
        canonical: features (batch of one) of each sequence's canonical prompt, by id.
        without: sequences that the run never met.
    """

    def __init__(self, canonical: dict[str, TextFeatures], without: Collection[str]):
        super().__init__()
        self.sequences, self.without = list(canonical), without
        longest = max(text.mask.shape[1] for text in canonical.values())

        def together(rows: list[Tensor]) -> Tensor:
            """(1, L, …) each to (N, longest, …), padded by zeros."""
            return torch.cat([torch.cat([row, row.new_zeros(1, longest - row.shape[1], *row.shape[2:])], dim=1)
                              for row in rows])  # fmt: skip

        texts = canonical.values()
        self.register_buffer("pooled", torch.cat([text.pooled for text in texts]), persistent=False)
        self.register_buffer("apart", nearest(self.pooled), persistent=False)
        self.register_buffer("tokens", together([text.tokens for text in texts]), persistent=False)
        self.register_buffer("mask", together([text.mask for text in texts]), persistent=False)

    def loss(self, tower, words: TextCrossAttention, pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Mean squared difference of what the tower makes of random wordings to what the weights mean, as a share of
        that between the sequence and the one that is nearest to it: a wording of T1 must come much nearer to T1 than
        T1C is.

        Args:
            tower: a TextTower.
            pixels: (B, C, h, w) of the coarsest level, see ``looking``.
        """
        seed = int(torch.randint(2**31, (1,), generator=generator, device=generator.device))
        wordings, ids = _lesson(np.random.default_rng(seed), self.without)
        rows = torch.tensor([self.sequences.index(i) for i in ids], device=self.pooled.device)
        pixels = pixels.movedim(1, -1).flatten(0, -2)
        chosen = torch.randint(len(pixels), (_PIXELS,), generator=generator, device=pixels.device)
        all_meant = TextFeatures(self.pooled, self.tokens, self.mask)
        meant = _read(words, pixels[chosen], all_meant).float()
        said = tower.encode(wordings)[0]
        far = ((said.pooled - self.pooled[rows]) ** 2).mean(dim=1) / self.apart[rows]
        read = _read(words, pixels[chosen], said).float()
        misread = ((read - meant[rows]) ** 2).mean(dim=(1, 2)) / nearest(meant.flatten(1))[rows]
        return (far + misread).mean()


def _read(words: TextCrossAttention, pixels: Tensor, text: TextFeatures) -> Tensor:
    """What (P, C) pixels read from each of N prompts, (N, P, C)."""
    queries = pixels[None].expand(len(text.pooled), -1, -1)
    return words.attention(queries, text.tokens, text.tokens, key_padding_mask=~text.mask, need_weights=False)[0]


def _lesson(rng: np.random.Generator, without: Collection[str]) -> tuple[list[str], list[str]]:
    """Wordings, and the sequence of each. What an echo time means where it may be any is left to images."""
    wordings, ids = [], []
    while len(wordings) < _BATCH:
        words, sequence, times = random_wording(rng, without)
        if times and sequence.id in ANY_ECHO:
            continue
        wordings.append(canonical_prompt(sequence) if rng.random() < _CANONICAL else words)
        ids.append(sequence.id)
    return wordings, ids
