"""The digital anatomy is a head and neck, the same for a seed, and with left where left belongs."""

import numpy as np
import pytest
from scipy import ndimage

from NPCSynthLib.phantom.anatomy import make_anatomy
from NPCSynthLib.vocabulary import load_structures

SHAPE, SPACING = (48, 72, 60), (4.0, 3.5, 3.5)


@pytest.fixture(scope="module")
def anatomies():
    return [make_anatomy(seed, SHAPE, SPACING) for seed in range(3)]


def centroid(anatomy, mask):
    k, j, i = np.argwhere(mask).mean(0)
    return (anatomy.grid.ijk_to_lps @ (i, j, k, 1))[:3]


def volume_ml(anatomy, mask):
    return mask.sum() * anatomy.grid.spacing.prod() / 1000


def label(anatomy, name):
    return anatomy.labels == anatomy.tissue_names.index(name)


def test_the_same_seed_gives_the_same_patient_and_another_seed_another(anatomies):
    again = make_anatomy(1, SHAPE, SPACING)
    assert np.array_equal(again.labels, anatomies[1].labels)
    assert again.structures.keys() == anatomies[1].structures.keys()
    for name, mask in again.structures.items():
        assert np.array_equal(mask, anatomies[1].structures[name])
    assert (anatomies[0].labels != anatomies[1].labels).mean() > 0.1


def test_the_patient_does_not_depend_on_the_grid():
    coarse = make_anatomy(2, (40, 52, 44), (5.0, 5.0, 5.0))
    fine = make_anatomy(2, (70, 104, 88), (3.0, 2.5, 2.5))
    for name in ("Brain", "External", "Parotid_L", "GTVp"):
        offset = centroid(coarse, coarse.structures[name]) - centroid(fine, fine.structures[name])
        assert np.abs(offset).max() < 2.5, name
        ratio = volume_ml(coarse, coarse.structures[name]) / volume_ml(fine, fine.structures[name])
        assert 0.8 < ratio < 1.25, name


def test_structures_carry_known_names_and_plausible_volumes(anatomies):
    known = {structure.name for structure in load_structures()}
    expected = {"Brain": (850, 1700), "Brainstem": (14, 40), "SpinalCord": (3, 20), "Eye_L": (4, 10), "Eye_R": (4, 10),
                "Parotid_L": (10, 50), "Parotid_R": (10, 50), "GTVp": (3, 90), "External": (3000, 6500)}
    for anatomy in anatomies:
        assert set(anatomy.structures) <= known
        for name, (low, high) in expected.items():
            assert low < volume_ml(anatomy, anatomy.structures[name]) < high, (anatomy.seed, name)
        for mask in anatomy.structures.values():
            assert mask.dtype == bool and mask.shape == SHAPE


def test_left_is_left_and_up_is_up(anatomies):
    for anatomy in anatomies:
        assert np.allclose(anatomy.grid.direction, np.eye(3))
        place = {name: centroid(anatomy, mask) for name, mask in anatomy.structures.items()}
        assert place["Eye_L"][0] > 20 and place["Eye_R"][0] < -20
        assert place["Parotid_L"][0] > 35 and place["Parotid_R"][0] < -35
        assert place["Eye_L"][1] < place["GTVp"][1] < place["Brainstem"][1]
        assert place["Brain"][2] > place["Brainstem"][2] > place["SpinalCord"][2]
        assert place["GTVp"][2] < -10 and abs(place["GTVp"][0]) < 25


def test_structures_do_not_overlap_and_lie_within_the_body(anatomies):
    for anatomy in anatomies:
        inner = [mask for name, mask in anatomy.structures.items() if name != "External"]
        assert np.sum(inner, axis=0).max() == 1
        assert not (np.any(inner, axis=0) & ~anatomy.structures["External"]).any()


def test_the_tissues_of_a_head_and_neck_are_there_in_the_right_order_of_size(anatomies):
    for anatomy in anatomies:
        for name in ("skin", "subcutaneous_fat", "deep_fat", "muscle", "tongue", "cortical_bone", "fatty_marrow",
                     "red_marrow", "teeth", "gray_matter", "white_matter", "deep_gray", "csf", "brainstem",
                     "spinal_cord", "vitreous", "parotid", "submandibular", "mucosa", "artery", "vein", "npc_tumor"):
            assert label(anatomy, name).any(), (anatomy.seed, name)
        gray, white = (volume_ml(anatomy, label(anatomy, name)) for name in ("gray_matter", "white_matter"))
        assert 0.5 < gray / white < 2.5
        body = anatomy.structures["External"]
        assert 0.02 < label(anatomy, "air")[body].mean() < 0.12


def test_skin_wraps_one_connected_body_and_bone_wraps_the_brain(anatomies):
    for anatomy in anatomies:
        body = anatomy.structures["External"]
        _, parts = ndimage.label(body)
        assert parts == 1
        # Between brain and skin of the vault there is bone.
        top = anatomy.structures["Brain"].copy()
        shell = ndimage.binary_dilation(top, iterations=4) & ~top
        shell[: SHAPE[0] * 2 // 3] = False
        assert label(anatomy, "cortical_bone")[shell].mean() > 0.15


def test_nothing_lies_bare_of_skin():
    anatomy = make_anatomy(0, (96, 116, 96), (2.0, 2.0, 2.0))
    body = anatomy.structures["External"]
    rim = body & ~ndimage.binary_erosion(body, border_value=1)
    assert label(anatomy, "skin")[rim].mean() > 0.98


def test_the_airway_is_open_from_nose_to_trachea_without_a_tumor():
    anatomy = make_anatomy(5, (118, 70, 24), (2.0, 2.0, 2.0), tumor=False)
    air = (anatomy.labels == 0) & anatomy.structures["External"]
    parts, _ = ndimage.label(air, np.ones((3, 3, 3)))
    center = [int(round(c)) for c in -anatomy.grid.origin / anatomy.grid.spacing]

    def at(x, y, z):
        i, j, k = center[0] + x // 2, center[1] + y // 2, center[2] + z // 2
        window = parts[k - 3 : k + 4, j - 4 : j + 5, i - 4 : i + 5]
        return set(window[window > 0])

    nasopharynx, oropharynx, trachea = at(0, -8, -32), at(0, -6, -68), at(0, -20, -128)
    assert nasopharynx & oropharynx & trachea


def test_tumor_is_optional_and_varies(anatomies):
    healthy = make_anatomy(1, SHAPE, SPACING, tumor=False)
    assert "GTVp" not in healthy.structures and "GTVn" not in healthy.structures
    assert not label(healthy, "npc_tumor").any()
    volumes = [volume_ml(a, a.structures["GTVp"]) for a in anatomies]
    assert max(volumes) > 1.2 * min(volumes)
    changed = healthy.labels != anatomies[1].labels
    lesion = anatomies[1].structures["GTVp"] | anatomies[1].structures.get("GTVn", False)
    assert not (changed & ~lesion).any(), "the tumor must change nothing but its own place"


def test_some_patients_have_nodes_and_some_have_none_and_some_tumors_reach_the_skull_base():
    grid = ((20, 20, 24), (5.0, 5.0, 5.0))
    patients = [make_anatomy(seed, *grid) for seed in range(8)]
    assert 2 < sum("GTVn" in patient.structures for patient in patients) < 8
    reach = []
    for patient in patients[:4]:
        healthy = make_anatomy(patient.seed, *grid, tumor=False)
        marrow = label(healthy, "fatty_marrow") & patient.structures["GTVp"]
        reach.append(volume_ml(patient, marrow))
    assert max(reach) > 1.0 and min(reach) < max(reach) / 3
