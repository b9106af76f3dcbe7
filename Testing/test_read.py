"""Reading folders and files: geometry and pixels against independent readers, and every kind of bad input."""

import gzip
import os
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from NPCSynthLib.errors import Cancelled, InputError
from NPCSynthLib.study.pixels import decode_with_sitk
from NPCSynthLib.study.read import check_usable, list_series, read_file, read_folder
from NPCSynthLib.study.volume import Grid, Volume

MR = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
STUDY, FRAME_OF_REFERENCE = generate_uid(), generate_uid()


def tilted_grid(shape=(6, 20, 24)) -> Grid:
    """Oblique about two axes, 0.7 x 1.3 mm pixels, 4.5 mm slices."""
    a, b = 0.4, 0.25
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return Grid.from_parts(shape, (0.7, 1.3, 4.5), (-80.25, 33.5, 12.125), z @ x)


def stored_pixels(shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4000, shape).astype(np.uint16)


def base(series_uid, description, sop_class=MR, **values) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    ds.Modality, ds.PatientID, ds.PatientName = "MR", "4711", "Doe^Jane"
    ds.StudyInstanceUID, ds.StudyDate, ds.SeriesInstanceUID = STUDY, "20240102", series_uid
    ds.FrameOfReferenceUID, ds.SeriesDescription, ds.SeriesNumber = FRAME_OF_REFERENCE, description, 4
    ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NORM"]
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PixelRepresentation = 1, "MONOCHROME2", 0
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    for keyword, value in values.items():
        setattr(ds, keyword, value)
    return ds


def write_series(folder: Path, description="t1_tse_tra", grid=None, stored=None, names=None, seed=0, **values):
    """A classic series, one file a slice, in an order that says nothing, in two subfolders, without extension."""
    grid = grid or tilted_grid()
    stored = stored_pixels(grid.shape, seed) if stored is None else stored
    series_uid = values.pop("SeriesInstanceUID", generate_uid())
    order = np.random.default_rng(seed + 1).permutation(grid.shape[0])
    for n, k in enumerate(order):
        ds = base(series_uid, description, ScanningSequence="SE", RepetitionTime=500.0, EchoTime=11.0)
        ds.InstanceNumber = int(k) + 1
        ds.Rows, ds.Columns = grid.shape[1:]
        ds.PixelSpacing = [float(grid.spacing[1]), float(grid.spacing[0])]
        ds.ImageOrientationPatient = [float(f"{v:.12g}") for v in grid.direction[:, :2].T.ravel()]
        ds.ImagePositionPatient = [float(f"{v:.10g}") for v in (grid.ijk_to_lps @ [0, 0, k, 1])[:3]]
        ds.SliceThickness = float(grid.spacing[2])
        ds.PixelData = stored[k].tobytes()
        for keyword, value in values.items():
            setattr(ds, keyword, value)
        target = folder / f"sub{n % 2}"
        target.mkdir(parents=True, exist_ok=True)
        ds.save_as(target / (names[n] if names else f"{description}_{seed}_{n}"), enforce_file_format=True)
    return stored


def slice_file(folder: Path, k: int) -> Path:
    """The file of slice k (0 is the first along the normal)."""
    for path in folder.rglob("*"):
        if path.is_file() and pydicom.dcmread(path, stop_before_pixels=True).InstanceNumber == k + 1:
            return path
    raise AssertionError(k)


def edit(path: Path, **values) -> None:
    ds = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    ds.save_as(path)


