"""Training: samples that are what they say, losses that mean what they say, runs that resume exactly."""

import dataclasses
import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from PIL import Image

pytest.importorskip("open_clip", reason="training needs the train extra")
pytest.importorskip("lightning_fabric", reason="training needs the train extra")

from tiny_runs import box_labelmap, tiny_config

from NPCSynthLib.errors import InputError, OutputError, UsageError, WeightsError
from NPCSynthLib.inference.device import Device
from NPCSynthLib.model.manifest import read_manifest, write_manifest
from NPCSynthLib.model.network import ModelConfig
from NPCSynthLib.model.text import TextTower, tokens_of_vocabulary
from NPCSynthLib.model.weights import add_file, load_weights
from NPCSynthLib.phantom.signal import FAT_T1_MS, nulling_inversion_time
from NPCSynthLib.phantom.tissues import TISSUES
from NPCSynthLib.training import config as config_module
from NPCSynthLib.training import dataset, export, journal, objectives, simulation, trainer
from NPCSynthLib.training.baseline_networks import NETWORKS, load_baseline
from NPCSynthLib.training.config import TrainingConfig
from NPCSynthLib.training.dataset import Mixture, TrainingBatches
from NPCSynthLib.training.labelmaps import find_labelmaps, load_labelmap
from NPCSynthLib.training.sample import IGNORE, POSSIBLE_CLASSES, plane_axes
from NPCSynthLib.training.simulation import simulate
from NPCSynthLib.training.text_pretraining import pretrain_text
from NPCSynthLib.vocabulary import canonical_prompt, get_sequence, load_classes, load_sequences


def test_simulated_sample_follows_the_physics():
    """Contrast makes the tumor brighter than the brain around it."""
    values = {"T1": [], "T1C": []}
    order = load_classes()
    tumor_class, brain_class = order.index("GTVp"), order.index("Brain")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        sample = simulate(box_labelmap(), ["T2"], ["T1", "T1C"], rng, 48, 0)
        tumor, brain = sample.structures == tumor_class, sample.structures == brain_class
        if tumor.sum() < 20 or brain.sum() < 20:
            continue
        for sequence, image in zip(sample.target_ids, sample.targets, strict=True):
            values[sequence].append(image[tumor].mean() / image[brain].mean())
    assert len(values["T1"]) >= 4
    ratio = {s: np.median(v) for s, v in values.items()}
    assert ratio["T1C"] > 1.2 * ratio["T1"]


def test_simulated_stir_nulls_fat_of_its_own_field_and_blood_flows(monkeypatch):
    """The field strength is drawn for the patient, not for each sequence: T1 of tissues and TI must be of the same."""
    seen, compute = [], simulation.signal
    monkeypatch.setattr(simulation, "signal", lambda *given: seen.append(given[5:]) or compute(*given))
    boxes = box_labelmap()
    names = tuple(name.replace("muscle", "artery") for name in boxes.names)
    for seed in range(40):
        simulate(dataclasses.replace(boxes, names=names), ["T1"], ["T2FS"], np.random.default_rng(seed), 32, 0)
    stir = [protocol for protocol, _ in seen if protocol.kind == "IR"]
    assert {protocol.field_strength_t for protocol in stir} == {1.5, 3.0}
    for protocol in stir:
        nulling = nulling_inversion_time(FAT_T1_MS[protocol.field_strength_t], protocol.TR_ms)
        assert 0.9 <= protocol.TI_ms / nulling <= 1.0
    assert all(flow_void.max() == TISSUES["artery"].flow_void for _, flow_void in seen)


def test_echo_times_far_from_the_usual_are_told():
    rng = np.random.default_rng(4)
    samples = [simulate(box_labelmap(), ["T1"], ["T2"], rng, 32, 0, echo_times=1.0) for _ in range(40)]
    times = [int(re.search(r"(?:TE|echo time) (\d+)", sample.target_prompts[0])[1]) for sample in samples]
    assert min(times) < 60 and max(times) > 100


