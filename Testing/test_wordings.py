"""Wordings that mean the same come to make the same image."""

import numpy as np
import pytest
import torch

pytest.importorskip("open_clip", reason="training needs the train extra")
pytest.importorskip("lightning_fabric", reason="training needs the train extra")

from test_training import box_labelmap

from NPCSynthLib.model.network import AnyToAll, ModelConfig
from NPCSynthLib.model.text import TextTower, tokens_of_vocabulary
from NPCSynthLib.training.dataset import collate
from NPCSynthLib.training.objectives import TrainingModule
from NPCSynthLib.training.simulation import simulate
from NPCSynthLib.training.wordings import learn_echo_times, settle_wordings
from NPCSynthLib.vocabulary import canonical_prompt, get_sequence

CONFIG = ModelConfig(channels=(8, 12, 16), specific=(2, 2, 2), encoder_blocks=1, decoder_blocks=1, text_width=32,
                     text_layers=1, text_heads=2)  # fmt: skip
CANONICAL = canonical_prompt(get_sequence("T2FS"))


@pytest.fixture
def module():
    torch.manual_seed(0)
    return TrainingModule(AnyToAll(CONFIG), TextTower(CONFIG, tokens_of_vocabulary())).eval()


@pytest.fixture
def batches():
    return [collate([simulate(box_labelmap(), ["T1"], ["T2"], np.random.default_rng(n), 32, n) for n in range(2)])]


def distances(module, prompts):
    """Of the pooled text of each prompt to what the canonical one has been before."""
    return [float((features - module.before).norm()) for features in module.text.encode(prompts)[0].pooled.detach()]


def test_other_wordings_move_to_the_canonical_prompt_and_it_stays(module, batches):
    module.before = module.text.encode([CANONICAL])[0].pooled.detach()[0]
    words = ["fat suppressed T2w MRI of the neck", "T2 SPIR axial", CANONICAL]
    first = distances(module, words)
    losses = settle_wordings(module, batches, 200, seed=1)
    last = distances(module, words)
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:10])
    assert all(b < 0.8 * a for a, b in zip(first[:2], last[:2], strict=True))
    assert last[2] < 0.3 * first[0]


def test_echo_times_are_learned_from_images(module, batches):
    def draw(step):
        rng = np.random.default_rng(step)
        return collate([simulate(box_labelmap(), ["T1"], ["T2"], rng, 32, 0, echo_times=1.0) for _ in range(3)])

    for parameter in module.model.decoder.parameters():  # a network in whose blocks text has its say
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    losses = learn_echo_times(module, batches, draw, 40, seed=1)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_the_image_side_stays_as_it_is(module, batches):
    before = {name: value.clone() for name, value in module.model.state_dict().items()}
    settle_wordings(module, batches, 3, seed=1)
    learn_echo_times(module, batches, lambda step: batches[0], 3, seed=1)
    assert all(torch.equal(before[name], value) for name, value in module.model.state_dict().items())
