"""The text tower learns what the words mean for the scan before it meets images.

From a prompt it predicts the acquisition: weighting, contrast agent, fat suppression, inversion, and TR, TE and TI
where the prompt names them. Without this the tower hears of the words only through the image losses, and for
hundreds of steps all prompts look alike to the decoder.
"""

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model.text import TextTower
from ..phantom.signal import ANY_ECHO, random_echo_time
from ..vocabulary import Sequence, load_sequences, training_prompt

_WEIGHTINGS = ("T1", "T2", "PD")
_TIMES = ("TR", "TE", "TI")
_TIMED = 0.4  # of the wordings name times
#: Where numbers are to be learned: so often an echo time that no other word gives away, and the weight of times.
_ECHOES, _NUMBERS_WEIGHT = 0.35, 10.0


class AcquisitionHead(nn.Module):
    """Pooled text to the acquisition: 3 weightings, 3 flags, log10 of TR, TE, TI in ms."""

    def __init__(self, width: int):
        super().__init__()
        self.out = nn.Linear(width, len(_WEIGHTINGS) + 3 + len(_TIMES))

    def forward(self, pooled: Tensor) -> Tensor:
        return self.out(pooled)


def random_wording(
    rng: np.random.Generator, without: Collection[str] = (), numbers: bool = False
) -> tuple[str, Sequence, dict | None]:
    """A wording, the sequence that it describes, and the times in ms that it names, None where it names none.

    Args:
        numbers: a third of the wordings are of T2-weighted sequences at any echo time, which no other word gives away.
    """
    echo = numbers and rng.random() < _ECHOES
    sequences = [s for s in load_sequences().values() if s.id not in without and (s.id in ANY_ECHO or not echo)]
    sequence = sequences[int(rng.integers(len(sequences)))]
    if not echo and rng.random() > _TIMED:
        return training_prompt(sequence, rng), sequence, None
    timing = {}
    for name in _TIMES:
        limits = sequence.typical[name]
        timing[name] = None if limits is None else float(np.exp(rng.uniform(*np.log(limits))))
    if echo or (sequence.id in ANY_ECHO and rng.random() < 0.5):
        timing["TE"] = random_echo_time(rng)
    text = training_prompt(sequence, rng, timing)
    return text, sequence, {n: t for n, t in timing.items() if t is not None and str(round(t)) in text}


def random_prompts(
    count: int, rng: np.random.Generator, without: Collection[str] = (), numbers: bool = False
) -> tuple[list[str], list[str], Tensor, Tensor]:
    """Prompts, the sequence ids that they mean, and their truth: (count, 9) float32 targets in the order of
    ``AcquisitionHead``, and which of them are told."""
    prompts, ids, truth, told = [], [], [], []
    for _ in range(count):
        text, sequence, named = random_wording(rng, without, numbers)
        times = named or {}
        flags = (sequence.contrast_agent, sequence.fat_suppressed, sequence.inversion_recovery)
        prompts.append(text)
        ids.append(sequence.id)
        truth.append([*(sequence.weighting == w for w in _WEIGHTINGS), *flags,
                      *(np.log10(times[n]) - 2 if n in times else 0.0 for n in _TIMES)])  # fmt: skip
        told.append([True] * 6 + [n in times for n in _TIMES])
    return prompts, ids, torch.tensor(np.array(truth, np.float32)), torch.tensor(told)


def acquisition_loss(prediction: Tensor, truth: Tensor, told: Tensor, times_weight: float = 1.0) -> Tensor:
    """Cross-entropy on weighting and flags, weighted squared error on the times that the prompt names."""
    flags = F.binary_cross_entropy_with_logits(prediction[:, :6], truth[:, :6])
    times = ((prediction[:, 6:] - truth[:, 6:]) ** 2 * told[:, 6:]).sum() / told[:, 6:].sum().clamp_min(1)
    return flags + times_weight * times


def nearest(vectors: Tensor) -> Tensor:
    """(N,) mean squared difference of each of (N, D) to the one nearest to it."""
    gap = torch.cdist(vectors, vectors) ** 2 / vectors.shape[1]
    return gap.fill_diagonal_(torch.inf).amin(dim=1)


def pretrain_text(
    tower: TextTower, steps: int, seed: int, batch_size: int = 48, without: Collection[str] = (),
    means: Mapping[str, Tensor] | None = None, autocast: Callable[[], AbstractContextManager] = nullcontext,
    on_step: Callable[[int, int, dict[str, float]], None] | None = None,
) -> float:  # fmt: skip
    """Train the tower on prompts alone, none of the sequences ``without``; returns the mean loss of the last tenth of
    the steps.

    Args:
        means: pooled features (1, W) that finished weights have for each sequence id. Wordings are to have them too,
            but for those of T2-weighted sequences that name times; and times weigh more than without ``means``.
        autocast: the precision, entered anew at each step: within one context torch keeps the first cast of weights.
        on_step: called as ``on_step(step, steps, {"wordings": loss})``.
    """
    rng = np.random.default_rng((seed, 77))
    device = tower.transformer.positional_embedding.device
    head = AcquisitionHead(tower.config.text_width).to(device)
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    numbers, losses = means is not None, []
    if numbers:
        order, meant = list(means), torch.cat(list(means.values())).to(device)
        apart = nearest(meant)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 30) * (1 - 0.9 * step / steps)
        prompts, ids, truth, told = random_prompts(batch_size, rng, without, numbers)
        with autocast():
            pooled = tower.encode(prompts)[0].pooled
            prediction = head(pooled).float()
        weight = _NUMBERS_WEIGHT if numbers else 1.0
        loss = acquisition_loss(prediction, truth.to(device), told.to(device), weight)
        if numbers:
            plain = [n for n, i in enumerate(ids) if i not in ANY_ECHO or not told[n, 6:].any()]
            rows = [order.index(ids[n]) for n in plain]
            loss = loss + (((pooled[plain] - meant[rows]) ** 2).mean(dim=1) / apart[rows]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
        if on_step is not None:
            on_step(step + 1, steps, {"wordings": losses[-1]})
    return float(np.mean(losses[-max(1, steps // 10) :]))
