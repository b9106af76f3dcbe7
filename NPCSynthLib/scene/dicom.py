"""Exported DICOM objects back into the scene, named, colored and marked as they were when they left it."""

import json
from collections.abc import Sequence
from pathlib import Path

import highdicom
import numpy as np
import slicer
from pydicom import dcmread
from pydicom.dataset import Dataset

from ..errors import InputError
from ..inference.result import Segment, SegmentationResult
from ..output.dicom_header import MARK, NAME, PRIVATE_CREATOR, PRIVATE_GROUP, PRIVATE_PROVENANCE
from ..study.headers import frames_of, source_instances
from ..study.stacks import arrange, grid_of
from ..study.volume import Grid
from ..vocabulary import load_structures, tg263_name
from .collect import IMAGE, QUANTITY, SEGMENTATION, SEQUENCE, UNCERTAINTY
from .matrices import swap_ras_lps
from .results import UNITS, add_image, add_segmentation
from .transaction import scene_transaction

_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
_MAP = "1.2.840.10008.5.1.4.1.1.30"


def load_exported(files: Sequence[str | Path], scene=None):
    """One exported series (synthetic MR, its uncertainty, or the segmentation) as a node.

    The name ends in "(synthetic)", structures have their names, colors and codes, and what the objects say of their
    origin stands in the node's attributes; an archive or a de-identifier may have taken that out, but never the mark.
    Such a node is no result of a run in this scene: it is in DICOM already. A segmentation has the geometry of the
    acquired image that it was made on, and lies under its transform, where that image is in the scene.

    Raises InputError, and leaves the scene as it was, when the files are damaged or not NPCSynth's.
    """
    scene = slicer.mrmlScene if scene is None else scene
    first = Path(files[0])
    try:
        datasets = [dcmread(path) for path in files]
        header = datasets[0]
        if header.SyntheticData != "YES" or header.Manufacturer != NAME:
            raise ValueError("of another maker")
        kind, about = str(header.SOPClassUID), _provenance(header)
        what = str(header.SeriesDescription).removeprefix(f"{MARK} ")
        if kind == _SEG:
            segmentation, grid = _segmentation(highdicom.seg.segread(first))
        elif len(datasets) > 1:
            array, grid = _slices(datasets, files)
        else:
            array, grid = _geometry(highdicom.imread(first).get_volume())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, InputError) as error:
        raise InputError(
            f"The series of {first.name} is damaged, incomplete or not from NPCSynth. Export it again."
        ) from error
    matrix = swap_ras_lps(grid.ijk_to_lps)
    with scene_transaction(scene):
        if kind == _SEG:
            drawn_on = _volume_of(scene, source_instances(header))
            node, quantity = add_segmentation(scene, segmentation, matrix, drawn_on), SEGMENTATION
        else:
            quantity = UNCERTAINTY if kind == _MAP else IMAGE
            node = add_image(scene, what, array.round().astype(np.int16), matrix, kind == _MAP)
        for key, value in (about | {"NPCSynth.Synthetic": "YES", QUANTITY: quantity}).items():
            node.SetAttribute(key, str(value))
    return node


def _volume_of(scene, uids: Sequence[str]):
    """The volume node that was loaded from these DICOM images, or None."""
    wanted = set(uids)
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene):
        if wanted & set((node.GetAttribute("DICOM.instanceUIDs") or "").split()):
            return node
    return None


def _segmentation(seg) -> tuple[SegmentationResult, Grid]:
    array, grid = _geometry(seg.get_volume())  # (slice, row, column, segment)
    known = {s.name: s for s in load_structures()}
    labelmap, external = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, bool)
    segments = []
    for place, number in enumerate(seg.segment_numbers):
        structure = known[tg263_name(seg.get_segment_description(number).segment_label)]
        segments.append(Segment(structure.name, structure.label, structure.color, structure.code))
        mask = array[..., place] > 0
        if structure.label == 0:
            external = mask
        else:
            labelmap[mask] = structure.label
    return SegmentationResult(labelmap, external, tuple(segments)), grid


def _slices(datasets: Sequence[Dataset], files: Sequence[str | Path]) -> tuple[np.ndarray, Grid]:
    """Voxels (k, j, i) and grid of classic images, read as their source is: positions may be rounded as there."""
    pixels = {str(dataset.SOPInstanceUID): dataset.pixel_array for dataset in datasets}
    frames = [frame for dataset, path in zip(datasets, files, strict=True) for frame in frames_of(dataset, Path(path))]
    [(_, ordered)] = arrange(frames, lambda frame: pixels[frame.uid], _nobody)
    return np.stack([pixels[frame.uid] for frame in ordered]), grid_of(ordered)


def _nobody(sentence: str) -> None:
    """Duplicates are no news here."""


def _geometry(volume) -> tuple[np.ndarray, Grid]:
    """Voxels (k, j, i, ...) and their grid of a highdicom volume, whose matrix takes (k, j, i) to LPS."""
    matrix = np.array(volume.affine, float)
    return volume.array, Grid(tuple(volume.array.shape[:3]), matrix[:, [2, 1, 0, 3]])


def _provenance(dataset: Dataset) -> dict[str, str]:
    """Node attributes from the JSON in the private element; none where that is gone."""
    try:
        about = json.loads(dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)[PRIVATE_PROVENANCE].value)
    except (KeyError, ValueError):
        return {}
    weights, output = about["weights"], about.get("output", {})
    attributes = {
        "NPCSynth.IntendedUse": " ".join(about.get("limits", ())),
        "NPCSynth.Sources": ", ".join(source["sequence"] for source in about["sources"]),
        "NPCSynth.ModelName": weights["name"],
        "NPCSynth.ModelVersion": weights["version"],
        "NPCSynth.WeightsSHA256": weights["sha256"],
        "NPCSynth.SoftwareVersion": about["software"]["version"],
    }
    if output:
        attributes |= {SEQUENCE: output["sequence"], "NPCSynth.Prompt": output["prompt"], "NPCSynth.Units": UNITS}
    return attributes