def enhanced_file(path: Path, grid: Grid, arrays: dict, slopes=None, description="t1_vibe_tra") -> None:
    """Enhanced MR: arrays by echo time, frames in shuffled order, a rescale of its own for each frame."""
    ds = base(generate_uid(), description, ENHANCED_MR, PulseSequenceName="*tse2d1", EchoPulseSequence="SPIN")
    ds.Rows, ds.Columns = grid.shape[1:]
    ds.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    shared = ds.SharedFunctionalGroupsSequence[0]
    measures, orientation, timing = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [float(grid.spacing[1]), float(grid.spacing[0])]
    orientation.ImageOrientationPatient = [float(f"{v:.12g}") for v in grid.direction[:, :2].T.ravel()]
    timing.RepetitionTime, timing.FlipAngle = 3000.0, 90.0
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    shared.MRTimingAndRelatedParametersSequence = Sequence([timing])
    frames, pixels = [], []
    places = [(te, k) for te in arrays for k in range(grid.shape[0])]
    for n in np.random.default_rng(5).permutation(len(places)):
        te, k = places[n]
        group, echo, place, rescale = Dataset(), Dataset(), Dataset(), Dataset()
        echo.EffectiveEchoTime = float(te)
        place.ImagePositionPatient = [float(f"{v:.10g}") for v in (grid.ijk_to_lps @ [0, 0, k, 1])[:3]]
        rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = (slopes or {}).get(k, 1.0), 0.0, "US"
        group.MREchoSequence, group.PlanePositionSequence = Sequence([echo]), Sequence([place])
        group.PixelValueTransformationSequence = Sequence([rescale])
        frames.append(group)
        pixels.append(arrays[te][k])
    ds.PerFrameFunctionalGroupsSequence = Sequence(frames)
    ds.NumberOfFrames = len(frames)
    ds.PixelData = np.stack(pixels).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)


# --- what is read right ----------------------------------------------------------------------------------------------

def test_shuffled_oblique_series_has_exact_geometry_and_pixels(tmp_path):
    stored = write_series(tmp_path, RescaleSlope=2.5, RescaleIntercept=-7.0)
    (volume,) = read_folder(tmp_path).volumes
    assert volume.array.dtype == np.float32 and volume.name == "t1_tse_tra"
    assert np.abs(volume.array - (stored * 2.5 - 7.0)).max() < 1e-3
    assert volume.grid.matches(tilted_grid(), 1e-4)


def test_slices_acquired_the_other_way_round_map_to_the_same_points(tmp_path):
    grid = tilted_grid()
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, 3] += 5 * matrix[:3, 2]
    matrix[:3, 2] *= -1
    stored = write_series(tmp_path, grid=Grid(grid.shape, matrix))
    (volume,) = read_folder(tmp_path).volumes
    for k in range(6):
        point = matrix @ [3, 7, k, 1]
        i, j, kk, _ = np.linalg.solve(volume.grid.ijk_to_lps, point)
        assert np.allclose([i, j], [3, 7], atol=1e-4)
        assert volume.array[round(kk), 7, 3] == stored[k, 7, 3]


def test_series_agrees_with_the_reader_of_simpleitk(tmp_path):
    write_series(tmp_path, RescaleSlope=0.5, RescaleIntercept=3.0)
    (volume,) = read_folder(tmp_path).volumes
    flat = tmp_path / "flat"
    flat.mkdir()
    for n, path in enumerate(p for p in tmp_path.rglob("*") if p.is_file()):
        shutil.copy(path, flat / str(n))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(flat)))
    theirs = reader.Execute()
    rng = np.random.default_rng(3)
    array = sitk.GetArrayFromImage(theirs)
    for i, j, k in rng.integers(0, (24, 20, 6), (20, 3)).tolist():
        ours = np.linalg.solve(volume.grid.ijk_to_lps, [*theirs.TransformIndexToPhysicalPoint((i, j, k)), 1])[:3]
        assert np.abs(ours - np.round(ours)).max() < 1e-3
        a, b, c = np.round(ours).astype(int)
        assert volume.array[c, b, a] == pytest.approx(array[k, j, i])


def test_enhanced_multi_frame_splits_echoes_and_applies_the_rescale_of_each_frame(tmp_path):
    grid = tilted_grid()
    arrays = {15.0: stored_pixels(grid.shape, 1), 95.0: stored_pixels(grid.shape, 2)}
    slopes = {k: 1.0 + 0.25 * k for k in range(6)}
    enhanced_file(tmp_path / "deep" / "x", grid, arrays, slopes, "DE")
    volumes = {v.metadata["EchoTime"]: v for v in read_folder(tmp_path).volumes}
    assert set(volumes) == {15.0, 95.0}
    for te, volume in volumes.items():
        expected = arrays[te] * np.array([slopes[k] for k in range(6)])[:, None, None]
        assert volume.grid.matches(grid, 1e-4)
        assert np.abs(volume.array - expected).max() < 1e-2
        assert volume.metadata["RepetitionTime"] == 3000.0 and len(volume.metadata["FrameNumbers"]) == 6
    assert {e.identification.sequence for e in list_series(tmp_path)} == {"PD", "T2"}


