"""How well contours follow edges, on shapes whose answer is known, on oblique anisotropic grids."""

import math

import numpy as np
import pytest
from scipy.special import erf

from NPCSynthLib.qa.contours import compare_contours, table_row, write_csv
from NPCSynthLib.qa.edges import REACH_MM, body_range, edge_contrast
from NPCSynthLib.study.contours_structures import ReferenceContours, ReferenceStructure
from NPCSynthLib.study.volume import Grid, Volume

A, B = 0.3, -0.2
TILT = np.array([[1, 0, 0], [0, np.cos(A), -np.sin(A)], [0, np.sin(A), np.cos(A)]]) @ np.array(
    [[np.cos(B), -np.sin(B), 0], [np.sin(B), np.cos(B), 0], [0, 0, 1]])
#: Slices of 3 mm whose order is flipped, pixels of 0.7 x 0.9 mm.
GRID = Grid.from_parts((6, 70, 80), (0.7, 0.9, 3.0), (-30, -35, 40), TILT @ np.diag([1, 1, -1]))
#: Another tilt, other voxels, the rows flipped; holds GRID's middle.
OTHER = Grid.from_parts((30, 90, 100), (0.8, 0.8, 1.2), (-48, 6, 5), TILT.T @ np.diag([1, -1, 1]))
MIDDLE = (GRID.ijk_to_lps @ (39.5, 34.5, 2.5, 1))[:3]
STEP = 30.0


def radius(grid):
    """(k, j, i) mm from an axis through the middle that stands on GRID's slices."""
    index = np.indices(grid.shape)[::-1].reshape(3, -1)
    across = (grid.ijk_to_lps[:3, :3] @ index + (grid.origin - MIDDLE)[:, None]).T @ GRID.direction
    return np.hypot(across[:, 0], across[:, 1]).reshape(grid.shape)


def cylinder(edge=15.0, blur=0.05, grid=GRID, scale=1.0, offset=0.0, noise=0.0):
    """Image of a cylinder 30 units brighter than what is around it."""
    image = STEP * (1 - erf((radius(grid) - edge) / (blur * 2**0.5))) / 2
    image = image + np.random.default_rng(0).normal(0, noise, grid.shape) if noise else image
    return Volume(scale * image + offset, grid)


def contrast(image, limits=(0.0, 100.0), edge=15.0):
    return edge_contrast(radius(GRID) < edge, GRID, image, limits)


@pytest.mark.parametrize("shift, blur", [(0, 0.05), (0, 1), (0, 3), (1, 0.05), (2, 0.05), (-2, 0.05), (2, 2)])
def test_a_step_gives_what_the_formula_says(shift, blur):
    spread = REACH_MM**2 + blur**2
    expected = 0.3 * REACH_MM / spread**0.5 * math.exp(-(shift**2) / (2 * spread))
    assert contrast(cylinder(15 + shift, blur)) == pytest.approx(expected, abs=0.012)


def test_it_falls_with_every_bit_of_shift_and_of_blur():
    assert np.all(np.diff([contrast(cylinder(15 + shift)) for shift in (0, 0.25, 0.5, 1, 1.5, 2, 3, 4)]) < 0)
    assert np.all(np.diff([contrast(cylinder(15 - shift)) for shift in (0, 0.25, 0.5, 1, 1.5, 2, 3, 4)]) < 0)
    assert np.all(np.diff([contrast(cylinder(blur=blur)) for blur in (0.05, 0.5, 1, 2, 4)]) < 0)


def test_a_fraction_of_a_pixel_hardly_matters():
    found = [contrast(cylinder(edge), edge=edge) for edge in np.linspace(14, 15, 6)]
    assert np.ptp(found) < 0.01


def test_brightness_and_its_sign_do_not_matter():
    plain = contrast(cylinder())
    assert contrast(cylinder(scale=7, offset=-300), (-300.0, 400.0)) == pytest.approx(plain, rel=1e-6)
    assert contrast(cylinder(scale=-1, offset=100)) == pytest.approx(plain, rel=1e-6)
    whole = Volume((100 * cylinder().array).astype(np.int16), GRID)
    assert contrast(whole, (0.0, 10000.0)) == pytest.approx(plain, abs=1e-3)


def test_an_image_on_another_grid_is_read_where_it_lies():
    assert contrast(cylinder(grid=OTHER)) == pytest.approx(contrast(cylinder()), abs=0.015)


def test_noise_alone_gives_next_to_nothing():
    assert contrast(Volume(np.random.default_rng(0).normal(0, 3, GRID.shape), GRID)) < 0.02
    assert contrast(cylinder(noise=3.0)) == pytest.approx(contrast(cylinder()), abs=0.01)


def test_a_flat_image_gives_nothing():
    assert contrast(Volume(np.full(GRID.shape, 50.0), GRID)) < 1e-9


def test_without_outline_or_outside_the_image_there_is_no_figure():
    assert math.isnan(edge_contrast(np.zeros(GRID.shape, bool), GRID, cylinder(), (0.0, 100.0)))
    away = Volume(cylinder().array, Grid.from_parts(GRID.shape, GRID.spacing, GRID.origin + 500, GRID.direction))
    assert math.isnan(contrast(away))
    with pytest.raises(ValueError, match="shape"):
        edge_contrast(np.zeros((2, 3, 4), bool), GRID, cylinder(), (0.0, 100.0))


