"""Baselines with a network, trained by ``npcsynth train comparison/…``, called like the model."""

from pathlib import Path

import numpy as np
import torch

from ..inference.slicing import Slicing
from ..study.study import Study
from ..training.baseline_networks import load_baseline
from ..vocabulary import load_sequences
from .baselines import Predict

_SLICES_A_BATCH = 4
_CLIP = 2.0  # like the training images


def trained_baseline(weights: Path, device: torch.device) -> Predict:
    """``predict(study, target)`` from the weights folder of a baseline's run. Raises WeightsError."""
    module = load_baseline(weights).to(device)
    order = list(load_sequences())

    @torch.inference_mode()
    def predict(study: Study, target: str) -> np.ndarray:
        slicing = Slicing.plan(study.grid, module.stride)
        count = slicing.shape[0]
        images = [slicing.take(s.array) for s in study.sources]
        covered = [slicing.take(s.inside).any(axis=(1, 2)) for s in study.sources]
        made = np.zeros(slicing.shape, np.float32)
        for first in range(0, count, _SLICES_A_BATCH):
            rows = np.arange(first, min(first + _SLICES_A_BATCH, count))
            around = np.clip(np.add.outer(rows, (-1, 0, 1)), 0, count - 1)
            stack = torch.from_numpy(np.stack([image[around] for image in images], axis=1))
            stack = stack.to(device).float().clamp_(0, _CLIP)
            stack = slicing.to_work(stack.flatten(0, 1)).unflatten(0, (len(rows), len(images)))
            present = torch.from_numpy(np.stack([c[rows] for c in covered], axis=1)).to(device)
            sources = torch.tensor([[order.index(s.sequence) for s in study.sources]], device=device)
            sources = sources.expand(len(rows), -1)
            targets = torch.full((len(rows),), order.index(target), device=device)
            answer = slicing.from_work(module.synthesize(stack, present, sources, targets)[:, None])
            made[rows] = answer[:, 0].cpu().numpy()
        return np.ascontiguousarray(slicing.put(made)).clip(0, _CLIP)

    return predict
