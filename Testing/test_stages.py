"""One command makes weights in several stages, each on from the one before, and goes on where it was stopped."""

import json
import shutil

import pytest

pytest.importorskip("open_clip", reason="training needs the train extra")
pytest.importorskip("lightning_fabric", reason="training needs the train extra")

from tiny_runs import tiny_config
from typer.testing import CliRunner

from NPCSynthLib.cli.main import app
from NPCSynthLib.errors import InputError, OutputError, UsageError, WeightsError
from NPCSynthLib.model.weights import load_weights
from NPCSynthLib.training.config import TrainingConfig
from NPCSynthLib.training.stages import train_in_stages

ON = {"model": None, "warmup_steps": 0}
STAGES = {
    "start": {},
    "head": {**ON, "learns": "segmentation", "steps": 3},
    "end": {**ON, "learns": "words", "steps": 2},
}


@pytest.fixture
def recipe(tmp_path):
    """A configuration of three small stages."""
    paths = []
    for name, changes in STAGES.items():
        (tmp_path / name).mkdir()
        paths.append(tiny_config(tmp_path / name, **changes))
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"about": "Three stages.", "stages": paths}))
    return str(path)


def contents(weights):
    return {path.name: path.read_bytes() for path in weights.glob("*.safetensors")}


def test_stages_follow_each_other_and_the_last_ones_weights_are_the_runs(boxes, recipe, tmp_path):
    told = []
    weights, unfinished = train_in_stages(recipe, tmp_path, tmp_path / "run", on_step=lambda *a: told.append(a[0]))
    assert not unfinished and weights == tmp_path / "run" / "weights"
    loaded = load_weights(weights)
    manifest = loaded.manifest
    assert manifest["name"] == "NPCSynth any-to-all (recipe)"
    assert manifest["steps"] == 4 + 3 + 2 and manifest["reads_echo_times"] is True
    assert "check every one" in manifest["notes"][0]
    loaded.text_tower()
    before = contents(tmp_path / "run" / "2-tiny" / "weights")["model.safetensors"]
    assert contents(weights)["model.safetensors"] == before != contents(tmp_path / "run" / "1-tiny" / "weights")[
        "model.safetensors"]
    assert list(dict.fromkeys(told)) == ["tiny, 1 of 3", "tiny, 2 of 3", "tiny, 3 of 3"]


