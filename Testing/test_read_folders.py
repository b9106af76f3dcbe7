"""Folders as they come from scanners, archives and CDs: media, mixed series, phases, b-values, shared UIDs."""

import shutil

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import generate_uid
from test_read import ENHANCED_MR, base, edit, enhanced_file, slice_file, stored_pixels, tilted_grid, write_series

from NPCSynthLib.errors import InputError
from NPCSynthLib.study.pixels import SlicePixels
from NPCSynthLib.study.read import list_series, read_file, read_folder


def medium(tmp_path, **values):
    """A CD with its DICOMDIR, as pydicom writes it: DICOM/PT000000/…/IM000000."""
    stored = write_series(tmp_path / "source", **values)
    media = FileSet()
    for path in (tmp_path / "source").rglob("*"):
        if path.is_file():
            ds = pydicom.dcmread(path)
            ds.PatientID, ds.StudyTime, ds.StudyID, ds.SeriesNumber = "4711", "120000", "1", 4
            media.add(ds)
    media.write(tmp_path / "cd")
    return tmp_path / "cd", stored


def test_medium_is_read_by_its_folder_and_by_its_index(tmp_path):
    cd, stored = medium(tmp_path)
    for path in (cd, cd / "DICOMDIR"):
        report = read_folder(path)
        assert np.array_equal(report.volumes[0].array, stored) and not report.warnings
    assert list_series(cd / "DICOMDIR")[0].slices == 6


def test_index_of_a_medium_limits_what_is_read(tmp_path):
    cd, _ = medium(tmp_path)
    write_series(cd / "more", "t2_tse_tra", EchoTime=100.0, RepetitionTime=4000.0)
    assert len(read_folder(cd).volumes) == 2
    assert len(read_folder(cd / "DICOMDIR").volumes) == 1


def test_files_missing_from_a_medium_are_counted(tmp_path):
    cd, _ = medium(tmp_path)
    slice_file(cd / "PT000000", 5).unlink()
    for path in (cd, cd / "DICOMDIR"):
        assert any("lists 1 file more" in w for w in read_folder(path).warnings)


def test_index_that_points_outside_its_medium_is_not_followed(tmp_path):
    cd, _ = medium(tmp_path)
    index = pydicom.dcmread(cd / "DICOMDIR")
    images = [r for r in index.DirectoryRecordSequence if r.DirectoryRecordType == "IMAGE"]
    secret = tmp_path / "source" / "sub0"
    images[0].ReferencedFileID = ["..", "source", "sub0", next(secret.iterdir()).name]
    images[1].ReferencedFileID = str(next(secret.iterdir()))
    index.save_as(cd / "DICOMDIR")
    with pytest.raises(InputError, match="missing|slice"):
        read_folder(cd / "DICOMDIR")


def test_damaged_index_is_said_and_its_folder_still_read(tmp_path):
    cd, stored = medium(tmp_path)
    (cd / "DICOMDIR").write_bytes((cd / "DICOMDIR").read_bytes()[:300])
    with pytest.raises(InputError, match="Give the folder"):
        read_folder(cd / "DICOMDIR")
    assert np.array_equal(read_folder(cd).volumes[0].array, stored)


