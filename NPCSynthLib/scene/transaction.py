"""All or nothing: what a failing step has added to the scene is taken away again."""

from contextlib import contextmanager

import slicer
import vtk


@contextmanager
def scene_transaction(scene):
    """Nodes added to ``scene`` inside the block stay only when the block does not raise.

    What was there before is not touched, so the block must not change any of it.
    """
    nodes_before, items_before = set(_node_ids(scene)), _item_ids(scene)
    try:
        yield
    except BaseException:
        for node_id in reversed([node_id for node_id in _node_ids(scene) if node_id not in nodes_before]):
            node = scene.GetNodeByID(node_id)
            if node is not None:
                scene.RemoveNode(node)
        # The application removes a node's item with the node; elsewhere it stays behind.
        for item in sorted(_item_ids(scene) - items_before, reverse=True):
            slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene).RemoveItem(item, False, False)
        raise


def _node_ids(scene) -> list:
    return [scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())]


def _item_ids(scene) -> set:
    if scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode") is None:
        return set()
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    items = vtk.vtkIdList()
    hierarchy.GetItemChildren(hierarchy.GetSceneItemID(), items, True)
    return {items.GetId(index) for index in range(items.GetNumberOfIds())}
