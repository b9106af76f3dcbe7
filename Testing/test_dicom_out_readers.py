"""Written DICOM objects before tools that others wrote: a validator, and readers of five families."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_cases import AGAINST, GRIDS, dicom_files, make_result, read_study, write_study

from NPCSynthLib.inference.result import NODES_LEFT_OUT
from NPCSynthLib.output.dicom_export import export_dicom
from NPCSynthLib.output.provenance import provenance
from NPCSynthLib.study.read import read_folder
from NPCSynthLib.study.study import Source, Study
from NPCSynthLib.study.volume import Grid, Volume, from_sitk

#: dciodvfy's messages that are no faults of the objects -> why. Its edition is of 2022.
EXPLAINED = {
    # Synthetic Data (0008,001C) entered the standard in 2023: to an older dictionary it is unknown.
    r"Error - </\(0008,001c\)> - Attribute with an even group number is not a recognized standard attribute": "newer",
    r"Warning - </\(0008,001c\)> - Unrecognized tag - assuming explicit value representation OK \[CS\]": "newer",
    r"Warning - </\(0008,001c\)> - Attribute is not present in standard DICOM IOD": "newer",
    r"Warning - </(SharedFunctional.*)?(ImageType|.*FrameType).*Unrecognized defined term = <QUANTITY>":
        "a term of the parametric map's fourth value that this edition does not list; highdicom writes it by default",
    # Private elements and codes are meant to be unknown to others.
    r'Warning - </\(0099,1001,"NPCSynth"\)> - Unrecognized tag - assuming explicit value representation OK \[UT\]':
        "provenance for programs",
    r"Warning - .*CodingSchemeDesignator.* - Unrecognized defined term = <99NPCSYNTH>":
        "the standard has no code for synthesis, nor for the predicted error",
    r"Warning - </DerivationDescription\(0008,2111\)> - Attribute is not present in standard DICOM IOD":
        "an enhanced image tells it frame by frame; we say it where viewers show it, too",
}
#: Of de-identified objects alone.
EXPLAINED_DEIDENTIFIED = {
    r"Warning - </Study(ID|Date|Time)\(.*Missing attribute or value that would be needed to build DICOMDIR":
        "the basic profile takes it out",
}


@pytest.fixture(scope="module", params=list(GRIDS))
def case(request, tmp_path_factory):
    """(study, result, folder of exports: classic, enhanced and their de-identified ones) on each grid."""
    folder = tmp_path_factory.mktemp(request.param)
    source = write_study(folder / "study", request.param)
    study = read_study(source, request.param == AGAINST)
    result = replace(make_result(study), warnings=(f"{NODES_LEFT_OUT}: 1, of 0.5 ml in all. Look for nodes yourself.",))
    for name, options in (("classic", {}), ("enhanced", {"enhanced": True}), ("anonymous", {"deidentify": True}),
                          ("enhanced_anonymous", {"enhanced": True, "deidentify": True})):
        export_dicom(result, provenance(result, study), dicom_files(source), folder / name, **options)
    return study, result, folder


def on_grid(volume: Volume, study, tolerance_mm: float = 1e-4) -> np.ndarray:
    """The voxels of a volume on the study's grid; fails when they do not lie on it, whichever order the slices are in.
    Slices that are not there are 0."""
    grid, target = volume.grid, study.grid
    placed = np.zeros((target.shape[0], *volume.array.shape[1:]), volume.array.dtype)
    assert grid.shape[1:] == target.shape[1:]
    for k, plane in enumerate(volume.array):
        corner = grid.ijk_to_lps @ [0, 0, k, 1]
        index = round(float((np.linalg.inv(target.ijk_to_lps) @ corner)[2]))
        np.testing.assert_allclose(corner, target.ijk_to_lps @ [0, 0, index, 1], rtol=0, atol=tolerance_mm)
        placed[index] = plane
    np.testing.assert_allclose(grid.ijk_to_lps[:3, :2], target.ijk_to_lps[:3, :2], rtol=0, atol=1e-6)
    return placed


def volume_of(image) -> Volume:
    """A highdicom volume as one of ours; its axes are k, j, i, too."""
    matrix = image.affine[:, [2, 1, 0, 3]]
    return Volume(image.array, Grid(image.array.shape[:3], matrix))


# --- dciodvfy --------------------------------------------------------------------------------------------------------

def messages(path: Path) -> list[str]:
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith(("Error", "Warning"))]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
def test_dciodvfy_finds_nothing_but_what_is_explained(case):
    _, _, folder = case
    met = Counter()
    for name in ("classic", "enhanced", "anonymous", "enhanced_anonymous"):
        explained = EXPLAINED | (EXPLAINED_DEIDENTIFIED if "anonymous" in name else {})
        files = dicom_files(folder / name)
        assert len(files) >= 4
        for path in files:
            for message in messages(path):
                reason = [pattern for pattern in explained if re.match(pattern, message)]
                assert reason, f"{path.relative_to(folder)}: {message}"
                met[reason[0]] += 1
    assert set(met) == set(EXPLAINED | EXPLAINED_DEIDENTIFIED), "an explanation that explains nothing any more"


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
def test_dciodvfy_would_find_a_fault(case, tmp_path):
    """The test above can fail: the same object without its frame of reference has an error that is not explained."""
    _, _, folder = case
    dataset = pydicom.dcmread(folder / "classic" / "T1C" / "IM0001.dcm")
    del dataset.FrameOfReferenceUID
    dataset.save_as(tmp_path / "faulty.dcm")
    found = [m for m in messages(tmp_path / "faulty.dcm") if not any(re.match(p, m) for p in EXPLAINED)]
    assert any(m.startswith("Error") and "FrameOfReferenceUID" in m for m in found)


# --- SimpleITK (GDCM) ------------------------------------------------------------------------------------------------

def test_simpleitk_reads_the_classic_series_at_the_sources_place(case):
    study, result, folder = case
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder / "classic" / "T1C"))
    image = sitk.ReadImage(names)
    np.testing.assert_array_equal(on_grid(from_sitk(image), study), result.sequences[0].array)


def test_simpleitk_reads_the_enhanced_image_at_the_sources_place(case):
    study, result, folder = case
    image = sitk.ReadImage(str(folder / "enhanced" / "T1C.dcm"))
    np.testing.assert_array_equal(on_grid(from_sitk(image), study), result.sequences[0].array)


REAL = Path(os.environ.get("NPCSYNTH_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "dicom"


@pytest.mark.parametrize("name, enhanced", [
    ("siemens_XA30_enhanced_T1", False), ("siemens_XA30_enhanced_T1", True),
    ("siemens_Prisma_t1fl2d_HFDR", False), ("siemens_Prisma_t1fl2d_HFDR", True),
    # GE rounds positions to 0.1 mm, and of a multi-frame file GDCM reads the first two alone and goes on from there.
    ("ge_Signa_FSE_PD", False), ("ge_Signa_FSE_PD", True),
])
def test_results_on_real_series_lie_where_simpleitk_finds_the_series(name, enhanced, tmp_path):
    source = REAL / name
    if not source.is_dir():
        pytest.skip("the real series are not beside the checkout")
    volume = read_folder(source).volumes[0]
    body = np.zeros(volume.array.shape, bool)
    body[:, 60:80, 50:90] = True
    acquired = Source("T1", volume, volume.array, np.ones_like(body), {}, (0.0, 1.0))
    study = Study(volume.grid, "T1", (acquired,), body)
    result = replace(make_result(study), sources=("T1",), segmentation=None)
    export_dicom(result, provenance(result, study), dicom_files(source), tmp_path / "out", enhanced=enhanced)
    uncertainty = highdicom.imread(tmp_path / "out" / "T1C_uncertainty.dcm").get_volume()
    np.testing.assert_array_equal(on_grid(volume_of(uncertainty), study, 0.1), result.sequences[0].uncertainty)
    names = str(tmp_path / "out" / "T1C.dcm") if enhanced else \
        sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "out" / "T1C"))
    np.testing.assert_array_equal(on_grid(from_sitk(sitk.ReadImage(names)), study, 1e-3), result.sequences[0].array)


# --- highdicom -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_highdicom_reads_segments_and_uncertainty_at_the_sources_place(case, kind):
    study, result, folder = case
    segmentation = highdicom.seg.segread(folder / kind / "segmentation.dcm")
    voxels = on_grid(volume_of(segmentation.get_volume(rescale_fractional=False)), study)
    for n, segment in enumerate(result.segmentation.segments):
        assert segmentation.get_segment_description(n + 1).segment_label == f"{segment.name}^SYN"
        np.testing.assert_array_equal(voxels[..., n] > 0, result.segmentation.mask(segment), err_msg=segment.name)
    uncertainty = highdicom.imread(folder / kind / "T1C_uncertainty.dcm").get_volume()
    np.testing.assert_array_equal(on_grid(volume_of(uncertainty), study), result.sequences[0].uncertainty)


def test_highdicom_reads_the_synthetic_series_at_the_sources_place(case):
    study, result, folder = case
    slices = [pydicom.dcmread(path) for path in dicom_files(folder / "classic" / "T1C")]
    volume = highdicom.get_volume_from_series(slices)
    np.testing.assert_array_equal(on_grid(volume_of(volume), study), result.sequences[0].array)
    volume = highdicom.imread(folder / "enhanced" / "T1C.dcm").get_volume()
    np.testing.assert_array_equal(on_grid(volume_of(volume), study), result.sequences[0].array)


# --- dcmqi, which 3D Slicer reads such objects with ------------------------------------------------------------------

def dcmqi(tool: str, *arguments) -> None:
    found = pytest.importorskip("dcmqi", reason="dcmqi (from PyPI) is not installed")
    program = Path(found.__file__).parent / "bin" / tool
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_dcmqi_reads_every_segment_at_the_sources_place(case, kind, tmp_path):
    study, result, folder = case
    dcmqi("segimage2itkimage", "--inputDICOM", folder / kind / "segmentation.dcm", "--outputDirectory", tmp_path,
          "-t", "nrrd")
    described = json.loads((tmp_path / "meta.json").read_text())["segmentAttributes"]
    labels = {a["labelID"]: a["SegmentLabel"] for segments in described for a in segments}
    assert [labels[n] for n in sorted(labels)] == [f"{s.name}^SYN" for s in result.segmentation.segments]
    for n, segment in enumerate(result.segmentation.segments, 1):
        found = on_grid(from_sitk(sitk.ReadImage(str(tmp_path / f"{n}.nrrd"))), study)
        np.testing.assert_array_equal(found > 0, result.segmentation.mask(segment), err_msg=segment.name)


@pytest.mark.parametrize("kind", ["classic", "enhanced"])
def test_dcmqi_reads_the_uncertainty_at_the_sources_place(case, kind, tmp_path):
    study, result, folder = case
    dcmqi("paramap2itkimage", "--inputDICOM", folder / kind / "T1C_uncertainty.dcm", "--outputDirectory", tmp_path)
    image = sitk.ReadImage(str(next(tmp_path.glob("*.nrrd"))))
    np.testing.assert_array_equal(on_grid(from_sitk(image), study), result.sequences[0].uncertainty)


# --- DCMTK -----------------------------------------------------------------------------------------------------------

@pytest.mark.skipif(shutil.which("dcmdump") is None, reason="dcmdump (Debian package dcmtk) is not installed")
def test_dcmtk_reads_every_object_and_the_same_pixels(case, tmp_path):
    _, result, folder = case
    for path in (*dicom_files(folder / "classic"), *dicom_files(folder / "enhanced")):
        done = subprocess.run(["dcmdump", "-q", "+W", str(tmp_path), str(path)], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stderr
    array = np.fromfile(tmp_path / "T1C.dcm.0.raw", "<u2").reshape(result.grid.shape)
    np.testing.assert_array_equal(array, result.sequences[0].array)


# --- 3D Slicer's reader classes --------------------------------------------------------------------------------------

IN_SLICER = """
import json, sys
import numpy as np, slicer, vtk
scene = slicer.mrmlScene = slicer.vtkMRMLScene()
def load(files):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    storage = scene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
    storage.SetFileName(files[0])
    for file in files:
        storage.AddFileName(file)
    storage.SetSingleFile(len(files) == 1)
    assert storage.ReadData(node) == 1, files[0]
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    rows = [[matrix.GetElement(i, j) for j in range(4)] for i in range(4)]
    return rows, slicer.util.arrayFromVolume(node)
for n, files in enumerate(json.loads(sys.argv[1])):
    rows, array = load(files)
    np.savez(f"{sys.argv[2]}/{n}.npz", matrix=np.array(rows), array=array)
"""


def test_slicers_own_reader_loads_the_series_at_the_sources_place(case, tmp_path):
    """In a process of its own: importing slicer changes the interpreter for good."""
    pytest.importorskip("slicer", reason="slicer-core is not installed")
    study, result, folder = case
    series = [[str(path) for path in dicom_files(folder / "classic" / "T1C")]]
    done = subprocess.run([sys.executable, "-c", IN_SLICER, json.dumps(series), str(tmp_path)], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    loaded = np.load(tmp_path / "0.npz")
    grid = Grid(loaded["array"].shape, np.diag([-1, -1, 1, 1]) @ loaded["matrix"])
    np.testing.assert_array_equal(on_grid(Volume(loaded["array"], grid), study), result.sequences[0].array)
