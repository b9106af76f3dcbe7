"""Contours of a planning system arrive on the image that they belong to, or it is said why not."""

import time
from dataclasses import replace

import highdicom
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import slicerio
from contour_cases import FRAME, GRID, SERIES, ball, disc, image_on, write_structures
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset

from NPCSynthLib.errors import InputError
from NPCSynthLib.phantom.patient import make_patient, structures_on, write_dicom
from NPCSynthLib.study.contours import read_contours
from NPCSynthLib.study.read import read_folder
from NPCSynthLib.study.volume import Grid, to_sitk


def dice(first, second):
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def true_ball(radius, center=(0, 0, 0), grid=GRID):
    index = np.indices(grid.shape)[::-1].reshape(3, -1)
    points = grid.ijk_to_lps[:3, :3] @ index + grid.origin[:, None]
    return (np.linalg.norm(points.T - center, axis=1) < radius).reshape(grid.shape)


# --- RTSTRUCT: what arrives ------------------------------------------------------------------------------------------

def test_structures_arrive_with_tg263_names_and_their_own(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {
        "GTVnx": ball(14), "Lt Parotid": ball(6, (12, 0, 3)), "PRV cord": ball(4)})
    found = read_contours(path, image_on())
    assert [(s.name, s.original_name) for s in found.structures] == [
        ("GTVp", "GTVnx"), ("Parotid_L", "Lt Parotid"), ("PRV cord", "PRV cord")]
    assert dice(found.structure("GTVp").mask, true_ball(14)) > 0.999
    assert dice(found.structure("Parotid_L").mask, true_ball(6, (12, 0, 3))) > 0.99
    assert found.grid is GRID or found.grid.matches(GRID)
    assert found.frame_of_reference == FRAME and found.series_uids == (SERIES,) and found.notes == ()
    with pytest.raises(KeyError):
        found.structure("Brain")


def test_the_phantoms_contours_are_its_structures(tmp_path):
    patient = make_patient(6, ("T1", "FLAIR"), "small")
    *_, path = write_dicom(patient, tmp_path / "study")
    t1, flair = read_folder(tmp_path / "study").volumes
    found = read_contours(path, t1)
    for name, share in structures_on(patient.anatomy, t1.grid).items():
        assert np.array_equal(found.structure(name).mask, share > 0.5), name
    assert all("gap" in note and note.startswith("GTVn ") for note in found.notes), "nodes may lie apart"
    other = read_contours(path, flair)
    assert dice(other.structure("Brain").mask, structures_on(patient.anatomy, flair.grid)["Brain"] > 0.5) > 0.95
    assert "another series" in other.notes[0]


def test_names_that_mean_the_same_stay_apart(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {"GTVnx": ball(9), "GTVp": ball(14), "gtvnx": ball(5)})
    found = read_contours(path, image_on())
    assert [s.name for s in found.structures] == ["GTVnx", "GTVp", "gtvnx"]
    assert dice(found.structure("GTVp").mask, true_ball(14)) > 0.999, "who bears the name itself keeps it"
    assert sum("means the same" in note for note in found.notes) == 2


def test_two_structures_of_one_name_are_numbered(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {"PTV": ball(14), "PTV ": ball(14), " PTV": ball(9)})
    assert [s.name for s in read_contours(path, image_on()).structures] == ["PTV", "PTV (2)", "PTV (3)"]


def test_what_the_network_drew_is_told_by_its_name_where_the_header_was_lost(tmp_path):
    """Planning systems that export a structure set anew keep little but names."""
    path = write_structures(tmp_path / "rs.dcm", {"GTVp^SYN": ball(9), "GTV-P": ball(14)})
    found = read_contours(path, image_on())
    assert dice(found.structure("GTVp").mask, true_ball(14)) > 0.999, "a person's comes before the network's"
    assert any("a program made GTVp^SYN" in note for note in found.notes)


def test_a_structure_without_contours_is_empty_and_told(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {"GTVp": ball(14), "Brain": None, "Cord": []})
    found = read_contours(path, image_on())
    assert not found.structure("Brain").mask.any() and not found.structure("SpinalCord").mask.any()
    assert {note for note in found.notes} == {
        "Brain has no contour; it is empty.", "Cord has no contour; it is empty."}


