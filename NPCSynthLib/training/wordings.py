"""After a run: other wordings come to mean to the finished network what the canonical prompt means, and echo times what
they do to an image.

Images teach the text tower only as much as keeps the losses low; two wordings of one sequence still give images that
differ by more than an eye would forgive, and numbers are passed over. Here the image side stays as it is and the tower
alone learns: from words, to give for any wording without numbers what it used to give for the canonical prompt, as the
decoder takes it (pooled, and through the attention of the coarsest level's pixels to the words); then, from simulated
T2-weighted images at any echo time, where between the images that the decoder can make those with this echo time lie.
The second has not worked yet: the tower of the shipped weights had lost what digits mean before it came to it (see
"Does it follow the text" in weights/MODEL_CARD.md).
"""

import copy
from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor

from ..inference.device import choose_device
from ..model.network import TextFeatures
from ..vocabulary import canonical_prompt, load_sequences
from .dataset import Batch
from .objectives import TrainingModule, image_losses
from .text_pretraining import random_wording

_BATCH = 32
_PIXELS = 48  # that look at the words, a step
_RATE = 5e-4
_CANONICAL = 0.1  # of a lesson: the canonical prompts must stay where they are
_TETHER = 0.5  # weight of the wordings beside images


class _Lessons:
    """What a finished tower means by its prompts, and how far another one is from it for other wordings.

    Args:
        batches: a few of those of the training, for what pixels ask of the words.
        without: sequences that the run never met.
    """

    def __init__(self, module: TrainingModule, batches: list[Batch], without: Collection[str]):
        self.module, self.without = module, without
        self.teacher = copy.deepcopy(module.text).eval().requires_grad_(False)
        self.sequences = [s.id for s in load_sequences().values() if s.id not in without]
        with torch.no_grad():
            self.pixels = self._pixels(batches)
            canonical = self.teacher.encode([canonical_prompt(load_sequences()[s]) for s in self.sequences])[0]
            self.pooled_gap = _nearest(canonical.pooled)
            self.read_gap = _nearest(self._read(self.pixels[: 8 * _PIXELS], canonical).flatten(1))

    def _pixels(self, batches: list[Batch]) -> Tensor:
        """(P, C) of the coarsest level as they look at the words, from real batches."""
        found = []
        norm = self.module.model.decoder.words.norm
        handle = norm.register_forward_hook(lambda _, __, out: found.append(out.movedim(1, -1).flatten(0, -2)))
        try:
            for batch in batches:
                self.module.preview(batch)
        finally:
            handle.remove()
        return torch.cat(found).float()

    def _read(self, pixels: Tensor, text: TextFeatures) -> Tensor:
        """What (P, C) pixels read from each of N prompts, (N, P, C)."""
        queries = pixels[None].expand(len(text.pooled), -1, -1)
        attention = self.module.model.decoder.words.attention
        return attention(queries, text.tokens, text.tokens, key_padding_mask=~text.mask, need_weights=False)[0]

    def loss(self, rng: np.random.Generator, timed: bool) -> Tensor:
        """Mean squared difference of the module's tower to what should be, as a share of that between the sequence
        and the one that is nearest to it: a wording of T1 must come much nearer to T1 than T1C is.

        Args:
            timed: ask for wordings with numbers too, which are to mean what the plainest sentence with them does.
        """
        wordings, means, ids = _lesson(rng, self.without, timed)
        rows = [self.sequences.index(i) for i in ids]
        pick = torch.from_numpy(rng.integers(0, len(self.pixels), _PIXELS))
        with torch.no_grad():
            right = self.teacher.encode(means)[0]
            read = self._read(self.pixels[pick], right)
        said = self.module.text.encode(wordings)[0]
        far = ((said.pooled - right.pooled) ** 2).mean(dim=1) / self.pooled_gap[rows]
        misread = ((self._read(self.pixels[pick], said) - read) ** 2).mean(dim=(1, 2)) / self.read_gap[rows]
        return (far + misread).mean()


def settle_wordings(
    module: TrainingModule, batches: list[Batch], steps: int, seed: int, without: Collection[str] = (), on_step=None
) -> list[float]:
    """Teach the text tower of a finished module in place what other wordings mean; returns the loss of each step.

    Args:
        batches: a few of those of the training.
        without: sequences that the run never met.
        on_step: called as ``on_step(step, steps, {"wordings": loss})``.
    """
    lessons, rng = _Lessons(module, batches, without), np.random.default_rng((seed, 78))
    return _teach(module, steps, lambda step: lessons.loss(rng, timed=True), on_step, "wordings")


def learn_echo_times(
    module: TrainingModule, batches: list[Batch], draw: Callable[[int], Batch], steps: int, seed: int,
    without: Collection[str] = (), on_step=None,
) -> list[float]:  # fmt: skip
    """Teach the text tower in place what echo times do, from images; wordings without numbers keep their meaning.

    Args:
        batches: a few of those of the training.
        draw: gives batch number n, whose targets have the echo times that their prompts tell.
        without: sequences that the run never met.
        on_step: called as ``on_step(step, steps, {"echo times": loss})``.

    Returns:
        the loss of each step, images and wordings together.
    """
    lessons, rng = _Lessons(module, batches, without), np.random.default_rng((seed, 79))

    def loss(step: int) -> Tensor:
        batch = draw(step)
        found = image_losses(*module.preview(batch), batch)
        images = sum(module.weights[name] * value for name, value in found.items())
        return images + _TETHER * lessons.loss(rng, timed=False)

    module.model.requires_grad_(False)
    return _teach(module, steps, loss, on_step, "echo times")


def _teach(
    module: TrainingModule, steps: int, loss_of: Callable[[int], Tensor], on_step, name: str
) -> list[float]:
    """So many steps of the tower alone, on the CPU, in bfloat16 where that has it."""
    device = choose_device("cpu")[0]
    tower = module.text.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(tower.parameters(), lr=_RATE, weight_decay=0.0)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = _RATE * min(1.0, (step + 1) / 50) * 0.5 * (1 + np.cos(np.pi * step / steps))
        with device.autocast():
            loss = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if on_step is not None:
            on_step(step + 1, steps, {name: losses[-1]})
    tower.eval()
    return losses


def _nearest(vectors: Tensor) -> Tensor:
    """(N,) mean squared difference of each of (N, D) to the one nearest to it."""
    gap = torch.cdist(vectors, vectors) ** 2 / vectors.shape[1]
    return gap.fill_diagonal_(torch.inf).amin(dim=1)


def _lesson(
    rng: np.random.Generator, without: Collection[str], timed: bool
) -> tuple[list[str], list[str], list[str]]:
    """Wordings, the prompt that says for each of them what the finished network takes it to mean, and its sequence."""
    wordings, means, ids = [], [], []
    while len(wordings) < _BATCH:
        words, sequence, times = random_wording(rng, without)
        if times and not timed:
            continue
        canonical = canonical_prompt(sequence)
        if rng.random() < _CANONICAL:
            words, times = canonical, None
        wordings.append(words)
        ids.append(sequence.id)
        told = ", ".join(f"{name} {round(time)} ms" for name, time in (times or {}).items())
        means.append(f"{sequence.name} scan, {told}" if told else canonical)
    return wordings, means, ids
