"""Masks leave as an RT Structure Set that other programs read as they were, on the images that they belong to."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from contour_cases import FRAME, GRID, SERIES, STUDY, image_on
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, MRImageStorage, RTStructureSetStorage, generate_uid
from skimage.draw import polygon2mask

from NPCSynthLib.errors import UsageError
from NPCSynthLib.output.rtstruct import outlines, structure_set
from NPCSynthLib.phantom.patient import make_patient, write_dicom
from NPCSynthLib.study.contours import read_contours
from NPCSynthLib.study.volume import Grid, Volume

#: Beside this Python when it comes from PyPI.
PLASTIMATCH = shutil.which("plastimatch") or shutil.which("plastimatch", path=str(Path(sys.executable).parent))
SAGITTAL = Grid.from_parts((14, 50, 44), (1.1, 0.9, 4.0), (-26.0, -40.0, 30.0), [[0, 0, 1], [1, 0, 0], [0, -1, 0]])


def awkward(shape):
    """Masks that contours find hard, each (k, j, i) bool."""
    k, j, i = np.indices(shape) - (np.array(shape)[:, None, None, None] - 1) / 2
    r = np.hypot(j, i + 2)
    ring = (r < 13) & (r > 6) & (abs(k) < 4)
    edge = np.zeros(shape, bool)
    edge[2:5, :6, -9:] = True
    single = np.zeros(shape, bool)
    single[4, 10, 10] = single[5, 11:13, 20] = True
    noise = (np.random.default_rng(0).random(shape) > 0.6) & (abs(k) < 2)
    return {
        "GTVp": r < 11, "GTVn": ring, "Brain": ring | (r < 2) & (abs(k) < 3), "Parotid_L": edge, "Eye_L": single,
        "Noise": noise, "External": np.ones(shape, bool),
    }


def write(path, structures, image: Volume) -> Path:
    """The structure set as a file of a nameless patient."""
    contours, _ = structure_set(structures, image)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, generate_uid()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID, "RTSTRUCT"
    ds.SpecificCharacterSet, ds.InstanceNumber, ds.SeriesNumber = "ISO_IR 192", 1, 9
    ds.PatientName = ds.PatientBirthDate = ds.PatientSex = ds.AccessionNumber = ds.ReferringPhysicianName = ""
    ds.PatientID, ds.StudyID, ds.StudyDate, ds.StudyTime, ds.Manufacturer = "4711", "1", "20250102", "093000", ""
    ds.StudyInstanceUID, ds.SeriesInstanceUID = image.metadata["StudyInstanceUID"], generate_uid()
    ds.update(contours)
    ds.save_as(path, enforce_file_format=True)
    return path


def write_images(folder: Path, image: Volume) -> Path:
    """The series that the structure set refers to, with the least that readers ask for."""
    folder.mkdir()
    grid = image.grid
    for k, uid in enumerate(image.metadata["SOPInstanceUIDs"]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = MRImageStorage, uid
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = MRImageStorage, uid, "MR"
        ds.PatientName = ds.PatientID = ds.StudyDate = ds.StudyTime = ""
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = STUDY, SERIES, FRAME
        ds.InstanceNumber = k + 1
        ds.ImagePositionPatient = [round(float(v), 6) for v in (grid.ijk_to_lps @ (0, 0, k, 1))[:3]]
        ds.ImageOrientationPatient = [round(float(v), 9) for v in grid.direction[:, :2].T.ravel()]
        ds.PixelSpacing = [float(v) for v in grid.spacing[[1, 0]]]
        ds.SliceThickness = float(grid.spacing[2])
        ds.Rows, ds.Columns = grid.shape[1:]
        ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
        ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
        ds.PixelData = np.full(grid.shape[1:], k, "<u2").tobytes()
        ds.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)
    return folder


def dice(first, second):
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


@pytest.mark.parametrize("grid", [GRID, SAGITTAL, None], ids=["axial", "sagittal", "oblique"])
def test_masks_come_back_voxel_for_voxel(tmp_path, grid, oblique_grid):
    image = image_on(grid or oblique_grid)
    masks = awkward(image.grid.shape)
    found = read_contours(write(tmp_path / "rs.dcm", masks, image), image)
    assert [s.name for s in found.structures] == list(masks)
    for name, mask in masks.items():
        assert np.array_equal(found.structure(name).mask, mask), name
    assert all("gap" in note for note in found.notes)


def test_shares_of_voxels_place_the_contour_between_them():
    """A disc by its partial volumes: the outline lies on the circle to a tenth of a voxel, not on the voxels' edges."""
    scale, radius, center = 20, 9.3, 15.2
    fine = (np.arange(30 * scale) + 0.5) / scale - 0.5
    inside = np.hypot(fine[None, :] - center, fine[:, None] - center) < radius
    share = inside.reshape(30, scale, 30, scale).mean((1, 3))
    (outline,) = outlines(share)
    assert np.abs(np.hypot(*(outline - center).T) - radius).max() < 0.1
    (coarse,) = outlines(share > 0.5)
    assert np.abs(np.hypot(*(coarse - center).T) - radius).max() > 0.3


