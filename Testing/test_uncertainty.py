"""Intervals hold as often as they say, and what the map says about lesions that were missed or invented."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_weights import write_tiny_weights

pytest.importorskip("skimage", reason="the evaluation needs scikit-image (extra: train)")

from NPCSynthLib.errors import InputError
from NPCSynthLib.evaluation.calibration import Check, calibrate, check, patient_spread, quantile_factors, scale_factor
from NPCSynthLib.evaluation.protocol import VALIDATION, Case
from NPCSynthLib.evaluation.section import Context
from NPCSynthLib.evaluation.uncertainty import correlation, lesion_flags, run
from NPCSynthLib.inference.intervals import LEVELS, interval_factors
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.output.provenance import provenance
from NPCSynthLib.phantom.patient import make_patient
from NPCSynthLib.study.build import build_study
from NPCSynthLib.study.study import Study
from NPCSynthLib.study.volume import Grid, to_sitk

GRID = Grid.from_parts((20, 40, 36), (2, 2, 2.5), (0, 0, 0), np.eye(3))


def make_case(truth, core=None, lesion=None):
    study = Study(GRID, "T1", (), np.ones(GRID.shape, bool))
    return Case(study, "T2", truth.astype(np.float32), np.ones(GRID.shape, bool), lesion, core)


def gaussian(seed, told):
    """A case whose errors are Gaussian with a spread that varies in space; the map is ``told`` times too small."""
    rng = np.random.default_rng(seed)
    spread = rng.uniform(0.02, 0.1, GRID.shape)
    truth = rng.uniform(0.3, 0.7, GRID.shape)
    made = 1000 * (truth + spread * rng.standard_normal(GRID.shape))
    return make_case(truth), made.astype(np.int16), (1000 * spread / told).astype(np.int16)


def test_factors_from_one_patient_hold_on_another_where_laplace_does_not():
    one, other = (check(*gaussian(seed, 2.0)) for seed in (1, 2))
    for level, factor in zip(LEVELS, quantile_factors([one]), strict=True):
        assert other.coverage(factor) == pytest.approx(level, abs=0.015)
    scale = scale_factor([one])
    off = [other.coverage(scale * f) - level for level, f in zip(LEVELS, interval_factors(), strict=True)]
    assert max(map(abs, off)) > 0.04


def test_factors_are_those_of_the_distribution():
    errors = np.abs(np.random.default_rng(0).laplace(0, 0.05, 200_000))
    for level, factor in zip(LEVELS, interval_factors(), strict=True):
        assert np.mean(errors <= factor * errors.mean()) == pytest.approx(level, abs=0.005)


def test_intervals_with_spread_hold_on_patients_whose_errors_are_all_larger_or_smaller():
    rng = np.random.default_rng(0)
    errors = np.abs(rng.laplace(0, np.exp(0.6 * rng.standard_normal(1_000_000))))
    for level, factor in zip(LEVELS, interval_factors(spread=0.6), strict=True):
        assert np.mean(errors <= factor) == pytest.approx(level, abs=0.003)


def patients_off_by(*factors):
    """A check of each patient, whose errors are so many times the uncertainty."""
    return [(f"p{n}", Check(0.05 * factor, 0.05, ())) for n, factor in enumerate(factors)]


def test_spread_is_what_patients_differ_by_more_for_one_not_yet_seen_and_none_for_a_single_one():
    assert patient_spread({"T1": patients_off_by(np.exp(-0.5), np.exp(0.5))}) == pytest.approx(np.sqrt(0.5 * 1.5))
    assert patient_spread({"T1": patients_off_by(3.0)}) == 0
    alike = {"T1": patients_off_by(3.0, 3.0), "T2": patients_off_by(0.5)}
    assert patient_spread(alike) == pytest.approx(0, abs=1e-9)


def test_correlation_sees_a_map_that_knows_where_it_errs():
    case, made, uncertainty = gaussian(3, 1.0)
    assert correlation(case, made, uncertainty) > 0.3
    assert abs(correlation(case, made, np.full_like(uncertainty, 50))) < 0.05


def lesion_case():
    """A bright lesion of 6 x 6 x 6 voxels in the middle of even tissue."""
    core = np.zeros(GRID.shape, bool)
    core[7:13, 17:23, 15:21] = True
    near = np.zeros(GRID.shape, bool)
    near[5:15, 15:25, 13:23] = True
    return make_case(np.where(core, 0.8, 0.4), core, near), core


def test_a_lesion_that_was_not_made_is_missed_and_flagged_where_the_map_is_high():
    case, core = lesion_case()
    made = np.full(GRID.shape, 400, np.int16)
    uncertainty = np.full(GRID.shape, 20, np.int16)
    uncertainty[core & (np.arange(36) < 18)] = 200
    counts = lesion_flags(case, made, uncertainty)
    assert counts["missed"] == core.sum() and counts["right"] == counts["invented"] == 0
    assert counts["missed_flagged"] == core.sum()  # of an even map every voxel is among the highest tenth


def test_enhancement_around_a_lesion_is_invented_and_the_truth_itself_is_right():
    case, core = lesion_case()
    truth = (1000 * case.truth).astype(np.int16)
    rising = np.arange(truth.size, dtype=np.int16).reshape(truth.shape) % 1000
    right = lesion_flags(case, truth, rising)
    assert right["right"] == core.sum() and right["missed"] == right["invented"] == 0
    made = np.where(case.lesion, 800, 400).astype(np.int16)
    assert lesion_flags(case, made, rising)["invented"] == (case.lesion & ~core).sum()
    # brighter as a whole is no invention: contrast counts
    assert lesion_flags(case, (truth + 300).astype(np.int16), rising)["invented"] == 0


def test_nothing_is_said_of_lesions_without_a_label():
    case, made, uncertainty = gaussian(4, 1.0)
    assert lesion_flags(case, made, uncertainty) is None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    for seed, (cohort, name) in enumerate(VALIDATION[:2]):
        folder = home / "cohorts" / cohort / name
        folder.mkdir(parents=True)
        volume = make_patient(seed, ("T1",), size="small").volumes["T1"]
        inverted = np.where(volume.array > 60, 1200 - np.minimum(volume.array, 1100), volume.array)
        for sequence, array in (("T1", volume.array), ("T2", inverted)):
            sitk.WriteImage(to_sitk(array.astype(np.int16), volume.grid), str(folder / f"{sequence}.nii.gz"))
    return home


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    folder = write_tiny_weights(tmp_path_factory.mktemp("weights") / "w")
    calibrate(folder, data / "cohorts")
    return folder


def test_calibration_scales_what_was_checked_and_results_tell_how_wide_intervals_are(weights, tmp_path):
    manifest = json.loads((weights / "manifest.json").read_text())
    assert set(manifest["calibration"]) == {"T1", "T2"}
    study = build_study({"T1": make_patient(5, ("T1",), size="small").volumes["T1"]})
    result = Synthesizer(weights, "cpu").run(study, ["T2", "FLAIR"], segment=False)
    assert [s.calibrated for s in result.sequences] == [True, False]
    own = Synthesizer(weights, "cpu").run(study, ["T2"], segment=False, prompts={"T2": "T2 of the head"})
    assert not own.sequences[0].calibrated, "checked for the usual words alone"
    told = provenance(result, study)["outputs"][0]["interval_factors"]
    expected = interval_factors(spread=manifest["patient_spread"])
    assert told == {name: round(f, 3) for name, f in zip(("50%", "80%", "90%", "95%"), expected, strict=True)}


def test_calibrating_twice_changes_nothing(weights, data):
    before = (weights / "manifest.json").read_text()
    calibrate(weights, data / "cohorts")
    assert (weights / "manifest.json").read_text() == before


def test_section_calibrates_on_the_other_patients(weights, data, tmp_path):
    section = run(Context(Synthesizer(weights, "cpu"), data, tmp_path, quick=True))
    tables = {table.title: table for table in section.tables}
    assert {row[0] for row in tables["Coverage of each patient"].rows} == {"open_ms_cross/p19", "glioma/gli00001"}
    assert all(0 <= value <= 1 for row in tables["Coverage"].rows for value in row[1:])
    assert all(len(row) == len(table.columns) for table in section.tables for row in table.rows)


def test_one_patient_is_not_enough(weights, tmp_path):
    (tmp_path / "cohorts" / "glioma" / "gli00001").mkdir(parents=True)
    with pytest.raises(InputError, match="1 of the validation patients, and this takes 2"):
        run(Context(Synthesizer(weights, "cpu"), tmp_path, tmp_path))