def test_sample_is_the_same_for_the_same_seed():
    a, b = (simulate(box_labelmap(), ["T1", "T2"], ["FLAIR"], np.random.default_rng(5), 32, 0) for _ in range(2))
    np.testing.assert_array_equal(a.sources, b.sources)
    np.testing.assert_array_equal(a.targets, b.targets)
    assert a.source_prompts == b.source_prompts


def test_planes_are_right_handed_views():
    for plane in range(3):
        axes = plane_axes(plane)
        np.testing.assert_array_equal(axes @ axes.T, np.eye(3))
        assert abs(axes[0, plane]) == 1


def test_sources_are_never_the_target_after_warmup(boxes, tmp_path):
    batches = TrainingBatches(tmp_path, 400, 4, 32, warmup=0, phantoms=1, mixture=Mixture(), seed=0)
    rng = np.random.default_rng(0)
    counts = []
    for _ in range(300):
        sources, targets = batches._choose_sequences(list(load_sequences()), 200, rng)
        counts.append(len(sources))
        assert set(targets) - set(sources), "at least one target is truly missing"
    assert set(counts) == {1, 2, 3}


def test_a_share_of_the_data_is_a_part_of_all_of_it(boxes, tmp_path):
    whole, half = (TrainingBatches(tmp_path, 4, 2, 32, 0, 6, Mixture(share=share), 0) for share in (1.0, 0.5))
    assert len(whole.phantoms) == 6 and len(half.phantoms) == 3


def test_batch_number_decides_the_batch(boxes, tmp_path):
    first = TrainingBatches(tmp_path, 50, 3, 32, 5, 1, Mixture(), 7)
    second = TrainingBatches(tmp_path, 50, 3, 32, 5, 1, Mixture(), 7)
    second[3]
    assert torch.equal(first[20].sources, second[20].sources)
    assert first[20].target_prompts == second[20].target_prompts


def test_scale_loss_is_least_where_the_scale_is_the_mean_error():
    error = torch.tensor([0.05, 0.1, 0.15])
    losses = {b: float(objectives.laplace_scale_loss(error, torch.tensor(b).log()).mean()) for b in (0.05, 0.1, 0.2)}
    assert losses[0.1] < losses[0.05] and losses[0.1] < losses[0.2]


def test_ssim_of_equal_images_is_one_and_falls_with_noise():
    image = torch.rand(1, 40, 40)
    noisy = image + 0.2 * torch.randn_like(image)
    torch.testing.assert_close(objectives.ssim_map(image, image), torch.ones_like(image), atol=1e-4, rtol=0)
    assert objectives.ssim_map(image, noisy).mean() < 0.9


def test_unknown_voxels_carry_no_segmentation_loss():
    logits = torch.randn(1, len(load_classes()), 8, 8)
    structures = torch.full((1, 8, 8), IGNORE)
    structures[0, :4] = 1
    changed = logits.clone()
    changed[:, :, 4:] += 10 * torch.randn_like(changed[:, :, 4:])
    a, b = (objectives.segmentation_loss(x, structures) for x in (logits, changed))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("kind", "possible"), POSSIBLE_CLASSES.items())
def test_where_only_a_kind_of_tissue_is_known_each_of_its_classes_is_right_and_no_other(kind, possible):
    classes = load_classes()
    structures = torch.full((1, 8, 8), kind)
    loss = {}
    for n, name in enumerate(classes):
        logits = torch.zeros(1, len(classes), 8, 8)
        logits[:, n] = 12.0
        loss[name] = float(objectives.segmentation_loss(logits, structures))
    assert max(loss[name] for name in possible) < 0.01
    assert min(value for name, value in loss.items() if name not in possible) > 5


