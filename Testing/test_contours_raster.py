"""Contours become the voxels that they enclose, on shapes whose volume is known, and in every plane."""

import time

import numpy as np
import pytest
from matplotlib.path import Path as Polygon

from NPCSynthLib.study.contours_raster import fill, rasterize
from NPCSynthLib.study.volume import Grid

#: The torus is thin: 1.5 mm slices would sample its tube too coarsely to know its volume to a per cent.
THIN = Grid.from_parts((100, 90, 80), (0.7, 0.6, 0.5), (-28.0, -27.0, -25.2), np.eye(3))
FINE = Grid.from_parts((40, 90, 80), (0.7, 0.6, 1.5), (-28.0, -27.0, -30.0), np.eye(3))


def circle(radius, center=(0.0, 0.0), count=400):
    # Half a step off, so that no corner lies on an axis.
    angle = (np.arange(count) + 0.5) * 2 * np.pi / count
    return np.column_stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle)])


def place(outline, z, axes=np.eye(3), origin=(0, 0, 0)):
    """Points of a plane -> LPS, the plane's axes and normal being the columns of ``axes``."""
    return np.column_stack([outline, np.full(len(outline), z)]) @ np.asarray(axes).T + origin


def sphere(radius, levels, axes=np.eye(3), origin=(0, 0, 0)):
    return [place(circle(np.sqrt(radius**2 - z**2)), z, axes, origin) for z in levels if abs(z) < radius]


def centers(grid):
    index = np.indices(grid.shape)[::-1].reshape(3, -1)
    return (grid.ijk_to_lps[:3, :3] @ index + grid.origin[:, None]).T


def ball(radius, grid, origin=(0, 0, 0)):
    return (np.linalg.norm(centers(grid) - origin, axis=1) < radius).reshape(grid.shape)


def volume(mask, grid):
    return np.count_nonzero(mask) * abs(np.linalg.det(grid.ijk_to_lps[:3, :3]))


def dice(first, second):
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def slice_levels(grid=FINE):
    return grid.origin[2] + grid.spacing[2] * np.arange(grid.shape[0])


def test_filling_agrees_with_another_implementation():
    rng = np.random.default_rng(0)
    columns, rows = np.meshgrid(np.arange(50), np.arange(40))
    points = np.column_stack([columns.ravel(), rows.ravel()])
    for count in rng.integers(3, 40, 60):
        polygon = rng.uniform(-10, 60, (count, 2))  # crosses itself and leaves the image
        expected = Polygon(np.vstack([polygon, polygon[:1]]), closed=True).contains_points(points).reshape(40, 50)
        assert np.array_equal(fill([polygon], (40, 50)), expected)


def test_edges_through_centers_count_once():
    square = np.array([(2, 3), (12, 3), (12, 8), (2, 8)], float)
    assert np.count_nonzero(fill([square], (20, 20))) == 10 * 5
    left, right = square.copy(), square + (10, 0)
    assert not (fill([left], (20, 30)) & fill([right], (20, 30))).any(), "neighbors do not overlap"


@pytest.mark.parametrize("radius", [0.4, 1.3, 5.0, 17.7])
def test_area_is_within_the_stated_bound(radius):
    center = (20.3, 21.1)
    found = fill([circle(radius, center)], (45, 45))
    scale = 40
    fine = (np.arange(45 * scale) + 0.5) / scale - 0.5
    true = np.hypot(fine[None, :] - center[0], fine[:, None] - center[1]) < radius
    wrong = np.count_nonzero(true != np.kron(found, np.ones((scale, scale), bool))) / scale**2
    diagonal = np.sqrt(2)
    assert wrong <= 2 * np.pi * radius * diagonal + np.pi * diagonal**2 / 4
    if radius > 2:
        assert np.count_nonzero(found) == pytest.approx(np.pi * radius**2, rel=0.02)


def test_a_sphere_has_its_volume():
    for radius in (6.0, 11.3, 20.0):
        mask, notes = rasterize(sphere(radius, slice_levels()), FINE)
        assert volume(mask, FINE) == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.015) and not notes
        assert dice(mask, ball(radius, FINE)) > 0.999


def test_a_sphere_on_an_oblique_grid_has_its_volume(oblique_grid):
    k, j, i = oblique_grid.shape
    middle = oblique_grid.ijk_to_lps[:3] @ (i / 2 - 0.3, j / 2 + 0.2, k / 2, 1)
    contours = []
    for n in range(k):
        plane_center = oblique_grid.ijk_to_lps[:3] @ (i / 2 - 0.3, j / 2 + 0.2, n, 1)
        squared = 12.5**2 - np.sum((plane_center - middle) ** 2)
        if squared > 0:
            contours.append(place(circle(np.sqrt(squared)), 0, oblique_grid.direction, plane_center))
    mask, notes = rasterize(contours, oblique_grid)
    assert np.array_equal(mask, ball(12.5, oblique_grid, middle)) and not notes
    assert volume(mask, oblique_grid) == pytest.approx(4 / 3 * np.pi * 12.5**3, rel=0.03)


