"""Baselines with a network, trained by ``npcsynth train comparison/…``, called like the model."""

from pathlib import Path

import numpy as np
import torch

from ..inference.device import Device
from ..inference.slicing import Slicing
from ..study.study import Study
from ..training.baseline_networks import load_baseline
from ..vocabulary import load_sequences
from .baselines import Predict

_SLICES_A_BATCH = 4
_CLIP = 2.0  # like the training images


def trained_baseline(weights: Path, device: Device) -> Predict:
    """``predict(study, target)`` from the weights folder of a baseline's run, in the device's precision, as ours is
    made. Raises WeightsError."""
    module = load_baseline(weights).to(device.torch)
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
            around = slicing.around(rows)
            stack = torch.from_numpy(np.stack([image[around] for image in images], axis=1))
            stack = stack.to(device.torch).float().clamp_(0, _CLIP)
            stack = slicing.to_work(stack.flatten(0, 1)).unflatten(0, (len(rows), len(images)))
            present = torch.from_numpy(np.stack([c[rows] for c in covered], axis=1)).to(device.torch)
            sources = torch.tensor([[order.index(s.sequence) for s in study.sources]], device=device.torch)
            sources = sources.expand(len(rows), -1)
            targets = torch.full((len(rows),), order.index(target), device=device.torch)
            with device.autocast():
                answer = module.synthesize(stack, present, sources, targets)
            answer = slicing.from_work(answer[:, None])
            made[rows] = answer[:, 0].cpu().numpy()
        return np.ascontiguousarray(slicing.put(made)).clip(0, _CLIP)

    return predict
