"""MRML in and out: Slicer volume nodes to a study, a synthesis result to nodes. The only room that imports slicer."""

from .belonging import Belonging, acquired_belonging, belonging
from .collect import SceneResult, changed_nodes, latest_nodes, latest_result, result_nodes
from .outputs import SceneOutput, remove_nodes, scene_outputs
from .results import SceneNodes, add_result
from .save import save_mrb, write_scene
from .segmentations import (
    CopiedSegmentation,
    content_of,
    copy_segmentation,
    drawn_on,
    is_predicted,
    node_to_node,
    show_place,
)
from .studies import SceneStudy, studies
from .volumes import add_volume, header_from_node, is_synthetic, study_volumes, volume_from_node

__all__ = [
    "Belonging", "CopiedSegmentation", "SceneNodes", "SceneOutput", "SceneResult", "SceneStudy",
    "acquired_belonging", "add_result", "add_volume", "belonging", "changed_nodes", "content_of",
    "copy_segmentation", "drawn_on", "header_from_node", "is_predicted", "is_synthetic", "latest_nodes",
    "latest_result", "node_to_node", "remove_nodes", "result_nodes", "save_mrb", "scene_outputs", "show_place",
    "studies", "study_volumes", "volume_from_node", "write_scene",
]
