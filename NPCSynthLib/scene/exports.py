"""Model and label map nodes that Slicer exported from predicted segments.

Slicer gives such a node the segment's name and color, and no word of where it comes from. So it is known by its
content: the points of a segment's surface, or the voxels of a segment.
"""

import numpy as np
import slicer
from vtk.util import numpy_support

from .collect import digest, segment_mask
from .matrices import ijk_to_ras
from .segmentations import SURFACE, node_to_node, predicted_segments, says_predicted
from .volumes import says_synthetic, voxels_digest

#: Node attribute: digest of the content that was once found to be predicted. It stays when the segmentation is edited,
#: deleted, or saved without its surfaces, and counts for as long as the node's content is the same.
CONTENT = "NPCSynth.PredictedSHA256"


def is_exported_prediction(node) -> bool:
    """Whether a vtkMRMLModelNode or vtkMRMLLabelMapVolumeNode holds a segment that a program predicted.

    By what it says of itself, by a predicted segment of its scene with the same content, or because it was so when it
    was asked before. The node gets an attribute then, and no event tells of it: views ask while they are drawn, so that
    nothing is looked at that need not be.
    """
    if says_synthetic(node):
        return True
    before, segments = node.GetAttribute(CONTENT), _predicted_segments(node.GetScene())
    if before is None and not segments or _is_empty(node):
        return False
    if before is not None and before == _digest(node):
        return True
    same = _same_surface if node.IsA("vtkMRMLModelNode") else _same_voxels
    if not same(node, segments):
        return False
    silent = node.GetDisableModifiedEvent()
    node.DisableModifiedEventOn()
    node.SetAttribute(CONTENT, _digest(node))
    node.SetDisableModifiedEvent(silent)
    return True


def content_time(node) -> int:
    """Changes with what the node holds."""
    content = node.GetPolyData() if node.IsA("vtkMRMLModelNode") else node.GetImageData()
    return content.GetMTime() if content is not None else 0


def _predicted_segments(scene) -> list:
    """(segmentation node, segment ID) of each."""
    return [(node, name) for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", scene)
            for name in predicted_segments(node, says_predicted(node))]  # fmt: skip


def _is_empty(node) -> bool:
    if node.IsA("vtkMRMLModelNode"):
        return _points(node.GetPolyData()) is None
    image = node.GetImageData()
    return image is None or 0 in image.GetDimensions() or image.GetPointData().GetScalars() is None


def _digest(node) -> str:
    if node.IsA("vtkMRMLModelNode"):
        return digest(_points(node.GetPolyData()) + 0.0)  # -0 is 0, as files may have it
    return voxels_digest(node)


def _points(surface) -> np.ndarray | None:
    """(n, 3), or None without any."""
    if surface is None or not surface.GetNumberOfPoints():
        return None
    return numpy_support.vtk_to_numpy(surface.GetPoints().GetData())


def _same_surface(node, segments) -> bool:
    """In the nodes' own frames: Slicer gives the model the segmentation's transform."""
    points = _points(node.GetPolyData())
    for segmentation_node, name in segments:
        others = _points(segmentation_node.GetSegmentation().GetSegment(name).GetRepresentation(SURFACE))
        if others is not None and others.shape == points.shape and np.array_equal(others, points):
            return True
    return False


def _same_voxels(node, segments) -> bool:
    """Whether one of the labels is one of the segments, but for less than half that other labels have taken from it.

    In the world or, wherever the two nodes have been moved, in their own frames.
    """
    labels = slicer.util.arrayFromVolume(node)
    for segmentation_node, name in segments:
        places = [ijk_to_ras(node)]
        parents = [one.GetParentTransformNode() for one in (node, segmentation_node)]
        if parents[0] is not parents[1] and all(one is None or one.IsTransformToWorldLinear() for one in parents):
            places.append(node_to_node(node, segmentation_node) @ places[0])
        for place in places:
            inside = labels[segment_mask(segmentation_node, name, labels.shape, place)]
            if inside.size and inside.all():
                values, counts = np.unique(inside, return_counts=True)
                most = counts.argmax()
                if 2 * counts[most] > inside.size and np.count_nonzero(labels == values[most]) == counts[most]:
                    return True
    return False
