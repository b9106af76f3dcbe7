"""Agreement of delineations, on shapes whose answer is known."""

import csv
import json
import math
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import SimpleITK
from contour_cases import ball as drawn_ball
from contour_cases import image_on, write_structures
from typer.testing import CliRunner

from NPCSynthLib.cli.main import app
from NPCSynthLib.errors import InputError, OutputError
from NPCSynthLib.phantom.patient import make_patient, write_dicom
from NPCSynthLib.qa.contours import (
    TOLERANCES_MM,
    compare_contours,
    compare_masks,
    compare_structures,
    dice,
    write_csv,
)
from NPCSynthLib.study.contours import read_contours
from NPCSynthLib.study.read import read_folder
from NPCSynthLib.study.volume import Grid, to_sitk

ISOTROPIC, ANISOTROPIC = (0.8, 0.8, 0.8), (0.6, 0.7, 1.5)


def box(start, stop):
    mask = np.zeros((6, 10, 20), bool)
    mask[1:5, 2:8, start:stop] = True
    return mask


def grid_of(spacing, direction=np.eye(3)):
    """50 mm wide, the origin of coordinates near its middle and between voxels."""
    shape = [round(50 / mm) for mm in spacing]
    center = np.array(shape) * spacing / 2
    return Grid.from_parts(shape[::-1], spacing, direction @ -(center + 0.13), direction)


def ball(grid, radius, center=(0.0, 0.0, 0.0)):
    index = np.indices(grid.shape)[::-1].reshape(3, -1)
    points = grid.ijk_to_lps[:3, :3] @ index + grid.origin[:, None]
    return (np.linalg.norm(points.T - center, axis=1) < radius).reshape(grid.shape)


def cap_overlap(radius, shift):
    """Dice of two equal spheres: the lens 4/3 pi r^3 (1 - 3d/4r + d^3/16r^3) over the sphere."""
    return 1 - 3 * shift / (4 * radius) + shift**3 / (16 * radius**3)


def surface_overlap(radius, shift, tolerance):
    """Part of a sphere's surface within ``tolerance`` of an equal sphere shifted by ``shift``.

    The distance of a point at angle t is |sqrt(r^2 + d^2 + 2 r d cos t) - r|, and area is uniform in cos t.
    """
    low, high = (
        ((radius + sign * tolerance) ** 2 - radius**2 - shift**2) / (2 * radius * shift) for sign in (-1, 1))
    return (min(high, 1) - max(low, -1)) / 2


@pytest.mark.parametrize("shift, expected", [(0, 1.0), (5, 0.5), (10, 0.0)])
def test_dice_of_shifted_boxes(shift, expected):
    assert dice(box(0, 10), box(shift, 10 + shift)) == expected


def test_dice_of_different_sizes():
    assert dice(box(0, 4), box(0, 12)) == pytest.approx(0.5)


def test_dice_of_nothing_is_not_a_number():
    assert math.isnan(dice(box(0, 0), box(0, 0)))
    assert dice(box(0, 4), box(0, 0)) == 0.0


def test_masks_of_different_grids_are_refused():
    with pytest.raises(ValueError, match="different shapes"):
        dice(box(0, 4), box(0, 4)[1:])
    with pytest.raises(ValueError, match="GTVp: a mask of shape"):
        compare_masks("GTVp", box(0, 4), box(0, 4), grid_of(ISOTROPIC))


def test_equal_masks_agree_wholly():
    grid = grid_of(ANISOTROPIC)
    found = compare_masks("GTVp", ball(grid, 15), ball(grid, 15), grid)
    assert found.dice == 1 and found.surface_dice == (1.0, 1.0, 1.0)
    assert found.hd95_mm == found.mean_distance_mm == found.difference_ml == 0
    assert found.worst_slice is None and found.remark == ""


@pytest.mark.parametrize("spacing", [ISOTROPIC, ANISOTROPIC])
def test_concentric_spheres_lie_apart_by_their_radii(spacing):
    grid = grid_of(spacing)
    found = compare_masks("GTVp", ball(grid, 18), ball(grid, 14), grid)
    assert found.dice == pytest.approx(2 * 14**3 / (18**3 + 14**3), abs=0.005)
    assert found.reference_ml == pytest.approx(4 / 3 * np.pi * 5.832, rel=0.01)
    assert found.difference_ml == pytest.approx(4 / 3 * np.pi * (2.744 - 5.832), rel=0.01)
    half = max(spacing) / 2
    assert found.mean_distance_mm == pytest.approx(4, abs=half) and found.hd95_mm == pytest.approx(4, abs=half + 0.1)
    assert found.surface_dice[:2] == (0, 0)


