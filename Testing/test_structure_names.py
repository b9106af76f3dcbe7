"""Whatever a clinic calls a structure, its TG-263 name is found, or the name is left alone."""

import pytest

from NPCSynthLib.vocabulary import PREDICTED, load_structures, tg263_name


@pytest.mark.parametrize("theirs, name", [
    ("GTVnx", "GTVp"), ("gtv_nx", "GTVp"), ("GTV-P", "GTVp"), ("GTVnd", "GTVn"), ("gtvND", "GTVn"),
    ("brain stem", "Brainstem"), ("BRAIN_STEM", "Brainstem"), ("Spinal-Cord", "SpinalCord"), ("BODY", "External"),
    ("Lt Parotid", "Parotid_L"), ("PAROTID R", "Parotid_R"), ("ParotidL", "Parotid_L"), ("parotid.left", "Parotid_L"),
    ("left eye", "Eye_L"), ("Parotis re", "Parotid_R"), ("Optic Nerve-L", "OpticNrv_L"), ("TMJ R", "Joint_TM_R"),
    ("Temporal lobe-R", "Lobe_Temporal_R"), ("GTV-N", "GTVn"), ("GTV-T", "GTVp"), ("Parotid - L", "Parotid_L"),
    ("Oral Cavity", "Cavity_Oral"), ("Chiasm", "OpticChiasm"),
])
def test_aliases_are_found_whatever_case_separator_and_place_of_side(theirs, name):
    assert tg263_name(theirs) == name


@pytest.mark.parametrize("structure", load_structures(), ids=lambda structure: structure.name)
def test_what_was_exported_is_known_by_its_name_again(structure):
    assert tg263_name(f"{structure.name}{PREDICTED}") == structure.name
    assert tg263_name(f"{structure.name}^Mine") == f"{structure.name}^Mine", "the qualifier of somebody else"


@pytest.mark.parametrize("name", [
    "GTVp_old", "PRV SpinalCord", "SpinalCord_PRV05", "Parotid", "Parotid_L_opt", "Parotid L R", "GTVnd_L", "CTV_6000",
    "颞叶", "L", "", "Skin",
])
def test_what_is_not_surely_the_same_structure_keeps_its_name(name):
    assert tg263_name(name) == name


@pytest.mark.parametrize("name", [
    "SpinalCord+", "Brainstem+", "Brain~", "Parotid~_L", "GTVp!", "_Parotid_L", "^Brain", "GTVn-", "Brain*", "Brain?",
    "-Brain", "Brain-_L", "Brain - GTVp",
])
def test_the_signs_of_tg263_make_another_structure(name):
    assert tg263_name(name) == name
    assert tg263_name(f" {name} ") == name


def test_surrounding_blanks_are_dropped():
    assert tg263_name(" PTV60  ") == "PTV60"


def test_every_name_and_alias_of_the_segmentation_leads_to_itself():
    for structure in load_structures():
        assert {tg263_name(name) for name in (structure.name, *structure.aliases)} == {structure.name}