def test_one_enhanced_file_is_read_as_a_file(tmp_path):
    grid = tilted_grid()
    stored = stored_pixels(grid.shape)
    enhanced_file(tmp_path / "x.dcm", grid, {90.0: stored}, description="t2_tse")
    volume = read_file(tmp_path / "x.dcm")
    assert np.array_equal(volume.array, stored) and volume.grid.matches(grid, 1e-4)


def test_monochrome1_is_turned_bright_side_up(tmp_path):
    stored = write_series(tmp_path, PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(read_folder(tmp_path).volumes[0].array, 4095.0 - stored)


def test_two_echoes_in_one_series_become_two_volumes(tmp_path):
    uid = generate_uid()
    short = write_series(tmp_path, "PD T2 tra", seed=1, EchoTime=15.0, RepetitionTime=3000.0, SeriesInstanceUID=uid)
    long = write_series(tmp_path, "PD T2 tra", seed=2, EchoTime=95.0, RepetitionTime=3000.0, SeriesInstanceUID=uid)
    volumes = {v.metadata["EchoTime"]: v.array for v in read_folder(tmp_path).volumes}
    assert np.array_equal(volumes[15.0], short) and np.array_equal(volumes[95.0], long)


def test_mixed_folder_keeps_the_good_and_names_the_refused(tmp_path):
    write_series(tmp_path / "a", "t1_tse_tra", seed=1)
    write_series(tmp_path / "a", "localizer", seed=2, SeriesNumber=1)
    write_series(tmp_path / "b", "ep2d_diff_ADC", seed=3, ImageType=["DERIVED", "PRIMARY", "DIFFUSION", "ADC"])
    (tmp_path / "a" / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "a" / "notes.txt").write_text("nothing")
    grid = tilted_grid()
    image = sitk.GetImageFromArray(stored_pixels(grid.shape).astype(np.int16))
    sitk.WriteImage(image, str(tmp_path / "T2.nii.gz"))
    sitk.WriteImage(image, str(tmp_path / "label_GTV.nii.gz"))
    fractions = []
    report = read_folder(tmp_path, lambda fraction, text: fractions.append(fraction))
    assert [v.name for v in report.volumes] == ["t1_tse_tra", "T2.nii.gz"]
    assert {name for name, _ in report.refused} == {"localizer", "ep2d_diff_ADC", "label_GTV.nii.gz"}
    assert fractions == sorted(fractions) and fractions[-1] == 1.0


def test_metadata_keeps_what_dicom_output_needs_in_slice_order(tmp_path):
    write_series(tmp_path)
    (volume,) = read_folder(tmp_path).volumes
    metadata = volume.metadata
    assert metadata["StudyInstanceUID"] == STUDY and metadata["FrameOfReferenceUID"] == FRAME_OF_REFERENCE
    by_uid = {}
    for path in tmp_path.rglob("*"):
        if path.is_file():
            ds = pydicom.dcmread(path)
            by_uid[ds.SOPInstanceUID] = ds.pixel_array
    for k, uid in enumerate(metadata["SOPInstanceUIDs"]):
        assert np.array_equal(volume.array[k], by_uid[uid])
    assert all(isinstance(v, (str, float)) or (isinstance(v, list) and all(isinstance(x, str) for x in v))
               for v in metadata.values())


def compress(path: Path, compressor: str, signed: bool) -> None:
    """Replace the pixels of a file by compressed ones, without loss."""
    ds = pydicom.dcmread(path)
    if compressor == "RLE":
        ds.compress(pydicom.uid.RLELossless)
    elif compressor == "JPEG-LS":
        pytest.importorskip("jpeg_ls", reason="pyjpegls compresses JPEG-LS here")
        ds.compress(pydicom.uid.JPEGLSLossless)
    else:
        packed = path.with_suffix(".packed.dcm")
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(packed))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.Execute(sitk.GetImageFromArray(ds.pixel_array.astype(np.int16 if signed else np.uint16)))
        theirs = pydicom.dcmread(packed)
        packed.unlink()
        ds.PixelData = theirs.PixelData
        ds.file_meta.TransferSyntaxUID = theirs.file_meta.TransferSyntaxUID
        ds.BitsStored, ds.HighBit = theirs.BitsStored, theirs.HighBit
    ds.save_as(path)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("compressor", ["RLE", "JPEG-LS", "JPEG", "JPEG2000"])