@pytest.mark.parametrize("shift", [2.0, 4.0])
def test_shifted_spheres_agree_as_geometry_says(shift):
    grid, radius = grid_of((0.5, 0.5, 0.5)), 15.0
    found = compare_masks("GTVp", ball(grid, radius), ball(grid, radius, (0, shift, 0)), grid)
    assert found.dice == pytest.approx(cap_overlap(radius, shift), abs=0.005)
    for tolerance, value in zip(TOLERANCES_MM, found.surface_dice):
        low = surface_overlap(radius, shift, tolerance)
        high = surface_overlap(radius, shift, tolerance + 0.25)
        assert low - 0.02 <= value <= high + 0.02, tolerance
    # Distances are spread evenly from 0 to the shift: nearly so, the sphere being large.
    assert found.mean_distance_mm == pytest.approx(shift / 2, abs=0.1)
    assert found.hd95_mm == pytest.approx(0.95 * shift, abs=0.25)
    assert found.difference_ml == pytest.approx(0, abs=0.05)


def test_distances_are_in_mm_along_every_axis():
    """The same shift along each axis of an anisotropic, turned grid is the same distance."""
    turned = np.array([[0, 0, 1], [1, 0, 0], [0, -1, 0]], float)
    grid = grid_of((0.5, 0.6, 1.0), turned)
    found = [compare_masks("GTVp", ball(grid, 14), ball(grid, 14, 4 * axis), grid) for axis in np.eye(3)]
    assert [f.mean_distance_mm for f in found] == pytest.approx([2.0] * 3, abs=0.35)
    assert np.ptp([f.dice for f in found]) < 0.01


def test_the_worst_slice_is_where_most_voxels_differ():
    reference, predicted = np.zeros((2, 12, 20, 20), bool)
    reference[2:9, 5:15, 5:15] = predicted[2:9, 5:15, 5:15] = True
    predicted[3, 5:8, 5:15] = False
    predicted[7, 0:5, 5:15] = True
    grid = Grid.from_parts(reference.shape, (1, 1, 3), (0, 0, 0), np.eye(3))
    found = compare_masks("GTVp", reference, predicted, grid)
    assert found.worst_slice == 7


def test_structures_are_matched_by_what_they_mean():
    grid = grid_of(ISOTROPIC)
    mask, other = ball(grid, 12), ball(grid, 11)
    found = compare_structures(
        {"GTVnx": mask, "Lt Parotid": mask, "CTV1": mask}, {"Parotid_L": other, "GTVp": mask, "Brain": other}, grid)
    assert [f.name for f in found] == ["GTVp", "Parotid_L", "CTV1", "Brain"]
    assert found[0].dice == 1 and 0.8 < found[1].dice < 1
    assert [f.remark for f in found[2:]] == ["Not drawn in the compared contours.", "Not drawn in the reference."]
    assert [(f.reference_name, f.predicted_name) for f in found[:2]] == [
        ("GTVnx", "GTVp"), ("Lt Parotid", "Parotid_L")]


def test_what_one_side_did_not_draw_is_no_disagreement():
    grid = grid_of(ISOTROPIC)
    (found,) = compare_structures({}, {"GTVn": ball(grid, 5)}, grid)
    assert all(math.isnan(v) for v in (found.dice, *found.surface_dice, found.reference_ml, found.difference_ml))
    assert found.predicted_ml == pytest.approx(4 / 3 * np.pi * 0.125, rel=0.05) and found.worst_slice is None


def test_an_alias_gives_way_to_the_name_itself_and_two_aliases_are_refused():
    grid = grid_of(ISOTROPIC)
    mask, other = ball(grid, 12), ball(grid, 8)
    found = compare_structures({"GTVnx": other, "GTVp": mask}, {"GTVp": mask}, grid)
    alias, itself = found
    assert alias.name == "GTVnx" and alias.remark == "Not drawn in the compared contours."
    assert itself.name == "GTVp" and itself.dice == 1
    with pytest.raises(InputError, match='"GTVnx" and "GTV-T" of the reference both mean GTVp'):
        compare_structures({"GTVnx": mask, "GTV-T": mask}, {}, grid)


