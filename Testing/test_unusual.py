"""Images unlike what the weights learned from are noticed, each for its own reason, and said so wherever results go."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_weights import write_tiny_weights

from NPCSynthLib.errors import OutputError, WeightsError
from NPCSynthLib.evaluation import usual as learning
from NPCSynthLib.evaluation.out_of_distribution import run
from NPCSynthLib.evaluation.section import Context
from NPCSynthLib.evaluation.strange import abdomen_like, cropped, ct_like, noise_only
from NPCSynthLib.inference.device import choose_device
from NPCSynthLib.inference.exchange import read_outcome, write_outcome
from NPCSynthLib.inference.result import NOT_CHECKED
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.inference.unusual import Look, _face_shares, load_usual, look_at, save_usual, why_unusual
from NPCSynthLib.model import store
from NPCSynthLib.model.weights import load_weights
from NPCSynthLib.output.provenance import provenance
from NPCSynthLib.phantom.patient import make_patient
from NPCSynthLib.study.build import build_study
from NPCSynthLib.study.volume import Grid, Volume, to_sitk


@pytest.fixture(scope="module")
def patients():
    return [make_patient(seed, ("T1", "T2"), size="small") for seed in range(4)]


@pytest.fixture(scope="module")
def data(patients, tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    names = ["one/a", "one/b", "two/c", "glioma/gli00001"]  # the last one is for validation
    for name, patient in zip(names, patients, strict=True):
        folder = home / "cohorts" / name
        folder.mkdir(parents=True)
        for sequence, volume in patient.volumes.items():
            sitk.WriteImage(to_sitk(volume.array, volume.grid), str(folder / f"{sequence}.nii.gz"))
    return home


@pytest.fixture(scope="module")
def weights(data, tmp_path_factory):
    folder = write_tiny_weights(tmp_path_factory.mktemp("weights") / "w")
    assert learning.learn_usual(folder, data) is not None
    return folder


@pytest.fixture(scope="module")
def judge(weights):
    loaded, device = load_weights(weights), choose_device("cpu")[0]
    usual = load_usual(loaded)
    return lambda volume: {f.check: f.score for f in why_unusual(usual, look_at(loaded, device, volume))}


def test_a_patient_never_met_is_usual(judge, patients):
    for volume in patients[3].volumes.values():
        scores = judge(volume)
        assert max(score for check, score in scores.items() if check != "features") < 1, scores


def test_an_abdomen_has_the_wrong_size_and_ct_crowded_grays(judge, patients):
    assert judge(abdomen_like(0))["size"] > 1.2
    scores = judge(ct_like(patients[3].anatomy, 0))
    assert scores["crowded grays"] > 1 > scores["size"] and scores["far below zero"] == 2
    shifted = ct_like(patients[3].anatomy, 0)
    shifted = replace(shifted, array=shifted.array + 1024)  # as some programs store it
    assert judge(shifted)["far below zero"] == 0 and judge(shifted)["crowded grays"] > 1


def test_noise_and_halves_of_heads_are_noticed(judge, patients):
    volume = patients[3].volumes["T1"]
    for seed in range(2):
        assert judge(noise_only(volume, seed))["noise"] > 1.5
    for side in range(4):
        assert judge(cropped(volume, side))["cut off"] > 1.5
    assert judge(volume)["cut off"] < 1


def test_the_side_that_is_cut_off_is_named_on_a_sagittal_flipped_grid(patients):
    volume = patients[0].volumes["T2"]
    image = sitk.DICOMOrient(to_sitk(volume.array, volume.grid), "PIR")
    array = sitk.GetArrayFromImage(image)
    turned = Grid.from_parts(array.shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    for side in range(4):
        half = cropped(Volume(array, turned), side)
        shares = _face_shares(half.grid, half.array > 60)
        assert int(np.argmax(shares)) == (1, 0, 3, 2)[side]


def test_head_the_wrong_way_up_or_round_is_told_from_features():
    """Features of 20 channels of which one grows upwards; slopes of which one is larger behind."""
    rng = np.random.default_rng(0)
    usual_look = Look(150, 180, 200, (0, 0, 0, 0), 0.9, 0, np.linspace(0, 1, 33), np.zeros(0), np.zeros(0))

    def look(front):
        features, slopes = rng.normal(0, 0.5, (2, 8, 20))
        features += rng.normal(0, 1, 20)  # patients and contrasts differ
        features[:, 3] += np.arange(8)
        slopes[:, 7] += front
        return replace(usual_look, features=features, slopes=slopes)

    usual = learning.fit({str(n): [(look(1), look(-1)) for _ in range(3)] for n in range(6)})

    def scores(one):
        return {f.check: f.score for f in why_unusual(usual, one)}

    right, turned = look(1), look(-1)
    turned_over = replace(right, features=right.features[::-1])
    assert max(scores(right).values()) < 1
    assert scores(turned)["front and back"] > 1.3 and scores(turned_over)["up and down"] > 1.3
    assert scores(replace(turned_over, height_mm=40))["up and down"] == 0  # a slab does not tell


def test_the_same_image_on_another_grid_looks_the_same(judge, patients):
    volume = patients[3].volumes["T1"]
    image = sitk.DICOMOrient(to_sitk(volume.array, volume.grid), "LSA")
    array = sitk.GetArrayFromImage(image)
    grid = Grid.from_parts(array.shape, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    one, other = judge(volume), judge(Volume(array, grid))
    assert one == pytest.approx(other, rel=0.1, abs=0.02)


def test_a_cohort_of_ones_own_is_looked_at_and_whoever_is_held_out_is_not(data):
    pytest.importorskip("monai", reason="finding cohorts needs the train extra")
    from NPCSynthLib.training.layouts import find_cohort, part

    own, held = part(find_cohort(data / "cohorts" / "one"), ["b"])
    found = list(learning._acquired(data, own, held))
    assert [name for name, _ in found] == ["two/c", "two/c", "1 of the cohort", "1 of the cohort"]
    assert found[-1][1]().array.ndim == 3, "it can be read"


def test_an_image_that_cannot_be_used_ends_nothing(data, tmp_path):
    """Hours of training lie before this."""
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "cohorts" / "one" / "a" / "T1.nii.gz").write_bytes(b"no image")
    folder = write_tiny_weights(tmp_path / "w")
    assert learning.learn_usual(folder, tmp_path / "data") is not None


@pytest.mark.parametrize("shape, spacing", [
    ((43, 64, 60), (0.5, 0.5, 0.4)), ((49, 70, 70), (0.43, 0.43, 0.4)), ((2, 90, 80), (2.0, 2.0, 1.0)),
])  # fmt: skip
def test_thin_and_finely_sampled_slabs_are_looked_at_too(weights, shape, spacing):
    """As of the skull base."""
    image = np.pad(np.random.default_rng(0).uniform(300, 900, tuple(n // 2 + 1 for n in shape)),
                   [(n // 4, n - n // 2 - 1 - n // 4) for n in shape])
    grid = Grid.from_parts(shape, spacing, (-20, -30, 5), np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]]))
    look = look_at(load_weights(weights), choose_device("cpu")[0], Volume(image.astype(np.float32), grid))
    assert np.isfinite(look.features).all() and -1 <= look.neighbor <= 1


def test_limits_come_from_training_patients_alone(data, weights, monkeypatch):
    names = [name for name, _ in learning._acquired(data, (), ())]
    assert names == ["one/a", "one/a", "one/b", "one/b", "two/c", "two/c"]
    monkeypatch.setattr(learning, "LEAST_PATIENTS", 4)
    before = (weights / "manifest.json").read_text()
    assert learning.learn_usual(weights, data) is None
    assert (weights / "manifest.json").read_text() == before


def test_result_worker_and_provenance_say_why(weights, patients, tmp_path):
    volumes = {"T1": cropped(patients[3].volumes["T1"], 0)}
    study = build_study(volumes)
    result = Synthesizer(weights, "cpu").run(study, ["T2"], segment=False)
    reason, = [s for s in result.unusual if "cut off" in s]
    assert "T1" in reason and reason in result.warnings and NOT_CHECKED not in result.warnings
    write_outcome(tmp_path, study, result)
    assert read_outcome(tmp_path, volumes)[1].unusual == result.unusual
    assert provenance(result, study)["unusual"] == list(result.unusual)


def test_weights_without_statistics_still_notice_what_needs_none(patients, tmp_path):
    synthesizer = Synthesizer(write_tiny_weights(tmp_path / "w"), "cpu")
    study = build_study({"T1": cropped(patients[3].volumes["T1"], 0)})
    result = synthesizer.run(study, ["T2"], segment=False)
    assert any("cut off" in sentence for sentence in result.unusual) and NOT_CHECKED in result.warnings


def test_weights_without_statistics_say_how_little_was_checked(patients, tmp_path):
    synthesizer = Synthesizer(write_tiny_weights(tmp_path / "w"), "cpu")
    result = synthesizer.run(build_study({"T1": patients[0].volumes["T1"]}), ["T2"], segment=False)
    assert result.unusual == () and NOT_CHECKED in result.warnings


def test_damaged_statistics_are_refused(weights, tmp_path):
    folder = tmp_path / "w"
    folder.mkdir()
    for file in weights.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "usual.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(WeightsError, match="usual.safetensors"):
        load_usual(load_weights(folder))


def test_imported_weights_bring_their_statistics_along(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "store_folder", lambda: tmp_path / "user")
    imported = store.import_weights(weights)
    assert load_usual(load_weights(imported.folder)) is not None
    (tmp_path / "w").mkdir()
    for file in weights.iterdir():
        if file.name != "usual.safetensors":
            (tmp_path / "w" / file.name).write_bytes(file.read_bytes())
    with pytest.raises(WeightsError, match="usual.safetensors"):
        store.import_weights(tmp_path / "w")


def test_full_disk_leaves_the_weights_as_they_were(weights, tmp_path, monkeypatch):
    folder = tmp_path / "w"
    folder.mkdir()
    for file in weights.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    usual = load_usual(load_weights(folder))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    write = Path.write_bytes
    for fails in ("usual.safetensors.part", "manifest.json.part"):
        with monkeypatch.context() as patch, pytest.raises(OutputError, match="No space"):
            patch.setattr(Path, "write_bytes", lambda path, data: (full if path.name == fails else write)(path, data))
            save_usual(folder, replace(usual, rest=2 * usual.rest), 0.5)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_least_confidence_is_nine_tenths_of_that_in_the_training_images(weights, patients):
    """Tiny weights are sure of nothing, and yet they know their own cohorts."""
    synthesizer = Synthesizer(weights, "cpu")
    taught = [synthesizer.recognize(volume) for patient in patients[:3] for volume in patient.volumes.values()]
    least = min(one.confidence for one in taught)
    assert taught[0].least == pytest.approx(0.9 * least, abs=0.006) and least > 0
    assert all(one.known for one in taught)


def test_weights_that_were_not_asked_what_is_usual_call_nothing_unknown(patients, tmp_path):
    bare = Synthesizer(write_tiny_weights(tmp_path / "w"), "cpu")
    assert bare.recognize(noise_only(patients[3].volumes["T1"], 0)).known


def test_estimate_is_what_a_run_gives(weights, patients):
    synthesizer = Synthesizer(weights, "cpu")
    study = build_study({"T1": patients[0].volumes["T1"]})
    made = synthesizer.run(study, ["T2"], segment=False).sequences[0]
    mean, uncertainty = synthesizer.estimate(study, "T2")
    assert np.array_equal(mean, made.array) and np.array_equal(uncertainty, made.uncertainty)


def test_section_names_every_kind_and_goes_on_where_it_stopped(weights, data, tmp_path, monkeypatch):
    monkeypatch.setattr("NPCSynthLib.evaluation.out_of_distribution.make_anatomy",
                        lambda seed, shape, spacing: make_patient(seed, (), size="small").anatomy)
    context = Context(Synthesizer(weights, "cpu"), data, tmp_path, quick=True)
    section = run(context)
    table = section.tables[0]
    kinds = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert kinds["abdomen-like"]["AUROC"] == kinds["noise only"]["AUROC"] == 1
    assert kinds["validation volumes"]["images"] == 2 and kinds["validation volumes"]["AUROC"] is None
    lines = (tmp_path / "kept" / "out-of-distribution.jsonl").read_text()
    assert run(context).tables == section.tables
    assert (tmp_path / "kept" / "out-of-distribution.jsonl").read_text() == lines
    assert json.loads(lines.splitlines()[1])["key"]["kind"]