def test_compressed_slices_keep_every_value(tmp_path, compressor, signed):
    stored = stored_pixels((6, 20, 24)).astype(np.int16) - (2000 if signed else 0)
    write_series(tmp_path, stored=stored if signed else stored.astype(np.uint16), RescaleSlope=2.0,
                 RescaleIntercept=1.0, PixelRepresentation=int(signed), BitsStored=16, HighBit=15)
    for k in range(6):
        compress(slice_file(tmp_path, k), compressor, signed)
    (volume,) = read_folder(tmp_path).volumes
    assert np.array_equal(volume.array, stored * 2.0 + 1.0)
    syntax = pydicom.dcmread(slice_file(tmp_path, 0)).file_meta.TransferSyntaxUID
    assert syntax.is_compressed


def test_jpeg_lossless_is_decoded_by_gdcm_with_monochrome1_and_damaged_pixels_refused(tmp_path):
    stored = write_series(tmp_path / "a", PhotometricInterpretation="MONOCHROME1")
    for k in range(6):
        compress(slice_file(tmp_path / "a", k), "JPEG", False)
        edit(slice_file(tmp_path / "a", k), BitsStored=12, HighBit=11)
    path = slice_file(tmp_path / "a", 0)
    assert np.array_equal(decode_with_sitk(pydicom.dcmread(path), path.name)[0], stored[0])
    assert np.array_equal(read_folder(tmp_path).volumes[0].array, 4095.0 - stored)
    edit(path, PixelData=pydicom.encaps.encapsulate([b"\xff\xd8no image" * 20]))
    with pytest.raises(InputError, match=path.name):
        read_folder(tmp_path)


def test_lossy_compression_is_warned_about(tmp_path):
    write_series(tmp_path, LossyImageCompression="01")
    assert any("compressed with loss" in w for w in read_folder(tmp_path).warnings)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_files_keep_geometry_and_values(tmp_path, suffix):
    grid = tilted_grid()
    array = stored_pixels(grid.shape).astype(np.int16) - 100
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(grid.spacing.tolist())
    image.SetOrigin(grid.origin.tolist())
    image.SetDirection(grid.direction.ravel().tolist())
    path = tmp_path / f"T1{suffix}"
    sitk.WriteImage(image, str(path))
    volume = read_file(path)
    assert volume.array.dtype == np.float32 and np.array_equal(volume.array, array)
    assert volume.grid.matches(grid, 1e-3)
    if ".nii" in suffix:
        theirs = nibabel.load(path)
        ras = theirs.affine
        assert np.abs(np.diag([-1, -1, 1, 1]) @ ras - volume.grid.ijk_to_lps).max() < 1e-3
        assert np.array_equal(np.asanyarray(theirs.dataobj).transpose(2, 1, 0), volume.array)


def nifti_of_two_forms(path: Path, qform, sform, codes=(1, 1), order="<") -> Path:
    array = np.random.default_rng(0).integers(0, 900, (24, 20, 6)).astype(np.int16)
    image = nibabel.Nifti1Image(array, None, nibabel.Nifti1Header(endianness=order))
    image.set_data_dtype(np.int16)
    image.set_qform(qform, codes[0])
    image.set_sform(sform, codes[1])
    nibabel.save(image, path)
    return path


def ras(grid: Grid) -> np.ndarray:
    return np.diag([-1, -1, 1, 1]) @ grid.ijk_to_lps


def turned(degrees: float) -> np.ndarray:
    """About the axis from feet to head."""
    a = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]
    return matrix


LYING = {
    "oblique": ras(tilted_grid()),
    "flipped": ras(tilted_grid()) @ np.diag([-1, 1, 1, 1]),
    "other way up": ras(tilted_grid()) @ np.diag([1, -1, -1, 1]),
    # Near half a turn a qform in single precision is least exact.
    "half a turn": turned(179.97) @ np.diag([0.5, 0.5, 3, 1]),
}