@pytest.mark.parametrize(("label", "tissues", "structure"), [
    (506, {"vitreous"}, "Eye"), (512, {"spinal_cord"}, "SpinalCord"), (16, {"brainstem"}, "Brainstem"),
    (511, {"skin"}, "body"), (515, {"cortical_bone"}, "body"), (516, {"fatty_marrow", "red_marrow"}, "body"),
])  # fmt: skip
def test_a_public_head_is_of_the_tissues_that_its_labels_stand_for(tmp_path, label, tissues, structure):
    labels = np.full((12, 12, 12), 507, np.int16)
    labels[2:6, 2:6, 2:6] = label
    path = tmp_path / "labelmaps" / "synthseg" / "training_seg_01.nii.gz"
    path.parent.mkdir(parents=True)
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(path))
    [found] = find_labelmaps(tmp_path)
    read = load_labelmap(found)
    index = read.classes[3, 3, 3]
    assert {read.tissues(np.random.default_rng(n))[index] for n in range(20)} == tissues
    assert load_classes()[read.structure_table()[index]] == structure


def test_place_contrast_prefers_aligned_features():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(3, 16, 24, 24, generator=g)
    body, pixel, place = torch.ones(3, 24, 24), torch.full((3,), 4.0), torch.arange(3)

    def contrast(b):
        return float(objectives.place_contrast(a, b, body, pixel, place, torch.Generator().manual_seed(1))[0])

    assert contrast(a) < 0.3 * contrast(a.roll(8, dims=2))
    assert contrast(a.roll(1, dims=3)) < 0.3 * contrast(a.roll(8, dims=2)), "one pixel of misregistration is tolerated"


def test_collapsed_features_are_punished():
    flat = torch.ones(2, 16, 12, 12)
    spread = torch.randn(2, 16, 12, 12)
    body, pixel, place = torch.ones(2, 12, 12), torch.full((2,), 2.0), torch.arange(2)
    generator = torch.Generator().manual_seed(1)
    collapsed, healthy = (
        float(objectives.place_contrast(x, x, body, pixel, place, generator)[1]) for x in (flat, spread)
    )
    assert collapsed > 0.5 and healthy < 0.1


def test_recognition_accepts_any_wording_of_the_right_sequence():
    texts = torch.nn.functional.normalize(torch.eye(4)[:, :3] + 0.01, dim=1)
    images = texts[[0, 1]]
    right = torch.tensor([[True, False, False, False], [False, True, False, False]])
    wrong = right[[1, 0]]
    scale = torch.tensor(2.6)
    losses = [objectives.recognition_loss(images, texts, same, scale) for same in (right, wrong)]
    assert losses[0] < losses[1]


def test_run_learns_resumes_exactly_and_leaves_weights(boxes, tmp_path):
    config = tiny_config(tmp_path)
    seen = []
    whole = trainer.train(config, tmp_path, tmp_path / "whole", on_step=lambda *a: seen.append(a))
    assert [s for s, _, _ in seen] == [1, 2, 3, 4]
    assert all(np.isfinite(list(losses.values())).all() for _, _, losses in seen)

    class Stop(Exception):
        pass

    def stop(step, *_):
        if step == 2:
            raise Stop

    with pytest.raises(Stop):
        trainer.train(config, tmp_path, tmp_path / "parts", on_step=stop)
    parts = trainer.train(config, tmp_path, tmp_path / "parts")
    a, b = load_weights(whole), load_weights(parts)
    for (name, x), y in zip(a.model.state_dict().items(), b.model.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, atol=2e-3, rtol=1e-2, msg=name)
    assert "digital phantom: 1 patients" in a.manifest["training_data"]


def test_text_tower_learns_what_the_words_mean():
    """After a few steps on prompts alone, wordings of one sequence are closer than those of different ones."""
    torch.manual_seed(0)
    config = ModelConfig(text_width=32, text_layers=1, text_heads=2)
    tower = TextTower(config, tokens_of_vocabulary())
    first = pretrain_text(tower, 1, seed=0, batch_size=32)
    assert pretrain_text(tower, 150, seed=0, batch_size=32) < 0.5 * first
    with torch.inference_mode():
        features, _ = tower.encode(["T1 image", "a scan, T1-weighted", "FLAIR image", "T2-weighted FLAIR MRI"])
    similarity = torch.nn.functional.normalize(features.pooled - features.pooled.mean(0), dim=1)
    similarity = similarity @ similarity.T
    assert min(similarity[0, 1], similarity[2, 3]) > max(similarity[0, 2], similarity[1, 3])