def test_a_hole_is_joined_to_the_outside_by_a_channel_without_width():
    mask = np.zeros((30, 30), bool)
    mask[3:27, 3:27] = True
    mask[8:12, 8:12] = mask[18:22, 9:20] = False
    (outline,) = outlines(mask)
    x, y = outline.T
    area = abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2
    # Each corner is cut by an eighth of a pixel, outwards ones and inwards ones alike.
    assert area == pytest.approx(24 * 24 - 16 - 44 - 4 / 8 + 8 / 8)
    assert len(outlines(mask | (np.indices((30, 30)) == 0).any(0))) == 2


def test_each_contour_refers_to_its_image_and_lies_in_its_plane(tmp_path, oblique_grid):
    image = image_on(oblique_grid)
    ds = pydicom.dcmread(write(tmp_path / "rs.dcm", {"GTVp": awkward(oblique_grid.shape)["GTVp"]}, image))
    (frame,) = ds.ReferencedFrameOfReferenceSequence
    (series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert frame.FrameOfReferenceUID == ds.StructureSetROISequence[0].ReferencedFrameOfReferenceUID == FRAME
    assert frame.RTReferencedStudySequence[0].ReferencedSOPInstanceUID == STUDY
    assert series.SeriesInstanceUID == SERIES
    uids = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    assert uids == image.metadata["SOPInstanceUIDs"]
    to_ijk = np.linalg.inv(oblique_grid.ijk_to_lps)
    for contour in ds.ROIContourSequence[0].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        k = uids.index(contour.ContourImageSequence[0].ReferencedSOPInstanceUID)
        assert np.abs((points @ to_ijk[:3, :3].T + to_ijk[:3, 3])[:, 2] - k).max() < 1e-3
        assert contour.NumberOfContourPoints == len(points) and contour.ContourGeometricType == "CLOSED_PLANAR"
        assert all(len(str(value)) <= 16 for value in contour.ContourData)


def test_contours_on_an_enhanced_image_name_the_frame():
    image = image_on(SOPInstanceUIDs=["1.2.3"] * 20, FrameNumbers=[str(n) for n in range(20, 0, -1)])
    ds, _ = structure_set({"GTVp": awkward(GRID.shape)["GTVp"]}, image)
    series = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence] == ["1.2.3"]
    frames = [c.ContourImageSequence[0].ReferencedFrameNumber for c in ds.ROIContourSequence[0].ContourSequence]
    assert frames == list(range(20, 0, -1))


def test_it_says_what_each_structure_is_and_that_nobody_approved_it():
    masks = {name: awkward(GRID.shape)["GTVp"] for name in ("GTVp", "CTV_60", "Parotid_L", "External")}
    ds, _ = structure_set(masks, image_on())
    assert [roi.ROIName for roi in ds.StructureSetROISequence] == list(masks)
    assert {roi.ROIGenerationAlgorithm for roi in ds.StructureSetROISequence} == {"AUTOMATIC"}
    assert [o.RTROIInterpretedType for o in ds.RTROIObservationsSequence] == ["GTV", "CTV", "ORGAN", ""]
    code = ds.RTROIObservationsSequence[2].RTROIIdentificationCodeSequence[0]
    assert (code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning) == ("SCT", "45289007", "Parotid gland")
    assert ds.ApprovalStatus == "UNAPPROVED" and "research use only" in ds.StructureSetDescription
    assert list(ds.ROIContourSequence[0].ROIDisplayColor) == [230, 26, 38]


