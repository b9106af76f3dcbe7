"""Finished weights get a text tower that reads other wordings and echo times, and stay as they are."""

import re

import numpy as np
import pytest
import torch

pytest.importorskip("open_clip", reason="training needs the train extra")
pytest.importorskip("lightning_fabric", reason="training needs the train extra")

from tiny_runs import box_labelmap, tiny_config
from typer.testing import CliRunner

from NPCSynthLib.cli.main import app
from NPCSynthLib.errors import InputError, UsageError, WeightsError
from NPCSynthLib.model.manifest import read_manifest, write_manifest
from NPCSynthLib.model.network import AnyToAll, ModelConfig
from NPCSynthLib.model.text import TextTower, tokens_of_vocabulary
from NPCSynthLib.model.weights import load_weights
from NPCSynthLib.phantom.signal import ANY_ECHO
from NPCSynthLib.training import trainer
from NPCSynthLib.training.config import TrainingConfig
from NPCSynthLib.training.dataset import Mixture, TrainingBatches, collate
from NPCSynthLib.training.objectives import TrainingModule
from NPCSynthLib.training.simulation import simulate
from NPCSynthLib.training.stages import train_in_stages
from NPCSynthLib.training.text_pretraining import pretrain_text, random_wording
from NPCSynthLib.training.wordings import Meanings
from NPCSynthLib.vocabulary import canonical_prompt, load_sequences

CONFIG = ModelConfig(channels=(8, 12, 16), specific=(2, 2, 2), encoder_blocks=1, decoder_blocks=1, text_width=32,
                     text_layers=1, text_heads=2)  # fmt: skip


@pytest.fixture
def module():
    """A network in whose blocks text has its say, and a new tower that is to learn what another one meant."""
    torch.manual_seed(0)
    module = TrainingModule(AnyToAll(CONFIG), TextTower(CONFIG, tokens_of_vocabulary()), learns="words")
    for parameter in module.model.decoder.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2))
    before = TextTower(CONFIG, tokens_of_vocabulary()).requires_grad_(False)
    canonical = {s.id: before.encode([canonical_prompt(s)])[0] for s in load_sequences().values()}
    module.meanings = Meanings(canonical, ())
    return module


def learn(module, steps) -> list[dict]:
    """The losses of so many steps on simulated images whose prompts tell their echo time."""
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=5e-3)
    losses = []
    for step in range(steps):
        rng = np.random.default_rng(step)
        batch = collate([simulate(box_labelmap(), ["T1"], ["T2"], rng, 32, 0, echo_times=1.0) for _ in range(3)])
        found = module(batch, torch.Generator().manual_seed(step))
        found["total"].backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append({name: float(value.detach()) for name, value in found.items()})
    return losses


def test_other_wordings_come_to_mean_what_the_canonical_prompt_does(module):
    losses = [x["wordings"] for x in learn(module, 100)]
    assert np.mean(losses[-10:]) < 0.25 * np.mean(losses[:10])


def test_from_words_alone_the_tower_learns_what_each_sequence_means():
    torch.manual_seed(0)
    tower = TextTower(CONFIG, tokens_of_vocabulary())
    means = {sequence: torch.randn(1, 32) for sequence in load_sequences()}
    pretrain_text(tower, 300, seed=0, means=means)
    words = {"T1": "T1 with gadolinium", "T2": "T2 image", "FLAIR": "FLAIR MRI", "PD": "proton density image"}
    said = tower.encode(list(words.values()))[0].pooled.detach()
    nearest = torch.cdist(said, torch.cat(list(means.values()))).argmin(dim=1)
    weighting = {"T1C": "T1", "T1FS": "T1", "T1CFS": "T1", "T2FS": "T2"}  # a tower so small does not tell agents yet
    said = [list(means)[n] for n in nearest]
    assert [weighting.get(sequence, sequence) for sequence in said] == list(words)


def test_echo_times_are_learned_from_images(module):
    losses = [x["l1"] for x in learn(module, 100)]
    assert np.mean(losses[-20:]) < 0.85 * np.mean(losses[:20])


def test_every_target_of_such_a_run_tells_its_echo_time(boxes):
    batches = TrainingBatches(None, 4, 4, 32, 0, 1, Mixture(), 3, echo_times=True)
    for step in range(4):
        batch = batches[step]
        assert set(batch.target_ids) <= {"T2", "T2FS"}
        assert all(re.search(r"(TE|echo time) \d", prompt) for prompt in batch.target_prompts)
    assert batches[1].target_prompts == batches[1].target_prompts != batches[2].target_prompts


def test_where_numbers_are_learned_many_wordings_tell_an_echo_time_of_their_own():
    rng = np.random.default_rng(0)
    found = [random_wording(rng, numbers=True)[1:] for _ in range(600)]
    echoes = [times["TE"] for sequence, times in found if sequence.id in ("T2", "T2FS") and times and "TE" in times]
    assert len(echoes) > 150
    assert min(echoes) < 30 and max(echoes) > 120
    assert {sequence.id for sequence, _ in found} == set(load_sequences()), "the others are not forgotten"


