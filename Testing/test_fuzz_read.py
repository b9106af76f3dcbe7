"""Damaged folders: the reader never crashes, hangs or takes memory out of proportion, and always says why.

A fast part of what ``benchmarks/fuzz_reader.py`` does with thousands, each in a process that may die.
"""

import pytest
from fuzzing import damage, good_folders, run

from NPCSynthLib.study.read import read_folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", range(0, 2550, 170))
def test_damaged_folders_are_read_or_refused_in_plain_words(tmp_path, first):
    problems = []
    for seed in range(first, first + 170, 17):
        (tmp_path / str(seed)).mkdir()
        outcome = run(seed, tmp_path / str(seed))
        if outcome.problem:
            problems.append(f"seed {seed} ({outcome.mutation}): {outcome.problem}")
    assert not problems


def test_the_folders_that_are_damaged_were_good(tmp_path):
    for kind, files in good_folders().items():
        (tmp_path / kind).mkdir()
        for name, content in files.items():
            (tmp_path / kind / name).write_bytes(content)
        report = read_folder(tmp_path / kind)
        assert len(report.volumes) == (2 if kind == "enhanced" else 1) and not report.refused, kind


def test_a_seed_always_makes_the_same_damage():
    assert all(damage(seed) == damage(seed) for seed in range(0, 200, 7))
    assert len({damage(seed)[0].split(" in ")[0] for seed in range(0, 2550, 17)}) > 80