@pytest.mark.parametrize("rate, stays", [(0.0, True), (1.0, False)])
def test_the_text_tower_learns_at_its_share_of_the_rate(boxes, tmp_path, rate, stays):
    config = TrainingConfig.load(tiny_config(tmp_path, text_rate=rate, learning_rate=0.1))
    module = config_module.build_module(config, tokens_of_vocabulary())
    fresh = module.text
    pretrain_text(fresh, config.text_steps, config.seed)
    weights = trainer.train(str(tmp_path / "tiny.json"), tmp_path, tmp_path / "out")
    loaded = load_weights(weights)
    images = module.model.encoder.state_dict()
    assert not all(torch.allclose(loaded.model.encoder.state_dict()[n], v, atol=1e-3) for n, v in images.items())
    learned = loaded.text_tower().state_dict()
    kept = [(learned[n] - v).abs().max() <= v.abs().max() / 200 + 1e-4 for n, v in fresh.state_dict().items()]
    assert all(kept) == stays


def test_loss_falls(boxes, tmp_path):
    losses = []
    config = tiny_config(tmp_path, steps=90)
    trainer.train(config, tmp_path, tmp_path / "out", on_step=lambda s, n, x: losses.append(x["l1"]))
    assert np.mean(losses[-30:]) < 0.92 * np.mean(losses[:15])


def test_run_from_finished_weights_begins_where_they_ended(boxes, tmp_path, first):
    second = trainer.train(tiny_config(tmp_path, learning_rate=0.0), tmp_path, tmp_path / "second", start=first)
    a, b = load_weights(first), load_weights(second)
    for name, value in a.model.state_dict().items():
        torch.testing.assert_close(b.model.state_dict()[name], value, atol=2e-3, rtol=2e-3)
    assert b.manifest["started_from"] == a.identity
    assert b.manifest["steps"] == 2 * a.manifest["steps"]


def test_the_segmentation_head_learns_alone_and_leaves_the_rest_as_it_is(boxes, tmp_path, first):
    """To the bit, so that images stay the same and a second edition of the weights adds little to the history."""
    add_file(first, "usual.safetensors", {"limits": np.ones(3, np.float32)})
    write_manifest(first, {**read_manifest(first)[1], "calibration": {"T1": 1.5}, "notes": ["Check every contour."]})
    config = tiny_config(tmp_path, learns="segmentation", learning_rate=0.01)
    second = trainer.train(config, tmp_path, tmp_path / "second", start=first)
    a, b = load_weights(first), load_weights(second)
    changed = {n.split(".")[0] for n, v in a.model.state_dict().items() if not torch.equal(b.model.state_dict()[n], v)}
    assert changed == {"segmentation"}
    for name in ("text.safetensors", "usual.safetensors"):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert b.manifest["calibration"] == {"T1": 1.5}
    assert "Check every contour." in b.manifest["notes"], "what users are warned of stays true"
    prompt = canonical_prompt(get_sequence("T1"))
    assert torch.equal(a.text_features(prompt)[0].tokens, b.text_features(prompt)[0].tokens)


def test_where_gradients_are_scaled_they_can_be_clipped_too(boxes, tmp_path, monkeypatch):
    """On GPUs without bfloat16; Fabric clips no gradients of an optimizer that unscales them itself."""
    made, build = [], torch.optim.AdamW
    monkeypatch.setattr(torch.optim, "AdamW", lambda *a, **k: made.append(build(*a, **k)) or made[-1])
    monkeypatch.setattr(trainer, "choose_device", lambda: (Device(torch.device("cpu"), torch.float16, "old GPU"), []))
    trainer.train(tiny_config(tmp_path, steps=1), tmp_path, tmp_path / "out")
    assert made and not any(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in made)


