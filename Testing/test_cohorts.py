"""Cohorts: what lies where, which masks sit on their image, and what is said before hours are spent."""

import json

import numpy as np
import pytest
from cohort_cases import (
    GRID,
    as_volume,
    phantom,
    tumor_on,
    write_boxes,
    write_nifti,
    write_segments,
    write_sequence_files,
)
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("open_clip", reason="training needs the train extra")

from NPCSynthLib.cli.main import app
from NPCSynthLib.errors import InputError, UsageError
from NPCSynthLib.inference.recognition import Recognition
from NPCSynthLib.phantom.patient import write_dicom
from NPCSynthLib.study.volume import Grid, Volume
from NPCSynthLib.training import cohorts
from NPCSynthLib.training.cohort_check import check_cohort
from NPCSynthLib.training.cohorts import load_patient, load_training_patients, load_tumor_slices
from NPCSynthLib.training.labels import read_labels
from NPCSynthLib.training.layouts import find_cohort, part, read_image
from NPCSynthLib.training.mask_orientation import place_mask


@pytest.fixture(scope="module")
def segments(tmp_path_factory):
    """The public NPC set: a patient whose masks are turned in two ways, and one without a mask."""
    folder = tmp_path_factory.mktemp("npc")
    write_segments(folder / "MRI-Segments" / "001", 1, {"T1": (1, -1, 1), "T2": (-1, 1, -1)})
    write_segments(folder / "MRI-Segments" / "002", 2, {}, ("T1C",))
    return folder


