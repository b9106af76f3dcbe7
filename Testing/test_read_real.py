"""Every real series of the public samples, compared slice by slice with readers that nobody here wrote."""

import numpy as np
import pytest
import SimpleITK as sitk
from truth_table import public_data

from NPCSynthLib.errors import InputError
from NPCSynthLib.study.headers import read_frames
from NPCSynthLib.study.pixels import SlicePixels
from NPCSynthLib.study.read import list_series, read_folder
from NPCSynthLib.study.stacks import arrange, grid_of

TOLERANCE_MM = 1e-4
#: This scanner rounds the position of each slice to 0.1 mm, which no regular grid follows.
ROUNDED_MM = {"ge_Signa_FSE_PD": 0.1}
CLASSIC = {  # folder: sequence, shape (k, j, i)
    "philips_Ingenia_MPRAGE": ("T1", (170, 256, 256)), "siemens_Prisma_t1fl2d_HFS": ("T1", (35, 256, 256)),
    "siemens_Prisma_t1fl2d_HFDR": ("T1", (35, 256, 256)), "ge_Signa_FSE_PD": ("PD", (20, 256, 256)),
}
ENHANCED = {"siemens_XA30_enhanced_T1": "T1", "siemens_XA30_enhanced_ADC": None, "siemens_XA30_enhanced_TRACEW": None}


def folder_of(name):
    folder = public_data("dicom")
    if folder is None:
        pytest.skip("the public DICOM samples are not on this machine (NPCSYNTH_DATA)")
    return folder / name


def corners(rows, columns):
    return [(0, 0), (columns - 1, 0), (0, rows - 1), (columns - 1, rows - 1)]


@pytest.mark.parametrize("name", CLASSIC)
def test_classic_series_agrees_with_gdcm_slice_by_slice(name):
    folder = folder_of(name)
    (volume,) = read_folder(folder).volumes
    sequence, shape = CLASSIC[name]
    assert volume.array.shape == shape
    assert [e.identification.sequence for e in list_series(folder)] == [sequence]
    reader = sitk.ImageFileReader()
    seen = set()
    step = -(-shape[0] // 8)
    for path in sorted(folder.iterdir())[::step]:
        reader.SetFileName(str(path))
        theirs = reader.Execute()
        k = volume.metadata["SOPInstanceUIDs"].index(reader.GetMetaData("0008|0018").strip("\0 "))
        seen.add(k)
        assert np.array_equal(volume.array[k], sitk.GetArrayFromImage(theirs)[0].astype(np.float32))
        for i, j in corners(*shape[1:]):
            ours = (volume.grid.ijk_to_lps @ [i, j, k, 1])[:3]
            off = np.abs(ours - theirs.TransformIndexToPhysicalPoint((i, j, 0))).max()
            assert off <= ROUNDED_MM.get(name, TOLERANCE_MM)
    assert len(seen) == -(-shape[0] // step)


# Without the GE series: its files are padded with zeros, which takes GDCM's series reader a minute.
@pytest.mark.parametrize("name", [n for n in CLASSIC if not n.startswith("ge")])
def test_classic_series_agrees_with_the_series_reader_of_simpleitk(name):
    folder = folder_of(name)
    (volume,) = read_folder(folder).volumes
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs = reader.Execute()
    array = sitk.GetArrayFromImage(theirs).astype(np.float32)
    # Both sort along the normal, but may begin at either end.
    flipped = np.dot(theirs.GetDirection()[2::3], volume.grid.direction[:, 2]) < 0
    assert np.array_equal(volume.array, array[::-1] if flipped else array)
    for i, j in corners(*array.shape[1:]):
        for k in (0, len(array) - 1):
            ours = (volume.grid.ijk_to_lps @ [i, j, len(array) - 1 - k if flipped else k, 1])[:3]
            assert np.abs(ours - theirs.TransformIndexToPhysicalPoint((i, j, k))).max() <= TOLERANCE_MM


@pytest.mark.parametrize("name", ENHANCED)
def test_enhanced_series_agrees_with_highdicom(name):
    highdicom = pytest.importorskip("highdicom")
    (path,) = folder_of(name).iterdir()
    theirs = highdicom.imread(path).get_volume(apply_modality_transform=True)
    frames = read_frames(path)
    ((_, ordered),) = arrange(frames, SlicePixels(), print)
    pixels, grid = SlicePixels(), grid_of(ordered)
    array = np.stack([pixels(frame) for frame in ordered])
    assert array.shape == theirs.spatial_shape
    flipped = np.dot(theirs.direction[:, 0], grid.direction[:, 2]) < 0
    their_array = theirs.array.astype(np.float32)
    assert np.array_equal(array, their_array[::-1] if flipped else their_array)
    count, rows, columns = array.shape
    for i, j in corners(rows, columns):
        for k in (0, count - 1):
            ours = (grid.ijk_to_lps @ [i, j, k, 1])[:3]
            other = theirs.affine @ [count - 1 - k if flipped else k, j, i, 1]
            assert np.abs(ours - other[:3]).max() <= TOLERANCE_MM


@pytest.mark.parametrize("name", ENHANCED)
def test_enhanced_series_is_used_or_refused_for_what_it_is(name):
    (entry,) = list_series(folder_of(name))
    assert entry.identification.sequence == ENHANCED[name]
    if ENHANCED[name] is None:
        with pytest.raises(InputError, match="diffusion"):
            read_folder(folder_of(name))
    else:
        assert len(read_folder(folder_of(name)).volumes) == 1