def test_a_run_stopped_in_a_stage_goes_on_there_to_the_same_weights(boxes, recipe, tmp_path):
    whole, _ = train_in_stages(recipe, tmp_path, tmp_path / "whole")

    def stop(stage, step, *_):
        if (stage, step) == ("tiny, 2 of 3", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_in_stages(recipe, tmp_path, tmp_path / "parts", on_step=stop)
    seen = []
    parts, _ = train_in_stages(recipe, tmp_path, tmp_path / "parts", on_step=lambda *told: seen.append(told[:2]))
    assert seen[0] == ("tiny, 2 of 3", 3)
    assert contents(parts) == contents(whole)


def test_time_that_is_up_ends_the_run_with_the_weights_that_there_are(boxes, recipe, tmp_path):
    weights, unfinished = train_in_stages(recipe, tmp_path, tmp_path / "run", max_minutes=0)
    assert unfinished == "tiny, 1 of 3"
    assert weights == tmp_path / "run" / "1-tiny" / "weights" and load_weights(weights).manifest["steps"] == 1
    assert not (tmp_path / "run" / "weights").exists()


def test_the_command_tells_the_stage_in_which_time_was_up(boxes, recipe, tmp_path):
    (tmp_path / "labelmaps").mkdir()
    done = CliRunner().invoke(app, ["train", recipe, "--data", str(tmp_path), "--out", str(tmp_path / "run"),
                                    "--max-minutes", "0"])  # fmt: skip
    assert done.exit_code == 0 and "Time was up in tiny, 1 of 3. The same command goes on" in done.stderr
    assert "Training ended" not in done.stderr


def test_a_fresh_run_stopped_in_its_first_stage_uses_nothing_of_the_run_before(boxes, recipe, tmp_path):
    train_in_stages(recipe, tmp_path, tmp_path / "run")

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_in_stages(recipe, tmp_path, tmp_path / "run", resume=False, on_step=stop)
    seen = []
    train_in_stages(recipe, tmp_path, tmp_path / "run", on_step=lambda *told: seen.append(told[:2]))
    assert seen[0] == ("tiny, 1 of 3", 2) and {stage for stage, _ in seen} == {f"tiny, {n} of 3" for n in (1, 2, 3)}


@pytest.mark.parametrize("start", ["run/weights", "run"])
def test_a_run_does_not_start_from_weights_that_it_would_overwrite(boxes, tmp_path, start):
    weights, _ = train_in_stages(tiny_config(tmp_path), tmp_path, tmp_path / "run")
    before = contents(weights)
    with pytest.raises(UsageError, match="lie in the folder of the run"):
        train_in_stages(tiny_config(tmp_path), tmp_path, tmp_path / "run", resume=False, start=tmp_path / start)
    assert contents(weights) == before


@pytest.mark.parametrize("several", [True, False])
def test_a_fresh_run_that_cannot_begin_costs_nothing_of_the_run_before(boxes, recipe, tmp_path, several):
    config = recipe if several else tiny_config(tmp_path)
    train_in_stages(config, tmp_path, tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(WeightsError, match="no weights in .*typo"):
        train_in_stages(config, tmp_path, tmp_path / "run", resume=False, start=tmp_path / "typo")
    damaged = tmp_path / "labelmaps" / "synthseg" / "training_seg_01.nii.gz"
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(b"no image")
    with pytest.raises(InputError, match="training_seg_01.nii.gz cannot be read"):
        train_in_stages(config, tmp_path, tmp_path / "run", resume=False)
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before


def test_the_command_tells_of_a_run_of_one_stage_that_time_was_up(boxes, tmp_path):
    """And neither calibrates nor compares what is not finished."""
    (tmp_path / "labelmaps").mkdir()
    done = CliRunner().invoke(app, ["train", tiny_config(tmp_path), "--data", str(tmp_path), "--out",
                                    str(tmp_path / "run"), "--max-minutes", "0"])  # fmt: skip
    assert done.exit_code == 0 and "Time was up in tiny. The same command goes on" in done.stderr
    assert "calibrated" not in done.stderr and "Training ended" not in done.stderr


def test_what_a_fresh_run_cannot_remove_is_told(boxes, recipe, tmp_path, monkeypatch):
    (tmp_path / "run" / "1-tiny").mkdir(parents=True)

    def locked(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(shutil, "rmtree", locked)
    with pytest.raises(OutputError, match='"1-tiny" of the run before could not be removed .Permission denied'):
        train_in_stages(recipe, tmp_path, tmp_path / "run", resume=False)


def test_a_stage_on_from_other_weights_is_not_taken_for_finished(boxes, recipe, tmp_path):
    train_in_stages(recipe, tmp_path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "1-tiny")
    tiny_config(tmp_path / "start", seed=4)  # the stage is made anew, and differs
    with pytest.raises(InputError, match='"2-tiny" holds a checkpoint of a run on from other weights.*--fresh'):
        train_in_stages(recipe, tmp_path, tmp_path / "run")
    assert not (tmp_path / "run" / "1-tiny").exists(), "told before hours are spent"


@pytest.mark.parametrize(("stages", "said"), [
    (["small", "nowhere"], '"nowhere" is not a training configuration'),
    (["small", "small"], 'The stage "small"'),
    ([], "is not a training configuration"),
    ("small", "is not a training configuration"),
    (["small-in-stages"], "is not a training configuration"),
])  # fmt: skip
def test_a_wrong_stage_is_told_before_the_first_one(tmp_path, stages, said):
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({"stages": stages}))
    with pytest.raises(UsageError, match=said):
        train_in_stages(str(path), tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_cohort_that_a_later_stage_cannot_use_is_told_before_the_first_one(recipe, tmp_path):
    with pytest.raises(UsageError, match="Leave out --cohort"):
        train_in_stages(recipe, tmp_path, tmp_path / "run", cohort=[object()])
    assert not (tmp_path / "run").exists()


def test_the_recipe_that_ships_can_be_read():
    configs = [TrainingConfig.load(stage) for stage in TrainingConfig.stages("small-in-stages")]
    assert configs[0].model is not None
    assert [config.learns for config in configs] == ["everything", "segmentation", "words"]