def test_magnitude_is_kept_and_phase_of_the_same_series_refused(tmp_path):
    uid = generate_uid()
    stored = write_series(tmp_path, seed=1, SeriesInstanceUID=uid)
    write_series(tmp_path, seed=2, SeriesInstanceUID=uid, ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    report = read_folder(tmp_path)
    assert [np.array_equal(v.array, stored) for v in report.volumes] == [True]
    assert any("phase" in reason for _, reason in report.refused)


def test_phase_images_that_ge_marks_privately_are_refused(tmp_path):
    write_series(tmp_path)
    for k in range(6):
        path = slice_file(tmp_path, k)
        ds = pydicom.dcmread(path)
        ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", 1)
        ds.save_as(path)
    with pytest.raises(InputError, match="phase"):
        read_folder(tmp_path)


def test_images_without_diffusion_weighting_are_refused_with_their_series(tmp_path):
    uid, timing = generate_uid(), {"EchoTime": 90.0, "RepetitionTime": 4000.0}
    for seed, b_value in ((1, 0.0), (2, 800.0)):
        write_series(tmp_path, "tra", seed=seed, SeriesInstanceUID=uid, DiffusionBValue=b_value, **timing)
    assert {e.identification.sequence for e in list_series(tmp_path)} == {None}
    with pytest.raises(InputError, match="b-value"):
        read_folder(tmp_path)


def test_two_series_that_share_a_uid_are_told_apart_by_their_description(tmp_path):
    uid = generate_uid()
    before = write_series(tmp_path, "t1_tse_tra", seed=1, SeriesInstanceUID=uid)
    after = write_series(tmp_path, "t1_tse_tra_KM", seed=2, SeriesInstanceUID=uid)
    volumes = {v.metadata["SeriesDescription"]: v.array for v in read_folder(tmp_path).volumes}
    assert np.array_equal(volumes["t1_tse_tra"], before) and np.array_equal(volumes["t1_tse_tra_KM"], after)


def test_two_planes_in_one_series_become_two_volumes(tmp_path):
    uid, grid = generate_uid(), tilted_grid()
    turned = grid.ijk_to_lps.copy()
    turned[:3, :3] = turned[:3, [0, 2, 1]] * [1, 1.3 / 4.5, -4.5 / 1.3]
    first = write_series(tmp_path, seed=1, SeriesInstanceUID=uid)
    second = write_series(tmp_path, seed=2, SeriesInstanceUID=uid, grid=type(grid)(grid.shape, turned))
    arrays = [v.array for v in read_folder(tmp_path).volumes]
    assert len(arrays) == 2
    for stored in (first, second):
        assert any(np.array_equal(stored, a) or np.array_equal(stored[::-1], a) for a in arrays)


def test_enhanced_files_of_one_series_are_joined(tmp_path):
    grid = tilted_grid((8, 20, 24))
    stored = stored_pixels(grid.shape)
    enhanced_file(tmp_path / "whole", grid, {90.0: stored}, description="t2_tse")
    whole = pydicom.dcmread(tmp_path / "whole")
    frames = list(zip(whole.PerFrameFunctionalGroupsSequence, whole.pixel_array, strict=True))
    for n in range(2):
        half = frames[n::2]
        whole.PerFrameFunctionalGroupsSequence = [group for group, _ in half]
        whole.NumberOfFrames, whole.SOPInstanceUID = len(half), generate_uid()
        whole.PixelData = np.stack([pixels for _, pixels in half]).tobytes()
        whole.file_meta.MediaStorageSOPInstanceUID = whole.SOPInstanceUID
        whole.save_as(tmp_path / f"half{n}")
    (tmp_path / "whole").unlink()
    (volume,) = read_folder(tmp_path).volumes
    assert np.array_equal(volume.array, stored) and volume.grid.matches(grid, 1e-4)


def test_several_frames_in_a_classic_file_are_refused(tmp_path):
    write_series(tmp_path)
    for k in range(6):
        path = slice_file(tmp_path, k)
        edit(path, NumberOfFrames=2, PixelData=pydicom.dcmread(path).PixelData * 2)
    with pytest.raises(InputError, match="several frames"):
        read_folder(tmp_path)


def test_old_file_without_preamble_is_read(tmp_path):
    stored = write_series(tmp_path)
    for path in [slice_file(tmp_path, k) for k in range(6)]:
        ds = pydicom.dcmread(path)
        bare = Dataset()
        bare.update(ds)
        pydicom.dcmwrite(path, bare, implicit_vr=True, little_endian=True)
    assert np.array_equal(read_folder(tmp_path).volumes[0].array, stored)


def test_deflated_file_is_read(tmp_path):
    stored = write_series(tmp_path)
    for k in range(6):
        path = slice_file(tmp_path, k)
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
        ds.save_as(path)
    assert np.array_equal(read_folder(tmp_path).volumes[0].array, stored)


def test_orientation_that_is_no_direction_is_refused(tmp_path):
    for n, cosines in enumerate(([2, 0, 0, 0, 2, 0], [1, 0, 0, 0.5, 0.866, 0], [0, 0, 0, 0, 0, 0])):
        write_series(tmp_path / str(n))
        for k in range(6):
            edit(slice_file(tmp_path / str(n), k), ImageOrientationPatient=cosines)
        with pytest.raises(InputError, match="orientation"):
            read_folder(tmp_path / str(n))


def test_pixels_are_not_read_for_what_the_header_rules_out(tmp_path, monkeypatch):
    write_series(tmp_path / "a", "t1_tse_tra", seed=1)
    write_series(tmp_path / "b", "localizer", seed=2)
    opened, load = [], SlicePixels._load
    monkeypatch.setattr(SlicePixels, "_load", lambda self, path: (opened.append(path), load(self, path)))
    assert len(read_folder(tmp_path).volumes) == 1
    assert opened and all("localizer" not in path.name for path in opened)
    opened.clear()
    list_series(tmp_path)
    assert not opened


def test_progress_of_many_files_is_reported_some_hundred_times(tmp_path):
    write_series(tmp_path)
    content = slice_file(tmp_path, 0).read_bytes()
    for n in range(300):
        (tmp_path / f"copy{n}").write_bytes(content)
    heard = []
    list_series(tmp_path, lambda fraction, text: heard.append(fraction))
    assert 100 < len(heard) < 260 and heard == sorted(heard)


def test_messages_hold_no_control_characters(tmp_path):
    write_series(tmp_path, "localizer\x1b[31m\r")
    (entry,) = list_series(tmp_path)
    assert entry.description.isprintable() and entry.description.startswith("localizer")


def test_single_enhanced_slice_is_refused(tmp_path):
    ds = base(generate_uid(), "t1", ENHANCED_MR)
    ds.Rows = ds.Columns = 8
    ds.PixelData = b"\0" * 128
    ds.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    shutil.copy(tmp_path / "x.dcm", tmp_path / "y.dcm")
    with pytest.raises(InputError):
        read_file(tmp_path / "x.dcm")
    with pytest.raises(InputError):
        read_folder(tmp_path)


@pytest.mark.parametrize("name", ["/etc/hostname", "../other/x.raw"])
def test_image_header_that_points_outside_its_folder_is_refused(tmp_path, name):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.raw").write_bytes(bytes(range(64)))
    folder = tmp_path / "patient"
    folder.mkdir()
    (folder / "T1.mhd").write_text(
        f"ObjectType = Image\nNDims = 3\nDimSize = 4 4 4\nElementType = MET_UCHAR\nElementDataFile = {name}\n")
    with pytest.raises(InputError, match="outside of its folder"):
        read_file(folder / "T1.mhd")


def test_series_without_rows_is_refused(tmp_path):
    write_series(tmp_path)
    for k in range(6):
        edit(slice_file(tmp_path, k), Columns=0)
    with pytest.raises(InputError, match="rows and columns"):
        read_folder(tmp_path)


def test_values_that_should_be_single_and_are_not_do_not_stop_the_reading(tmp_path):
    uid = generate_uid()
    for seed in (1, 2):
        write_series(tmp_path, seed=seed, SeriesInstanceUID=uid, EchoTime=[11.0, float(seed)])
    for k in range(2):
        edit(slice_file(tmp_path, k), StudyDate=["20240102", "20240102"])
    assert len(read_folder(tmp_path).volumes) == 2
