"""Damage to the sources: what it does, and how the loss is summed up."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from tiny_weights import write_tiny_weights

pytest.importorskip("skimage", reason="the evaluation needs scikit-image (extra: train)")

from NPCSynthLib.evaluation import robustness
from NPCSynthLib.evaluation.protocol import Case
from NPCSynthLib.evaluation.robustness import DAMAGES, damaged, level_of_loss, run, slope
from NPCSynthLib.evaluation.section import Context
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.study.normalize import normalize, percentiles
from NPCSynthLib.study.study import Source, Study
from NPCSynthLib.study.volume import Grid, Volume, to_sitk

#: Sagittal slices 4 mm apart: slices are counted along the first axis, which runs to the right.
GRID = Grid.from_parts((18, 40, 36), (1.2, 1.0, 4.0), (10, -20, 30), [[0, 0, -1], [1, 0, 0], [0, -1, 0]])


def make_case():
    rng = np.random.default_rng(0)
    smooth = [ndimage.gaussian_filter(rng.random(GRID.shape), 1.5).astype(np.float32) for _ in range(2)]
    body = np.zeros(GRID.shape, bool)
    body[2:16, 5:35, 5:31] = True
    smooth = [normalize(a, *percentiles(a, body)) for a in smooth]
    sources = tuple(
        Source(s, Volume(a, GRID), np.where(body, a, 0).astype(np.float32), np.ones(GRID.shape, bool), {}, (0, 1))
        for s, a in zip(("T1", "T2"), smooth)
    )
    return Case(Study(GRID, "T1", sources, body), "FLAIR", smooth[0], body, None)


def change(one, other, number=0):
    a, b = (case.study.sources[number].array[one.study.body] for case in (one, other))
    return float(np.abs(a - b).mean())


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_grows_with_its_level_and_spares_the_truth(kind):
    case = make_case()
    changes = [change(case, damaged(case, kind, level)) for level in DAMAGES[kind][2]]
    assert changes == sorted(changes) and changes[0] > 0.0005
    worst = damaged(case, kind, DAMAGES[kind][2][-1])
    assert worst.truth is case.truth and worst.mask is case.mask
    body = worst.study.sources[0].array[case.study.body]
    assert np.percentile(body, 99.5) == pytest.approx(1, abs=0.01)


def test_only_the_first_source_is_displaced_and_by_that_far_within_the_slice():
    case = make_case()
    moved = damaged(case, "shift", 5)
    assert change(case, moved, 0) > 0.02 and change(case, moved, 1) == 0
    bright = np.zeros(GRID.shape, np.float32)
    bright[8:10, 18:22, 16:20] = 1
    only = Source("T1", Volume(bright, GRID), bright, np.ones(GRID.shape, bool), {}, (0, 1))
    study = Study(GRID, "T1", (only,), bright > -1)
    found = damaged(Case(study, "T2", bright, bright > -1, None), "shift", 4.0).study.sources[0].array
    at = [np.array(ndimage.center_of_mass(a)) * GRID.spacing[::-1] for a in (bright, np.maximum(found, 0))]
    assert np.linalg.norm(at[1] - at[0]) == pytest.approx(4.0, abs=0.3) and abs((at[1] - at[0])[0]) < 1e-3


@pytest.mark.parametrize("zero", [0.0, -0.17, 0.002])
@pytest.mark.parametrize("kind", ["noise", "bias"])
def test_blank_background_of_a_stripped_brain_stays_blank_and_dark(kind, zero):
    """Wherever the scanner's zero lies on the common scale, which is that of the body's percentiles."""
    case = make_case()
    body = case.study.body
    sources = tuple(
        replace(one, array=np.where(body, one.array, zero).astype(np.float32), intensity_range=(-zero, 1 - zero))
        for one in case.study.sources
    )
    made = damaged(replace(case, study=replace(case.study, sources=sources)), kind, 10).study.sources[0].array
    assert np.ptp(made[~body]) == 0 and np.ptp(made[body]) > 0.5
    assert made[~body].max() < np.percentile(made[body], 5) + 0.1


def test_noise_is_that_of_the_scanners_scale():
    """A voxel near the scanner's zero gets the noise floor of a magnitude image, a bright one hardly any."""
    grid = Grid.from_parts((4, 60, 60), (1, 1, 1), (0, 0, 0), np.eye(3))
    array = np.full(grid.shape, 0.8, np.float32)
    array[:, :30] = -0.19  # signal 0.01 above the zero at -0.2
    source = Source("T1", Volume(array, grid), array, np.ones(grid.shape, bool), {}, (0.2, 1.2))
    study = Study(grid, "T1", (source,), array > -1)
    made = damaged(Case(study, "T2", array, array > -1, None), "noise", 10).study.sources[0].array
    ratio = (made[:, 30:].mean() - made[:, :30].mean()) / made[:, 30:].std()
    assert ratio == pytest.approx((1.005 - 0.126) / 0.1, rel=0.05), "Rician mean of no signal is 1.25 sigma"


