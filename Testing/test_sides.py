"""Left or right of paired organs: never by a false island or by a field of view that ends at one side of the head.

Heads of a few balls, placed in the patient and not on the grid, so that the grid may lie in any way.
"""

import numpy as np
import pytest

from NPCSynthLib.inference.labels import to_segments
from NPCSynthLib.study.volume import Grid

NAMES = ("background", "body", "Brain", "Brainstem", "SpinalCord", "Eye", "Parotid")
#: LPS mm of centers, and radii.
BRAINSTEM, CORD = ("Brainstem", (0, 20, 0), (14, 12, 22)), ("SpinalCord", (0, 32, -55), (6, 6, 32))
BRAIN = ("Brain", (0, 0, 45), (65, 80, 40))
EYE_L, EYE_R = ("Eye", (31, -65, 5), 12), ("Eye", (-31, -65, 5), 12)
PAROTID_L, PAROTID_R = ("Parotid", (55, 15, -45), (12, 14, 22)), ("Parotid", (-55, 15, -45), (12, 14, 22))
HEAD = ("body", (0, 0, 0), (75, 95, 110))


def rotation(axis: int, degrees: float) -> np.ndarray:
    a, matrix = np.deg2rad(degrees), np.eye(3)
    one, two = (n for n in range(3) if n != axis)
    matrix[one, one] = matrix[two, two] = np.cos(a)
    matrix[one, two], matrix[two, one] = -np.sin(a), np.sin(a)
    return matrix


GRIDS = {
    "flipped": np.diag([-1, 1, -1]),
    "sagittal": np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "oblique": rotation(2, 14) @ rotation(1, -12) @ rotation(0, 20),
}


@pytest.fixture(params=GRIDS)
def lying(request) -> np.ndarray:
    return GRIDS[request.param]


def named(lying, *balls, turn=np.eye(3), seen=(-np.inf, np.inf)):
    """({name: left coordinates of its voxels}, notes) of a head turned so, seen between two planes of the grid."""
    spacing, count = np.array([3.0, 2.5, 4.0]), np.array([86, 104, 70])
    grid = Grid.from_parts(count[::-1], spacing, -lying @ (spacing * (count - 1) / 2), lying)
    k, j, i = np.indices(grid.shape, dtype=np.float32)
    points = np.stack([i, j, k], axis=-1) @ grid.ijk_to_lps[:3, :3].T.astype(np.float32) + grid.origin
    own = points @ turn  # in the head's own axes
    classes = np.zeros(grid.shape, np.uint8)
    for name, center, radii in (HEAD, *balls):
        classes[(((own - np.array(center)) / radii) ** 2).sum(axis=-1) <= 1] = NAMES.index(name)
    axis = np.abs(lying[0]).argmax()
    along = points @ lying[:, axis] * np.sign(lying[0, axis])
    classes[(along < seen[0]) | (along > seen[1])] = 0
    result, notes = to_segments(classes, np.zeros(grid.shape, bool), NAMES, classes > 0, grid)
    return {s.name: points[..., 0][result.mask(s)] for s in result.segments}, notes


def volume(radii) -> int:
    """In voxels."""
    return round(4 / 3 * np.pi * np.prod(np.broadcast_to(radii, 3)) / 30)


@pytest.mark.parametrize("turn", [
    np.eye(3), rotation(2, 15), rotation(2, 22), rotation(2, -28), rotation(1, 15), rotation(2, -12) @ rotation(1, -12),
])
def test_both_sides_of_a_turned_or_tilted_head(lying, turn):
    found, notes = named(lying, BRAIN, BRAINSTEM, CORD, EYE_L, EYE_R, PAROTID_L, PAROTID_R, turn=turn)
    for name, ball in (("Eye_L", EYE_L), ("Eye_R", EYE_R), ("Parotid_L", PAROTID_L), ("Parotid_R", PAROTID_R)):
        assert found[name].mean() == pytest.approx((turn @ ball[1])[0], abs=1)
        assert len(found[name]) == pytest.approx(volume(ball[2]), rel=0.1)
    assert not any("left out" in note for note in notes)


