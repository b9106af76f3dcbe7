"""The phantom patient arrives like a real one: scans on their own grids, a valid DICOM study, and true contours."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon

from NPCSynthLib.errors import OutputError, UsageError
from NPCSynthLib.phantom.acquire import acquire, scan_grid, tissue_signal
from NPCSynthLib.phantom.anatomy import make_anatomy
from NPCSynthLib.phantom.patient import make_patient, structures_on, write_dicom
from NPCSynthLib.phantom.signal import Protocol, typical_protocol
from NPCSynthLib.study.read import read_folder
from NPCSynthLib.study.study import is_simulated
from NPCSynthLib.study.volume import Grid
from NPCSynthLib.vocabulary import load_structures

SEQUENCES = ("T1", "FLAIR", "T1CFS")


@pytest.fixture(scope="module")
def patient():
    return make_patient(4, SEQUENCES, "small")


@pytest.fixture(scope="module")
def study(patient, tmp_path_factory):
    *series, structures = write_dicom(patient, tmp_path_factory.mktemp("study"))
    return series, structures


@pytest.fixture(scope="module")
def anatomy():
    return make_anatomy(4, (32, 44, 40), (6.0, 6.0, 6.0))


def test_a_patient_has_each_sequence_on_a_realistic_grid(patient):
    assert tuple(patient.volumes) == SEQUENCES
    for name, volume in patient.volumes.items():
        assert volume.array.dtype == np.uint16 and volume.array.shape == volume.grid.shape
        assert volume.array.max() > 300 and np.unique(volume.array).size > 200
        direction = volume.grid.direction
        assert np.allclose(direction.T @ direction, np.eye(3), atol=1e-9)
        assert np.linalg.det(direction) == pytest.approx(1)
        if patient.protocols[name].kind != "GRE":
            assert not np.allclose(direction, np.eye(3), atol=1e-3), "axial slices follow the head's tilt"
            assert volume.grid.spacing[2] > 1.2 * volume.grid.spacing[0]


def test_every_image_says_that_it_was_simulated(patient, study):
    assert all(is_simulated(volume.metadata) for volume in patient.volumes.values())
    for folder in study[0]:
        assert is_simulated(read_folder(folder).volumes[0].metadata)


def test_the_same_seed_gives_the_same_images_whatever_else_is_acquired(patient):
    again = make_patient(4, ("T1CFS",), "small")
    assert np.array_equal(again.volumes["T1CFS"].array, patient.volumes["T1CFS"].array)
    assert again.protocols["T1CFS"] == patient.protocols["T1CFS"]
    assert len({protocol.field_strength_t for protocol in patient.protocols.values()}) == 1


def test_unknown_sizes_and_sequences_are_refused_in_words():
    with pytest.raises(UsageError, match="small, full"):
        make_patient(1, ("T1",), "huge")
    with pytest.raises(UsageError, match="Did you mean"):
        make_patient(1, ("FLAIRR",), "small")


def test_partial_volume_keeps_the_mean_and_the_place(anatomy):
    protocol = typical_protocol("T2")
    truth = tissue_signal(anatomy, protocol)
    spacing = anatomy.grid.spacing * (2, 2, 2)
    shape = tuple(n // 2 for n in anatomy.grid.shape)
    grid = Grid.from_parts(shape, spacing, anatomy.grid.origin + anatomy.grid.spacing / 2, np.eye(3))
    volume = acquire(anatomy, protocol, np.random.default_rng(0), grid, noise=0, bias=0)
    k, j, i = shape
    blocks = truth[: 2 * k, : 2 * j, : 2 * i].reshape(k, 2, j, 2, i, 2).mean((1, 3, 5))
    core = (slice(1, -1),) * 3
    assert np.corrcoef(volume.array[core].ravel(), blocks[core].ravel())[0, 1] > 0.985
    assert np.count_nonzero((blocks > 0.05) & (blocks < 0.95 * truth.max())) > 100


def test_oblique_and_flipped_grids_show_the_same_patient(anatomy):
    protocol = typical_protocol("T1")
    rng = np.random.default_rng
    straight = acquire(anatomy, protocol, rng(0), anatomy.grid, noise=0, bias=0)
    a = np.deg2rad(20)
    oblique = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]]) @ np.diag([-1.0, 1, -1])
    center = anatomy.grid.origin + anatomy.grid.spacing * (np.array(anatomy.grid.shape[::-1]) - 1) / 2
    spacing = np.array((4.0, 4.0, 6.0))
    shape = (32, 66, 60)
    grid = Grid.from_parts(shape, spacing, center - oblique @ (spacing * (np.array(shape[::-1]) - 1) / 2), oblique)
    turned = acquire(anatomy, protocol, rng(0), grid, noise=0, bias=0)
    scale = np.percentile(straight.array, 99) / np.percentile(turned.array, 99)
    index = np.array((30, 20, 16, 1))
    for offset in ((0, 0, 0), (-12, 3, 4), (-6, 10, 6), (-14, 0, -4)):
        i, j, k, _ = index + (*offset, 0)
        window = turned.array[k - 1 : k + 2, j - 2 : j + 3, i - 2 : i + 3].mean() * scale
        place = np.linalg.solve(anatomy.grid.ijk_to_lps, grid.ijk_to_lps @ (i, j, k, 1))[:3]
        a, b, c = np.rint(place).astype(int)
        there = straight.array[c - 1 : c + 2, b - 1 : b + 2, a - 1 : a + 2].mean()
        assert window == pytest.approx(there, rel=0.35, abs=0.05 * straight.array.max())


def test_noise_is_rician_and_as_strong_as_asked(anatomy):
    protocol = typical_protocol("T2")
    volume = acquire(anatomy, protocol, np.random.default_rng(1), anatomy.grid, noise=0.05, bias=0)
    signal = tissue_signal(anatomy, protocol)
    background = volume.array[(anatomy.labels == 0) & ~anatomy.structures["External"]].astype(float)
    # In air the magnitude follows Rayleigh's law: mean / standard deviation = 1.913.
    assert background.mean() / background.std() == pytest.approx(1.913, rel=0.03)
    scale = np.percentile(volume.array[signal > 0.02], 99)
    assert background.mean() / 1.2533 / scale == pytest.approx(0.05, rel=0.15)


def test_bias_varies_slowly_and_motion_ghosts_along_rows(anatomy):
    protocol = typical_protocol("T1")

    def scan(**how):
        how = {"noise": 0, "bias": 0, **how}
        return acquire(anatomy, protocol, np.random.default_rng(2), anatomy.grid, **how).array

    clean, shaded, moved = scan().astype(float), scan(bias=0.3).astype(float), scan(motion=4.0).astype(float)
    inside = clean > 50
    gain = np.where(inside, shaded / np.maximum(clean, 1), np.nan)
    assert np.nanstd(gain) / np.nanmean(gain) > 0.03
    step = np.abs(np.diff(gain, axis=2))
    assert np.nanmedian(step) < 0.12 * np.nanstd(gain) + 0.02
    outside = ~anatomy.structures["External"]
    assert moved[outside].mean() > 3 * clean[outside].mean() + 1
    i_profile = outside.any((0, 1)) & ~anatomy.structures["External"].any((0, 1))
    assert moved[:, :, i_profile].max(initial=0) <= clean[:, :, i_profile].max(initial=0) + 2


def test_sequences_share_their_texture(anatomy):
    white = anatomy.labels == anatomy.tissue_names.index("white_matter")
    t1 = tissue_signal(anatomy, typical_protocol("T1"))[white]
    t1fs = tissue_signal(anatomy, typical_protocol("T1FS"))[white]
    assert t1.std() / t1.mean() > 0.005
    assert np.corrcoef(t1, t1fs)[0, 1] > 0.99


def test_vessels_are_dark_in_spin_echoes_and_bright_in_enhanced_gradient_echoes():
    anatomy = make_anatomy(4, (40, 90, 80), (5.0, 2.5, 2.5))
    artery, muscle = (anatomy.labels == anatomy.tissue_names.index(name) for name in ("artery", "muscle"))
    assert artery.sum() > 20
    spin = tissue_signal(anatomy, Protocol("T1C", 3.0, "TSE", 600, 12, None, 90, 0, 1.0))
    gradient = tissue_signal(anatomy, Protocol("T1C", 3.0, "GRE", 6, 2.5, None, 12, 0, 1.0))
    assert spin[artery].mean() < 0.8 * spin[muscle].mean()
    assert gradient[artery].mean() > 1.5 * gradient[muscle].mean()


def test_mprage_is_sagittal_and_its_header_says_inversion(anatomy):
    protocol = Protocol("T1", 3.0, "GRE", 2000, 3, 900, 9, 0, 0)
    grid = scan_grid(anatomy, protocol)
    assert abs(grid.direction[0, 2]) > 0.9 and np.allclose(grid.spacing, grid.spacing[0])
    facts = acquire(anatomy, protocol, np.random.default_rng(0), grid).metadata
    assert facts["ScanningSequence"] == ["GR", "IR"] and facts["InversionTime"] == 900
    assert facts["SeriesDescription"] == "t1_mprage_sag" and facts["MRAcquisitionType"] == "3D"


def test_headers_tell_contrast_agent_and_fat_suppression(patient):
    assert "ContrastBolusAgent" not in patient.volumes["T1"].metadata
    enhanced = patient.volumes["T1CFS"].metadata
    assert enhanced["ContrastBolusAgent"] and enhanced["ScanOptions"] == ["FS"]
    assert enhanced["SeriesDescription"].endswith("fs_KM")
    assert patient.volumes["FLAIR"].metadata["ScanningSequence"] == ["SE", "IR"]
    assert patient.volumes["FLAIR"].metadata["SeriesDescription"] == "t2_flair_tra"


def test_dicom_reads_back_with_exact_pixels_and_geometry(patient, study):
    for folder, volume in zip(study[0], patient.volumes.values()):
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        image = reader.Execute()
        grid = Grid.from_parts(image.GetSize()[::-1], image.GetSpacing(), image.GetOrigin(), image.GetDirection())
        assert grid.matches(volume.grid, 1e-4)
        assert np.array_equal(sitk.GetArrayFromImage(image), volume.array)


def test_dicom_is_one_study_of_an_unmistakable_phantom(study):
    files = [pydicom.dcmread(path) for folder in study[0] for path in sorted(folder.iterdir())]
    files.append(pydicom.dcmread(study[1]))
    assert {str(ds.PatientName) for ds in files} == {"Phantom^NPCSynth"}
    assert {ds.PatientID for ds in files} == {"NPCSYNTH-PHANTOM-4"}
    assert len({ds.StudyInstanceUID for ds in files}) == 1 and len({ds.FrameOfReferenceUID for ds in files}) == 1
    assert len({ds.SOPInstanceUID for ds in files}) == len(files)
    assert len({ds.SeriesInstanceUID for ds in files}) == len(study[0]) + 1


def test_mr_images_have_what_their_modules_require(study):
    required = """PatientName PatientID PatientBirthDate PatientSex StudyInstanceUID StudyDate StudyTime StudyID
        AccessionNumber ReferringPhysicianName Modality SeriesInstanceUID SeriesNumber PatientPosition
        FrameOfReferenceUID PositionReferenceIndicator Manufacturer InstanceNumber PixelSpacing ImageOrientationPatient
        ImagePositionPatient
        SliceThickness SamplesPerPixel PhotometricInterpretation Rows Columns BitsAllocated BitsStored HighBit
        PixelRepresentation PixelData ImageType ScanningSequence SequenceVariant ScanOptions MRAcquisitionType
        RepetitionTime
        EchoTime EchoTrainLength SOPClassUID SOPInstanceUID AcquisitionNumber MagneticFieldStrength""".split()
    for folder in study[0]:
        with _strict():
            ds = pydicom.dcmread(next(folder.iterdir()))
            missing = [keyword for keyword in required if keyword not in ds]
            assert not missing
            for element in ds:
                assert element.value is not None or element.is_empty
        assert ("IR" in ds.ScanningSequence) == ("InversionTime" in ds)
        assert all(len(str(value)) <= 16 for value in ds.ImageOrientationPatient)


class _strict:
    """Values that break DICOM's rules raise while reading."""

    def __enter__(self):
        self._mode = pydicom.config.settings.reading_validation_mode
        pydicom.config.settings.reading_validation_mode = pydicom.config.RAISE

    def __exit__(self, *_):
        pydicom.config.settings.reading_validation_mode = self._mode