@pytest.mark.parametrize("first, second, remark", [
    (0, 12, "Empty in the reference."), (12, 0, "Empty in the compared contours."),
    (0, 0, "Empty in the reference and the compared contours."),
])
def test_an_empty_side_has_no_surface_and_says_so(first, second, remark):
    grid = grid_of(ISOTROPIC)
    with np.errstate(all="raise"):
        found = compare_masks("GTVn", ball(grid, first), ball(grid, second), grid)
    assert found.remark == remark
    assert all(math.isnan(value) for value in (*found.surface_dice, found.hd95_mm, found.mean_distance_mm))
    assert math.isnan(found.dice) if not first and not second else found.dice == 0
    assert (found.worst_slice is None) == (not first and not second)
    assert found.difference_ml == found.predicted_ml - found.reference_ml


def test_the_table_says_everything_and_leaves_out_what_is_unknown(tmp_path):
    grid = grid_of(ISOTROPIC)
    agreements = compare_structures({"GTVp": ball(grid, 12)}, {"GTVp": ball(grid, 11), "GTVn": ball(grid, 3)}, grid)
    write_csv(agreements, tmp_path / "table.csv", ("Look at it.", "Twice."))
    with open(tmp_path / "table.csv", newline="", encoding="utf-8-sig") as file:
        first, second = csv.DictReader(file)
    assert first["structure"] == "GTVp" and float(first["dice"]) == pytest.approx(agreements[0].dice, abs=1e-4)
    assert float(first["surface_dice_2mm"]) == pytest.approx(agreements[0].surface_dice[1], abs=1e-4)
    assert float(first["difference_ml"]) < 0 and int(first["worst_slice"]) == agreements[0].worst_slice + 1
    assert second["dice"] == second["hd95_mm"] == "" and second["remark"] == "Not drawn in the reference."
    assert first["notes"] == second["notes"] == "Look at it. Twice."


def test_what_was_left_out_on_reading_is_not_called_undrawn(tmp_path):
    damaged = [*drawn_ball(14), "a\\b\\c"]
    reference = read_contours(write_structures(
        tmp_path / "rs.dcm", {"GTVnx": damaged, "Chiasm": damaged, "Brain": drawn_ball(14)}), image_on())
    predicted = read_contours(write_structures(
        tmp_path / "mine.dcm", {"GTV_p": drawn_ball(12), "brain": drawn_ball(14)}), image_on())
    found = {one.name: one for one in compare_contours(reference, predicted)}
    assert found["GTVp"].remark == "Of the reference, GTVnx was left out: it has a damaged contour."
    assert math.isnan(found["GTVp"].dice) and found["GTVp"].predicted_name == "GTV_p"
    assert found["GTVp"].reference_name == "GTVnx", "it is drawn, though it could not be read"
    assert found["OpticChiasm"].remark == (
        "Not drawn in the compared contours. Of the reference, Chiasm was left out: it has a damaged contour.")
    assert found["Brain"].dice == 1 and found["Brain"].remark == "" and found["Brain"].predicted_name == "brain"


def test_a_table_is_never_overwritten(tmp_path):
    (tmp_path / "table.csv").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_csv((), tmp_path / "table.csv")
    assert (tmp_path / "table.csv").read_text() == "mine"
    with pytest.raises(OutputError, match="Choose a folder"):
        write_csv((), tmp_path / "none" / "table.csv")


def test_the_command_compares_a_planning_systems_contours_with_a_segmentation(tmp_path):
    patient = make_patient(6, ("T1",), "small")
    series, rtstruct = write_dicom(patient, tmp_path / "study")
    volume = read_folder(series).volumes[0]
    masks = {s.name: s.mask for s in read_contours(rtstruct, volume).structures}
    shifted = np.roll(masks["GTVp"], 1, axis=2).astype(np.uint8)
    SimpleITK.WriteImage(to_sitk(shifted, volume.grid), str(tmp_path / "GTVnx.nii.gz"))
    arguments = [str(rtstruct), str(tmp_path / "GTVnx.nii.gz"), "--image", str(series)]
    done = CliRunner().invoke(app, ["contours", *arguments, "--csv", str(tmp_path / "table.csv"), "--json"])
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    rows = {row["structure"]: row for row in printed["structures"]}
    assert 0.3 < rows["GTVp"]["dice"] < 1 and rows["Brain"]["remark"] == "Not drawn in the compared contours."
    assert "could not be checked" in " ".join(done.stderr.split())
    assert any("could not be checked" in note for note in printed["notes"])
    assert "could not be checked" in (tmp_path / "table.csv").read_text(encoding="utf-8")
    assert rows["Brain"]["dice"] is None and rows["GTVp"]["predicted_name"] == "GTVnx"
    table = CliRunner().invoke(app, ["contours", *arguments], env={"COLUMNS": "80"})
    assert table.exit_code == 0
    for figure in ("dice", "surface_dice_1mm", "hd95_mm", "mean_distance_mm", "reference_ml", "difference_ml"):
        assert str(rows["GTVp"][figure]) in table.stdout, "cut off in a terminal of 80 columns"
    assert "GTVnx" in table.stdout and table.stdout.count("name") == 1, "the reference says GTVp"
    assert "Brain: Not drawn in the compared contours." in table.stdout