def test_weights_say_by_themselves_what_their_contours_were_learned_from(boxes, tmp_path, monkeypatch, first):
    assert read_manifest(first)[1]["notes"] == [
        "The tumor and organ contours were learned from simulated patients: check every one."]
    described = TrainingBatches.describe
    monkeypatch.setattr(TrainingBatches, "describe", lambda self: [*described(self), f"{dataset.TUMOR_SLICES}12"])
    config = tiny_config(tmp_path, learns="segmentation", steps=1)
    second = trainer.train(config, tmp_path, tmp_path / "second", start=first)
    assert read_manifest(second)[1]["notes"] == [
        "The tumor and organ contours were learned from simulated patients and 12 real slices: check every one."]


def test_a_run_does_not_go_on_from_one_that_began_with_other_weights(boxes, tmp_path, first):
    other = trainer.train(tiny_config(tmp_path, seed=4), tmp_path, tmp_path / "other")
    config = tiny_config(tmp_path, model=None)
    trainer.train(config, tmp_path, tmp_path / "out", start=first)
    with pytest.raises(InputError, match="on from other weights"):
        trainer.train(config, tmp_path, tmp_path / "out", start=other)


@pytest.mark.parametrize(("before", "now", "told"), [
    ("label maps: a, b", "label maps: a", ["label maps: a, b"]),
    ("label maps: a", "label maps: a, b", ["label maps: a, b"]),
    ("phantom: a", "label maps: a", ["phantom: a", "label maps: a"]),
])  # fmt: skip
def test_training_data_of_several_runs_is_told_once(before, now, told):
    assert export.together([before, now]) == told


def test_a_run_of_the_segmentation_head_may_end_where_its_weights_came_from(boxes, tmp_path):
    first = trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out")
    (tmp_path / "out" / "checkpoint.ckpt").unlink()
    config = tiny_config(tmp_path, learns="segmentation", learning_rate=0.01)
    before = load_weights(first)
    assert trainer.train(config, tmp_path, tmp_path / "out", start=first) == first
    assert load_weights(first).manifest["started_from"] == before.identity


def test_words_that_the_vocabulary_has_gained_are_learned_further_on(boxes, tmp_path, monkeypatch):
    known = trainer.tokens_of_vocabulary()
    monkeypatch.setattr(trainer, "tokens_of_vocabulary", lambda: known[:-20] + known[-2:])
    first = trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "first")
    monkeypatch.setattr(trainer, "tokens_of_vocabulary", lambda: known)
    second = trainer.train(tiny_config(tmp_path, steps=1), tmp_path, tmp_path / "second", start=first)
    before, after = load_weights(first), load_weights(second)
    assert len(after.manifest["tokens"]) == len(before.manifest["tokens"]) + 18
    [old, new] = (loaded.text_tower().encode(["T2 image"])[0].pooled for loaded in (before, after))
    assert float(torch.cosine_similarity(old, new)) > 0.9


def test_weights_of_another_size_are_no_start(boxes, tmp_path, first):
    model = {"channels": [8, 12], "specific": [2, 2], "text_width": 32, "text_layers": 1, "text_heads": 2}
    other = tiny_config(tmp_path, model=model)
    with pytest.raises(WeightsError, match="not of the size"):
        trainer.train(other, tmp_path, tmp_path / "second", start=first)


def test_nothing_to_train_on_is_said(tmp_path):
    with pytest.raises(InputError, match="holds nothing to train on"):
        trainer.train(tiny_config(tmp_path, phantoms=0), tmp_path, tmp_path / "out")


@pytest.mark.parametrize("content", [None, "not json", '{"steps": 3}'])
def test_bad_configuration_is_said(tmp_path, content):
    path = tmp_path / "mine.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match="not a training configuration"):
        trainer.train(str(path), tmp_path, tmp_path / "out")


_SHIPPED = Path(config_module.__file__).parent


@pytest.mark.parametrize("path", [*_SHIPPED.glob("*.json"), *_SHIPPED.glob("comparison/*.json")], ids=lambda p: p.stem)
def test_shipped_configurations_load(path):
    stages = TrainingConfig.stages(str(path.relative_to(_SHIPPED).with_suffix("")))
    for config in [TrainingConfig.load(stage) for stage in stages]:
        if config.model is not None:  # otherwise that of the weights which it goes on from
            assert config.model.classes == load_classes()
            assert config.size % config.model.stride == 0


