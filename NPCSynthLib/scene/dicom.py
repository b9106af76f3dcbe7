"""Exported DICOM objects back into the scene, as marked and as complete as they were when they left it."""

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
from ..output.dicom_header import NAME, PRIVATE_CREATOR, PRIVATE_GROUP, PRIVATE_PROVENANCE
from ..study.volume import Grid
from ..vocabulary import load_structures
from .collect import IMAGE, QUANTITY, SEGMENTATION, SEQUENCE, UNCERTAINTY
from .matrices import swap_ras_lps
from .results import UNITS, add_image, add_segmentation
from .transaction import scene_transaction

#: SOP classes that are loaded here; contours (RTSTRUCT) are left to SlicerRT, which many planning tools build on.
_MR = {"1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"}
_SEG = "1.2.840.10008.5.1.4.1.1.66.4"
_MAP = "1.2.840.10008.5.1.4.1.1.30"
LOADABLE_CLASSES = _MR | {_SEG, _MAP}
LOADABLE_MAKER = NAME


def load_exported(files: Sequence[str | Path], scene=None):
    """One exported series (synthetic MR, its uncertainty, or the segmentation) as a node.

    The name ends in "(synthetic)", the provenance stands in the node's attributes, structures have their names,
    colors and codes. Raises InputError, and leaves the scene as it was, when the files are damaged or not NPCSynth's.
    """
    scene = slicer.mrmlScene if scene is None else scene
    first = Path(files[0])
    try:
        datasets = [dcmread(path) for path in files]
        about = _provenance(datasets[0])
        sop_class = str(datasets[0].SOPClassUID)
        if sop_class == _SEG:
            return _load_segmentation(first, about, scene)
        if len(datasets) > 1:
            volume = highdicom.get_volume_from_series(datasets)
        else:
            volume = highdicom.imread(first).get_volume()
        uncertainty = sop_class == _MAP
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
        raise InputError(
            f"The series of {first.name} is damaged, incomplete or not from NPCSynth. Export it again."
        ) from error
    array, grid = _geometry(volume)
    sequence = about["output"]["sequence"]
    what = f"{sequence} uncertainty" if uncertainty else sequence
    with scene_transaction(scene):
        node = add_image(scene, what, array.round().astype(np.int16), swap_ras_lps(grid.ijk_to_lps), uncertainty)
        _describe(node, about, UNCERTAINTY if uncertainty else IMAGE)
    return node


def _load_segmentation(path: Path, about: dict, scene):
    seg = highdicom.seg.segread(path)
    volume = seg.get_volume()  # (slice, row, column, segment)
    array, grid = _geometry(volume)
    known = {s.name: s for s in load_structures()}
    labelmap, external = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, bool)
    segments = []
    for number in seg.segment_numbers:
        structure = known[seg.get_segment_description(number).segment_label]
        mask = array[..., list(seg.segment_numbers).index(number)] > 0
        segments.append(Segment(structure.name, structure.label, structure.color, structure.code))
        if structure.label == 0:
            external = mask
        else:
            labelmap[mask] = structure.label
    result = SegmentationResult(labelmap, external, tuple(segments))
    with scene_transaction(scene):
        node = add_segmentation(scene, result, swap_ras_lps(grid.ijk_to_lps), None)
        _describe(node, about, SEGMENTATION)
    return node


def _geometry(volume) -> tuple[np.ndarray, Grid]:
    """Voxels (k, j, i, ...) and their grid of a highdicom volume, whose matrix takes (k, j, i) to LPS."""
    matrix = np.array(volume.affine, float)
    return volume.array, Grid(tuple(volume.array.shape[:3]), matrix[:, [2, 1, 0, 3]])


def _provenance(dataset: Dataset) -> dict:
    """The JSON in the private element. Raises KeyError or ValueError when it is not ours."""
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR)
    return json.loads(block[PRIVATE_PROVENANCE].value)


def _describe(node, about: dict, quantity: str) -> None:
    weights, output = about["weights"], about.get("output", {})
    attributes = {
        "NPCSynth.Synthetic": "YES",
        "NPCSynth.IntendedUse": " ".join(about.get("limits", ())),
        "NPCSynth.Sources": ", ".join(source["sequence"] for source in about["sources"]),
        "NPCSynth.ModelName": weights["name"],
        "NPCSynth.ModelVersion": weights["version"],
        "NPCSynth.WeightsSHA256": weights["sha256"],
        "NPCSynth.SoftwareVersion": about["software"]["version"],
        QUANTITY: quantity,
    }
    if output:
        attributes |= {SEQUENCE: output["sequence"], "NPCSynth.Prompt": output["prompt"], "NPCSynth.Units": UNITS}
    for key, value in attributes.items():
        node.SetAttribute(key, str(value))