def test_points_and_open_lines_are_left_out_and_told(tmp_path):
    path = write_structures(
        tmp_path / "rs.dcm", {"Isocenter": [np.array([[1.0, 2, 3]])], "Line": [disc(5, 2.0)], "GTVp": ball(14)},
        kinds={"Isocenter": "POINT", "Line": "OPEN_PLANAR"})
    found = read_contours(path, image_on())
    assert [s.name for s in found.structures] == ["GTVp"]
    assert found.notes == tuple(
        f"{name} was left out: it encloses nothing, being points or open lines." for name in ("Isocenter", "Line"))


@pytest.mark.parametrize("damage", ["1/2", "nan/0/2/1/1/2/3/4/2", "1e30/0/2/1/1/2/3/4/2", "a/b/c", "1//2/3/4/5/6/7/8"])
def test_a_damaged_contour_loses_its_structure_alone(tmp_path, damage):
    damage = damage.replace("/", "\\")
    path = write_structures(tmp_path / "rs.dcm", {"GTVp": [*ball(14), damage], "Brain": ball(14)})
    found = read_contours(path, image_on())
    assert [s.name for s in found.structures] == ["Brain"]
    assert found.notes == ("GTVp was left out: it has a damaged contour.",)


def test_contours_outside_the_image_are_cut_off_and_told(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {"GTVp": ball(14, (20, 0, 0)), "Brain": ball(5, (400, 0, 0))})
    found = read_contours(path, image_on())
    assert np.array_equal(found.structure("GTVp").mask, true_ball(14, (20, 0, 0)))
    assert not found.structure("Brain").mask.any()
    assert any(note.startswith("GTVp leaves the image") for note in found.notes)
    assert any(note.startswith("Brain holds no voxel's center") for note in found.notes)


def test_ten_thousand_contours_are_read_in_seconds(tmp_path):
    rng = np.random.default_rng(0)
    contours = [disc(1.5, -23.0 + 2.5 * (n % 20), rng.uniform(-20, 20, 2), 60) for n in range(10_000)]
    path = write_structures(tmp_path / "rs.dcm", {"GTVn": contours})
    start = time.process_time()
    assert read_contours(path, image_on()).structure("GTVn").mask.any()
    assert time.process_time() - start < 20


# --- does it belong here? --------------------------------------------------------------------------------------------

def test_another_frame_of_reference_is_refused(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {"GTVp": ball(14)}, frame="1.2.3")
    with pytest.raises(InputError, match="rs.dcm lies in another frame of reference than t1_tra"):
        read_contours(path, image_on())


def test_a_structure_of_another_frame_is_left_out(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {"GTVp": ball(14), "Brain": ball(14)})
    ds = pydicom.dcmread(path)
    ds.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3"
    ds.save_as(path)
    found = read_contours(path, image_on())
    assert [s.name for s in found.structures] == ["GTVp"] and "another frame of reference" in found.notes[0]


def test_another_series_of_the_frame_is_told(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {"GTVp": ball(14)}, series="1.2.3")
    (note,) = read_contours(path, image_on()).notes
    assert "another series" in note and "check" in note


@pytest.mark.parametrize("frame, image_frame, who", [(None, FRAME, "rs.dcm"), (FRAME, None, "t1_tra")])
def test_what_cannot_be_checked_is_told(tmp_path, frame, image_frame, who):
    path = write_structures(tmp_path / "rs.dcm", {"GTVp": ball(14)}, frame=frame)
    found = read_contours(path, image_on(FrameOfReferenceUID=image_frame))
    assert found.structures and found.notes[0].startswith(f"{who} does not name its frame of reference")


def test_contours_that_a_program_made_are_told(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {"GTVp": ball(14)})
    ds = pydicom.dcmread(path)
    ds.SyntheticData = "YES"
    ds.save_as(path)
    assert read_contours(path, image_on()).notes == (
        "rs.dcm says that a program made it: its contours are proposals, nobody's judgment.",)


