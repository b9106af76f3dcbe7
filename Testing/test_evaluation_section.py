"""Rows that outlive a stopped run, and sections by name."""

import json

import pytest

from NPCSynthLib.errors import InputError, UsageError
from NPCSynthLib.evaluation.section import SECTIONS, Context, run_section


def test_rows_are_computed_once_and_outlive_the_run(tmp_path):
    context = Context(None, tmp_path, tmp_path)
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


def test_a_line_cut_off_by_a_kill_is_asked_again(tmp_path):
    context = Context(None, tmp_path, tmp_path)
    kept = context.kept("cells")
    kept.get({"a": 1}, lambda: {"x": 1})
    with kept.path.open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps({"key": {"a": 2}, "row": {"x": 2}})[:-4])
    assert context.kept("cells").get({"a": 1}, lambda: {"x": 9}) == {"x": 1}
    assert context.kept("cells").get({"a": 2}, lambda: {"x": 3}) == {"x": 3}
    assert context.kept("cells").get({"a": 2}, lambda: {"x": 9}) == {"x": 3}


def test_unknown_section_and_folder_are_refused(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="no section"):
        run_section("beauty", Context(None, tmp_path, tmp_path))
    monkeypatch.setitem(SECTIONS, "some", "some")
    with pytest.raises(InputError, match="cohorts"):
        run_section("some", Context(None, tmp_path / "absent", tmp_path))
