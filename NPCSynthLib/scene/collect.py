"""Results that lie in the scene, read back from their nodes: for export, after saving and loading too."""

import hashlib
import json
from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ..inference.result import Segment, SegmentationResult, SynthesisResult, SynthesizedSequence
from ..study.volume import Grid
from ..vocabulary import load_structures
from .matrices import ijk_to_ras, swap_ras_lps, to_vtk

#: Node attributes: the provenance of the whole run as JSON, what the node shows, and a digest of its voxels.
PROVENANCE, SEQUENCE, QUANTITY = "NPCSynth.Provenance", "NPCSynth.Sequence", "NPCSynth.Quantity"
DIGEST = "NPCSynth.ContentSHA256"
IMAGE, UNCERTAINTY, SEGMENTATION = "MR image", "Predicted mean absolute error", "Segmentation"


@dataclass(frozen=True)
class SceneResult:
    """One run's results as they lie in the scene.

    Attributes:
        result: what is there and unchanged, on the grid in the nodes' own frame (parent transforms are left out, so
            that a reference that was loaded from DICOM lies where its series does).
        document: the run's provenance, as ``output.provenance`` gives it, with that grid.
        changed: names of the nodes whose voxels are no longer those that NPCSynth made; they are not in ``result``.
    """

    result: SynthesisResult
    document: dict
    changed: tuple[str, ...]


def digest(*arrays: np.ndarray) -> str:
    """Hexadecimal SHA-256 of the arrays' voxels."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def result_nodes(scene) -> list:
    """Every node that a run has put into the scene, oldest first."""
    nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
    return [node for node in nodes if node.GetAttribute(PROVENANCE)]


def latest_nodes(scene) -> list:
    """The nodes of the run whose nodes were added last."""
    nodes = result_nodes(scene)
    return [node for node in nodes if node.GetAttribute(PROVENANCE) == nodes[-1].GetAttribute(PROVENANCE)]


def latest_result(scene) -> SceneResult | None:
    """The run whose nodes were added last; None when there is none, or none of its images is left."""
    nodes = latest_nodes(scene)
    images = {node.GetAttribute(SEQUENCE): node for node in nodes if node.GetAttribute(QUANTITY) == IMAGE}
    errors = {node.GetAttribute(SEQUENCE): node for node in nodes if node.GetAttribute(QUANTITY) == UNCERTAINTY}
    segmentations = [node for node in nodes if node.GetAttribute(QUANTITY) == SEGMENTATION]
    on_grid = next(iter([*images.values(), *errors.values()]), None)
    if on_grid is None:  # the segmentation alone no longer tells the grid
        return None
    document = json.loads(on_grid.GetAttribute(PROVENANCE))
    changed = []
    sequences = []
    for output in document["outputs"]:
        name = output["sequence"]
        if name not in images or name not in errors:
            continue
        arrays = [_unchanged_voxels(node, changed) for node in (images[name], errors[name])]
        if arrays[0] is not None and arrays[1] is not None:
            sequences.append(SynthesizedSequence(
                name, *arrays, output["prompt"], output["mean_uncertainty"], output["uncertainty_calibrated"]
            ))  # fmt: skip
    segmentation = _unchanged_segments(segmentations[0], on_grid, changed) if segmentations else None
    matrix = swap_ras_lps(ijk_to_ras(on_grid))
    grid = Grid(slicer.util.arrayFromVolume(on_grid).shape, matrix)
    document["reference_grid"] = {**document["reference_grid"], "ijk_to_lps": matrix.tolist()}
    sources = tuple(source["sequence"] for source in document["sources"])
    result = SynthesisResult(grid, tuple(sequences), segmentation, sources, document["weights"], document["device"])
    return SceneResult(result, document, tuple(changed))


def _unchanged_voxels(node, changed: list) -> np.ndarray | None:
    array = np.array(slicer.util.arrayFromVolume(node))
    if digest(array) == node.GetAttribute(DIGEST):
        return array
    changed.append(node.GetName())
    return None


def _unchanged_segments(node, on_grid, changed: list) -> SegmentationResult | None:
    shape = slicer.util.arrayFromVolume(on_grid).shape
    labelmap, external = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    present = [s for s in load_structures() if node.GetSegmentation().GetSegment(s.name) is not None]
    for structure in present:
        mask = _segment_mask(node, structure.name, shape, ijk_to_ras(on_grid))
        if structure.label == 0:
            external = mask
        else:
            labelmap[mask] = structure.label
    if digest(labelmap, external) != node.GetAttribute(DIGEST):
        changed.append(node.GetName())
        return None
    segments = tuple(Segment(s.name, s.label, s.color, s.code) for s in present)
    return SegmentationResult(labelmap, external, segments)


def _segment_mask(node, segment_id: str, shape, grid_to_ras: np.ndarray) -> np.ndarray:
    """(k, j, i) bool mask of a segment on a grid in the segmentation's own frame."""
    image, reference, resampled = (slicer.vtkOrientedImageData() for _ in range(3))
    node.GetBinaryLabelmapRepresentation(segment_id, image)
    if image.IsEmpty():
        return np.zeros(shape, bool)
    reference.SetDimensions(*reversed(shape))
    reference.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    reference.SetGeometryFromImageToWorldMatrix(to_vtk(grid_to_ras))
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, reference, resampled)
    return numpy_support.vtk_to_numpy(resampled.GetPointData().GetScalars()).reshape(shape) > 0