def test_files_of_other_kinds_are_refused_in_words(tmp_path):
    (tmp_path / "notes.txt").write_text("no contours")
    (tmp_path / "empty.dcm").write_bytes(b"")
    *series, _ = write_dicom(make_patient(6, ("T1",), "small"), tmp_path / "study")
    for path in (tmp_path / "notes.txt", tmp_path / "empty.dcm", next(series[0].iterdir())):
        with pytest.raises(InputError, match="does not hold contours"):
            read_contours(path, image_on())
    with pytest.raises(InputError, match="does not exist"):
        read_contours(tmp_path / "none.dcm", image_on())


def test_nothing_usable_says_why(tmp_path):
    path = write_structures(tmp_path / "rs.dcm", {"GTVp": ["1\\2"]})
    with pytest.raises(InputError, match="GTVp was left out: it has a damaged contour. Export it again"):
        read_contours(path, image_on())


def test_mutated_files_end_in_structures_or_one_sentence(tmp_path):
    original = write_structures(tmp_path / "rs.dcm", {"GTVp": ball(14), "Brain": ball(9)}).read_bytes()
    rng = np.random.default_rng(3)
    path = tmp_path / "mutated.dcm"
    outcomes = {True: 0, False: 0}
    for n in range(300):
        data = bytearray(original)
        for place in rng.integers(132, len(data) if n % 3 else 3000, 1 + n % 8):
            data[place] = rng.integers(256)
        path.write_bytes(data[: rng.integers(140, len(data))] if n % 5 == 0 else data)
        start = time.process_time()
        try:
            read_contours(path, image_on())
            outcomes[True] += 1
        except InputError as error:
            assert "mutated.dcm" in str(error) and str(error).endswith((".", ")."))
            outcomes[False] += 1
        assert time.process_time() - start < 5
    assert min(outcomes.values()) > 20


# --- DICOM SEG -------------------------------------------------------------------------------------------------------

def segmentation(path, masks, kind="BINARY", grid=GRID, frame=FRAME):
    """A SEG by highdicom; frames without voxels are left out, as usual."""
    images = []
    for k in range(grid.shape[0]):
        ds = Dataset()
        ds.file_meta = pydicom.dataset.FileMetaDataset()
        ds.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", f"{SERIES}.{k + 1}"
        ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Doe^Jane", "4711", "", "O"
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3.9", SERIES, frame
        ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ""
        ds.Modality, ds.Rows, ds.Columns = "MR", *grid.shape[1:]
        ds.ImagePositionPatient = [float(round(v, 6)) for v in (grid.ijk_to_lps @ (0, 0, k, 1))[:3]]
        ds.ImageOrientationPatient = [float(round(v, 9)) for v in grid.direction[:, :2].T.ravel()]
        ds.PixelSpacing = [float(v) for v in grid.spacing[[1, 0]]]
        ds.SliceThickness = float(grid.spacing[2])
        images.append(ds)
    code = CodedConcept("86049000", "SCT", "Neoplasm, Primary")
    descriptions = [
        highdicom.seg.SegmentDescription(n, name, code, code, "MANUAL") for n, name in enumerate(masks, 1)]
    highdicom.seg.Segmentation(
        source_images=images, pixel_array=np.stack(list(masks.values()), axis=-1), segmentation_type=kind,
        segment_descriptions=descriptions, series_instance_uid="1.2.3.4", series_number=9, sop_instance_uid="1.2.3.5",
        instance_number=1, manufacturer="x", manufacturer_model_name="x", software_versions="x",
        device_serial_number="x",
    ).save_as(path)
    return path


def test_binary_segments_arrive_exactly_also_where_slices_are_missing(tmp_path):
    two_parts = true_ball(5, (0, 0, -15)) | true_ball(5, (0, 0, 15))
    path = segmentation(tmp_path / "seg.dcm", {"GTVnd": two_parts, "GTVnx": true_ball(8)})
    found = read_contours(path, image_on())
    assert np.array_equal(found.structure("GTVn").mask, two_parts)
    assert np.array_equal(found.structure("GTVp").mask, true_ball(8))
    assert found.frame_of_reference == FRAME and found.series_uids == (SERIES,) and not found.notes


