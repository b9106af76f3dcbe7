"""Contours from files without DICOM headers: Slicer's ``.seg.nrrd`` and label images."""

from pathlib import Path

import numpy as np

from ..errors import InputError
from .align import apart
from .contours_raster import cut_off, resample_mask
from .contours_structures import ReferenceStructure, check_frame, made_by_program
from .image_files import named_synthetic
from .read import read_file
from .volume import SAME_GRID_MM, Grid, Volume

#: Voxels that lie this near to each other, in voxels, are the same.
_SAME_VOXEL = 0.1
_MOST_LABELS = 255
#: Tag of a segment that ``output.segmentation`` or Slicer with NPCSynth wrote.
_SYNTHETIC = "NPCSynth.Synthetic"


def read_segmentation_file(path: Path, image: Volume) -> tuple[list, None, list, list]:
    """Segments of a ``.seg.nrrd``; see ``contours.read_contours``.

    Returns (structures, None, no series, notes): the file names no frame of reference. Raises InputError when it is
    damaged or does not overlap the image.
    """
    import slicerio

    try:
        content = slicerio.read_segmentation(str(path))
        voxels, matrix = np.asarray(content["voxels"]), np.asarray(content["ijkToLPS"], float)
        segments = [(str(s.get("name") or s.get("id")), int(s["labelValue"]), int(s.get("layer", 0)))
                    for s in content["segments"]]
        layers = voxels if voxels.ndim == 4 else voxels[np.newaxis]
        masks = [(name, layers[layer].T == value) for name, value, layer in segments]
        synthetic = [bool(segment.get("tags", {}).get(_SYNTHETIC)) for segment in content["segments"]]
    except Exception as error:  # of many types: pynrrd and slicerio do not agree on one
        raise InputError(f"{path.name} cannot be read as a segmentation: it is damaged or not what its name says. Save "
                         "it again from 3D Slicer.") from error
    notes, structures = check_frame(path, set(), (), image), []
    for name, mask in masks:
        placed, told = onto_image(mask, Grid(mask.shape, matrix), name, path, image)
        structures.append(ReferenceStructure.of(name, placed))
        notes += told
    if any(synthetic) or named_synthetic(path.name):
        names = tuple(name for (name, _), mark in zip(masks, synthetic) if mark)
        notes.append(made_by_program(path, () if all(synthetic) else names))
    return structures, None, [], notes


def read_label_image(path: Path, image: Volume) -> tuple[list, None, list, list]:
    """Labels of an image file; returns and raises as ``read_segmentation_file``.

    Raises InputError also for values that are not labels (fractions, negative ones, more than 255 different ones).
    """
    volume = read_file(path, labels=True)
    values = np.unique(volume.array)
    if not (values == np.round(values)).all() or values[0] < 0 or len(values) > _MOST_LABELS:
        raise InputError(f"{path.name} holds no labels but gray values. Give a segmentation.")
    labels = [int(value) for value in values if value]
    stem = path.name[: -len(next(s for s in (".nii.gz", path.suffix) if path.name.lower().endswith(s.lower())))]
    notes, structures = check_frame(path, set(), (), image), []
    for label in labels:
        name = stem if len(labels) == 1 else f"Label {label}"
        mask, told = onto_image(volume.array == label, volume.grid, name, path, image)
        structures.append(ReferenceStructure.of(name, mask))
        notes += told
    if named_synthetic(path.name):
        notes.append(made_by_program(path))
    return structures, None, [], notes


def onto_image(mask: np.ndarray, grid: Grid, name: str, path: Path, image: Volume) -> tuple[np.ndarray, list[str]]:
    """A (k, j, i) bool mask on the image's grid: itself where the grids agree, else the nearest voxel, which is noted.

    So is what of the structure (its ``name``) lies outside the image.

    What the file leaves out of the image is empty. Raises InputError when the grids do not overlap.
    """
    if grid.matches(image.grid, SAME_GRID_MM):
        return np.asarray(mask, bool), []
    if apart(image.grid, grid):
        raise InputError(f"{path.name} does not overlap {image.name or 'the image'} in space. Give the segmentation of "
                         "this image.")
    # Voxels in another order, or fewer of them, are the same voxels.
    offset = np.linalg.solve(image.grid.ijk_to_lps, grid.ijk_to_lps)
    corners = np.array([[*(np.array(grid.shape[::-1]) * corner), 1] for corner in np.ndindex(2, 2, 2)])
    same_voxels = (
        np.abs((offset - np.round(offset)) @ corners.T).max() < _SAME_VOXEL
        and abs(abs(np.linalg.det(np.round(offset))) - 1) < 1e-6
    )
    note = f"{path.name} lies on another grid than {image.name or 'the image'}; its voxels were resampled (nearest)."
    notes = [] if same_voxels else [note]
    notes += [f"{name} {phrase}." for phrase in cut_off(mask, offset, image.grid)]
    return resample_mask(mask, grid, image.grid), notes