def test_a_run_of_words_changes_the_text_tower_alone(boxes, tmp_path, first):
    """To the bit, so that images stay the same and what was measured on them stays true."""
    config = tiny_config(tmp_path, model=None, learns="words")
    second = trainer.train(config, tmp_path, tmp_path / "second", start=first)
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert (first / "text.safetensors").read_bytes() != (second / "text.safetensors").read_bytes()
    before, after = load_weights(first), load_weights(second)
    features, unknown = after.text_tower().encode(["T2 image of the neck, TE 40 ms"])
    assert features.pooled.shape == (1, 32) and not unknown
    assert after.manifest["started_from"] == before.identity
    assert after.manifest["reads_echo_times"] is True
    state = torch.load(tmp_path / "second" / "checkpoint.ckpt", weights_only=True)
    for name, value in before.model.state_dict().items():
        assert torch.equal(state["module"][f"model.{name}"], value), "it learned from the images of other weights"


def test_an_interrupted_run_of_words_goes_on_to_the_same_result(boxes, tmp_path, first):
    config = tiny_config(tmp_path, model=None, learns="words")
    whole = trainer.train(config, tmp_path, tmp_path / "whole", start=first)
    trainer.train(config, tmp_path, tmp_path / "parts", start=first, max_minutes=0)
    parts = trainer.train(config, tmp_path, tmp_path / "parts", start=first)
    assert (whole / "text.safetensors").read_bytes() == (parts / "text.safetensors").read_bytes()


def test_a_run_of_words_does_not_go_on_from_one_for_other_weights(boxes, tmp_path, first):
    config = {"model": None, "learns": "words"}
    trainer.train(tiny_config(tmp_path, **config), tmp_path, tmp_path / "out", start=first)
    another = trainer.train(tiny_config(tmp_path, seed=4), tmp_path, tmp_path / "another")
    with pytest.raises(InputError, match="another configuration"):
        trainer.train(tiny_config(tmp_path, **config), tmp_path, tmp_path / "out", start=another)


def test_a_run_of_words_does_not_go_on_from_that_of_the_weights(boxes, tmp_path):
    first = trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="another configuration"):
        trainer.train(tiny_config(tmp_path, model=None, learns="words"), tmp_path, tmp_path / "out", start=first)


def test_what_the_weights_never_met_stays_unknown_to_their_words(boxes, tmp_path, monkeypatch):
    """The vocabulary may have grown since."""
    first = trainer.train(tiny_config(tmp_path, mixture={"without": ["T1FS"]}), tmp_path, tmp_path / "first")
    asked = []
    monkeypatch.setattr(trainer, "pretrain_text", lambda *_, without, **__: asked.append(without))
    trainer.train(tiny_config(tmp_path, model=None, learns="words"), tmp_path, tmp_path / "out", start=first)
    assert asked == [("T1FS",)]


def test_a_run_of_words_learns_from_no_cohort(boxes, tmp_path, first):
    with pytest.raises(UsageError, match="Leave out --cohort"):
        train_in_stages(tiny_config(tmp_path, model=None, learns="words"), tmp_path, tmp_path / "out", start=first,
                        cohort=[object()])  # fmt: skip


@pytest.mark.parametrize("changes", [
    {"network": "any-to-all-labels"}, {"mixture": {"without": ["T2", "T2FS"]}}, {"model": {"channels": [8, 12, 16]}},
])  # fmt: skip
def test_words_are_learned_for_finished_weights_that_know_t2(tmp_path, changes):
    with pytest.raises(UsageError, match="words are learned for finished any-to-all weights"):
        TrainingConfig.load(tiny_config(tmp_path, **{"model": None, "learns": "words", **changes}))


def test_what_learns_must_be_something_that_does(tmp_path):
    with pytest.raises(UsageError, match="decoder is nothing that learns"):
        TrainingConfig.load(tiny_config(tmp_path, learns="decoder"))


def test_the_command_leaves_what_was_calibrated_as_it_was(boxes, tmp_path, first):
    write_manifest(first, {**read_manifest(first)[1], "calibration": {"T1": 1.5}, "patient_spread": 0.5})
    config = tiny_config(tmp_path, model=None, learns="words")
    (tmp_path / "labelmaps").mkdir()
    done = CliRunner().invoke(app, ["train", config, "--data", str(tmp_path), "--from", str(first),
                                    "--out", str(tmp_path / "out")])  # fmt: skip
    assert done.exit_code == 0, done.stderr
    manifest = read_manifest(tmp_path / "out" / "weights")[1]
    assert (manifest["calibration"], manifest["patient_spread"]) == ({"T1": 1.5}, 0.5)
    assert "calibrated" not in done.stderr


def test_a_run_of_words_needs_weights(boxes, tmp_path):
    with pytest.raises(UsageError, match="goes on from weights"):
        trainer.train("words", tmp_path, tmp_path / "out")


def test_weights_that_never_met_t2_learn_no_words(boxes, tmp_path):
    first = trainer.train(tiny_config(tmp_path, mixture={"without": list(ANY_ECHO)}), tmp_path, tmp_path / "first")
    with pytest.raises(WeightsError, match="never met T2 or T2FS"):
        trainer.train(tiny_config(tmp_path, model=None, learns="words"), tmp_path, tmp_path / "out", start=first)