def test_a_label_map_arrives_without_its_background(tmp_path):
    masks = {"GTVnd": true_ball(5, (0, 0, -15)), "GTVnx": true_ball(8, (0, 0, 5))}
    found = read_contours(segmentation(tmp_path / "seg.dcm", masks, "LABELMAP"), image_on())
    assert [s.name for s in found.structures] == ["GTVn", "GTVp"]
    assert np.array_equal(found.structure("GTVn").mask, masks["GTVnd"])
    assert np.array_equal(found.structure("GTVp").mask, masks["GTVnx"])


def test_fractional_segments_count_from_one_half(tmp_path):
    share = np.where(true_ball(8), 0.6, np.where(true_ball(12), 0.4, 0.0))
    path = segmentation(tmp_path / "seg.dcm", {"GTVp": share}, "FRACTIONAL")
    assert np.array_equal(read_contours(path, image_on()).structure("GTVp").mask, true_ball(8))


def test_segments_on_an_oblique_grid_arrive_exactly(tmp_path, oblique_grid):
    center = (oblique_grid.ijk_to_lps @ (16, 20, 6, 1))[:3]
    mask = true_ball(11, center, oblique_grid)
    path = segmentation(tmp_path / "seg.dcm", {"GTVp": mask}, grid=oblique_grid)
    assert np.array_equal(read_contours(path, image_on(oblique_grid)).structure("GTVp").mask, mask)


def test_a_segment_of_one_slice_arrives(tmp_path):
    mask = np.zeros(GRID.shape, bool)
    mask[7, 20:30, 10:40] = True
    path = segmentation(tmp_path / "seg.dcm", {"GTVp": mask})
    assert np.array_equal(read_contours(path, image_on()).structure("GTVp").mask, mask)


def test_segments_on_another_grid_of_the_frame_are_resampled_and_told(tmp_path):
    other = Grid.from_parts((50, 110, 100), (0.5, 0.5, 1.0), (-24.4, -28.2, -24.0), np.eye(3))
    path = segmentation(tmp_path / "seg.dcm", {"GTVp": true_ball(12, grid=other)}, grid=other)
    found = read_contours(path, image_on())
    assert dice(found.structure("GTVp").mask, true_ball(12)) > 0.97
    assert any("another grid" in note for note in found.notes)


def test_a_segmentation_of_another_frame_is_refused(tmp_path):
    path = segmentation(tmp_path / "seg.dcm", {"GTVp": true_ball(12)}, frame="1.2.3")
    with pytest.raises(InputError, match="another frame of reference"):
        read_contours(path, image_on())


# --- files without DICOM headers -------------------------------------------------------------------------------------

def test_our_own_segmentation_file_comes_back(tmp_path, result):
    from NPCSynthLib.output.segmentation import write_segmentation

    write_segmentation(result.segmentation, result.grid, tmp_path / "segmentation.seg.nrrd")
    found = read_contours(tmp_path / "segmentation.seg.nrrd", image_on(result.grid))
    for segment in result.segmentation.segments:
        assert np.array_equal(found.structure(segment.name).mask, result.segmentation.mask(segment)), segment.name
    assert "could not be checked" in found.notes[0] and found.notes[1:] == (
        "segmentation.seg.nrrd says that a program made it: its contours are proposals, nobody's judgment.",)


@pytest.mark.parametrize("name", ["segmentation_synthetic.seg.nrrd", "GTVp_synthetic.nii.gz"])
def test_predicted_contours_without_their_tags_are_known_by_the_files_name(tmp_path, name):
    labels = true_ball(12).astype(np.uint8)
    if name.endswith(".seg.nrrd"):
        segments = [{"id": "S1", "name": "GTVp", "labelValue": 1, "layer": 0}]
        content = {"voxels": labels.T, "ijkToLPS": GRID.ijk_to_lps, "encoding": "gzip", "segments": segments}
        slicerio.write_segmentation(str(tmp_path / name), content)
    else:
        sitk.WriteImage(to_sitk(labels, GRID), str(tmp_path / name))
    found = read_contours(tmp_path / name, image_on())
    assert len(found.structures) == 1
    assert f"{name} says that a program made it: its contours are proposals, nobody's judgment." in found.notes


