"""Rows that outlive a stopped run, and sections by name."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from NPCSynthLib.errors import InputError, UsageError
from NPCSynthLib.evaluation import section
from NPCSynthLib.evaluation.report import page
from NPCSynthLib.evaluation.section import SECTIONS, Context, run_section, section_names
from NPCSynthLib.inference.device import choose_device

#: All of a synthesizer that keeping rows takes.
WEIGHTS = SimpleNamespace(device=choose_device("cpu")[0])


def test_rows_are_computed_once_and_outlive_the_run(tmp_path):
    context = Context(WEIGHTS, tmp_path, tmp_path)
    asked = []

    def compute():
        asked.append(1)
        return {"ssim": 0.5}

    key = {"weights": "abc", "sources": ["T1", "T2"]}
    assert context.kept("cells").get(key, compute) == {"ssim": 0.5}
    assert context.kept("cells").get(dict(reversed(key.items())), compute) == {"ssim": 0.5}
    assert len(asked) == 1
    context.kept("cells").get({**key, "weights": "other"}, compute)
    assert len(asked) == 2


def test_other_code_images_or_device_are_another_question(tmp_path, monkeypatch):
    image = tmp_path / "cohorts" / "a" / "p1" / "T1.nii.gz"
    image.parent.mkdir(parents=True)
    image.write_bytes(b"one")
    context = Context(WEIGHTS, tmp_path, tmp_path / "out")
    asked = []

    def ask():
        context.kept("cells").get({"weights": "abc"}, lambda: asked.append(1) or {"ssim": 0.5})
        return len(asked)

    assert (ask(), ask()) == (1, 1)
    image.write_bytes(b"another")
    assert (ask(), ask()) == (2, 2)
    time = image.stat().st_mtime_ns
    os.utime(image, ns=(time, time + 10**9))
    assert (ask(), ask()) == (3, 3)
    monkeypatch.setattr(section, "code_digest", lambda: "edited")
    assert (ask(), ask()) == (4, 4)
    elsewhere = SimpleNamespace(device=replace(WEIGHTS.device, label="GPU"))
    context = Context(elsewhere, tmp_path, tmp_path / "out")
    assert (ask(), ask()) == (5, 5)


def test_every_source_that_figures_depend_on_counts(tmp_path, monkeypatch):
    library = Path(section.__file__).parents[1]
    shutil.copytree(library, tmp_path / "lib", ignore=lambda _, names: [n for n in names if n.endswith(".pyc")])
    monkeypatch.setattr(section, "__file__", str(tmp_path / "lib" / "evaluation" / "section.py"))
    digest = section.code_digest.__wrapped__
    found = [digest()]
    for name in ("evaluation/protocol.py", "qa/image_metrics.py", "study/normalize.py", "inference/synthesizer.py",
                 "vocabulary/__init__.py"):
        with (tmp_path / "lib" / name).open("a") as file:
            file.write("# edited\n")
        found.append(digest())
    (tmp_path / "sequences.json").write_text("{}")
    monkeypatch.setattr(section, "resource_path", lambda *parts: tmp_path / "sequences.json")
    found.append(digest())
    assert len(set(found)) == 7


def test_a_line_cut_off_by_a_kill_is_asked_again(tmp_path):
    context = Context(WEIGHTS, tmp_path, tmp_path)
    kept = context.kept("cells")
    kept.get({"a": 1}, lambda: {"x": 1})
    with kept.path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps({"key": {"a": 2}, "row": {"x": 2}})[:-4])
    assert context.kept("cells").get({"a": 1}, lambda: {"x": 9}) == {"x": 1}
    assert context.kept("cells").get({"a": 2}, lambda: {"x": 3}) == {"x": 3}
    assert context.kept("cells").get({"a": 2}, lambda: {"x": 9}) == {"x": 3}


def test_a_section_that_was_cut_off_costs_the_others_nothing(tmp_path):
    (tmp_path / "cost.json").write_text('{"section": "co')
    assert "NPCSynth evaluation" in page(tmp_path)


def test_unknown_section_and_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no section"):
        section_names("text, beauty")
    assert section_names("text, cost") == ["text", "cost"] and section_names(None) == list(SECTIONS)
    with pytest.raises(InputError, match="cohorts"):
        run_section("text", Context(None, tmp_path / "absent", tmp_path))