def rasterize(roi, grid, files):
    """Mask of the contours, holes by exclusive or."""
    mask = np.zeros(grid.shape, bool)
    rows, columns = np.mgrid[: grid.shape[1], : grid.shape[2]]
    points = np.column_stack([columns.ravel(), rows.ravel()])
    inverse = np.linalg.inv(grid.ijk_to_lps)
    for item in roi.ContourSequence:
        positions = np.array(item.ContourData, float).reshape(-1, 3)
        assert len(positions) == item.NumberOfContourPoints
        index = (inverse @ np.column_stack([positions, np.ones(len(positions))]).T)[:3].T
        k = int(round(index[0, 2]))
        assert np.abs(index[:, 2] - k).max() < 1e-2, "a contour lies in the plane of its image"
        assert files[item.ContourImageSequence[0].ReferencedSOPInstanceUID] == k
        mask[k] ^= Polygon(index[:, :2]).contains_points(points).reshape(rows.shape)
    return mask


def test_contours_are_the_true_structures(patient, study):
    ds = pydicom.dcmread(study[1])
    volume = patient.volumes[SEQUENCES[0]]
    files = {}
    for path in study[0][0].iterdir():
        image = pydicom.dcmread(path, stop_before_pixels=True)
        files[image.SOPInstanceUID] = image.InstanceNumber - 1
    truth = structures_on(patient.anatomy, volume.grid)
    names = {roi.ROINumber: roi.ROIName for roi in ds.StructureSetROISequence}
    assert set(names.values()) == set(patient.structures) >= {"GTVp", "Brain", "Eye_L", "External"}
    types = {names[o.ReferencedROINumber]: o.RTROIInterpretedType for o in ds.RTROIObservationsSequence}
    assert types["External"] == "" and types["GTVp"] == "GTV" and types["Brain"] == "ORGAN"
    assert set(names.values()) <= {structure.name for structure in load_structures()}
    for roi in ds.ROIContourSequence:
        name = names[roi.ReferencedROINumber]
        mask, expected = rasterize(roi, volume.grid, files), truth[name] > 0.5
        dice = 2 * (mask & expected).sum() / (mask.sum() + expected.sum())
        assert dice > 0.95, (name, dice)


def test_contours_refer_to_the_series_they_are_drawn_on(study):
    ds = pydicom.dcmread(study[1])
    image = pydicom.dcmread(next(study[0][0].iterdir()), stop_before_pixels=True)
    frame = ds.ReferencedFrameOfReferenceSequence[0]
    series = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence[0]
    assert frame.FrameOfReferenceUID == image.FrameOfReferenceUID
    assert series.SeriesInstanceUID == image.SeriesInstanceUID
    assert len(series.ContourImageSequence) == len(list(study[0][0].iterdir()))


def test_only_the_wanted_sequences_are_written(patient, tmp_path):
    *series, structures = write_dicom(patient, tmp_path / "study", ("FLAIR",))
    assert [folder.name for folder in series] == ["01_t2_flair_tra"]
    assert structures.is_file()
    with pytest.raises(UsageError, match="no PD"):
        write_dicom(patient, tmp_path / "other", ("PD",))
    assert not (tmp_path / "other").exists()


def test_an_unwritable_folder_is_told_in_words(patient, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="Choose a folder"):
        write_dicom(patient, tmp_path / "file" / "study", ("T1",))