def contours(**masks):
    return ReferenceContours(tuple(ReferenceStructure.of(n, m) for n, m in masks.items()), GRID, None, (), ())


def test_each_structure_says_how_its_contour_follows_each_image(tmp_path):
    """The reference's contour where there is one; every row of the table has the same columns."""
    inner, outer = radius(GRID) < 15, radius(GRID) < 18
    images = {"T2": cylinder(), "T2 (synthetic)": cylinder(blur=3)}
    found = compare_contours(contours(GTVp=inner, Brain=inner & False), contours(GTVnx=outer, GTVn=outer), images)
    by_name = {one.name: one for one in found}
    both = by_name["GTVp"].edges
    assert list(both) == list(images) and both["T2"] > 1.5 * both["T2 (synthetic)"]
    limits = body_range(images["T2"])
    assert both["T2"] == edge_contrast(inner, GRID, images["T2"], limits)
    assert by_name["GTVn"].edges["T2"] == edge_contrast(outer, GRID, images["T2"], limits)
    assert math.isnan(by_name["Brain"].edges["T2"]) and table_row(by_name["Brain"])["edges_T2"] is None
    write_csv(found, tmp_path / "table.csv")
    assert "edges_T2 (synthetic)" in (tmp_path / "table.csv").read_text(encoding="utf-8").splitlines()[0]


def test_a_second_look_measures_only_what_was_redrawn(monkeypatch):
    from NPCSynthLib.qa import contours as room

    measured, real = [], room.compare_masks
    monkeypatch.setattr(room, "compare_masks", lambda name, *rest: measured.append(name) or real(name, *rest))
    mask, other, known, images = radius(GRID) < 15, radius(GRID) < 12, {}, {"T2": cylinder()}
    first = compare_contours(contours(GTVp=mask, Brain=other), contours(GTVp=other, Brain=mask), images, known=known)
    assert measured == ["GTVp", "Brain"]
    redrawn = contours(GTVp=other, Brainstem=mask, Brain=other)
    second = compare_contours(
        contours(GTVp=mask, Brain=other), redrawn, images, {"Brain": "Brainstem"}, known)
    assert measured == ["GTVp", "Brain"] and second[0] == first[0]
    assert second[1].name == "Brain" and second[1].predicted_name == "Brainstem" and second[1].dice == first[1].dice
    moved = ReferenceContours((ReferenceStructure.of("GTVp", np.roll(other, 1, 2)),), GRID, None, (), ())
    (third,) = compare_contours(contours(GTVp=mask), moved, images, known=known)
    assert third.surface_dice != first[0].surface_dice
    assert measured[2:] == ["GTVp"]


def test_an_image_that_is_the_same_everywhere_gives_no_figures_and_stops_nothing():
    mask = radius(GRID) < 15
    flat = Volume(np.full(GRID.shape, 50, np.int16), GRID)
    (one,) = compare_contours(contours(GTVp=mask), contours(GTVp=mask), {"T1": flat, "T2": cylinder()})
    assert math.isnan(one.edges["T1"]) and one.edges["T2"] > 0 and one.dice == 1


def test_structures_are_paired_by_hand():
    mask, other = radius(GRID) < 15, radius(GRID) < 12
    reference, predicted = contours(GTVp=mask, boost=mask), contours(GTVp=mask, tumor2=other)
    rows = compare_contours(reference, predicted, pairs={"boost": "tumor2", "gone": "GTVp"})
    assert [(r.name, r.reference_name, r.predicted_name) for r in rows] == [
        ("GTVp", "GTVp", "GTVp"), ("boost", "boost", "tumor2")]
    assert rows[1].dice < 1
    crossed = compare_contours(reference, predicted, pairs={"GTVp": "tumor2"})
    assert [(r.reference_name, r.predicted_name) for r in crossed] == [("GTVp", "tumor2"), ("boost", ""), ("", "GTVp")]
    assert crossed[2].remark == "Not compared: GTVp of the reference was paired with another one by hand."


def test_the_place_to_look_at_lies_where_the_contours_differ_most():
    mask = radius(GRID) < 12
    wider = mask.copy()
    wider[4, 30:40, 55:75] = True
    (one,) = compare_contours(contours(GTVp=mask), contours(GTVp=wider))
    i, j, k = np.linalg.solve(GRID.ijk_to_lps, (*one.place, 1))[:3].round(3)
    assert k == one.worst_slice == 4 and (mask ^ wider)[int(k), int(j), int(i)]
    assert 33 <= j <= 36 and 58 <= i <= 72
    (alone,) = compare_contours(contours(GTVp=mask), contours())
    assert np.linalg.norm(np.cross(np.array(alone.place) - MIDDLE, GRID.direction[:, 2])) < 1.5
    (equal,) = compare_contours(contours(GTVp=mask), contours(GTVp=mask))
    assert equal.worst_slice is None and equal.place == alone.place
