"""Which volumes are synthetic and which contours predicted, for those who ask many times a second."""

import slicer

from .exports import content_time, is_exported_prediction
from .segmentations import SURFACE, predicted_segments, says_predicted, series_of
from .volumes import has_voxels_of_a_result, says_synthetic


class Origins:
    """Remembers what files said, as long as nothing changes that they could have been asked for."""

    def __init__(self):
        self._answers = {}

    def synthetic(self, node) -> bool:
        """Of a volume node."""
        if self._ask(says_synthetic, node, node.GetAttribute("DICOM.instanceUIDs")):
            return True
        image = node.GetImageData()
        return image is not None and self._ask(
            has_voxels_of_a_result, node, image.GetMTime(),
            node.GetScene().GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"))  # results may come later

    def predicted(self, node) -> bool:
        """Of a segmentation node or any of it."""
        return self._whole(node) or bool(self.predicted_segments(node))

    def predicted_segments(self, node) -> list[str]:
        """IDs of those of a segmentation node's segments. They are asked each time: they come and go."""
        return predicted_segments(node, self._whole(node))

    def _whole(self, node) -> bool:
        return self._ask(says_predicted, node, series_of(node))

    def any_exported(self, nodes) -> bool:
        """Whether any of some model and label map nodes of a scene holds a predicted segment."""
        if not nodes:
            return False
        # Which predicted segments there are, not what they hold: no stroke of a brush makes an older export like them,
        # and looking at all voxels takes a second.
        there = [
            (node.GetID(), name, node.GetSegmentation().ContainsRepresentation(SURFACE))
            for node in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", nodes[0].GetScene())
            for name in self.predicted_segments(node)
        ]
        return any(self._ask(is_exported_prediction, node, content_time(node), there) for node in nodes)

    def _ask(self, question, node, *about) -> bool:
        if node.GetAttribute("NPCSynth.Synthetic") == "YES":
            return True
        storage = node.GetStorageNode()
        state = (node.GetName(), storage.GetFileName() if storage is not None else None, *about)
        key = question.__name__, node.GetID()
        if key not in self._answers or self._answers[key][0] != state:
            self._answers[key] = state, question(node)
        return self._answers[key][1]