@pytest.mark.parametrize("order, suffix", [("<", ".nii"), ("<", ".nii.gz"), (">", ".nii.gz")])
@pytest.mark.parametrize("lying", LYING)
@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 2), (2, 4)])
def test_nifti_that_gives_its_orientation_once_or_twice_alike_is_read(tmp_path, order, suffix, lying, codes):
    matrix = LYING[lying]
    other = turned(90) @ matrix  # where the code is 0 it does not count
    path = nifti_of_two_forms(tmp_path / f"T1{suffix}", matrix if codes[0] else other, matrix if codes[1] else other,
                              codes, order)
    assert read_file(path).grid.matches(Grid((6, 20, 24), np.diag([-1, -1, 1, 1]) @ matrix), 0.05)


@pytest.mark.parametrize("order, suffix", [("<", ".nii"), ("<", ".nii.gz"), (">", ".nii.gz")])
@pytest.mark.parametrize("lying", LYING)
@pytest.mark.parametrize("change", ["mirrored", "shifted", "turned", "stretched"])
def test_nifti_that_gives_two_orientations_is_refused(tmp_path, order, suffix, lying, change):
    matrix = LYING[lying]
    changed = {
        "mirrored": np.diag([-1, 1, 1, 1]) @ matrix,
        "shifted": matrix + np.outer([1, 0, 0, 0], [0, 0, 0, 0.8]),  # the smallest voxel is no longer than that
        "turned": matrix @ turned(5),
        "stretched": matrix @ np.diag([1, 1, 1.1, 1]),
    }[change]
    path = nifti_of_two_forms(tmp_path / f"T1{suffix}", matrix, changed, (1, 1), order)
    with pytest.raises(InputError, match=rf"T1{suffix} gives two different orientations .* Convert it again"):
        read_file(path)


def test_nifti_with_other_voxel_sizes_than_its_orientation_is_refused(tmp_path):
    matrix = LYING["oblique"]
    path = nifti_of_two_forms(tmp_path / "T1.nii", matrix, matrix, codes=(0, 1))
    image = nibabel.load(path)
    image.header.set_zooms((0.7, 1.3, 5.0))
    nibabel.save(nibabel.Nifti1Image(image.dataobj, None, image.header), tmp_path / "T2.nii")
    read_file(path)
    with pytest.raises(InputError, match="T2.nii gives two different orientations or voxel sizes"):
        read_file(tmp_path / "T2.nii")


# --- bad input -------------------------------------------------------------------------------------------------------

def refusal(folder: Path) -> str:
    """The reason given for the one bad series, with a good one beside it that must survive."""
    write_series(folder / "good", "t2_tse_tra", seed=50, EchoTime=100.0, RepetitionTime=4000.0, SeriesNumber=9)
    report = read_folder(folder)
    assert [v.name for v in report.volumes] == ["t2_tse_tra"]
    ((name, reason),) = {(n, r) for n, r in report.refused if n == "t1_tse_tra"}
    return reason


def test_missing_slices_are_counted(tmp_path):
    write_series(tmp_path / "bad", grid=tilted_grid((9, 8, 8)))
    for k in (3, 4, 6):
        slice_file(tmp_path / "bad", k).unlink()
    assert "3 of its 9 slices are missing" in refusal(tmp_path)


def test_truncated_slice_refuses_its_series_only(tmp_path):
    write_series(tmp_path / "bad")
    path = slice_file(tmp_path / "bad", 2)
    path.write_bytes(path.read_bytes()[:-300])
    assert path.name in refusal(tmp_path)


def test_slice_cut_inside_its_header_is_reported(tmp_path):
    write_series(tmp_path / "bad")
    path = slice_file(tmp_path / "bad", 2)
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"t1_tse_tra") + 30])
    assert "1 of its 6 slices is missing" in refusal(tmp_path)
    assert path.name in {name for name, _ in read_folder(tmp_path).refused}


def test_garbage_called_dcm_is_refused_by_name_and_the_others_go_on(tmp_path):
    write_series(tmp_path)
    (tmp_path / "broken.dcm").write_bytes(os.urandom(4000))
    (tmp_path / "preamble").write_bytes(b"\0" * 128 + b"DICM" + os.urandom(500))
    report = read_folder(tmp_path)
    assert len(report.volumes) == 1
    assert {name for name, _ in report.refused} == {"broken.dcm", "preamble"}
    assert any("could not be read" in w for w in report.warnings)


