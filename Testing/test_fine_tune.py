"""Weights that are there, trained on with a cohort of one's own."""

import json

import pytest
from cohort_cases import write_boxes
from tiny_weights import write_tiny_weights
from typer.testing import CliRunner

pytest.importorskip("open_clip", reason="training needs the train extra")
pytest.importorskip("lightning_fabric", reason="training needs the train extra")

from NPCSynthLib.cli.main import app
from NPCSynthLib.errors import InputError
from NPCSynthLib.evaluation.before_after import Row, table
from NPCSynthLib.training.held_out import remember, seen_before, trained_before
from NPCSynthLib.training.layouts import find_cohort


@pytest.fixture
def cohort(tmp_path):
    for number in range(3):
        write_boxes(tmp_path / "ward" / f"Doe_{number}", number, ("T1", "T2"))
    return tmp_path / "ward"


@pytest.fixture
def config(tmp_path):
    values = {"like": "fine-tune", "steps": 2, "batch_size": 2, "size": 16, "phantoms": 0}
    (tmp_path / "tiny.json").write_text(json.dumps(values))
    return str(tmp_path / "tiny.json")


def npcsynth(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def test_fine_tuning_trains_on_the_cohort_and_compares_on_who_was_held_out(tmp_path, cohort, config):
    write_tiny_weights(tmp_path / "weights")
    (cohort / "Doe_0" / "T2.nii.gz").unlink()
    out = tmp_path / "out"
    told = npcsynth(config, "--from", tmp_path / "weights", "--cohort", cohort, "--hold-out", "Doe_2", "--out", out)
    assert told.exit_code == 0, told.stderr
    manifest = json.loads((out / "weights" / "manifest.json").read_text())
    assert manifest["training_data"] == ["a cohort of the user's own: 2 patients (T1, T2)"]
    assert "Doe" not in json.dumps(manifest), "folders may be called as patients are"
    assert "lacks T2" in told.stderr
    cases = json.loads((out / "before_after.json").read_text())
    assert [(case["target"], case["sources"]) for case in cases] == [("T1", ["T2"]), ("T2", ["T1"])]
    assert (out / "before_after.md").read_text().count("\n") == 5 and "| all | 2 |" in told.stderr


def test_who_cannot_be_compared_on_is_told_before_anything_is_trained(tmp_path, cohort, config):
    write_tiny_weights(tmp_path / "weights")
    (cohort / "Doe_1" / "T2.nii.gz").unlink()
    options = (config, "--from", tmp_path / "weights", "--cohort", cohort, "--out", tmp_path / "out")
    told = npcsynth(*options, "--hold-out", "Doe_1")
    assert told.exit_code == 3 and "nothing to compare" in told.stderr and "Doe_1 is held out" in told.stderr
    content = (cohort / "Doe_2" / "T2.nii.gz").read_bytes()
    (cohort / "Doe_2" / "T2.nii.gz").write_bytes(content[: len(content) // 2])
    told = npcsynth(*options, "--hold-out", "Doe_1", "--hold-out", "Doe_2")
    assert told.exit_code == 3 and "T2 is not compared on" in told.stderr
    assert not (tmp_path / "out").exists()


def test_a_comparison_network_is_trained_without_anybody_to_compare_on(tmp_path, cohort):
    values = {"like": "comparison/channel-unet", "steps": 1, "batch_size": 2, "size": 32, "phantoms": 0}
    (tmp_path / "tiny.json").write_text(json.dumps(values))
    told = npcsynth(tmp_path / "tiny.json", "--cohort", cohort, "--out", tmp_path / "out")
    assert told.exit_code == 0, told.stderr
    assert (tmp_path / "out" / "weights" / "manifest.json").exists()


def test_only_the_first_process_writes_who_was_held_out(tmp_path, cohort, monkeypatch):
    a, b, _ = find_cohort(cohort).patients
    monkeypatch.setenv("RANK", "1")
    remember(tmp_path / "out", [a], [b], [])
    assert not (tmp_path / "out").exists()


def test_resumed_run_never_holds_out_whom_it_was_trained_on(tmp_path, cohort):
    a, b, c = find_cohort(cohort).patients
    out = tmp_path / "out"
    remember(out, [a, b], [c], trained_before(out, [c], resume=True))
    with pytest.raises(InputError, match="trained on ward/Doe_1 already"):
        trained_before(out, [b], resume=True)
    remember(out, [a], [c], trained_before(out, [c], resume=True))
    with pytest.raises(InputError, match="trained on ward/Doe_1 already"):
        trained_before(out, [b], resume=True)
    assert trained_before(out, [b], resume=False) == []
    (tmp_path / "out" / "held_out.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        trained_before(out, [b], resume=True)


def test_weights_that_have_seen_the_patient_are_told(tmp_path, cohort):
    a, b, c = find_cohort(cohort).patients
    manifest = {"files": {}, "training_data": ["real images: glioma/x, ward/Doe_1"]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (sentence,) = seen_before(tmp_path, [a, b])
    assert sentence.startswith("ward/Doe_1 is held out")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "nothing to train on"),
        (["--cohort", "ward"], 2, "Name them with --from"),
        (["--cohort", "ward", "--hold-out", "Doe_0"], 2, "--hold-out compares"),
        (["--cohort", "ward", "--from", "weights", "--hold-out", "Roe"], 2, "Roe cannot be held out"),
        (["--cohort", "empty", "--from", "weights"], 3, "No patient was found in empty"),
    ],
)
def test_wrong_use_is_said(tmp_path, cohort, config, monkeypatch, arguments, code, said):
    write_tiny_weights(tmp_path / "weights")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    told = npcsynth(config, "--out", "out", *arguments)
    assert told.exit_code == code and said in told.stderr


def test_table_averages_over_patients():
    rows = [Row("a", "T2", ("T1",), (0.4, 0.6), (14.0, 18.0), (0.2, 0.1)),
            Row("b", "T2", ("T1",), (0.6, 0.8), (16.0, 20.0), (0.2, 0.1))]
    assert "| T2 | 2 | 0.500 | 0.700 | 15.0 | 19.0 | 0.200 | 0.100 |" in table(rows)


def test_a_run_that_cannot_begin_changes_nothing_of_who_was_held_out(tmp_path, cohort, config):
    write_tiny_weights(tmp_path / "weights")
    out = tmp_path / "out"
    told = npcsynth(config, "--from", tmp_path / "weights", "--cohort", cohort, "--out", out)
    assert told.exit_code == 0, told.stderr
    before = (out / "held_out.json").read_text()
    told = npcsynth(config, "--from", tmp_path / "typo", "--cohort", cohort, "--hold-out", "Doe_2", "--out", out,
                    "--fresh")  # fmt: skip
    assert told.exit_code == 3 and "There are no weights in" in told.stderr
    assert (out / "held_out.json").read_text() == before and (out / "checkpoint.ckpt").exists()
