"""The text tower learns what the words mean for the scan before it meets images.

From a prompt it predicts the acquisition: weighting, contrast agent, fat suppression, inversion, and TR, TE and TI
where the prompt names them. Without this the tower hears of the words only through the image losses, and for
hundreds of steps all prompts look alike to the decoder.
"""

from collections.abc import Collection

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


class AcquisitionHead(nn.Module):
    """Pooled text to the acquisition: 3 weightings, 3 flags, log10 of TR, TE, TI in ms."""

    def __init__(self, width: int):
        super().__init__()
        self.out = nn.Linear(width, len(_WEIGHTINGS) + 3 + len(_TIMES))

    def forward(self, pooled: Tensor) -> Tensor:
        return self.out(pooled)


def random_wording(rng: np.random.Generator, without: Collection[str] = ()) -> tuple[str, Sequence, dict | None]:
    """A wording, the sequence that it describes, and the times in ms that it names, None where it names none."""
    sequences = [s for s in load_sequences().values() if s.id not in without]
    sequence = sequences[int(rng.integers(len(sequences)))]
    if rng.random() > _TIMED:
        return training_prompt(sequence, rng), sequence, None
    timing = {}
    for name in _TIMES:
        limits = sequence.typical[name]
        timing[name] = None if limits is None else float(np.exp(rng.uniform(*np.log(limits))))
    if sequence.id in ANY_ECHO and rng.random() < 0.5:
        timing["TE"] = random_echo_time(rng)
    text = training_prompt(sequence, rng, timing)
    return text, sequence, {n: t for n, t in timing.items() if t is not None and str(round(t)) in text}


def random_prompts(
    count: int, rng: np.random.Generator, without: Collection[str] = ()
) -> tuple[list[str], Tensor, Tensor]:
    """Prompts with their truth: (count, 9) float32 targets in the order of ``AcquisitionHead``, and which are told."""
    prompts, truth, told = [], [], []
    for _ in range(count):
        text, sequence, named = random_wording(rng, without)
        times = named or {}
        flags = (sequence.contrast_agent, sequence.fat_suppressed, sequence.inversion_recovery)
        prompts.append(text)
        truth.append([*(sequence.weighting == w for w in _WEIGHTINGS), *flags,
                      *(np.log10(times[n]) - 2 if n in times else 0.0 for n in _TIMES)])  # fmt: skip
        told.append([True] * 6 + [n in times for n in _TIMES])
    return prompts, torch.tensor(np.array(truth, np.float32)), torch.tensor(told)


def acquisition_loss(prediction: Tensor, truth: Tensor, told: Tensor) -> Tensor:
    """Cross-entropy on weighting and flags, squared error on the times that the prompt names."""
    flags = F.binary_cross_entropy_with_logits(prediction[:, :6], truth[:, :6])
    times = ((prediction[:, 6:] - truth[:, 6:]) ** 2 * told[:, 6:]).sum() / told[:, 6:].sum().clamp_min(1)
    return flags + times


def pretrain_text(
    tower: TextTower, steps: int, seed: int, batch_size: int = 48, without: Collection[str] = ()
) -> float:
    """Train the tower on prompts alone, none of the sequences ``without``; returns the mean loss of the last tenth of
    the steps."""
    rng = np.random.default_rng((seed, 77))
    device = tower.transformer.positional_embedding.device
    head = AcquisitionHead(tower.config.text_width).to(device)
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.01)
    losses = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 30) * (1 - 0.9 * step / steps)
        prompts, truth, told = random_prompts(batch_size, rng, without)
        features, _ = tower.encode(prompts)
        loss = acquisition_loss(head(features.pooled), truth.to(device), told.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(loss.detach()))
    return float(np.mean(losses[-max(1, steps // 10) :]))
