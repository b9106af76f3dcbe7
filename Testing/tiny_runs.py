"""Training runs that take seconds: a head made of boxes, and a network of three small levels."""

import json

import numpy as np

from NPCSynthLib.training.labelmaps import LabelMap
from NPCSynthLib.vocabulary import load_classes


def box_labelmap(seed=0) -> LabelMap:
    """A head made of boxes: fat around muscle around brain around a tumor that takes up contrast."""
    names = ("phantom:air", "phantom:subcutaneous_fat", "phantom:muscle", "phantom:white_matter", "phantom:npc_tumor")
    classes = np.zeros((48, 64, 64), np.uint8)
    for n, edge in enumerate((4, 8, 14, 20), start=1):
        classes[edge:-edge, edge:-edge, edge:-edge] = n
    order = load_classes()
    structures = np.select(
        [classes == 4, classes == 3, classes > 0], [order.index("GTVp"), order.index("Brain"), order.index("body")], 0
    ).astype(np.uint8)
    return LabelMap(classes, np.array((2.0, 2.0, 2.0)), names, np.bincount(classes.ravel()), structures, "box")


def tiny_config(folder, **changes):
    values = {
        "model": {"channels": [8, 12, 16], "specific": [2, 2, 2], "encoder_blocks": 1, "decoder_blocks": 1,
                  "text_width": 32, "text_layers": 1, "text_heads": 2},
        "steps": 4, "batch_size": 3, "size": 32, "text_steps": 2, "warmup_steps": 1,
        "learning_rate": 0.003, "weight_decay": 0.0, "ema": 0.9, "phantoms": 1, "seed": 3,
    }  # fmt: skip
    path = folder / "tiny.json"
    path.write_text(json.dumps({**values, **changes}))
    return str(path)