def test_the_rival_at_the_full_budget_differs_in_the_network_alone():
    ours, rival = (TrainingConfig.load(name) for name in ("small", "small-channel-unet"))
    assert dataclasses.replace(rival, network=ours.network) == ours != rival


def test_journal_holds_losses_and_pictures(boxes, tmp_path, monkeypatch):
    monkeypatch.setattr(journal, "_PICTURE_STEPS", 2)
    trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out")
    header, *lines = (tmp_path / "out" / "log.csv").read_text().splitlines()
    assert header.startswith("step,seconds,l1,") and [line.split(",")[0] for line in lines] == ["1", "2", "3", "4"]
    picture = np.asarray(Image.open(tmp_path / "out" / "progress.png"))
    assert picture.shape[1] == 3 * 32 and picture.std() > 0
    assert any((tmp_path / "out" / "events").iterdir())


@pytest.mark.parametrize("network", NETWORKS)
def test_baselines_train_on_the_same_batches_and_come_back(boxes, tmp_path, network):
    losses = []
    config = tiny_config(tmp_path, network=network, steps=2, size=64, batch_size=2)  # SwinUNETR needs two cells a side
    weights = trainer.train(config, tmp_path, tmp_path / "out", on_step=lambda s, n, x: losses.append(x["total"]))
    module = load_baseline(weights)
    assert np.isfinite(losses).all()
    images, present = torch.rand(1, 2, 3, 64, 64), torch.tensor([[True, False]])
    sources, target = torch.tensor([[0, -1]]), torch.tensor([4])  # T1 to T2
    with torch.inference_mode():
        made = module.synthesize(images, present, sources, target)
        images[:, 1] = 9  # a source that is not there
        again = module.synthesize(images, present, sources, target)
    assert made.shape == (1, 64, 64) and made.std() > 0
    torch.testing.assert_close(made, again)


def test_labels_instead_of_text_make_usable_weights(boxes, tmp_path):
    weights = trainer.train(tiny_config(tmp_path, network="any-to-all-labels", steps=2), tmp_path, tmp_path / "out")
    loaded = load_weights(weights)
    assert loaded.text_features(loaded.manifest["prompts"]["T2"])[0].pooled.shape == (1, 32)


def test_two_processes_learn_what_one_does(tmp_path):
    """torchrun, gloo: every batch is shared, so that the parameters after some steps agree."""
    script = tmp_path / "run.py"
    script.write_text(
        "import sys; sys.path[:0] = sys.argv[2:4]\n"
        "import tiny_runs\n"
        "from NPCSynthLib.training import dataset, trainer\n"
        "from pathlib import Path\n"
        "dataset.phantom_labelmap = tiny_runs.box_labelmap\n"
        "here = Path(sys.argv[1])\n"
        "trainer.train(str(here / 'tiny.json'), here, here / 'two', max_minutes=60)\n"
    )
    config = tiny_config(tmp_path, steps=5, batch_size=8, learning_rate=0.001)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    testing = Path(__file__).parent
    environment = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
                   "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test", "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path), str(testing.parent), str(testing)],
            env={**environment, "RANK": str(r), "LOCAL_RANK": str(r)}, stderr=subprocess.PIPE, text=True,
        )
        for r in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    box = dataset.phantom_labelmap
    try:
        dataset.phantom_labelmap = box_labelmap
        one = trainer.train(config, tmp_path, tmp_path / "one")
        start = trainer.build_module(TrainingConfig.load(config), trainer.tokens_of_vocabulary())
    finally:
        dataset.phantom_labelmap = box
    alone = load_weights(one).model.state_dict()
    shared = load_weights(tmp_path / "two" / "weights").model.state_dict()
    first = start.model.state_dict()
    way = torch.cat([(alone[n] - first[n]).flatten() for n in first])
    apart = torch.cat([(shared[n] - alone[n]).flatten() for n in first])
    assert apart.norm() < 0.5 * way.norm(), (apart.norm(), way.norm())