@pytest.mark.parametrize("left_side", [True, False])
@pytest.mark.parametrize("central", [BRAINSTEM, CORD])
def test_lone_eye_of_half_a_head_is_named_whole(lying, left_side, central):
    """The mean of what is seen of the body goes through the eye."""
    eye, edges = (EYE_L, (-15, 90)) if left_side else (EYE_R, (-90, 15))
    name, other = ("Eye_L", "Eye_R") if left_side else ("Eye_R", "Eye_L")
    found, notes = named(lying, central, eye, seen=edges)
    assert len(found[name]) == pytest.approx(volume(12), rel=0.1) and not len(found[other])
    assert any(note.startswith("Not found:") and other in note for note in notes)


@pytest.mark.parametrize("edges", [(0, 90), (-90, 0), (5, 65)])
def test_without_any_midline_an_organ_is_named_neither_left_nor_right(lying, edges):
    """Half a head, one half of the brain, no brainstem."""
    found, notes = named(lying, BRAIN, EYE_L, EYE_R, seen=edges)
    assert not len(found["Eye_L"]) and not len(found["Eye_R"])
    assert any("looks like Eye was left out" in note and "left and right could not be told apart" in note
               for note in notes)
    assert not any(note.startswith("Not found") and "Eye" in note for note in notes)


@pytest.mark.parametrize("central", [(BRAINSTEM, CORD), (CORD,), (BRAIN,), ()])
@pytest.mark.parametrize("size", [3.5, 6])
def test_false_island_does_not_become_the_missing_gland_of_the_other_side(lying, central, size):
    """It lies 30 mm from the gland toward the middle, on the same side."""
    found, _ = named(lying, *central, PAROTID_L, ("Parotid", (25, 15, -45), size))
    assert len(found["Parotid_L"]) == pytest.approx(volume(PAROTID_L[2]), rel=0.1) and not len(found["Parotid_R"])


@pytest.mark.parametrize("edges", [(-90, 5), (-5, 90)])
def test_two_parts_near_each_other_are_no_pair(lying, edges):
    """An eye and as much again beside it, in half a head without a midline: seen on a real image."""
    side = np.sign(sum(edges))
    found, notes = named(lying, ("Eye", (side * 37, -65, 5), 12), ("Eye", (side * 12, -50, -12), 10), seen=edges)
    assert not len(found["Eye_L"]) and not len(found["Eye_R"]) and any("Eye was left out" in note for note in notes)


def test_a_pair_alike_but_on_one_side_is_no_pair(lying):
    found, _ = named(lying, BRAINSTEM, CORD, PAROTID_L, ("Parotid", (22, 15, -45), (11, 14, 20)))
    assert not len(found["Parotid_R"]) and found["Parotid_L"].mean() > 50


@pytest.mark.parametrize("central", [(BRAINSTEM, CORD), (BRAIN,), ()])
def test_organs_grown_together_are_cut_at_the_midline(lying, central):
    bridge = ("Eye", (0, -65, 5), (30, 5, 5))
    found, _ = named(lying, *central, EYE_L, EYE_R, bridge)
    assert found["Eye_L"].min() >= -1 and found["Eye_R"].max() <= 1
    assert len(found["Eye_L"]) == pytest.approx(len(found["Eye_R"]), rel=0.1) and len(found["Eye_L"]) > volume(12)


def test_lone_organ_across_the_midline_is_not_cut(lying):
    """As in a head turned far."""
    found, _ = named(lying, BRAINSTEM, CORD, ("Eye", (4, -65, 5), 12))
    assert len(found["Eye_L"]) == pytest.approx(volume(12), rel=0.1) and not len(found["Eye_R"])


def test_brain_or_body_seen_whole_tells_the_side_of_a_lone_organ(lying):
    for central in ((BRAIN,), ()):
        found, _ = named(lying, *central, EYE_R)
        assert len(found["Eye_R"]) == pytest.approx(volume(12), rel=0.1) and not len(found["Eye_L"])
