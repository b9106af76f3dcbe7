"""The evaluation protocol on a small cohort of made-up patients whose contrasts obey known rules."""

import csv
import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

pytest.importorskip("skimage", reason="the evaluation needs scikit-image (extra: train)")

from NPCSynthLib.errors import InputError
from NPCSynthLib.evaluation import protocol
from NPCSynthLib.evaluation.baselines import all_baselines, training_voxels
from NPCSynthLib.evaluation.tables import markdown, summary
from NPCSynthLib.study.volume import Grid, to_sitk

GRID = Grid.from_parts((20, 36, 32), (4, 4, 5), (-60, -70, -40), np.eye(3))


def write_patient(folder, seed):
    """Tissue fractions a, b; T1 = 900a + 300b, T2 = 200a + 1000b, FLAIR is T1 turned around, all with noise."""
    rng = np.random.default_rng(seed)
    k, j, i = np.indices(GRID.shape)
    body = ((k - 10) / 9) ** 2 + ((j - 18) / 15) ** 2 + ((i - 16) / 13) ** 2 < 1
    a = ndimage.gaussian_filter(rng.random(GRID.shape), 1.5)
    a = (a - a.min()) / np.ptp(a)
    t1 = 300 + 600 * a
    images = {"T1": t1, "T2": 200 + 800 * (1 - a) ** 2, "FLAIR": 1300 - t1}
    folder.mkdir(parents=True)
    for sequence, image in images.items():
        image = np.where(body, image, 0) + np.abs(rng.normal(0, 6, GRID.shape))
        sitk.WriteImage(to_sitk(image.astype(np.int16), GRID), str(folder / f"{sequence}.nii.gz"))
    lesion = np.zeros(GRID.shape, np.uint8)
    lesion[9:11, 16:20, 14:18] = 1
    sitk.WriteImage(to_sitk(lesion, GRID), str(folder / "label_lesion.nii.gz"))


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    for seed, (cohort, patient) in enumerate([("a", "p1"), ("a", "p2"), *protocol.VALIDATION]):
        write_patient(home / cohort / patient, seed)
    return home


@pytest.fixture(scope="module")
def rows(cohorts, tmp_path_factory):
    seen = []

    def echo(study, target):
        seen.append((tuple(s.sequence for s in study.sources), target))
        return study.sources[0].array

    out = tmp_path_factory.mktemp("out")
    return protocol.evaluate(echo, cohorts_dir=cohorts, out=out, name="echo"), seen, out


def test_every_set_of_sources_to_every_absent_target_is_asked(rows):
    _, seen, _ = rows
    assert len(seen) == 3 * 9 and len(set(seen)) == 9
    assert all(target not in sources for sources, target in seen)


def test_voxel_regression_solves_what_a_voxel_decides_and_copying_does_not(rows):
    means = {method: entry["psnr"]["mean"] for method, entry in summary(rows[0]).items()}
    assert means["voxel regression"] > 22
    assert means["voxel regression"] > max(means["source copy"], means["mean of inputs"]) + 5


def test_histogram_match_cannot_turn_a_contrast_around(rows):
    cell = {r["method"]: r for r in rows[0] if (r["patient"], r["sources"], r["target"]) == ("p19", "T1", "FLAIR")}
    assert cell["histogram match"]["ssim"] < 0.5 < cell["voxel regression"]["ssim"]


def test_the_truth_itself_is_perfect_and_the_sources_never_hold_it(cohorts):
    for case in protocol.cases(cohorts / "glioma" / "gli00001"):
        figures = protocol.judge(lambda study, target, case=case: case.truth, case)
        assert figures["ssim"] == pytest.approx(1, abs=1e-5) and figures["mae"] == 0
        assert case.target not in {s.sequence for s in case.study.sources}
        assert case.study.grid.matches(GRID, 1e-2)


def test_lesion_is_dilated_by_five_millimeters(cohorts):
    case = next(protocol.cases(cohorts / "glioma" / "gli00001"))
    assert case.lesion[10, 18, 16] and case.lesion[8, 18, 16] and case.lesion[10, 15, 16]
    assert not case.lesion[7, 18, 16] and not case.lesion[10, 14, 16]


def test_tables_are_written_and_agree(rows):
    found, _, out = rows
    with (out / "validation.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(found) == 27 * 5
    stored = json.loads((out / "validation.json").read_text(encoding="utf-8"))
    ssim = stored["summary"]["voxel regression"]["ssim"]
    assert ssim["low"] <= ssim["mean"] <= ssim["high"]
    text = (out / "validation.md").read_text(encoding="utf-8")
    assert text == markdown(found) and "Paper-style" in text and "| T1+T2 | FLAIR |" in text


def test_two_patients_get_no_interval(rows):
    two = [r for r in rows[0] if r["patient"] != "p04a"]
    assert summary(two)["source copy"]["ssim"]["low"] is None


def test_quick_run_asks_less_on_fewer_slices(cohorts, monkeypatch):
    monkeypatch.setattr(protocol, "_QUICK_SLICES", 6)
    found = list(protocol.cases(cohorts / "glioma" / "gli00001", quick=True))
    assert len(found) == 9 and all(c.truth.shape == (6, 36, 32) == c.study.body.shape for c in found)
    full = next(protocol.cases(cohorts / "glioma" / "gli00001"))
    first = round((found[0].study.grid.origin - GRID.origin)[2] / 5)
    assert np.array_equal(found[0].truth, full.truth[first:first + 6])


def test_baselines_are_fitted_to_training_patients_only(cohorts):
    names = [p.name for p in cohorts.glob("*/*")]
    voxels = training_voxels(protocol.training_studies(cohorts))
    assert len(voxels.patients) == len(names) - 3 == 2
    assert set(all_baselines(voxels)) == {"source copy", "histogram match", "voxel regression", "mean of inputs"}


def test_folder_without_sequences_is_refused(tmp_path):
    with pytest.raises(InputError, match="two sequences"):
        next(protocol.cases(tmp_path))
    with pytest.raises(InputError, match="no training patient"):
        next(protocol.training_studies(tmp_path))


def test_prediction_on_another_grid_is_refused(cohorts):
    case = next(protocol.cases(cohorts / "glioma" / "gli00001"))
    with pytest.raises(ValueError, match="shape"):
        protocol.judge(lambda study, target: np.zeros((3, 3, 3)), case)