def test_same_slice_twice_is_dropped_with_a_warning(tmp_path):
    stored = write_series(tmp_path)
    shutil.copy(slice_file(tmp_path, 1), tmp_path / "copy")
    second = tmp_path / "other"
    shutil.copy(slice_file(tmp_path / "sub0", pydicom.dcmread(next((tmp_path / "sub0").iterdir())).InstanceNumber - 1),
                second)
    edit(second, SOPInstanceUID=generate_uid())
    report = read_folder(tmp_path)
    assert np.array_equal(report.volumes[0].array, stored)
    assert any("2 duplicate slices were left out" in w for w in report.warnings)


def test_different_pixels_at_one_place_are_refused(tmp_path):
    write_series(tmp_path / "bad")
    path = tmp_path / "bad" / "second"
    shutil.copy(slice_file(tmp_path / "bad", 1), path)
    edit(path, SOPInstanceUID=generate_uid(), PixelData=stored_pixels((20, 24), 9).tobytes())
    assert "same place" in refusal(tmp_path)


def test_two_time_points_split_and_three_are_dynamic(tmp_path):
    uid = generate_uid()
    for n in (1, 2):
        write_series(tmp_path / "a", seed=n, SeriesInstanceUID=uid, TemporalPositionIdentifier=n)
    assert len(read_folder(tmp_path / "a").volumes) == 2
    uid = generate_uid()
    for n in (1, 2, 3):
        write_series(tmp_path / "b", seed=n, SeriesInstanceUID=uid, TemporalPositionIdentifier=n)
    assert "dynamic" in refusal(tmp_path / "b")


def test_time_points_that_differ_by_a_rounding_are_at_the_same_places(tmp_path):
    uid, grid = generate_uid(), tilted_grid()
    matrix = grid.ijk_to_lps.copy()
    matrix[:3, 3] += 0.002 * grid.direction[:, 2]
    for n, one in enumerate((grid, Grid(grid.shape, matrix)), start=1):
        write_series(tmp_path, grid=one, seed=n, SeriesInstanceUID=uid, TemporalPositionIdentifier=n)
    assert [volume.array.shape for volume in read_folder(tmp_path).volumes] == [grid.shape] * 2


@pytest.mark.parametrize("change", [{"PatientID": "0815"}, {"PatientName": "Roe^Richard"}])
def test_two_patients_in_one_series_are_refused_without_naming_them(tmp_path, change):
    write_series(tmp_path)
    edit(slice_file(tmp_path, 3), **change)
    with pytest.raises(InputError, match="more than one patient") as caught:
        read_folder(tmp_path)
    for word in ("Doe", "Roe", "4711", "0815"):
        assert word not in str(caught.value)


def test_spelling_of_the_name_does_not_make_two_patients(tmp_path):
    write_series(tmp_path)
    edit(slice_file(tmp_path, 3), PatientName="DOE^JANE^^")
    assert len(read_folder(tmp_path).volumes) == 1


def test_two_examinations_of_different_days_are_refused(tmp_path):
    write_series(tmp_path / "a", seed=1)
    write_series(tmp_path / "b", seed=2, StudyInstanceUID=generate_uid(), StudyDate="20240601")
    with pytest.raises(InputError, match="examinations of different days"):
        read_folder(tmp_path)


def test_missing_pixel_spacing_is_refused(tmp_path):
    write_series(tmp_path / "bad")
    for k in range(6):
        edit(slice_file(tmp_path / "bad", k), PixelSpacing=None)
    assert "pixel spacing" in refusal(tmp_path)


def test_one_slice_without_position_is_refused_not_skipped(tmp_path):
    write_series(tmp_path / "bad")
    edit(slice_file(tmp_path / "bad", 5), ImagePositionPatient=None)
    assert "1 of its 6 slices" in refusal(tmp_path)


def test_slanted_stack_is_refused(tmp_path):
    write_series(tmp_path / "bad")
    for k in range(6):
        path = slice_file(tmp_path / "bad", k)
        position = np.array(pydicom.dcmread(path).ImagePositionPatient, float)
        edit(path, ImagePositionPatient=(position + [k * 1.0, 0, 0]).tolist())
    assert "slanted" in refusal(tmp_path) or "unevenly" in refusal(tmp_path)