def test_thicker_slices_lose_what_varies_from_slice_to_slice_only():
    case = make_case()
    one = case.study.sources[0]
    rows = np.broadcast_to(np.sin(np.arange(40) / 3)[None, :, None], GRID.shape).astype(np.float32)
    still = Case(Study(GRID, "T1", (Source("T1", one.original, rows, one.inside, {}, (0, 1)),), case.study.body), "T2",
                 rows, case.mask, None)  # fmt: skip
    for kind, level in (("thickness", 3), ("dropped slices", 50)):
        made = damaged(still, kind, level).study.sources[0].array
        assert np.ptp(made, axis=0).max() < 1e-5


def test_loss_is_found_between_levels_or_not_at_all():
    assert level_of_loss({0: 0.8, 2: 0.78, 4: 0.72}) == pytest.approx(3.0)
    assert level_of_loss({0: 0.8, 2: 0.79}) is None
    assert slope({1: 0.8, 2: 0.7, 3: 0.6}) == pytest.approx(-0.1)


def test_section_goes_on_where_it_stopped_and_damages_once_for_all_methods(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    folder = tmp_path / "cohorts" / "glioma" / "gli00001"
    other = tmp_path / "cohorts" / "glioma" / "train"
    grid = Grid.from_parts((20, 36, 32), (4, 4, 5), (-60, -70, -40), np.eye(3))
    k, j, i = np.indices(grid.shape)
    body = ((k - 10) / 9) ** 2 + ((j - 18) / 15) ** 2 + ((i - 16) / 13) ** 2 < 1
    for place in (folder, other):
        place.mkdir(parents=True)
        a = ndimage.gaussian_filter(rng.random(grid.shape), 1.5)
        a = (a - a.min()) / np.ptp(a)
        for sequence, image in {"T1": 300 + 600 * a, "T2": 200 + 800 * (1 - a) ** 2}.items():
            image = np.where(body, image, 0) + np.abs(rng.normal(0, 6, grid.shape))
            sitk.WriteImage(to_sitk(image.astype(np.int16), grid), str(place / f"{sequence}.nii.gz"))
    context = Context(Synthesizer(write_tiny_weights(tmp_path / "w"), "cpu"), tmp_path, tmp_path / "out", quick=True)
    made = []
    monkeypatch.setattr(robustness, "damaged", lambda case, kind, level, seed: (
        made.append((kind, level)), damaged(case, kind, level, seed))[1])
    section = run(context)
    assert len(made) == len(set(made)) == 8
    kept = (tmp_path / "out" / "kept" / "robustness.jsonl").read_text()
    assert run(context).tables == section.tables
    assert (tmp_path / "out" / "kept" / "robustness.jsonl").read_text() == kept and len(made) == 8
    table = section.tables[0]
    assert {row[2] for row in table.rows} == {"NPCSynth", "voxel regression"}
    assert all(len(row) == len(table.columns) for row in table.rows)
