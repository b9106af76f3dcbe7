"""The section of the proof on cost: that the right things are counted. How fast anything is, no test asks."""

import numpy as np
import pytest
import torch

pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")
pytest.importorskip("monai", reason="the evaluation needs MONAI (extra: train)")

from tiny_weights import write_tiny_weights

from NPCSynthLib.evaluation import cost
from NPCSynthLib.evaluation.section import Context
from NPCSynthLib.inference.device import Device
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.training.baseline_networks import LabelSwinUNETR

CPU = Device(torch.device("cpu"), torch.float32, "test")


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory):
    return Synthesizer(write_tiny_weights(tmp_path_factory.mktemp("weights")), "cpu")


@pytest.fixture(scope="module")
def baseline():
    return LabelSwinUNETR(feature_size=12).eval()


def test_share_has_the_volume_in_plane_and_fewer_slices():
    study = cost.share_of((40, 60, 50), (0.5, 0.5, 4.4), 2)
    assert study.grid.shape == (2, 60, 50) and tuple(study.grid.spacing) == (0.5, 0.5, 4.4)
    assert [s.sequence for s in study.sources] == ["T1", "T2"] and not study.body[:, 0].any()


def test_operations_grow_with_the_pixels_and_the_baseline_passes_once_for_each_pair(synthesizer, baseline):
    small, large = (cost.share_of((1, n, n), (1, 1, 4), 1).grid for n in (64, 128))
    ours, theirs = zip(*(cost.flops_of_slice(synthesizer, baseline, grid) for grid in (small, large)), strict=True)
    assert 3.5 < ours[1] / ours[0] < 4.5 and 3.5 < theirs[1] / theirs[0] < 4.5
    from torch.utils.flop_counter import FlopCounterMode

    baseline._scale_and_shift = baseline.label(torch.tensor([0]))[:, :, None, None]
    with torch.inference_mode(), FlopCounterMode(display=False) as once:
        baseline.net(torch.rand(1, 3, 64, 64))
    assert theirs[0] == 6 * once.get_total_flops()


def test_baseline_does_every_slice_of_every_target(baseline, monkeypatch):
    study = cost.share_of((3, 64, 64), (1, 1, 4), 3)
    asked = []
    monkeypatch.setattr(type(baseline), "synthesize", lambda self, images, present, sources, target: (
        asked.append((images.shape, int(target))), images[:, 0, 1])[1])
    cost.baseline_job(baseline, CPU, study)
    assert len(asked) == 9 and {t for _, t in asked} == {0, 1, 2}
    assert {shape for shape, _ in asked} == {(1, 2, 3, 64, 64)}


def test_peak_counts_what_was_given_back():
    def take():
        np.ones(60 * 2**20, np.uint8)

    found = cost.peak_bytes(take, CPU)
    if found is None:
        pytest.skip("this system keeps no count")
    assert 60e6 < found < 70e6


def test_memory_is_not_told_where_nobody_keeps_count(monkeypatch):
    def refuse(*_):
        raise FileNotFoundError

    monkeypatch.setattr(cost.Path, "write_text", refuse)
    called = []
    assert cost.peak_bytes(lambda: called.append(1), CPU) is None and called


def test_section_states_ratios_and_extrapolates(synthesizer, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "VOLUMES", (((10, 64, 64), (1.0, 1.0, 4.4)), ((6, 64, 64), (1.0, 1.0, 1.0))))
    monkeypatch.setattr(cost, "matrix_rate", lambda device: 1e9)
    monkeypatch.setattr(cost, "LabelSwinUNETR", lambda: LabelSwinUNETR(feature_size=12))
    found = cost.run(Context(synthesizer, tmp_path, tmp_path / "out", quick=True))
    [table] = found.tables
    assert len(table.rows) == 6 and all(len(row) == len(table.columns) for row in table.rows)
    kept = [row for row in table.rows if row[1] == "ours"]
    key = next(iter(Context(synthesizer, tmp_path, tmp_path / "out").kept("cost")._rows.values()))
    seconds = sorted(turn["ours"] for turn in key["turns"])
    assert kept[0][4] == pytest.approx(10 * seconds[len(seconds) // 2])
    assert "SwinUNETR" in found.text
