"""Sequences that a training run never meets."""

import numpy as np
import pytest

pytest.importorskip("open_clip", reason="training needs the train extra")
pytest.importorskip("lightning_fabric", reason="training needs the train extra")

from tiny_runs import box_labelmap, tiny_config

from NPCSynthLib.model.weights import load_weights
from NPCSynthLib.training import dataset, trainer
from NPCSynthLib.training.config import TrainingConfig
from NPCSynthLib.training.dataset import TrainingBatches
from NPCSynthLib.training.text_pretraining import random_prompts
from NPCSynthLib.vocabulary import load_sequences


def test_neither_images_nor_words_of_it_are_met(monkeypatch, tmp_path):
    monkeypatch.setattr(dataset, "phantom_labelmap", box_labelmap)
    mixture = TrainingConfig.load("comparison/no-t1fs").mixture
    assert mixture.without == ("T1FS",)
    batches = TrainingBatches(tmp_path, 30, 4, 32, warmup=10, phantoms=1, mixture=mixture, seed=0)
    met = {i for step in range(30) for i in batches[step].source_ids + batches[step].target_ids}
    assert met == set(load_sequences()) - {"T1FS"}
    prompts, _, truth, _ = random_prompts(400, np.random.default_rng(0), mixture.without)
    t1, agent, fat = truth[:, 0] == 1, truth[:, 3] == 1, truth[:, 4] == 1
    assert not (t1 & fat & ~agent).any() and (t1 & fat & agent).any() and (fat & ~t1).any()
    assert not any(p.startswith("T1FS") for p in prompts)


def test_weights_do_not_claim_to_know_it(monkeypatch, tmp_path):
    monkeypatch.setattr(dataset, "phantom_labelmap", box_labelmap)
    config = tiny_config(tmp_path, steps=1, mixture={"without": ["T1FS", "PD"]})
    weights = trainer.train(config, tmp_path, tmp_path / "run")
    manifest = load_weights(weights).manifest
    assert set(manifest["prompts"]) == set(load_sequences()) - {"T1FS", "PD"}
    assert manifest["configuration"] == "tiny" and manifest["name"] == "NPCSynth any-to-all (tiny)"
