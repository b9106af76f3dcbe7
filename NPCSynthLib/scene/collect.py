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

#: Node attributes: the run, its provenance as JSON and its grid in the nodes' own frame (IJK to RAS, as JSON); what the
#: node shows, and a digest of its voxels.
RUN, PROVENANCE, GRID = "NPCSynth.Run", "NPCSynth.Provenance", "NPCSynth.Grid"
SEQUENCE, QUANTITY, DIGEST = "NPCSynth.Sequence", "NPCSynth.Quantity", "NPCSynth.ContentSHA256"
#: Node reference: the acquired volumes that it was made from.
SOURCE_ROLE = "NPCSynth.Source"
_SAME_PLACE_MM = 0.01
IMAGE, UNCERTAINTY, SEGMENTATION = "MR image", "Predicted mean absolute error", "Segmentation"


@dataclass(frozen=True)
class SceneResult:
    """One run's results as they lie in the scene.

    Attributes:
        result: what is there and unchanged, on the grid in the nodes' own frame (parent transforms are left out, so
            that a reference that was loaded from DICOM lies where its series does).
        document: the run's provenance, as ``output.provenance`` gives it, with that grid.
        left_out: names of the nodes that are not in ``result``, because their voxels or their place are no longer what
            NPCSynth made.
    """

    result: SynthesisResult
    document: dict
    left_out: tuple[str, ...]


def digest(*arrays: np.ndarray) -> str:
    """Hexadecimal SHA-256 of the arrays' voxels."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def result_nodes(scene) -> list:
    """Every node that a run has put into the scene, copies of them included."""
    nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
    return [node for node in nodes if node.GetAttribute(RUN)]


def latest_nodes(scene) -> list:
    """The nodes of the latest run, copies of them included."""
    nodes = result_nodes(scene)
    if not nodes:
        return []
    # By the time of the run before the place in the scene: a copy of an older result comes later there.
    times = [json.loads(node.GetAttribute(PROVENANCE))["created"] for node in nodes]
    latest = nodes[max(range(len(nodes)), key=lambda n: (times[n], n))]
    return [node for node in nodes if node.GetAttribute(RUN) == latest.GetAttribute(RUN)]


def changed_nodes(nodes) -> list:
    """Those of the nodes whose voxels or place are no longer what NPCSynth made."""
    return [node for node in nodes if not _is_unchanged(node)]


def latest_result(scene) -> SceneResult | None:
    """What is left unchanged of the latest run; None when there is none in the scene."""
    nodes = latest_nodes(scene)
    if not nodes:
        return None
    document = json.loads(nodes[0].GetAttribute(PROVENANCE))
    shape, to_ras = _grid_of(nodes[0])
    kept: dict = {}
    for node in nodes:
        if _is_unchanged(node):  # of a result and its copy, the first
            kept.setdefault((node.GetAttribute(QUANTITY), node.GetAttribute(SEQUENCE)), node)
    left_out = [node.GetName() for node in nodes if node not in kept.values() and not _is_unchanged(node)]
    sequences = []
    for output in document["outputs"]:
        name = output["sequence"]
        image, error = kept.get((IMAGE, name)), kept.get((UNCERTAINTY, name))
        if image is not None and error is not None:
            arrays = [np.array(slicer.util.arrayFromVolume(node)) for node in (image, error)]
            sequences.append(SynthesizedSequence(
                name, *arrays, output["prompt"], output["mean_uncertainty"], output["uncertainty_calibrated"],
                tuple(output["interval_factors"].values()),
            ))  # fmt: skip
        elif image is not None:
            left_out.append(f"{image.GetName()} (its uncertainty is missing)")
    segmentation = kept.get((SEGMENTATION, None))
    matrix = swap_ras_lps(to_ras)
    document["reference_grid"] = {**document["reference_grid"], "ijk_to_lps": matrix.tolist()}
    result = SynthesisResult(
        Grid(shape, matrix), tuple(sequences), None if segmentation is None else _segments(segmentation),
        tuple(source["sequence"] for source in document["sources"]), document["weights"], document["device"],
    )  # fmt: skip
    return SceneResult(result, document, tuple(dict.fromkeys(left_out)))


def _grid_of(node) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape (k, j, i) and matrix to RAS, in the node's own frame, of the grid that the run's results were made on."""
    shape = json.loads(node.GetAttribute(PROVENANCE))["reference_grid"]["shape_kji"]
    return tuple(shape), np.array(json.loads(node.GetAttribute(GRID)))


def _is_unchanged(node) -> bool:
    if node.GetAttribute(QUANTITY) == SEGMENTATION:
        found = _segments(node)
        return digest(found.labelmap, found.external) == node.GetAttribute(DIGEST)
    shape, matrix = _grid_of(node)
    array = slicer.util.arrayFromVolume(node) if node.GetImageData() is not None else np.zeros(0)
    if array.shape != shape or np.abs((ijk_to_ras(node) - matrix) @ [*reversed(shape), 1]).max() > _SAME_PLACE_MM:
        return False
    return digest(array) == node.GetAttribute(DIGEST)


def _segments(node) -> SegmentationResult:
    shape, matrix = _grid_of(node)
    labelmap, external = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    present = [s for s in load_structures() if node.GetSegmentation().GetSegment(s.name) is not None]
    for structure in present:
        mask = segment_mask(node, structure.name, shape, matrix)
        if structure.label == 0:
            external = mask
        else:
            labelmap[mask] = structure.label
    segments = tuple(Segment(s.name, s.label, s.color, s.code) for s in present)
    return SegmentationResult(labelmap, external, segments)


def segment_mask(node, segment_id: str, shape, grid_to_ras: np.ndarray) -> np.ndarray:
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