def test_a_part_that_ends_keeps_its_end_whatever_else_is_drawn():
    """Two nodes of one structure, drawn every 3 mm on slices of 1 mm; the second one is longer."""
    grid = Grid.from_parts((60, 70, 120), (1.0, 1.0, 1.0), (-30.0, -35.0, -30.0), np.eye(3))
    node = [place(circle(5.0), z) for z in (-3.0, 0.0, 3.0)]
    other = [place(circle(5.0, (60.0, 0.0)), z) for z in np.arange(-15.0, 16.0, 3.0)]
    alone, _ = rasterize(node, grid)
    both, _ = rasterize(node + other, grid)
    assert np.array_equal(both[:, :, :60], alone[:, :, :60]) and alone.any(axis=(1, 2)).sum() == 9


def test_a_contour_that_is_there_twice_is_no_hole():
    contours = [place(circle(8.0), z) for z in slice_levels()[10:20]]
    once, _ = rasterize(contours, FINE)
    again = np.roll(contours[4], 7, axis=0)[::-1]
    twice, notes = rasterize([*contours, again, contours[6]], FINE)
    assert np.array_equal(once, twice) and "2 contours that the file holds twice" in notes[0]


def test_tilted_contours_rounded_to_a_tenth_of_a_millimeter_have_their_volume():
    a = np.deg2rad(15)
    axes = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    grid = Grid.from_parts((50, 90, 90), (1.0, 1.0, 1.0), (-45.0, -45.0, -25.0), np.eye(3))
    contours = [place(circle(6.0, center), z, axes) for z in (0.0, 3.0, 6.0, 9.0)
                for center in ((-20.0, 0.0), (0.0, 12.0), (20.0, 0.0))]
    mask, _ = rasterize([points.round(1) for points in contours], grid)
    assert volume(mask, grid) == pytest.approx(3 * np.pi * 36 * 12, rel=0.03)


def test_a_torus_has_its_hole_and_its_volume():
    ring, tube = 14.0, 5.0
    contours = []
    for z in slice_levels(THIN):
        if abs(z) < tube:
            half = np.sqrt(tube**2 - z**2)
            contours += [place(circle(ring + half), z), place(circle(ring - half), z)]
    mask, _ = rasterize(contours, THIN)
    assert volume(mask, THIN) == pytest.approx(2 * np.pi**2 * ring * tube**2, rel=0.01)
    assert not mask[50, 45, 40], "the hole"