def files_of(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize("seed", range(6))
def test_orientations_with_three_decimals_give_a_grid_that_can_be_written(tmp_path, seed):
    """A whole run would be lost otherwise: no image file holds axes that are not at right angles."""
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    turn[:, 2] *= np.linalg.det(turn)
    true = Grid.from_parts((24, 60, 50), (4.0, 3.6, 6.0), (-80.0, 70.0, 11.0), turn)
    write_series(tmp_path / "rounded", grid=true)
    for path in files_of(tmp_path / "rounded"):
        edit(path, ImageOrientationPatient=turn[:, :2].T.ravel().round(3).tolist())
    (volume,) = read_folder(tmp_path).volumes
    axes = volume.grid.direction
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-5)
    far = np.array([*(np.array(true.shape[::-1]) - 1), 1])
    assert np.abs((volume.grid.ijk_to_lps - true.ijk_to_lps) @ far).max() < 0.2


def test_axes_that_no_rounding_takes_from_right_angles_are_refused(tmp_path):
    write_series(tmp_path / "bad", grid=Grid.from_parts((6, 400, 400), (1, 1, 5), (0, 0, 0), np.eye(3)))
    for path in files_of(tmp_path / "bad"):
        edit(path, ImageOrientationPatient=[1, 0, 0, 0.004, 1, 0])
    assert "right angles" in refusal(tmp_path)


def test_headers_without_pixels_are_refused_but_can_be_listed(tmp_path):
    write_series(tmp_path / "bad")
    for k in range(6):
        edit(slice_file(tmp_path / "bad", k), PixelData=None)
    assert [e.identification.sequence for e in list_series(tmp_path)] == ["T1"]
    assert "no pixels" in refusal(tmp_path)


def test_missing_first_slice_is_warned_about(tmp_path):
    write_series(tmp_path)
    slice_file(tmp_path, 0).unlink()
    assert any("numbered 2 to 6" in w for w in read_folder(tmp_path).warnings)


def test_empty_folder_missing_folder_and_text_only(tmp_path):
    with pytest.raises(InputError, match="is empty"):
        read_folder(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        read_folder(tmp_path / "nowhere")
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(InputError, match="no images that can be read"):
        read_folder(tmp_path)


def test_only_a_ct_is_refused(tmp_path):
    write_series(tmp_path, "Neck 2.0", Modality="CT", SOPClassUID=CT)
    with pytest.raises(InputError, match="no MR images, only CT"):
        read_folder(tmp_path)


def test_only_distractors_lists_the_reasons(tmp_path):
    write_series(tmp_path, "survey")
    with pytest.raises(InputError, match="no usable MR series. survey: a scout"):
        read_folder(tmp_path)


def test_cancel_stops_reading(tmp_path):
    write_series(tmp_path)
    with pytest.raises(Cancelled):
        read_folder(tmp_path, cancel=lambda: True)


def nifti(path: Path, array: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.diag([1, 1, 3, 1.0])), path)
    return path