def test_damaged_checkpoint_is_said_and_weights_stay(boxes, tmp_path):
    config = tiny_config(tmp_path)
    weights = trainer.train(config, tmp_path, tmp_path / "out")
    before = (weights / "model.safetensors").read_bytes()
    (tmp_path / "out" / "checkpoint.ckpt").write_bytes(b"half a checkpoint")
    with pytest.raises(InputError, match="damaged.*--fresh"):
        trainer.train(config, tmp_path, tmp_path / "out")
    assert (weights / "model.safetensors").read_bytes() == before


def test_checkpoint_of_another_network_is_said(boxes, tmp_path):
    trainer.train(tiny_config(tmp_path, network="channel-unet", steps=1), tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="another configuration"):
        trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out")


@pytest.mark.parametrize("changes", [{"mixture": {"without": ["T1FS"]}}, {"losses": {"contrast": 0.0}}, {"steps": 5}])
def test_checkpoint_of_another_configuration_of_the_same_network_is_said(boxes, tmp_path, changes):
    """Or weights would be called after what they did not learn by."""
    weights = trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out")
    before = (weights / "manifest.json").read_bytes()
    with pytest.raises(InputError, match="another configuration.*--fresh"):
        trainer.train(tiny_config(tmp_path, **changes), tmp_path, tmp_path / "out")
    assert (weights / "manifest.json").read_bytes() == before


def test_more_processes_than_a_batch_has_samples_are_said(boxes, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "_launch", lambda: SimpleNamespace(world_size=4))
    with pytest.raises(UsageError, match="batches of 3, too few for 4 processes"):
        trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out")


def test_checkpoint_whose_network_has_other_layers_is_said(boxes, tmp_path):
    """An older edition's run of the same configuration may have had them."""
    config = tiny_config(tmp_path, steps=1)
    trainer.train(config, tmp_path, tmp_path / "out")
    state = torch.load(tmp_path / "out" / "checkpoint.ckpt")
    state["module"].popitem()
    torch.save(state, tmp_path / "out" / "checkpoint.ckpt")
    with pytest.raises(InputError, match="older NPCSynth"):
        trainer.train(config, tmp_path, tmp_path / "out")


def test_checkpoint_of_an_older_edition_is_said(boxes, tmp_path):
    """Its optimizer had one group of parameters for images and text."""
    config = tiny_config(tmp_path, steps=1)
    trainer.train(config, tmp_path, tmp_path / "out")
    state = torch.load(tmp_path / "out" / "checkpoint.ckpt")
    first, second = state["optimizer"]["param_groups"]
    state["optimizer"]["param_groups"] = [{**first, "params": first["params"] + second["params"]}]
    torch.save(state, tmp_path / "out" / "checkpoint.ckpt")
    with pytest.raises(InputError, match="older NPCSynth"):
        trainer.train(config, tmp_path, tmp_path / "out")


def test_a_step_that_is_no_number_ends_the_run_and_costs_nothing(boxes, tmp_path, monkeypatch):
    learned, losses = [], objectives.TrainingModule.forward

    def fallen(self, batch, generator):
        found = losses(self, batch, generator)
        learned.append(found)
        if len(learned) == 3:
            found["total"] = found["total"] * float("nan")
        return found

    monkeypatch.setattr(objectives.TrainingModule, "forward", fallen)
    with pytest.raises(InputError, match="fell apart in step 3"):
        trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out")
    state = torch.load(tmp_path / "out" / "checkpoint.ckpt", weights_only=True)
    assert state["step"] == 2
    assert all(value.isfinite().all() for value in (*state["module"].values(), *state["average"].values()))


