"""Write the results of one patient into a folder, all or nothing."""

import gzip
import importlib.util
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..errors import OutputError
from ..inference.result import SynthesisResult
from ..study.study import Study
from ..study.volume import Grid, to_sitk
from .folder import MANIFEST, REPORT, contents, new_folder
from .provenance import provenance
from .segmentation import write_segmentation

#: NIfTI's description field (80 characters), so that the file itself says what it is.
DESCRIPTION = "SYNTHETIC, research use"
#: Names of the files of a sequence and of the contours. They say it too: other programs drop the description.
IMAGE_FILE, UNCERTAINTY_FILE = "{}_synthetic.nii.gz", "{}_synthetic_uncertainty.nii.gz"
SEGMENTATION_FILE = "segmentation_synthetic.seg.nrrd"
SCENE = "scene.mrb"
DICOM = "dicom"
NO_SCENE = (
    "scene.mrb was not written because slicer-core is not installed. "
    'Install NPCSynth with its "slicer" extra to get it.'
)


def write_result(
    result: SynthesisResult, study: Study, folder: str | Path, overwrite: bool = False,
    dicom_files: Iterable[Path] | None = None, enhanced: bool = False, deidentify: bool = False,
    report: bool = False, scene: bool = True,
) -> dict:  # fmt: skip
    """Write ``<TARGET>_synthetic.nii.gz``, ``<TARGET>_synthetic_uncertainty.nii.gz``,
    ``segmentation_synthetic.seg.nrrd`` (when there is one), ``scene.mrb`` (when slicer-core is installed) and
    ``result.json``.

    Images are int16 on ``result.grid``. The folder appears complete at the end, or not at all.

    Args:
        overwrite: replace earlier results; a folder with anything else in it is refused all the same.
        dicom_files: files among which the acquired DICOM images are; when given, DICOM objects are written into the
            folder ``dicom`` of the results, see ``dicom_export.export_dicom`` for ``enhanced`` and ``deidentify``.
        report: write ``report.html`` too, which names nobody.
        scene: write ``scene.mrb``; inside Slicer only on the main thread, since "the" scene is another one meanwhile.

    Returns:
        The content of ``result.json``, see ``provenance``, with "files" added.

    Raises:
        UsageError: the folder already holds something.
        InputError: DICOM was asked for and the reference was not read from it.
        OutputError: the folder cannot be written, or the disk is full.
    """
    with new_folder(folder, overwrite) as temporary:
        if dicom_files is not None:
            from .dicom_export import write_dicom  # not needed without, and slow to import

            (temporary / DICOM).mkdir()
            write_dicom(result, provenance(result, study), dicom_files, temporary / DICOM, enhanced, deidentify)
        return write_files(result, study, temporary, report, scene)


def write_files(
    result: SynthesisResult, study: Study, folder: Path, report: bool = False, scene: bool = True
) -> dict:  # fmt: skip
    """What ``write_result`` does, into an existing folder that the caller makes whole (see ``new_folder``)."""
    for synthetic in result.sequences:
        name = synthetic.sequence
        write_nifti(synthetic.array, result.grid, folder / IMAGE_FILE.format(name), name)
        write_nifti(synthetic.uncertainty, result.grid, folder / UNCERTAINTY_FILE.format(name), f"error of {name}")
    if result.segmentation is not None:
        write_segmentation(result.segmentation, result.grid, folder / SEGMENTATION_FILE)
    if scene and importlib.util.find_spec("slicer") is not None:
        from ..scene.save import write_scene

        write_scene(result, study, folder / SCENE)
    elif scene:
        result = replace(result, warnings=(*result.warnings, NO_SCENE))
    document = provenance(result, study)
    if report:
        from . import report as page  # matplotlib is slow to import

        (folder / REPORT).write_text(page.report(result, study, document), encoding="utf-8")
    document["files"] = sorted([MANIFEST, *contents(folder)])
    (folder / MANIFEST).write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    return document


def write_nifti(array: np.ndarray, grid: Grid, path: Path, what: str) -> None:
    """Write a (k, j, i) int16 array as compressed NIfTI and make sure that the whole of it reached the disk.

    Raises OutputError when it did not, or when NIfTI cannot hold the grid.
    """
    image = to_sitk(np.asarray(array, np.int16), grid)
    image.SetMetaData("ITK_FileNotes", f"{DESCRIPTION}: {what}")
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OutputError(f"{path.name} could not be written: the disk may be full or protected.") from error
    _check_geometry(path, grid)
    _check_complete(path, np.dtype(np.int16).itemsize * array.size)


def _check_geometry(path: Path, grid: Grid) -> None:
    """The NIfTI writer silently straightens a sheared grid (tilted gantry), which would displace the image."""
    header = sitk.ImageFileReader()
    header.SetFileName(str(path))
    header.ReadImageInformation()
    shape = reversed(header.GetSize())
    written = Grid.from_parts(shape, header.GetSpacing(), header.GetOrigin(), header.GetDirection())
    if not written.matches(grid, tolerance_mm=0.01):
        raise OutputError(f"{path.name} cannot hold the reference grid: its axes are not at right angles. "
                          "Choose another reference sequence.")


def _check_complete(path: Path, voxel_bytes: int) -> None:
    """The NIfTI writer keeps silent about a full disk, so the file is read through once."""
    found = 0
    try:
        with gzip.open(path) as stream:
            while block := stream.read(1 << 22):
                found += len(block)
    except (OSError, EOFError) as error:
        raise OutputError(f"{path.name} was not written in full: the disk may be full.") from error
    if found < voxel_bytes:
        raise OutputError(f"{path.name} was not written in full: the disk may be full.")
