"""The studies of the subject hierarchy: patients and studies as Slicer's Data module shows them."""

from collections import Counter
from dataclasses import dataclass

import slicer
import vtk


@dataclass(frozen=True)
class SceneStudy:
    """One study.

    Attributes:
        key: stays the same when the scene is saved and loaded: its DICOM UID, else the names of patient and study; the
            second one of that key has " (2)" after it, and so on.
        name: patient and study as the Data module calls them, numbered likewise; identifies a person, never log it.
        volumes: the scalar volume nodes below it, in the order of the tree.
    """

    key: str
    name: str
    volumes: tuple


def studies(scene) -> list[SceneStudy]:
    """All studies in the order of the tree. Empty where nothing is filed under a study, as with plain files."""
    tree = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    if tree is None:
        return []
    names = slicer.vtkMRMLSubjectHierarchyConstants
    found, keys, known = [], Counter(), Counter()
    for item in _below(tree, tree.GetSceneItemID()):
        if tree.GetItemLevel(item) != names.GetDICOMLevelStudy():
            continue
        parts = [tree.GetItemName(item)]
        parent = tree.GetItemParent(item)
        if parent not in (tree.GetInvalidItemID(), tree.GetSceneItemID()):
            parts.insert(0, tree.GetItemName(parent))
        name = " / ".join(part for part in parts if part)
        nodes = (tree.GetItemDataNode(below) for below in _below(tree, item))
        volumes = tuple(node for node in nodes if node is not None and node.IsA("vtkMRMLScalarVolumeNode"))
        key = tree.GetItemUID(item, names.GetDICOMUIDName()) or name
        found.append(SceneStudy(_numbered(key, keys), _numbered(name, known), volumes))
    return found


def _numbered(text: str, seen: Counter) -> str:
    seen[text] += 1
    return text if seen[text] == 1 else f"{text} ({seen[text]})"


def _below(tree, item) -> list[int]:
    """Items below an item, at any depth."""
    ids = vtk.vtkIdList()
    tree.GetItemChildren(item, ids, True)
    return [ids.GetId(number) for number in range(ids.GetNumberOfIds())]
