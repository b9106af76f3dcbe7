"""A synthesis result to nodes of the MRML scene, beside the images that it was made from."""

import json
import uuid
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from .. import __version__
from ..errors import InputError
from ..inference.result import INTENSITY_HIGH, INTENSITY_LOW, SegmentationResult, SynthesisResult
from ..output.provenance import provenance
from ..study.study import Study
from ..study.volume import Grid
from ..vocabulary import PREDICTED
from .collect import (
    DIGEST,
    GRID,
    IMAGE,
    PROVENANCE,
    QUANTITY,
    RUN,
    SEGMENTATION,
    SEQUENCE,
    SOURCE_ROLE,
    UNCERTAINTY,
    digest,
)  # fmt: skip
from .matrices import ijk_to_ras, swap_ras_lps, to_vtk
from .terminology import terminology_entry
from .transaction import scene_transaction
from .volumes import STUDY_TO_NODE

UNITS = f"{INTENSITY_LOW} and {INTENSITY_HIGH} are the 0.5 and 99.5 percentiles of the body"
#: Upper end of the uncertainty's color scale, the same for every patient so that pictures compare.
UNCERTAINTY_DISPLAY_MAX = 300
_UNCERTAINTY_COLORS = "vtkMRMLColorTableNodeIron"
#: A reference that moved by less than this during a run is where it was.
_SAME_PLACE_MM = 0.01
#: Tag of segments that a program made.
SYNTHETIC_TAG = "NPCSynth.Synthetic"


class SceneNodes(NamedTuple):
    """What one result became in the scene.

    Attributes:
        volumes: sequence id -> vtkMRMLScalarVolumeNode of the synthetic image.
        uncertainties: sequence id -> vtkMRMLScalarVolumeNode of its predicted error.
        segmentation: vtkMRMLSegmentationNode, or None when no segmentation was asked for.
    """

    volumes: dict
    uncertainties: dict
    segmentation: object


def add_result(result: SynthesisResult, study: Study, source_nodes: Mapping, scene=None) -> SceneNodes:
    """Put a result into the scene, all of it or nothing.

    Volumes are int16 in fixed units on the reference's grid, under the reference's parent transform, beside it
    in the subject hierarchy, with their provenance as node attributes. Names end in "(synthetic)".

    Args:
        source_nodes: sequence id -> the volume node that it came from; must hold ``study.reference``.
        scene: a vtkMRMLScene, by default ``slicer.mrmlScene``.

    Raises InputError when the reference volume has been removed from the scene meanwhile, or has another grid in its
    own frame (that under a moved parent transform is the same). Whenever anything
    is raised the scene holds exactly the nodes that it held before.
    """
    scene = slicer.mrmlScene if scene is None else scene
    reference = source_nodes.get(study.reference)
    if reference is None or not _is_in(scene, reference):
        raise InputError(
            f"The {study.reference} volume that gives the grid was removed from the scene, so the result has no "
            "place. Load it again and run once more."
        )
    original = study.source(study.reference).original
    # A study read from files has no nodes behind it: its frame is the scene's.
    study_to_node = original.metadata.get(STUDY_TO_NODE, np.eye(4))
    if STUDY_TO_NODE in original.metadata and not _lies(reference, original.grid, study_to_node):
        raise InputError(
            f"The {study.reference} volume that gives the grid was moved, resampled or cropped during the run, so the "
            "result has no place. Run once more."
        )
    ijk_to_node = study_to_node @ swap_ras_lps(result.grid.ijk_to_lps)
    about = {
        **_provenance(result), RUN: uuid.uuid4().hex, PROVENANCE: json.dumps(provenance(result, study)),
        GRID: json.dumps(ijk_to_node.tolist()),
    }  # fmt: skip
    # One that was deleted meanwhile: its ID may be given to another node.
    sources = [node for node in map(source_nodes.get, result.sources) if node is not None and _is_in(scene, node)]
    volumes, uncertainties, segmentation = {}, {}, None
    with scene_transaction(scene):
        for output in result.sequences:
            details = {
                **about, SEQUENCE: output.sequence, "NPCSynth.Prompt": output.prompt, "NPCSynth.Units": UNITS,
            }  # fmt: skip
            node = add_image(scene, output.sequence, output.array, ijk_to_node)
            _finish(scene, node, reference, sources, {**details, QUANTITY: IMAGE, DIGEST: digest(output.array)})
            volumes[output.sequence] = node

            node = add_image(
                scene, f"{output.sequence} uncertainty", output.uncertainty, ijk_to_node, uncertainty=True
            )
            _finish(
                scene, node, reference, sources,
                {**details, QUANTITY: UNCERTAINTY, DIGEST: digest(output.uncertainty)},
            )  # fmt: skip
            uncertainties[output.sequence] = node
        if result.segmentation is not None:
            segmentation = add_segmentation(scene, result.segmentation, ijk_to_node, reference)
            voxels = digest(result.segmentation.labelmap, result.segmentation.external)
            _finish(scene, segmentation, reference, sources, {**about, QUANTITY: SEGMENTATION, DIGEST: voxels})
    return SceneNodes(volumes, uncertainties, segmentation)


def _is_in(scene, node) -> bool:
    return scene.GetNodeByID(node.GetID() or "") is node


