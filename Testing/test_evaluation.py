"""The evaluation protocol on a small cohort of made-up patients whose contrasts obey known rules."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

pytest.importorskip("skimage", reason="the evaluation needs scikit-image (extra: train)")

from NPCSynthLib.errors import InputError
from NPCSynthLib.evaluation import any_to_all, protocol, usual
from NPCSynthLib.evaluation.baselines import all_baselines, training_voxels
from NPCSynthLib.evaluation.report import write_section
from NPCSynthLib.evaluation.section import Context, Section
from NPCSynthLib.evaluation.statistics import auroc, cell, mean_and_interval, more_sources, paired
from NPCSynthLib.study.volume import Grid, to_sitk
from NPCSynthLib.training.layouts import find_cohort

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
    home = tmp_path_factory.mktemp("data") / "cohorts"
    for seed, (cohort, patient) in enumerate([("a", "p1"), ("a", "p2"), *protocol.VALIDATION]):
        write_patient(home / cohort / patient, seed)
    return home


class Echo:
    """Stands for a synthesizer: answers with its first source, and remembers what it was asked."""

    def __init__(self):
        self.seen = []
        self.loaded = SimpleNamespace(identity={"name": "echo", "version": "1", "sha256": "e" * 64})
        self.device = SimpleNamespace(label="none", torch=SimpleNamespace(type="cpu"))

    def predict(self, study, target):
        self.seen.append((tuple(s.sequence for s in study.sources), target))
        return study.sources[0].array


@pytest.fixture(scope="module")
def found(cohorts, tmp_path_factory):
    """Rows, section, context and the questions that were asked."""
    context = Context(Echo(), cohorts.parent, tmp_path_factory.mktemp("out"), full=True)
    methods = [any_to_all.ours(context), *any_to_all.simple(context)]
    rows = list(any_to_all.measure(context, methods))
    return rows, any_to_all.run(context), context


def of_method(rows, name):
    return [row for row in rows if row["method"] == name]


def test_every_set_of_sources_to_every_absent_target_is_asked_once(found):
    seen = found[2].synthesizer.seen
    assert len(seen) == 3 * 9 and len(set(seen)) == 9  # run() found in its file what measure() had kept
    assert all(target not in sources for sources, target in seen)


def test_voxel_regression_solves_what_a_voxel_decides_and_copying_does_not(found):
    means = {name: mean_and_interval(of_method(found[0], name), "psnr")[0]
             for name in ("voxel regression", "source copy", "mean of inputs")}
    assert means["voxel regression"] > 22
    assert means["voxel regression"] > max(means["source copy"], means["mean of inputs"]) + 5


def test_histogram_match_cannot_turn_a_contrast_around(found):
    where = ("open_ms_cross/p19", "T1", "FLAIR")
    here = {row["method"]: row for row in found[0] if cell(row) == where}
    assert here["histogram match"]["ssim"] < 0.5 < here["voxel regression"]["ssim"]


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


def test_section_says_where_another_method_is_ahead_and_by_how_much(found):
    rows, section, _ = found
    tables = {table.title: table for table in section.tables}
    behind = tables["Where another method is ahead of NPCSynth"]
    worst = dict(zip(behind.columns, behind.rows[0], strict=True))
    here = {r["method"]: r["ssim"] for r in rows if cell(r) == (worst["patient"], worst["sources"], worst["target"])}
    assert worst["best method"] == max(here, key=here.get)
    assert worst["difference"] == pytest.approx(here["NPCSynth"] - max(here.values()))
    assert f"in {27 - len(behind.rows)} of 27 cells" in section.text
    assert all(len(row) == len(table.columns) for table in section.tables for row in table.rows)


def test_files_and_page_hold_the_section(found):
    _, section, context = found
    write_section("any-to-all", section, context)
    with (context.out / "any-to-all-1.csv").open(encoding="utf-8") as file:
        assert [row["method"] for row in csv.DictReader(file)][0] == "NPCSynth"
    stored = json.loads((context.out / "any-to-all.json").read_text(encoding="utf-8"))
    assert stored["weights"]["sha256"] == "e" * 64 and stored["extent"] == "full"
    assert "| T1+T2 | FLAIR |" in (context.out / "any-to-all.md").read_text(encoding="utf-8")
    page = (context.out / "index.html").read_text(encoding="utf-8")
    assert "Paper-style" in page and "data:image/png;base64," in page and "Research use only" in page
    assert (context.out / "any-to-all-cells.svg").exists()


def test_page_tells_sections_of_different_weights_apart(found, tmp_path):
    section, context = found[1], replace(found[2], out=tmp_path)
    write_section("any-to-all", section, context)
    other = Echo()
    other.loaded.identity["sha256"] = "f" * 64
    write_section("out-of-distribution", Section("Other", "Text."), replace(context, synthesizer=other))
    assert "different weights" in (tmp_path / "index.html").read_text(encoding="utf-8")


def row(patient, sources, ssim, target="T2"):
    return {"patient": patient, "sources": sources, "target": target, "ssim": ssim}


def test_patients_count_the_same_and_intervals_widen_with_them():
    rows = [row("a", str(n), 0.9) for n in range(30)] + [row("b", "0", 0.5)]
    mean, low, high = mean_and_interval(rows, "ssim")
    assert mean == pytest.approx(0.7) and low == pytest.approx(0.5) and high == pytest.approx(0.9)
    assert mean_and_interval(rows[:1], "ssim")[1:] == (None, None)


def test_paired_comparison_knows_the_worst_cell():
    ours = [row("a", str(n), 0.5 + 0.01 * n) for n in range(8)]
    theirs = [row("a", str(n), 0.5) for n in range(1, 8)] + [row("a", "0", 0.6)]
    result = paired(ours, theirs, "ssim")
    assert (result["cells"], result["ahead"]) == (8, 7)
    assert result["worst"] == pytest.approx(-0.1) and 0 < result["p"] < 1


def test_supersets_that_are_worse_are_counted():
    rows = [row("a", "T1", 0.5), row("a", "PD", 0.7), row("a", "T1+PD", 0.6)]
    gain = more_sources(rows)
    assert gain["pairs"] == 2 and gain["worse"] == 0.5 and gain["change"] == pytest.approx(0)
    assert gain["means"] == {1: pytest.approx(0.6), 2: pytest.approx(0.6)}


def test_numbers_of_sources_that_were_not_asked_for_everywhere_have_no_mean():
    rows = [row("a", "T1", 0.5), row("a", "T1+PD+T2", 0.6), row("b", "T1", 0.4), row("b", "T1+PD", 0.5)]
    assert more_sources(rows)["means"] == {1: pytest.approx(0.5), 3: pytest.approx(0.6)}


def test_auroc_counts_ties_half():
    assert auroc([1, 2], [3, 4]) == 1 and auroc([1, 2], [1, 2]) == 0.5 and auroc([2], [1]) == 0


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


def test_validation_patient_under_its_other_name_is_not_learned_from(tmp_path):
    write_patient(tmp_path / "cohorts" / "brats" / "BraTS2021_00001", 0)
    with pytest.raises(InputError, match="no training patient"):
        next(protocol.training_studies(tmp_path / "cohorts"))
    assert not list(usual._acquired(tmp_path, (), ()))


def test_files_that_training_finds_are_found_here_too(tmp_path):
    folder = tmp_path / "cohorts" / "a" / "p1"
    write_patient(folder, 0)
    (folder / "T1.nii.gz").rename(folder / "t1.nii.gz")
    (folder / "FLAIR.nii.gz").rename(folder / "._FLAIR.nii.gz")
    assert tuple(find_cohort(folder).patients[0].images) == ("T1", "T2")
    assert protocol.PatientCases.of_folder(folder).sequences == tuple(protocol.load_patient(folder)[0]) == ("T1", "T2")
    assert len(list(usual._acquired(tmp_path, (), ()))) == 2


def test_folder_without_sequences_is_refused(tmp_path):
    with pytest.raises(InputError, match="two sequences"):
        next(protocol.cases(tmp_path))
    with pytest.raises(InputError, match="no training patient"):
        next(protocol.training_studies(tmp_path))


def test_prediction_on_another_grid_is_refused(cohorts):
    case = next(protocol.cases(cohorts / "glioma" / "gli00001"))
    with pytest.raises(ValueError, match="shape"):
        protocol.judge(lambda study, target: np.zeros((3, 3, 3)), case)