@pytest.mark.parametrize("error", [
    OSError(28, "No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 704 vs 598"),  # what torch's writer says
])  # fmt: skip
def test_full_disk_costs_no_checkpoint(boxes, tmp_path, monkeypatch, error):
    config = tiny_config(tmp_path)
    trainer.train(config, tmp_path, tmp_path / "out", max_minutes=0)
    good = (tmp_path / "out" / "checkpoint.ckpt").read_bytes()

    def full(state, path):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OutputError, match="(No space left|disk full).*last good checkpoint was kept"):
        trainer.train(config, tmp_path, tmp_path / "out")
    assert (tmp_path / "out" / "checkpoint.ckpt").read_bytes() == good
    assert not list((tmp_path / "out").glob("*.part"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_log_that_cannot_be_written_ends_no_run(boxes, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "log.csv").symlink_to("/dev/full")
    notes = []
    weights = trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out", note=notes.append)
    assert load_weights(weights).manifest["steps"] == 4
    assert notes == ["The log of the run cannot be written (No space left on device). Training goes on without it."]


def test_a_folder_that_cannot_be_made_is_said(boxes, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out"):
        trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"


def test_a_damaged_comparison_network_is_said(boxes, tmp_path):
    """Not taken for the one that its manifest describes, and measured under its name."""
    weights = trainer.train(tiny_config(tmp_path, network="channel-unet", steps=1), tmp_path, tmp_path / "out")
    content = bytearray((weights / "model.safetensors").read_bytes())
    load_baseline(weights.parent)
    for damaged in (content[: len(content) // 2], content[:-1000] + bytes(1000)):
        (weights / "model.safetensors").write_bytes(damaged)
        with pytest.raises(WeightsError, match="damaged"):
            load_baseline(weights)


def test_weights_of_another_kind_are_not_called_broken(boxes, tmp_path):
    unet = trainer.train(tiny_config(tmp_path, network="channel-unet", steps=1), tmp_path, tmp_path / "unet")
    with pytest.raises(WeightsError, match="of a comparison network .channel-unet."):
        load_weights(unet)
    labels = trainer.train(tiny_config(tmp_path, network="any-to-all-labels"), tmp_path, tmp_path / "labels")
    with pytest.raises(WeightsError, match="by labels, not by words"):
        trainer.train(tiny_config(tmp_path), tmp_path, tmp_path / "out", start=labels)


def test_the_folder_of_a_run_stands_for_its_weights(first_run):
    assert load_weights(first_run.parent).identity == load_weights(first_run).identity


@pytest.mark.parametrize(("changes", "said"), [
    ({"steps": "many"}, '"steps" is a whole number above 0'),
    ({"batch_size": 0}, '"batch_size" is a whole number above 0'),
    ({"seed": -1}, '"seed" is a whole number, 0 or above'),
    ({"size": 34}, '"size" is a multiple of 8'),
    ({"size": 48, "network": "channel-unet"}, '"size" is a multiple of 32'),
    ({"losses": {"ssimm": 5}}, "there is no loss ssimm"),
    ({"mixture": {"without": ["T9"]}}, "there is no sequence T9"),
])  # fmt: skip
def test_a_configuration_that_cannot_be_meant_is_told_before_anything_is_read(tmp_path, changes, said):
    with pytest.raises(UsageError, match=said):
        TrainingConfig.load(tiny_config(tmp_path, **changes))


@pytest.mark.parametrize("content", ['"a"', "null", "[]", '{"like": "%s"}'])
def test_a_file_that_is_no_configuration_is_told(tmp_path, content):
    path = tmp_path / "mine.json"
    path.write_text(content.replace("%s", str(path)))
    with pytest.raises(UsageError, match="mine.json. is not a training configuration"):
        TrainingConfig.load(str(path))


def test_a_label_map_without_labels_is_named(tmp_path):
    path = tmp_path / "training_seg_01.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((4, 4, 4), np.int16)), str(path))
    with pytest.raises(InputError, match="training_seg_01.nii.gz holds no label that is known"):
        load_labelmap(path)


def test_networks_of_the_comparison_learn_from_the_same_mixture():
    """But for those that are there to differ in it: a baseline told by number cannot know an echo time."""
    mixtures = {path.stem: TrainingConfig.load(f"comparison/{path.stem}").mixture
                for path in Path(config_module.__file__).parent.glob("comparison/*.json")}
    ours = mixtures["ours"]
    assert {mixture.echo_times for mixture in mixtures.values()} == {0.0}
    differing = {name for name, mixture in mixtures.items() if mixture != ours}
    assert differing == {"no-simulation", "no-t1fs", "share-25", "share-50"}