def _lies(node, grid: Grid, to_node: np.ndarray) -> bool:
    """Whether a volume node has this grid, brought to the node's own frame."""
    image = node.GetImageData()
    if image is None or image.GetDimensions() != tuple(reversed(grid.shape)):
        return False
    corners = np.array([[*(np.array(grid.shape[::-1]) * corner), 1] for corner in np.ndindex(2, 2, 2)])
    apart = (ijk_to_ras(node) - to_node @ swap_ras_lps(grid.ijk_to_lps)) @ corners.T
    return bool(np.abs(apart).max() < _SAME_PLACE_MM)


def synthetic_name(scene, what: str) -> str:
    """"T1C (synthetic)", or "T1C 2 (synthetic)" where that name is taken, and so on."""
    number = 1
    while True:
        name = f"{what} (synthetic)" if number == 1 else f"{what} {number} (synthetic)"
        if scene.GetFirstNodeByName(name) is None:
            return name
        number += 1


def _provenance(result: SynthesisResult) -> dict:
    return {
        "NPCSynth.Synthetic": "YES",
        "NPCSynth.IntendedUse": "Research only; not for diagnosis, not for dose calculation",
        "NPCSynth.Sources": ", ".join(result.sources),
        "NPCSynth.ModelName": result.model.get("name", ""),
        "NPCSynth.ModelVersion": result.model.get("version", ""),
        "NPCSynth.WeightsSHA256": result.model.get("sha256", ""),
        "NPCSynth.Device": result.device,
        "NPCSynth.SoftwareVersion": __version__,
    }


def add_image(scene, what: str, array: np.ndarray, ijk_to_node: np.ndarray, uncertainty: bool = False):
    """Volume node of a synthetic image (int16 in our units) or of its uncertainty, named and displayed as such."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", synthetic_name(scene, what))
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(to_vtk(ijk_to_node))
    if uncertainty:
        _display(node, UNCERTAINTY_DISPLAY_MAX, UNCERTAINTY_DISPLAY_MAX / 2, _UNCERTAINTY_COLORS)
    else:
        _display(node, INTENSITY_HIGH - INTENSITY_LOW, (INTENSITY_HIGH + INTENSITY_LOW) / 2)
    return node


def _display(node, window: float, level: float, colors: str | None = None) -> None:
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(window, level)
    if colors is not None and node.GetScene().GetNodeByID(colors) is not None:
        display.SetAndObserveColorNodeID(colors)


def _finish(scene, node, reference, sources, attributes: dict) -> None:
    """Transform, provenance, and place in the subject hierarchy."""
    node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
    for key, value in attributes.items():
        node.SetAttribute(key, str(value))
    for source in sources:
        node.AddNodeReferenceID(SOURCE_ROLE, source.GetID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    reference_item = hierarchy.GetItemByDataNode(reference)
    # Outside the application nobody makes items: a reference without one leaves its results at the top.
    parent = hierarchy.GetItemParent(reference_item) if reference_item else hierarchy.GetSceneItemID()
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.SetItemParent(item, parent)
    else:
        hierarchy.CreateItem(parent, node)


def add_segmentation(scene, segmentation: SegmentationResult, ijk_to_node: np.ndarray, reference):
    """Segmentation node of predicted structures, under the transform and with the geometry of ``reference``.

    Args:
        reference: vtkMRMLVolumeNode that they were drawn on, or None when it is not in the scene.
    """
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", synthetic_name(scene, "NPCSynth segmentation"))
    # Before the geometry: Slicer stores that as seen from the segmentation's own frame.
    if reference is not None:
        node.SetAndObserveTransformNodeID(reference.GetTransformNodeID())
        node.SetReferenceImageGeometryParameterFromVolumeNode(reference)
    node.CreateDefaultDisplayNodes()
    # One image for all the exclusive labels: segments that share it take one layer in memory and on disk.
    exclusive = _oriented_image(segmentation.labelmap, ijk_to_node)
    for segment in segmentation.segments:
        own_layer = segment.label == 0
        image = _oriented_image(segmentation.mask(segment), ijk_to_node) if own_layer else exclusive
        item = slicer.vtkSegment()
        item.SetName(f"{segment.name}{PREDICTED}")  # it may be copied to where nothing else tells
        item.SetColor(*segment.color)
        item.SetLabelValue(1 if own_layer else segment.label)
        item.SetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), terminology_entry(segment.code))
        item.SetTag(SYNTHETIC_TAG, "predicted, research use")
        item.AddRepresentation(
            slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName(), image
        )
        if not node.GetSegmentation().AddSegment(item, segment.name):
            raise RuntimeError(f"Slicer refused the segment {segment.name}.")
        if own_layer:
            # The outline of the body must not veil what lies inside it.
            node.GetDisplayNode().SetSegmentOpacity2DFill(segment.name, 0.0)
    return node


def _oriented_image(array: np.ndarray, ijk_to_node: np.ndarray):
    """vtkOrientedImageData (uint8) holding a copy of a (k, j, i) array."""
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*reversed(array.shape))
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = array.astype(np.uint8).ravel()
    image.SetGeometryFromImageToWorldMatrix(to_vtk(ijk_to_node))
    return image