def test_bad_files_are_refused_by_name(tmp_path):
    rng = np.random.default_rng(0)
    cases = {
        "four.nii.gz": (nifti(tmp_path / "four.nii.gz", rng.random((8, 8, 4, 3), np.float32)), "four dimensions"),
        "flat.nii": (nifti(tmp_path / "flat.nii", rng.random((8, 8, 1), np.float32)), "single slice"),
    }
    colour = sitk.GetImageFromArray(rng.integers(0, 255, (4, 8, 8, 3)).astype(np.uint8), isVector=True)
    sitk.WriteImage(colour, str(tmp_path / "rgb.mha"))
    cases["rgb.mha"] = (tmp_path / "rgb.mha", "3 values a voxel")
    sitk.WriteImage(sitk.GetImageFromArray(rng.random((8, 8)).astype(np.float32)), str(tmp_path / "two.nrrd"))
    cases["two.nrrd"] = (tmp_path / "two.nrrd", "single slice")
    (tmp_path / "none.nii.gz").write_bytes(b"")
    cases["none.nii.gz"] = (tmp_path / "none.nii.gz", "is empty")
    (tmp_path / "junk.nii").write_bytes(os.urandom(3000))
    cases["junk.nii"] = (tmp_path / "junk.nii", "cannot be read")
    for whole, cut in (("w.nii", "cut.nii"), ("w.nii.gz", "cut.nii.gz"), ("w.nrrd", "cut.nrrd"), ("w.mha", "cut.mha")):
        sitk.WriteImage(sitk.GetImageFromArray(rng.random((8, 16, 16)).astype(np.float32)), str(tmp_path / whole))
        content = (tmp_path / whole).read_bytes()
        (tmp_path / cut).write_bytes(content[: len(content) * 2 // 3])
        cases[cut] = (tmp_path / cut, "cannot be read")
    (tmp_path / "x.png").write_bytes(b"\x89PNG")
    cases["x.png"] = (tmp_path / "x.png", "not an image that can be read")
    for name, (path, words) in cases.items():
        with pytest.raises(InputError) as caught:
            read_file(path)
        assert name in str(caught.value) and words in str(caught.value), (name, str(caught.value))


@pytest.mark.parametrize("value,words", [(np.nan, "1 voxels that are not numbers"), (np.inf, "not numbers")])
def test_nan_and_infinite_values_are_refused(value, words):
    array = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)
    array[1, 2, 3] = value
    with pytest.raises(InputError, match=words):
        check_usable(Volume(array, tilted_grid(array.shape), "T1.nii.gz"))


def float_nifti(path: Path, array: np.ndarray, order: str, slope=np.nan, after=b"") -> Path:
    """A NaN slope, which nibabel writes for floats, means: no scaling."""
    header = nibabel.Nifti1Header(endianness=order)
    header.set_data_shape(array.shape)
    header.set_data_dtype(array.dtype)
    header.set_sform(np.diag([0.9, 0.9, 3, 1]), 1)
    header.set_zooms((0.9, 0.9, 3))
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, slope, 0 if np.isfinite(slope) else np.nan
    header["magic"] = b"n+1"
    voxels = array.astype(array.dtype.newbyteorder(order)).tobytes(order="F")
    content = header.binaryblock + bytes(4) + voxels + after
    path.write_bytes(gzip.compress(content, 1) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("slope", [np.nan, 2.0])
def test_nan_and_infinite_values_of_a_nifti_file_are_refused(tmp_path, order, dtype, suffix, slope):
    """The NIfTI reader would put 0 in their place. The file is longer than the pieces that it is looked through in."""
    array = np.random.default_rng(0).random((97, 91, 33)).astype(dtype)
    whole = float_nifti(tmp_path / f"whole{suffix}", array, order, slope, after=b"\xff" * 40)
    expected = array.transpose(2, 1, 0) * np.nan_to_num(slope, nan=1)
    np.testing.assert_allclose(read_file(whole).array, expected, rtol=1e-6)
    array[3, 4, 5], array[-1, -1, -1] = np.nan, -np.inf
    with pytest.raises(InputError, match=rf"hole{suffix} holds 2 voxels that are not numbers .* Replace them"):
        read_file(float_nifti(tmp_path / f"hole{suffix}", array, order, slope))


def test_voxels_of_integers_are_never_taken_for_nan(tmp_path):
    image = sitk.GetImageFromArray(np.full((4, 5, 6), -1, np.int32))
    image[0, 0, 0] = 5
    sitk.WriteImage(image, str(tmp_path / "T1.nii"))
    assert read_file(tmp_path / "T1.nii").array.min() == -1


def test_constant_image_is_refused_and_8_bit_is_warned_about(tmp_path):
    with pytest.raises(InputError, match="every voxel has the value 3"):
        check_usable(Volume(np.full((4, 5, 6), 3.0, np.float32), tilted_grid((4, 5, 6)), "T1"))
    nifti(tmp_path / "T1.nii.gz", np.random.default_rng(0).integers(0, 255, (8, 8, 5)).astype(np.uint8))
    assert any("8 bits" in w for w in read_folder(tmp_path).warnings)


def test_trailing_dimension_of_one_is_no_fourth_dimension(tmp_path):
    array = np.random.default_rng(0).random((8, 7, 5, 1), np.float32)
    assert read_file(nifti(tmp_path / "T1.nii.gz", array)).array.shape == (5, 7, 8)
