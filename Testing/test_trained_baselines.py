"""Comparison networks are called as the model is: the same slices, in the same precision."""

import numpy as np
import pytest
import torch
from test_synthesizer import make_study

pytest.importorskip("monai", reason="the evaluation needs MONAI (extra: train)")
pytest.importorskip("open_clip", reason="training needs the train extra")

from NPCSynthLib.evaluation import trained_baselines
from NPCSynthLib.inference.device import Device
from NPCSynthLib.inference.slicing import Slicing
from NPCSynthLib.study.volume import Grid
from NPCSynthLib.training.baseline_networks import Baseline

#: Sagittal slices, 4 mm apart, from the right: the first array axis is not the slice.
GRID = Grid.from_parts((24, 20, 6), (4.0, 1.0, 1.2), (3, -8, 20), np.eye(3))


class Middle(Baseline):
    """Answers with the middle slice of the first source, and remembers in which precision it was asked."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def synthesize(self, images, present, sources, target):
        self.seen.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return images[:, 0, 1].float()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_baseline_computes_in_the_precision_of_the_device(dtype, monkeypatch, tmp_path):
    module = Middle()
    monkeypatch.setattr(trained_baselines, "load_baseline", lambda folder: module)
    study = make_study(GRID)
    made = trained_baselines.trained_baseline(tmp_path, Device(torch.device("cpu"), dtype, "test"))(study, "T2FS")
    assert set(module.seen) == {dtype}
    np.testing.assert_allclose(made, study.sources[0].array.clip(0, 2), atol=1e-5)


def test_each_slice_lies_between_its_neighbors_and_the_ends_repeat():
    slicing = Slicing.plan(GRID, 32)
    assert slicing.shape[0] == 6
    assert slicing.around([0, 3, 5]).tolist() == [[0, 0, 1], [2, 3, 4], [4, 5, 5]]
    assert slicing.around(range(2, 4)).tolist() == [[1, 2, 3], [2, 3, 4]]
