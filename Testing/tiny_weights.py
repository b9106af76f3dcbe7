"""Real weights of a tiny, untrained model: everything that a test of loading, planning and running needs."""

from pathlib import Path

import torch

from NPCSynthLib.model.network import AnyToAll, ModelConfig
from NPCSynthLib.model.text import TextTower, tokens_of_vocabulary
from NPCSynthLib.model.weights import save_weights
from NPCSynthLib.vocabulary import canonical_prompt, load_classes, load_sequences


def write_tiny_weights(folder: Path, sequences=None, **about) -> Path:
    """Write them; ``sequences`` (default: all) are those that the manifest says it was trained on, ``about`` what else
    it says."""
    torch.manual_seed(0)
    config = ModelConfig(
        channels=(8, 12), specific=(2, 2), encoder_blocks=1, decoder_blocks=1, text_width=32, text_layers=1,
        text_heads=2, classes=load_classes(),
    )  # fmt: skip
    known = load_sequences()
    prompts = {s: canonical_prompt(known[s]) for s in (sequences or known)}
    model, tower = AnyToAll(config), TextTower(config, tokens_of_vocabulary())
    with torch.no_grad():
        model.decoder.head.bias[:4] = 0.5  # a gray image, not one that is black all over
    save_weights(folder, model, tower, {"name": "tiny", "version": "0.0", "prompts": prompts, **about})
    return folder
