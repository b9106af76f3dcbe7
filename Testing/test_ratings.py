"""Ratings of agreement: limits to both sides, and what was missed."""

import math

import pytest

from NPCSynthLib.qa.contours import PAIRED_AWAY, TOLERANCES_MM, StructureAgreement
from NPCSynthLib.qa.ratings import (
    FAIR,
    GOOD,
    POOR,
    has_stronger_edge,
    is_invented,
    is_missed,
    overall,
    rate,
    rate_edges,
)


def agreement(**known):
    unknown = {
        "name": "GTVn", "dice": math.nan, "surface_dice": (math.nan,) * len(TOLERANCES_MM), "hd95_mm": math.nan,
        "mean_distance_mm": math.nan, "reference_ml": math.nan, "predicted_ml": math.nan, "worst_slice": None,
    }
    return StructureAgreement(**{**unknown, **known})


@pytest.mark.parametrize("ratio, rating", [
    (0.49, POOR), (0.5, FAIR), (0.79, FAIR), (0.8, GOOD), (1, GOOD), (1.25, GOOD), (1.26, FAIR), (2, FAIR),
    (2.01, POOR), (math.inf, POOR), (math.nan, None),
])
def test_edges_can_be_too_weak_and_too_strong(ratio, rating):
    assert rate("edges", ratio) == rating


@pytest.mark.parametrize("measure, value", [("dice", 1.0), ("surface_dice_3mm", 1.0), ("hd95_mm", 0.0)])
def test_other_measures_cannot_be_too_good(measure, value):
    assert rate(measure, value) == GOOD


@pytest.mark.parametrize("acquired, synthetic, rating, stronger", [
    (0.05, 0.40, POOR, True), (0.0, 0.40, POOR, True), (0.30, 0.31, GOOD, False), (0.30, 0.10, POOR, False),
    (0.0, 0.0, None, False), (math.nan, 0.4, None, False), (0.4, math.nan, None, False),
])
def test_an_invented_edge_is_poor_and_said_to_be_stronger(acquired, synthetic, rating, stronger):
    one = agreement(edges={"T1": acquired, "T1 (synthetic)": synthetic})
    assert rate_edges(one, "T1 (synthetic)", "T1") == rating
    assert has_stronger_edge(one, "T1 (synthetic)", "T1") is stronger
    assert not has_stronger_edge(one, "T1 (synthetic)", "T2")


@pytest.mark.parametrize("known, missed", [
    (dict(reference_name="GTVnd", reference_ml=3.0), True),
    (dict(reference_name="GTVnd", reference_ml=3.0, predicted_name="GTVn", predicted_ml=0.0, dice=0.0), True),
    (dict(name="Brain", predicted_name="Brain", predicted_ml=3.0), False),
    # one that was left out on reading may be there
    (dict(reference_name="GTVnd", reference_ml=3.0, predicted_name="GTVn"), False),
    (dict(reference_name="GTVnd"), False),
    (dict(reference_name="GTVnd", reference_ml=0.0), False),
])
def test_what_only_the_reference_has_is_poor(known, missed):
    one = agreement(**known)
    assert is_missed(one) is missed and overall(one) == (POOR if missed else None)


@pytest.mark.parametrize(("name", "invented"), [("GTVn", True), ("GTVp", True), ("Parotid_L", False)])
def test_a_tumor_that_only_the_compared_contours_have_is_poor(name, invented):
    """Others may have been drawn on one side alone; of a tumor it is the graver error."""
    one = agreement(name=name, predicted_name=name, predicted_ml=3.0)
    assert is_invented(one) is invented and overall(one) == (POOR if invented else None)
    known = agreement(name=name, predicted_name=name, predicted_ml=3.0, reference_name="X", reference_ml=2.0, dice=0.9)
    assert not is_invented(known)
    away = agreement(name=name, predicted_name=name, predicted_ml=3.0, remark=f"{PAIRED_AWAY} …")
    assert not is_invented(away), "the reference has it, and it was compared with another one"
