"""The section of the proof on the shared representation: retrieval, few labels, tumor."""

import numpy as np
import pytest
import torch

pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")
pytest.importorskip("skimage", reason="the evaluation needs scikit-image (extra: train)")
from PIL import Image
from test_synthesizer import make_study, reoriented
from tiny_weights import write_tiny_weights

from NPCSynthLib.evaluation import representation as section
from NPCSynthLib.evaluation.phantom_cases import phantom
from NPCSynthLib.evaluation.section import Context
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.model.network import ModelConfig
from NPCSynthLib.study.volume import Grid
from NPCSynthLib.training.cohorts import TumorSlice


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory):
    return Synthesizer(write_tiny_weights(tmp_path_factory.mktemp("weights")), "cpu")


def random_features(seed=0):
    return torch.randn(2, 16, 24, 20, generator=torch.Generator().manual_seed(seed))


def test_same_features_find_the_same_place_whatever_their_scale_and_others_do_not():
    a, body = random_features(), torch.ones(2, 1, 24, 20)
    assert section.recall(a, a, body, (2.0, 2.0)) == 1
    assert section.recall(a, 5 * a + 3, body, (2.0, 2.0)) == 1
    guessed = section.recall(a, random_features(1), body, (2.0, 2.0))
    assert abs(guessed - section.chance(body, (2.0, 2.0))) < 0.06


@pytest.mark.parametrize("shift, pixel_mm, found", [(1, 3.9, 1), (1, 4.1, 0), (2, 2.0, 1), (3, 2.0, 0)])
def test_a_place_is_found_within_four_millimeters(shift, pixel_mm, found):
    a = random_features()
    body = torch.zeros(2, 1, 24, 20)
    body[:, :, 4:-4, 4:-4] = 1
    moved = a.roll(shift, dims=2)
    wide = torch.zeros_like(body)
    wide[:, :, 4:-4, 4:-4] = 1
    # rows that left the body through its lower edge have no partner
    hits = section.recall(a * body, moved * body, wide, (pixel_mm, 1.0))
    assert hits > 0.75 if found else hits < 0.15


def test_places_outside_the_body_are_neither_asked_nor_offered():
    a, b = random_features(), random_features()
    b[:, :, :12] = a[:, :, 12:]  # the perfect match lies outside the body
    body = torch.zeros(2, 1, 24, 20)
    body[:, :, 12:] = 1
    assert section.recall(a, b, body, (1.0, 1.0)) == 1, "inside, b is a"


def test_features_do_not_depend_on_how_the_file_is_stored(synthesizer):
    grid = Grid.from_parts((6, 24, 20), (1.0, 1.2, 4.0), (3, -8, 20), np.eye(3))
    study = make_study(grid)
    turned, other = reoriented(study.sources[0].array, grid, (0, 1, 2), (True, True, False))
    alike = make_study(other)
    for source, array in zip(alike.sources, (turned, reoriented(study.sources[1].array, grid, (0, 1, 2),
                                                                (True, True, False))[0]), strict=True):
        source.array[:] = array
    rows = [r["recall"] for r in section.retrieve(synthesizer, study, 3)]
    assert rows == [r["recall"] for r in section.retrieve(synthesizer, alike, 3)]


def blob(seed):
    rng = np.random.default_rng(seed)
    image = rng.uniform(0.2, 0.3, (64, 64)).astype(np.float32)
    r, c = np.indices(image.shape)
    tumor = (r - rng.integers(20, 44)) ** 2 + (c - rng.integers(20, 44)) ** 2 < 81
    image[tumor] += 0.5
    return TumorSlice(image, tumor)


def test_a_tumor_that_anyone_can_see_is_learned_frozen_and_from_scratch():
    slices = [blob(n) for n in range(6)]
    config = ModelConfig(channels=(8, 12), specific=(2, 2), encoder_blocks=1, decoder_blocks=1)
    torch.manual_seed(0)
    encoder = section.AnyToAll(config)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    for start in (encoder, None):
        assert np.mean(section.learn_tumor(slices[:4], slices[4:], config, start, 80, seed=0)) > 0.7
    assert all(torch.equal(before[k], v) for k, v in encoder.state_dict().items()), "frozen means untouched"


def test_nothing_is_tested_that_was_learned_from():
    for quick in (True, False):
        found = list(section.splits(16, (4, 8, 12, 16), quick))
        assert {n for _, n, _, _ in found} == {4, 8, 12}, "of sixteen, twelve are left to learn from"
        for name, labelled, train, test in found:
            assert len(train) == labelled and len(test) == 4 and not set(train) & set(test)
            assert name != "unseen" or test == [12, 13, 14, 15]
    assert sum(name == "cross-validated" for name, *_ in found) == 12


def test_section_runs_without_patients(synthesizer, tmp_path, monkeypatch):
    monkeypatch.setattr(section, "phantom", lambda seed: phantom(seed, (3, 40, 40)))
    monkeypatch.setattr(section, "learn_tumor", lambda train, test, *_, **__: [0.5] * len(test))
    for kind in ("images", "masks"):
        (tmp_path / "npc_t2" / kind).mkdir(parents=True)
        for n in range(9):
            item = blob(n)
            pixels = 255 * (item.image / item.image.max() if kind == "images" else item.tumor[::-1])
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "npc_t2" / kind / f"{n}.jpg")
    without = write_tiny_weights(tmp_path / "runs" / "second", configuration="no-contrast")
    context = Context(synthesizer, tmp_path, tmp_path / "out", quick=True,
                      baselines={"second run": without})
    found = section.run(context)
    retrieval, few, tumor = found.tables
    assert {row[0] for row in retrieval.rows} == {"these", "without contrast"}
    assert few.rows == (("unseen", 4, 4, 0.5, 0.5),), "twelve cannot be learned from of nine"
    assert any(row[0].startswith("phantom") for row in tumor.rows)
    assert all(len(row) == len(table.columns) for table in found.tables for row in table.rows)
    for n in range(2):
        (tmp_path / "npc_t2" / "images" / f"{n}.jpg").unlink()
    found = section.run(context)
    assert "holds 7, and it takes 8" in found.text and "nan" not in found.text
    assert len(found.tables) == 2, "no table without a row"