def test_segments_that_a_person_drew_beside_ours_are_told_apart(tmp_path):
    segments = [{"id": f"S{value}", "name": name, "labelValue": value, "layer": 0}
                for value, name in ((1, "GTVp"), (2, "Eye_L"))]
    segments[1]["tags"] = {"NPCSynth.Synthetic": "predicted, research use"}
    labels = true_ball(12).astype(np.uint8) + true_ball(6)
    path = tmp_path / "mine.seg.nrrd"
    slicerio.write_segmentation(
        str(path), {"voxels": labels.T, "ijkToLPS": GRID.ijk_to_lps, "encoding": "gzip", "segments": segments})
    notes = read_contours(path, image_on()).notes
    assert notes[1:] == (
        "mine.seg.nrrd says that a program made Eye_L: these contours are proposals, nobody's judgment.",)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_a_label_image_with_one_label_is_called_as_its_file(tmp_path, suffix, oblique_grid):
    mask = np.zeros(oblique_grid.shape, bool)
    mask[3:6, 10:20, 8:18] = True
    path = tmp_path / f"GTVnx{suffix}"
    sitk.WriteImage(to_sitk(mask.astype(np.uint8), oblique_grid), str(path))
    found = read_contours(path, image_on(oblique_grid))
    assert np.array_equal(found.structure("GTVp").mask, mask)


def test_labels_that_nobody_named_are_numbered(tmp_path):
    labels = true_ball(12).astype(np.uint8) + 2 * true_ball(6)
    sitk.WriteImage(to_sitk(labels.astype(np.uint8), GRID), str(tmp_path / "labels.nrrd"))
    found = read_contours(tmp_path / "labels.nrrd", image_on())
    assert [s.name for s in found.structures] == ["Label 1", "Label 3"]


@pytest.mark.parametrize("flip", [1, -1])
def test_labels_that_leave_the_image_are_cut_off_and_told(tmp_path, flip):
    """On the image's own voxels in whichever order, where nothing else would be told."""
    mask = true_ball(14)
    sitk.WriteImage(sitk.Flip(to_sitk(mask.astype(np.uint8), GRID), [flip < 0, False, False]), str(tmp_path / "a.nrrd"))
    half = Grid((*GRID.shape[:2], GRID.shape[2] // 2), GRID.ijk_to_lps)
    found = read_contours(tmp_path / "a.nrrd", image_on(half))
    ml = np.prod(GRID.spacing) / 1000
    lost, whole = (mask.sum() - mask[..., :GRID.shape[2] // 2].sum()) * ml, mask.sum() * ml
    assert any(f"leaves the image with {lost:.3g} of its {whole:.3g} ml" in note for note in found.notes)


def test_labels_written_by_another_library_arrive_in_their_place(tmp_path):
    lps_to_ras = np.diag([-1, -1, 1, 1.0])
    nibabel.save(nibabel.Nifti1Image(true_ball(12).T.astype(np.uint8), lps_to_ras @ GRID.ijk_to_lps),
                 tmp_path / "GTV_p.nii.gz")
    assert np.array_equal(read_contours(tmp_path / "GTV_p.nii.gz", image_on()).structure("GTVp").mask, true_ball(12))


def test_gray_values_are_no_labels(tmp_path):
    values = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    sitk.WriteImage(to_sitk(values, GRID), str(tmp_path / "t1.nii.gz"))
    with pytest.raises(InputError, match="no labels but gray values"):
        read_contours(tmp_path / "t1.nii.gz", image_on())


def test_labels_of_another_place_are_refused(tmp_path):
    far = replace(GRID, ijk_to_lps=GRID.ijk_to_lps + np.array([[0, 0, 0, 900.0]] + [[0] * 4] * 3))
    sitk.WriteImage(to_sitk(true_ball(12).astype(np.uint8), far), str(tmp_path / "GTVp.nrrd"))
    with pytest.raises(InputError, match="does not overlap"):
        read_contours(tmp_path / "GTVp.nrrd", image_on())


@pytest.mark.parametrize("name", ["broken.seg.nrrd", "broken.nrrd", "broken.nii.gz"])
def test_damaged_files_are_refused_in_words(tmp_path, name):
    (tmp_path / name).write_bytes(b"NRRD0004\ntype: uchar\n")
    with pytest.raises(InputError, match="broken"):
        read_contours(tmp_path / name, image_on())