def test_a_torus_drawn_on_a_coronal_series_arrives_on_an_axial_one():
    ring, tube = 13.0, 4.5
    coronal = np.array([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    contours = []
    for y in np.arange(-25, 25, 0.6):
        if abs(y) < tube:
            half = np.sqrt(tube**2 - y**2)
            contours += [place(circle(ring + half), y, coronal), place(circle(ring - half), y, coronal)]
    mask, notes = rasterize(contours, THIN)
    # The first and last contour reach half a step outwards, where the tube has nearly ended.
    assert volume(mask, THIN) == pytest.approx(2 * np.pi**2 * ring * tube**2, rel=0.04)
    assert not mask[50, 45, 40] and mask[50, 45, 40 + 18]
    assert "resampled" in notes[0]


def test_a_keyhole_is_a_hole():
    outer, inner = circle(15.2, (0.1, 0.3)), circle(6.1, (-2.0, 1.0))[::-1]
    keyhole = np.vstack([outer, outer[:1], inner, inner[:1]])
    level = slice_levels()[20]
    expected, _ = rasterize([place(outer, level), place(inner, level)], FINE)
    found, _ = rasterize([place(keyhole, level)], FINE)
    assert np.array_equal(found, expected)
    assert not found[20, int(28 / 0.6), int(26 / 0.7)]


def test_a_vertical_keyhole_channel_through_centers_leaves_no_trace():
    outer = np.array([(0, -1), (10, -1), (10, 11), (5, 11), (0, 11)], float) + (0.5, 0.5)
    hole = np.array([(5, 7), (7, 7), (7, 3), (3, 3), (3, 7)], float) + (0.5, 0.5)
    channel = np.vstack([outer[:4], hole, hole[:1], outer[3:]]) - (0.5, 0.5)
    plain = fill([outer - (0.5, 0.5), hole - (0.5, 0.5)], (12, 12))
    assert np.array_equal(fill([channel], (12, 12)), plain)


def test_what_a_contour_encloses_twice_is_outside():
    eight = np.array([(2.5, 2.5), (12.5, 12.5), (12.5, 2.5), (2.5, 12.5)])
    found = fill([eight], (16, 16))
    assert found[7, 4] and found[7, 11] and not found[3, 7] and not found[11, 7]
    twice = np.array([(1.5, 1.5), (9.5, 1.5), (9.5, 9.5), (1.5, 9.5)])
    assert not fill([twice, twice], (16, 16)).any()


@pytest.mark.parametrize("every", [2, 3])
def test_slices_between_contours_take_the_shape_between(every):
    """On every second or third slice: still the sphere, to a few per cent."""
    mask, notes = rasterize(sphere(18.0, slice_levels()[::every]), FINE)
    assert volume(mask, FINE) == pytest.approx(4 / 3 * np.pi * 18.0**3, rel=0.04)
    assert dice(mask, ball(18.0, FINE)) > 0.96
    assert any("interpolated" in note for note in notes)


def test_contours_of_thick_slices_on_thin_ones():
    thin = Grid.from_parts((60, 90, 80), (0.7, 0.6, 1.0), (-28.0, -27.0, -30.3), np.eye(3))
    mask, _ = rasterize(sphere(18.0, np.arange(-30, 30, 3.0)), thin)
    assert volume(mask, thin) == pytest.approx(4 / 3 * np.pi * 18.0**3, rel=0.04)


def test_contours_of_thin_slices_on_thick_ones():
    thick = Grid.from_parts((12, 90, 80), (0.7, 0.6, 5.0), (-28.0, -27.0, -27.3), np.eye(3))
    mask, _ = rasterize(sphere(18.0, np.arange(-20, 20, 1.0)), thick)
    assert dice(mask, ball(18.0, thick)) > 0.97


def test_a_single_contour_is_one_slice():
    mask, notes = rasterize([place(circle(8), slice_levels()[7] + 0.03)], FINE)
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [7] and not notes


def test_two_nodes_are_not_joined():
    levels = slice_levels()
    contours = [place(circle(6), levels[n]) for n in (4, 5, 6, 14, 15, 16)]
    mask, notes = rasterize(contours, FINE)
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [4, 5, 6, 14, 15, 16]
    assert notes == ["has 1 gap between its contours along the slices; left empty"]


def test_a_gap_does_not_thicken_what_lies_beside_it():
    levels = slice_levels()
    mask, _ = rasterize([place(circle(6), levels[n]) for n in (4, 5, 9)], FINE)
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [4, 5, 9]


def test_distant_single_contours_are_not_joined():
    levels = slice_levels()
    mask, _ = rasterize([place(circle(6), levels[4]), place(circle(6), levels[24])], FINE)
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [4, 24]


def test_contours_on_every_second_thick_slice_are_one_structure_when_there_are_three():
    thick = Grid.from_parts((12, 90, 80), (0.7, 0.6, 5.0), (-28.0, -27.0, -27.5), np.eye(3))
    levels = slice_levels(thick)
    mask, _ = rasterize([place(circle(10), levels[n]) for n in (2, 4, 6)], thick)
    assert np.flatnonzero(mask.any(axis=(1, 2)))[:5].tolist() == [1, 2, 3, 4, 5]
    mask, _ = rasterize([place(circle(10), levels[n]) for n in (2, 4)], thick)
    assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == [2, 4]


def test_parts_that_do_not_overlap_do_not_vanish_between_their_slices():
    levels = slice_levels()
    contours = [place(circle(3, (6.5 * n, 0)), levels[20 + 2 * n]) for n in (-1, 0, 1)]
    mask, _ = rasterize(contours, FINE)
    assert mask[18:23].any(axis=(1, 2)).all()


def test_tilted_planes_are_resampled_onto_the_slices():
    a = np.deg2rad(35)
    axes = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    mask, notes = rasterize(sphere(16.0, np.arange(-20, 20, 2.0), axes, (2, -3, 4)), FINE)
    assert volume(mask, FINE) == pytest.approx(4 / 3 * np.pi * 16.0**3, rel=0.03)
    assert dice(mask, ball(16.0, FINE, (2, -3, 4))) > 0.97
    assert "cut at an angle" in notes[0]


def test_contours_that_are_not_flat_or_parallel_are_refused():
    crooked = place(circle(10), 0.0)
    crooked[:, 2] += 4 * np.sin(np.linspace(0, 6, len(crooked)))
    with pytest.raises(ValueError, match="not flat"):
        rasterize([crooked], FINE)
    turned = place(circle(10), 0.0, np.eye(3)[[2, 0, 1]])
    with pytest.raises(ValueError, match="not parallel"):
        rasterize([place(circle(10), 0.0), turned], FINE)


def test_what_leaves_the_image_is_cut_off_and_told():
    far = [place(circle(20, (25, 0)), slice_levels()[3]), place(circle(5), 500.0)]
    mask, notes = rasterize(far, FINE)
    assert mask.any() and mask[3, 45, -1] and not mask[4:].any()
    assert any("2 of its 2 contours" in note for note in notes)
    mask, notes = rasterize([place(circle(5, (9e4, -9e4)), slice_levels()[3])], FINE)
    assert not mask.any() and any("outside" in note for note in notes)
    turned = place(circle(5, (9e4, 9e4)), 9e4, np.eye(3)[[2, 0, 1]])
    mask, notes = rasterize([turned], FINE)
    assert not mask.any() and notes == ["lies outside the image"]


def test_ten_thousand_contours_take_seconds():
    rng = np.random.default_rng(1)
    levels = slice_levels()
    contours = [place(circle(2.0, rng.uniform(-20, 20, 2), 100), levels[n % 40]) for n in range(10_000)]
    start = time.process_time()
    mask, _ = rasterize(contours, FINE)
    assert time.process_time() - start < 10 and mask.any()
