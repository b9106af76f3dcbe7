"""The model keeps its promises on structure: order-free, blind to what is absent, local, driven by text."""

import numpy as np
import pytest
import torch

from NPCSynthLib.model.network import AnyToAll, ModelConfig, TextFeatures

CONFIG = ModelConfig(
    channels=(8, 12, 16), specific=(2, 2, 2), encoder_blocks=1, decoder_blocks=1, text_width=32, text_layers=1,
    text_heads=2, classes=("background", "body", "GTVp"),
)  # fmt: skip


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = AnyToAll(CONFIG).eval()
    for parameter in model.parameters():  # zero-initialized branches would make some of these tests vacuous
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def random_text(batch, seed=0, tokens=5):
    g = torch.Generator().manual_seed(seed)
    features = torch.randn(1, 32, generator=g), torch.randn(1, tokens, 32, generator=g)
    return TextFeatures(
        features[0].expand(batch, -1), features[1].expand(batch, -1, -1), torch.ones(batch, tokens, dtype=torch.bool)
    )


def run(model, images, present, text, order=None):
    """Mean, log scale and logits; source n has the n-th of three texts, or those of ``order``."""
    b, s = images.shape[:2]
    invariant = model.group(model.encode(images.flatten(0, 1)).invariant, b)
    sources = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(9))[:, order or list(range(s))]
    return *model.decode(invariant, present, text, sources.expand(b, -1, -1)), model.segment(invariant, present)


@torch.inference_mode()
def test_order_of_sources_changes_nothing(model):
    images = torch.rand(2, 3, 3, 32, 40)
    present = torch.ones(2, 3, dtype=torch.bool)
    straight = run(model, images, present, random_text(2))
    shuffled = run(model, images[:, [2, 0, 1]], present, random_text(2), order=[2, 0, 1])
    for a, b in zip(straight, shuffled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("garbage", [0.0, 1e4, float("nan")])
def test_absent_source_has_no_influence(model, garbage):
    images = torch.rand(1, 2, 3, 32, 32)
    alone = run(model, images[:, :1], torch.ones(1, 1, dtype=torch.bool), random_text(1))
    images[:, 1] = garbage
    both = run(model, images, torch.tensor([[True, False]]), random_text(1))
    for a, b in zip(alone, both, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_second_source_has_influence(model):
    images = torch.rand(1, 2, 3, 32, 32)
    one = run(model, images, torch.tensor([[True, False]]), random_text(1))[0]
    two = run(model, images, torch.tensor([[True, True]]), random_text(1))[0]
    assert (one - two).abs().max() > 1e-3


@torch.inference_mode()
def test_source_that_covers_half_the_slice_counts_only_there(model):
    images = torch.rand(1, 2, 3, 32, 192)
    part = torch.ones(1, 2, 32, 192, dtype=torch.bool)
    part[:, 1, :, 96:] = False
    changed = images.clone()
    changed[:, 1, :, :, 160:] = 5.0
    a = run(model, images, part, random_text(1))[0]
    b = run(model, changed, part, random_text(1))[0]
    torch.testing.assert_close(a[..., 176:], b[..., 176:], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_text_decides_the_target(model):
    images, present = torch.rand(1, 1, 3, 32, 32), torch.ones(1, 1, dtype=torch.bool)
    a = run(model, images, present, random_text(1, seed=1))[0]
    b = run(model, images, present, random_text(1, seed=2))[0]
    assert (a - b).abs().max() > 1e-3


@torch.inference_mode()
def test_what_a_source_is_called_matters_to_the_target_alone(model):
    images, present = torch.rand(1, 1, 3, 32, 32), torch.ones(1, 1, dtype=torch.bool)
    a = run(model, images, present, random_text(1), order=[0])
    b = run(model, images, present, random_text(1), order=[1])
    assert (a[0] - b[0]).abs().max() > 1e-3
    assert torch.equal(a[2], b[2]), "the segmentation sees the image alone"


@torch.inference_mode()
def test_padding_of_the_prompt_has_no_influence(model):
    images, present = torch.rand(1, 1, 3, 32, 32), torch.ones(1, 1, dtype=torch.bool)
    text = random_text(1)
    padded = TextFeatures(
        text.pooled,
        torch.cat([text.tokens, torch.randn(1, 3, 32)], 1),
        torch.cat([text.mask, torch.zeros(1, 3).bool()], 1),
    )
    torch.testing.assert_close(run(model, images, present, text)[0], run(model, images, present, padded)[0])


@torch.inference_mode()
def test_segmentation_does_not_depend_on_text(model):
    images, present = torch.rand(1, 1, 3, 32, 32), torch.ones(1, 1, dtype=torch.bool)
    a = run(model, images, present, random_text(1, seed=1))[2]
    b = run(model, images, present, random_text(1, seed=2))[2]
    assert torch.equal(a, b)


@torch.inference_mode()
def test_far_away_pixels_do_not_change_a_place(model):
    """Nothing in the network looks at the whole slice, so the field of view cannot change the contrast."""
    images, present = torch.rand(1, 1, 3, 16, 512), torch.ones(1, 1, dtype=torch.bool)
    whole = run(model, images, present, random_text(1))[0]
    left = run(model, images[..., :384], present, random_text(1))[0]
    torch.testing.assert_close(whole[..., :192], left[..., :192], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_image_embedding_is_a_unit_vector_of_the_body(model):
    images = torch.rand(2, 3, 32, 32)
    body = torch.zeros(2, 1, 32, 32)
    body[..., :16, :] = 1
    vectors = model.image_embedding(model.encode(images).specific, body)
    np.testing.assert_allclose(vectors.norm(dim=1).numpy(), 1, atol=1e-5)
    assert (vectors[0] - vectors[1]).abs().max() > 1e-4


def test_configuration_survives_json(model):
    import json

    again = ModelConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict())))
    assert again == CONFIG
    AnyToAll(again).load_state_dict(model.state_dict())