@pytest.mark.parametrize("sequence", ["T1", "T2"])  # sagittal and isotropic; oblique with thick slices
@pytest.mark.parametrize("turn", [(1, 1, 1), (1, -1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("exchange", [False, True])
def test_image_tells_how_a_mask_lies(sequence, turn, exchange):
    """Whatever was done to the array: the header says nothing, and the voxels come out where the tumor is."""
    patient = phantom(1)
    image = as_volume(patient, sequence)
    truth = tumor_on(patient, image.grid)
    array = truth[tuple(slice(None, None, sign) for sign in turn)]
    array = array.transpose(0, 2, 1) if exchange else array
    placed = place_mask(Volume(array.astype(np.uint8), Grid(array.shape, np.eye(4)), "ROI"), image)
    assert placed.doubt is None and placed.confidence > 0.9 and not placed.by_header
    np.testing.assert_array_equal(placed.mask, truth)
    assert ("rows" in placed.how) == (turn[1] < 0 or exchange), placed.how


def test_header_that_is_right_is_recognized():
    patient = phantom(2)
    image = as_volume(patient, "T2")
    truth = tumor_on(patient, image.grid)
    matrix = image.grid.ijk_to_lps @ np.diag([-1.0, 1, 1, 1])  # columns reversed, and the header says so
    matrix[:, 3] = image.grid.ijk_to_lps @ [truth.shape[2] - 1, 0, 0, 1]
    mask = Volume(truth[:, :, ::-1].astype(np.uint8), Grid(truth.shape, matrix), "ROI")
    placed = place_mask(mask, image)
    assert placed.by_header and placed.doubt is None
    np.testing.assert_array_equal(placed.mask, truth)


def test_mask_of_another_size_is_placed_by_its_header_once_the_image_confirms():
    patient = phantom(1)
    image = as_volume(patient, "T2")
    truth = tumor_on(patient, image.grid)
    box = tuple(slice(max(0, a.min() - 3), a.max() + 4) for a in np.nonzero(truth))
    matrix = image.grid.ijk_to_lps.copy()
    matrix[:, 3] = image.grid.ijk_to_lps @ [box[2].start, box[1].start, box[0].start, 1]
    cut = Volume(truth[box].astype(np.uint8), Grid(truth[box].shape, matrix), "ROI")
    placed = place_mask(cut, image)
    np.testing.assert_array_equal(placed.mask, truth)
    assert placed.by_header and placed.doubt is None
    other = Grid(cut.grid.shape, np.diag([-1.0, -1, 1, 1]) @ matrix)  # written in RAS, read in LPS
    placed = place_mask(Volume(cut.array, other, "ROI"), image)
    np.testing.assert_array_equal(placed.mask, truth)
    assert not placed.by_header and "convention" in placed.how


@pytest.mark.parametrize("seed", [1, 2, 4, 5])
def test_mask_that_was_shifted_is_doubtful(seed):
    patient = phantom(seed, ("T1", "T2") if seed < 3 else ("T2",))
    image = as_volume(patient, "T2")
    moved = np.roll(tumor_on(patient, image.grid), (8, -4), (1, 2))
    assert place_mask(Volume(moved.astype(np.uint8), image.grid, "ROI"), image).doubt


def test_mask_outside_of_the_body_and_empty_one_are_refused():
    image = as_volume(phantom(1), "T2")
    mask = np.zeros(image.array.shape, np.uint8)
    with pytest.raises(InputError, match="ROI is empty"):
        place_mask(Volume(mask, image.grid, "ROI"), image)
    mask[:, :4, :4] = mask[:, -4:, -4:] = mask[:, :4, -4:] = mask[:, -4:, :4] = 1
    assert "outside of the body" in place_mask(Volume(mask, image.grid, "ROI"), image).doubt
    with pytest.raises(InputError, match="another size"):
        far = Grid.from_parts((4, 5, 6), (1, 1, 1), (900, 900, 900), np.eye(3))
        place_mask(Volume(np.ones((4, 5, 6), np.uint8), far, "ROI"), image)


def test_public_npc_set_is_read(segments):
    cohort = find_cohort(segments)
    first, second = cohort.patients
    assert cohort.layout == "MRI-Segments" and first.name == "MRI-Segments/001"
    assert list(first.images) == ["T1", "T2"] and not first.problems
    assert {label.of for label in first.labels} == {"T1", "T2"}
    assert list(second.images) == ["T1C"] and second.problems == ("CE-T1WI has no mask ROI-CE-T1.nii.",)
    volumes = {s: read_image(s, file) for s, file in first.images.items()}
    for sequence, volume in volumes.items():
        np.testing.assert_array_equal(volume.array, phantom(1).volumes[sequence].array)
    notes = []
    for of, label in read_labels(first, volumes, notes.append):
        np.testing.assert_array_equal(label.array > 0, tumor_on(phantom(1), volumes[of].grid))
    assert len(notes) == 2 and "rows reversed" in " ".join(notes)


def test_doubtful_mask_is_told_and_not_used(segments, tmp_path):
    patient = phantom(1)
    write_segments(tmp_path / "001", 1, {})
    grid = patient.volumes["T2"].grid
    moved = np.roll(tumor_on(patient, grid), (8, -4), (1, 2))
    write_nifti(tmp_path / "001" / "T2WI" / "ROI-T2.nii", moved.astype(np.uint8), grid)
    (files,) = find_cohort(tmp_path).patients
    notes = []
    assert read_labels(files, {"T2": read_image("T2", files.images["T2"])}, notes.append) == []
    assert len(notes) == 1 and "ROI-T2.nii is not used" in notes[0]


@pytest.mark.parametrize("names", [("_t1", "_t1ce", "_t2", "_flair", "_seg"), ("-t1n", "-t1c", "-t2w", "-t2f", "-seg")])
def test_brats_names(tmp_path, names):
    write_boxes(tmp_path / "BraTS-GLI-00005-000", 5, names[:4], "BraTS-GLI-00005-000{}.nii.gz",
                f"BraTS-GLI-00005-000{names[4]}")
    (files,) = find_cohort(tmp_path).patients
    assert (files.layout, list(files.images)) == ("BraTS", ["T1", "T1C", "T2", "FLAIR"])
    (patient,) = load_patient(files, pytest.fail)
    assert patient.sequences == ("T1", "T1C", "T2", "FLAIR") and patient.lesion.sum() == 12 * 20 * 16


def test_files_of_several_brats_patients_in_one_folder_are_no_patient(tmp_path):
    for number in (2, 3):
        write_boxes(tmp_path / "flat", number, ("_t1", "_flair"), f"BraTS2021_0000{number}{{}}.nii.gz", "label")
    with pytest.raises(InputError, match="2 patients .BraTS2021_00002, BraTS2021_00003.. Give each patient a folder"):
        find_cohort(tmp_path)


def test_a_validation_patient_is_known_by_the_names_of_its_files_too(tmp_path):
    write_boxes(tmp_path / "ours" / "p1", 1, ("_t1", "_t2"), "brats2021_00001{}.nii.gz", "label")
    (files,) = find_cohort(tmp_path).patients
    assert files.validation


def test_one_dicom_folder_for_each_patient(tmp_path):
    for seed in (1, 2):
        write_dicom(phantom(seed), tmp_path / f"p{seed}" / "study")
    cohort = find_cohort(tmp_path)
    assert [(p.name.split("/")[1], p.layout, list(p.images)) for p in cohort.patients] == [
        ("p1", "DICOM", ["T1", "T2"]), ("p2", "DICOM", ["T1", "T2"])]
    first = cohort.patients[0]
    volumes = {s: read_image(s, file) for s, file in first.images.items()}
    ((of, label),) = read_labels(first, volumes, pytest.fail)
    truth = tumor_on(phantom(1), volumes[of].grid)
    assert of == "T1" and 2 * (truth & (label.array > 0)).sum() > 1.5 * label.array.sum()  # GTVn is there too
    (alone,) = find_cohort(tmp_path / "p1").patients
    assert list(alone.images) == ["T1", "T2"]
    (tmp_path / "DICOMDIR").write_bytes(next((tmp_path / "p1").rglob("*.dcm")).read_bytes())  # as CDs have it
    assert [p.name for p in find_cohort(tmp_path).patients] == [p.name for p in cohort.patients]


def test_same_person_is_held_out_together(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_dicom(phantom(seed), tmp_path / name, ("T2",))
    cohort = find_cohort(tmp_path)
    assert any("a" in p and "one patient by their headers" in p for p in check_cohort(cohort, quick=True).problems)
    rest, held = part(cohort, ["b"])
    assert [p.name.split("/")[1] for p in held] == ["b", "a"] and [p.name.split("/")[1] for p in rest] == ["c"]
    with pytest.raises(UsageError, match="zz cannot be held out.*a, b, c"):
        part(cohort, ["zz"])
    with pytest.raises(InputError, match="left to train on"):
        part(cohort, ["a", "c"])


def test_validation_patients_are_never_trained_on(tmp_path):
    for name in ("cohorts/glioma/gli00001", "cohorts/other/BraTS2021_00001", "cohorts/glioma/du7294"):
        write_boxes(tmp_path / name, 1)
    cohort = find_cohort(tmp_path / "cohorts")
    assert [p.validation for p in cohort.patients] == [False, True, True]
    assert [p.name for p in load_training_patients(tmp_path, cohort.patients)] == ["glioma/du7294"], (
        "given twice, met once")
    rest, _ = part(find_cohort(tmp_path / "cohorts" / "glioma"), [])
    assert [p.name for p in rest] == ["glioma/du7294"]


def test_whoever_is_held_out_is_not_met_where_the_data_folder_has_them_too(tmp_path):
    write_dicom(phantom(1), tmp_path / "cohorts" / "ours" / "d1", ("T2",))
    write_dicom(phantom(1), tmp_path / "cohorts" / "copies" / "x", ("T2",))
    for name in ("ours/p2", "ours/p3", "others/p4"):
        write_boxes(tmp_path / "cohorts" / name, int(name[-1]))
    rest, held = part(find_cohort(tmp_path / "cohorts" / "ours"), ["d1", "p3"])
    met = load_training_patients(tmp_path, rest, pytest.fail, held)
    assert sorted(one.name for one in met) == ["others/p4", "ours/p2"]
    (tmp_path / "linked" / "cohorts").mkdir(parents=True)
    (tmp_path / "linked" / "cohorts" / "ours").symlink_to(tmp_path / "cohorts" / "ours")
    assert [one.name for one in load_training_patients(tmp_path / "linked", rest, pytest.fail, held)] == ["ours/p2"]


def test_sequences_on_grids_of_their_own_are_registered(tmp_path, monkeypatch):
    """Once on each grid, and the label that was drawn on one of them goes along."""
    import SimpleITK as sitk

    write_segments(tmp_path / "001", 1, {"T2": (1, -1, 1)})
    shift = sitk.Euler3DTransform()
    shift.SetTranslation((0.0, 0.0, 13.0))
    monkeypatch.setattr(cohorts, "align", lambda *a: (shift, {"warning": None}))
    first, *_, last = load_patient(find_cohort(tmp_path).patients[0], lambda text: None)
    assert (first.images.shape[1:] != last.images.shape[1:]) and first.sequences == ("T1", "T2")

    def height(patient):
        return np.nonzero(patient.lesion)[0].mean() * patient.spacing[0]

    grids = {s: phantom(1).volumes[s].grid for s in ("T1", "T2")}
    top = {s: (tumor_on(phantom(1), grid), grid) for s, grid in grids.items()}
    assert last.lesion.sum() == top["T2"][0].sum(), "on its own grid the label stays as it is"
    assert abs(first.lesion.sum() * first.spacing.prod() / (last.lesion.sum() * last.spacing.prod()) - 1) < 0.2
    monkeypatch.setattr(cohorts, "align", lambda *a: (None, {"warning": None}))
    still = load_patient(find_cohort(tmp_path).patients[0], lambda text: None)[0]
    assert abs(height(still) - height(first) - 13) < 3, "the label moves with its image, 13 mm down"


def test_what_cannot_be_used_is_told_and_the_rest_is_used(tmp_path):
    folder = write_boxes(tmp_path / "p1", 1, ("T1", "T2", "FLAIR"))
    write_nifti(folder / "T2.nii.gz", np.full(GRID.shape, 7, np.int16), GRID)
    (folder / "FLAIR.nii.gz").write_bytes(b"no image")
    far = Grid.from_parts((5, 5, 5), (1, 1, 1), (900, 0, 0), np.eye(3))
    write_nifti(folder / "label_far.nii.gz", np.ones(far.shape, np.uint8), far)
    coarse = Grid(tuple(n // 2 for n in GRID.shape), GRID.ijk_to_lps @ np.diag([2.0, 2, 2, 1]))
    write_nifti(folder / "label_lesion.nii.gz", np.ones(coarse.shape, np.uint8), coarse)
    notes = []
    (files,) = find_cohort(tmp_path).patients
    (patient,) = load_patient(files, notes.append)
    assert patient.sequences == ("T1",) and patient.lesion.mean() > 0.8
    assert len(notes) == 2 and "T2 is not used" in notes[0] and "label_far.nii.gz is not used" in notes[1]
    assert any("FLAIR is not used" in problem for problem in files.problems)


def test_who_of_the_data_folder_is_not_used_is_told(tmp_path):
    ours = tmp_path / "cohorts" / "ours"
    for number in (1, 2, 3):
        write_sequence_files(ours / f"p{number}", 1, label=False)
    (ours / "p1" / "T2.nii.gz").write_bytes(b"damaged")
    for name in ("T1", "T2"):
        (ours / "p2" / f"{name}.nii.gz").write_bytes(b"damaged")
    (tmp_path / "heads").mkdir()
    notes = []
    met = load_training_patients(tmp_path, note=notes.append)
    assert {(one.name, one.sequences) for one in met if one.name == "ours/p1"} == {("ours/p1", ("T1",))}
    assert "ours/p2" not in {one.name for one in met}
    for words in ("ours/p1: T2 is not used", "ours/p2: T1 is not used", "No patient was found in heads"):
        assert any(words in note for note in notes), notes


def test_dicom_patients_of_a_cohort_among_others(tmp_path):
    for seed in (1, 2):
        write_dicom(phantom(seed), tmp_path / "cohorts" / "ours" / f"p{seed}", ("T2",))
    write_sequence_files(tmp_path / "cohorts" / "theirs" / "p1", 1, label=False)
    found = [one.name for one in find_cohort(tmp_path / "cohorts").patients]
    assert found == ["ours/p1", "ours/p2", "theirs/p1"]


def test_series_of_two_people_in_one_patients_folder_are_refused(tmp_path):
    write_sequence_files(tmp_path / "cohorts" / "theirs" / "p1", 1, label=False)
    for seed, name in ((1, "t1"), (2, "t2")):
        *series, contours = write_dicom(phantom(seed), tmp_path / "made" / name, ("T2",))
        series[0].rename(tmp_path / "cohorts" / name)
    patient = tmp_path / "cohorts" / "p1"
    patient.mkdir()
    for name in ("t1", "t2"):
        (tmp_path / "cohorts" / name).rename(patient / name)
    found = find_cohort(tmp_path / "cohorts")
    assert [one.name for one in found.patients] == ["theirs/p1"]
    assert any("more than one patient" in problem for problem in found.problems)


def test_a_header_that_rounds_is_no_other_grid(tmp_path):
    """Both are written for pixels of 240 mm over 256."""
    rng = np.random.default_rng(0)
    for name, pixel in (("T1", 0.9375), ("T2", 0.93749994)):
        array = np.zeros((12, 40, 40), np.int16)
        array[2:10, 8:32, 8:32] = rng.integers(200, 900, (8, 24, 24))
        grid = Grid.from_parts(array.shape, (pixel, pixel, 3.0), (0, 0, 0), np.eye(3))
        write_nifti(tmp_path / "ours" / "p1" / f"{name}.nii.gz", array, grid)
    (patient,) = load_patient(find_cohort(tmp_path).patients[0], pytest.fail)
    assert patient.sequences == ("T1", "T2")


def test_check_says_what_is_wrong(tmp_path):
    for number in range(4):
        write_boxes(tmp_path / f"p{number}", number, ("T1", "T2", "FLAIR"))
    (tmp_path / "p1" / "FLAIR.nii.gz").unlink()
    (tmp_path / "p2" / "T2.nii.gz").write_bytes((tmp_path / "p2" / "T1.nii.gz").read_bytes())
    write_nifti(tmp_path / "p3" / "FLAIR.nii.gz", np.full(GRID.shape, 7, np.int16), GRID)
    write_boxes(tmp_path / "p4", 0, ("T1", "T2", "FLAIR"))
    found = check_cohort(find_cohort(tmp_path))
    said = {one.name.split("/")[1]: " ".join(one.problems) for one in found.patients}
    assert said["p0"] == ""
    assert "lacks FLAIR" in said["p1"]
    assert "T1 and T2 are the same image under two names" in said["p2"]
    assert "FLAIR cannot be used" in said["p3"] and "FLAIR" not in found.patients[3].sequences
    assert any("p4 has the same images as" in problem for problem in found.problems)
    assert found.trainable == 5 and all(one.registered for one in found.patients)
    assert found.patients[0].labels[0].sits


def test_check_asks_the_network_when_told_to(tmp_path):
    write_boxes(tmp_path / "p1", 1)
    found = check_cohort(find_cohort(tmp_path), recognize=lambda v: Recognition({"T2": 0.99, "T1": 0.01}))
    assert any("given as T1 looks like T2" in problem for problem in found.patients[0].problems)
    assert any("one patient only" in problem for problem in found.problems)


def test_label_that_lies_the_wrong_way_round_is_told(tmp_path):
    write_sequence_files(tmp_path / "p1", 1, label=False)
    volume = phantom(1).volumes["T2"]
    mask = tumor_on(phantom(1), volume.grid)[:, ::-1]
    write_nifti(tmp_path / "p1" / "label_gtv.nii.gz", mask.astype(np.uint8), volume.grid)
    (one,) = check_cohort(find_cohort(tmp_path)).patients
    assert one.labels[0].sits is False and any("rows reversed it would" in problem for problem in one.problems)


def test_check_command(tmp_path, segments):
    told = CliRunner().invoke(app, ["cohort", "check", str(segments), "--json"])
    document = json.loads(told.stdout)
    assert told.exit_code == 0 and document["layout"] == "MRI-Segments" and document["trainable"] == 2
    assert document["patients"][0]["labels"][0]["sits"] and document["patients"][0]["needs_registration"]
    shown = CliRunner().invoke(app, ["cohort", "check", str(segments), "--quick"])
    assert shown.exit_code == 0 and "2 of 2 patients can be trained on" in shown.stdout
    (tmp_path / "empty").mkdir()
    nothing = CliRunner().invoke(app, ["cohort", "check", str(tmp_path)])
    assert nothing.exit_code == 3 and "No patient was found" in nothing.stderr


@pytest.mark.parametrize(("broken", "said"), [
    (lambda folder: (folder / "masks" / "1.jpg").unlink(), "masks/1.jpg of npc_t2 is missing or damaged"),
    (lambda folder: (folder / "masks" / "1.jpg").write_bytes(b"no"), "masks/1.jpg of npc_t2 is missing or damaged"),
    (lambda folder: (folder / "images" / "1.jpg").write_bytes(b"no"), "images/1.jpg of npc_t2 is missing or damaged"),
    (lambda folder: Image.new("L", (512, 512)).save(folder / "masks" / "1.jpg"), "The mask 1.jpg of npc_t2 is empty"),
    (lambda folder: Image.new("L", (512, 512)).save(folder / "images" / "1.jpg"), "The image 1.jpg of npc_t2"),
])  # fmt: skip
def test_a_tumor_slice_that_cannot_be_used_is_named(tmp_path, broken, said):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        array = np.zeros((512, 512), np.uint8)
        array[100:300, 100:300] = 200
        Image.fromarray(array).save(tmp_path / kind / "1.jpg")
    load_tumor_slices(tmp_path, held_out=0)
    broken(tmp_path)
    with pytest.raises(InputError, match=said):
        load_tumor_slices(tmp_path, held_out=0)


def test_masks_of_the_tumor_slices_are_turned(tmp_path):
    """In that set the rows of a mask run against those of its image."""
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    image, mask = np.zeros((512, 512), np.uint8), np.zeros((512, 512), np.uint8)
    image[60:450, 100:400] = 90
    image[150:190, 220:300] = 240
    mask[512 - 190 : 512 - 150, 220:300] = 255
    for kind, array in (("images", image), ("masks", mask)):
        Image.fromarray(array).save(tmp_path / kind / "1.jpg", quality=95)
    (only,) = load_tumor_slices(tmp_path, held_out=0)
    assert only.image[only.tumor].min() > 0.8 and only.image[~only.tumor].mean() < 0.1