def test_no_planning_system_takes_the_outline_on_mr_for_the_body_that_dose_is_computed_in(tmp_path):
    masks = {name: awkward(GRID.shape)["GTVp"] for name in ("GTVp", "External")}
    ds = pydicom.dcmread(write(tmp_path / "rs.dcm", masks, image_on()))
    tumor, external = ds.StructureSetROISequence
    assert external.ROIDescription.endswith("Not a body for dose calculation.") and "ROIDescription" not in tumor
    observation = ds.RTROIObservationsSequence[1]
    assert "RTROIInterpretedType" in observation and not observation.RTROIInterpretedType  # may be empty, not absent
    assert b"EXTERNAL" not in (tmp_path / "rs.dcm").read_bytes()


def test_empty_structures_are_left_out_and_named():
    masks = {"GTVp": awkward(GRID.shape)["GTVp"], "GTVn": np.zeros(GRID.shape, bool)}
    ds, empty = structure_set(masks, image_on())
    assert empty == ("GTVn",) and len(ds.ROIContourSequence) == len(ds.StructureSetROISequence) == 1
    with pytest.raises(UsageError, match="no contour to write"):
        structure_set({"GTVn": masks["GTVn"]}, image_on())


def test_an_image_that_is_not_dicom_cannot_be_referred_to():
    mask = awkward(GRID.shape)["GTVp"]
    with pytest.raises(UsageError, match="not a complete DICOM series"):
        structure_set({"GTVp": mask}, image_on(FrameOfReferenceUID=None))
    with pytest.raises(UsageError, match="Start from the DICOM images"):
        structure_set({"GTVp": mask}, image_on(SOPInstanceUIDs=["1.2.3"]))
    with pytest.raises(ValueError, match="GTVp has the shape"):
        structure_set({"GTVp": mask[1:]}, image_on())


# --- programs that others wrote --------------------------------------------------------------------------------------

@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy is missing (Debian package dicom3tools)")
def test_dciodvfy_finds_no_error_and_nothing_to_warn_of(tmp_path):
    path = write(tmp_path / "rs.dcm", awkward(GRID.shape), image_on())
    *_, phantom = write_dicom(make_patient(6, ("T1",), "small"), tmp_path / "study")
    for file in (path, phantom):
        told = subprocess.run(["dciodvfy", str(file)], capture_output=True, text=True)
        assert (told.stdout + told.stderr).split() == ["RTStructureSet"]


def scanned(folder):
    """(image as SimpleITK and GDCM read the series, which of our slices each of theirs is)."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    return image, sitk.GetArrayFromImage(image)[:, 0, 0].astype(int)  # each slice holds its own number


@pytest.mark.parametrize("grid", [GRID, SAGITTAL, None], ids=["axial", "sagittal", "oblique"])
def test_geometry_by_gdcm_and_filling_by_scikit_image_give_the_masks(tmp_path, grid, oblique_grid):
    image = image_on(grid or oblique_grid)
    masks = awkward(image.grid.shape)
    ds = pydicom.dcmread(write(tmp_path / "rs.dcm", masks, image))
    scan, order = scanned(write_images(tmp_path / "images", image))
    for contours, (name, mask) in zip(ds.ROIContourSequence, masks.items()):
        if name == "Noise":
            continue  # its channels run through centers, which scikit-image counts as inside
        found = np.zeros(mask.shape, bool)
        for contour in contours.ContourSequence:
            points = np.array(contour.ContourData, float).reshape(-1, 3)
            index = np.array([scan.TransformPhysicalPointToContinuousIndex(point) for point in points])
            found[order[int(round(index[0, 2]))]] ^= polygon2mask(mask.shape[1:], index[:, 1::-1])
        assert dice(found, mask) >= 0.99, name


@pytest.mark.skipif(not PLASTIMATCH, reason="plastimatch is missing (PyPI or Debian package plastimatch)")
@pytest.mark.parametrize("grid", [GRID, SAGITTAL], ids=["axial", "sagittal"])
def test_plastimatch_reads_what_was_written(tmp_path, grid):
    """Plastimatch unites the contours of a slice: separate holes would be lost in it."""
    image, masks = image_on(grid), awkward(grid.shape)
    path = write(tmp_path / "rs.dcm", masks, image)
    scan, order = scanned(write_images(tmp_path / "images", image))
    sitk.WriteImage(scan, str(tmp_path / "image.mha"))
    subprocess.run(
        [PLASTIMATCH, "convert", "--input", path, "--fixed", tmp_path / "image.mha", "--output-prefix",
         tmp_path / "masks", "--prefix-format", "nrrd"], check=True, capture_output=True)
    for name, mask in masks.items():
        found = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "masks" / f"{name}.nrrd"))) > 0
        assert dice(found, mask[order]) >= 0.99, name