@pytest.mark.parametrize("first", range(40, 52))
def test_a_thin_segmentation_of_a_large_image_belongs_to_it(tmp_path, first):
    """As DICOM SEG and cropped files hold the slices of a structure alone."""
    image = image_on(Grid.from_parts((180, 24, 20), (4.0, 4.0, 1.0), (-40, -48, -90), np.eye(3)))
    part = Grid((4, *image.grid.shape[1:]), image.grid.ijk_to_lps @ [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, first],
                                                                    [0, 0, 0, 1]])
    mask = np.zeros(part.shape, np.uint8)
    mask[1:3, 8:14, 6:12] = 1
    SimpleITK.WriteImage(to_sitk(mask, part), str(tmp_path / "GTVp.nii.gz"))
    read = read_contours(tmp_path / "GTVp.nii.gz", image)
    assert read.structures[0].mask.sum() == mask.sum() and not any("resampled" in note for note in read.notes)


def test_voxels_of_a_slightly_turned_grid_are_not_the_same(tmp_path):
    image = image_on(Grid.from_parts((10, 200, 200), (1.0, 1.0, 3.0), (-100, -100, 0), np.eye(3)))
    a = np.deg2rad(0.5)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    turned = Grid.from_parts((10, 200, 200), (1.0, 1.0, 3.0), turn @ (-100, -100, 0), turn)
    mask = np.zeros(turned.shape, np.uint8)
    mask[3:6, 150:190, 150:190] = 1
    SimpleITK.WriteImage(to_sitk(mask, turned), str(tmp_path / "GTVp.nii.gz"))
    assert any("resampled" in note for note in read_contours(tmp_path / "GTVp.nii.gz", image).notes)


def test_a_table_opens_in_a_spreadsheet_as_it_is_meant(tmp_path):
    one = compare_structures({"GTVp": np.ones((3, 4, 5), bool)}, {"GTVp": np.ones((3, 4, 5), bool)},
                             Grid.from_parts((3, 4, 5), (1, 1, 1), (0, 0, 0), np.eye(3)))[0]
    write_csv([replace(one, name="=HYPERLINK(1)"), replace(one, name="\u989e\u53f6")], tmp_path / "t.csv")
    raw = (tmp_path / "t.csv").read_bytes()
    assert raw.startswith(b"\xef\xbb\xbf") and b"\n'=HYPERLINK(1)," in raw and "\u989e\u53f6".encode() in raw


def test_the_command_tells_what_is_wrong_with_the_image(tmp_path):
    """A file that does not say how it lies: whether Parotid_L is the left one, nobody can tell."""
    series, _ = write_dicom(make_patient(6, ("T1",), "small"), tmp_path / "study")
    volume = read_folder(series).volumes[0]
    image = nibabel.Nifti1Image(volume.array.T, None)
    image.header.set_zooms(volume.grid.spacing)
    nibabel.save(image, tmp_path / "T1.nii")
    nibabel.save(nibabel.Nifti1Image((volume.array.T > 100).astype(np.uint8), None, image.header),
                 tmp_path / "Parotid_L.nii")
    arguments = [str(tmp_path / "Parotid_L.nii")] * 2
    done = CliRunner().invoke(app, ["contours", *arguments, "--image", str(tmp_path / "T1.nii"), "--json"])
    assert done.exit_code == 0, done.stderr
    assert any("left and right may be swapped" in note for note in json.loads(done.stdout)["notes"])


def test_the_command_wants_one_series(tmp_path):
    *_, rtstruct = write_dicom(make_patient(6, ("T1", "FLAIR"), "small"), tmp_path / "study")
    done = CliRunner().invoke(app, ["contours", str(rtstruct), str(rtstruct), "--image", str(tmp_path / "study")])
    assert done.exit_code == 2 and "holds 2 series" in done.stderr
