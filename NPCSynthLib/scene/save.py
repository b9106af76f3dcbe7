"""Scenes to .mrb files that Slicer opens."""

import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import slicer

from ..errors import OutputError
from ..inference.result import SynthesisResult
from ..study.study import Source, Study
from ..study.volume import Volume
from .results import SceneNodes, add_result
from .volumes import add_volume


def save_mrb(scene, path: str | Path) -> Path:
    """Write the whole scene, data included, as a Slicer bundle.

    The file appears under its name only when it is complete; an older one stays until then. Raises OutputError
    when it cannot be written, and leaves nothing partial behind.
    """
    path = Path(path)
    if path.suffix.lower() != ".mrb":
        raise OutputError(f'A scene is saved as an .mrb file, and "{path.name}" is none. Give a name ending in .mrb.')
    problem = "the scene could not be written"
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=".npcsynth-", dir=path.parent))
        # The same file name inside a folder of our own: Slicer names the bundle's inner folder after it.
        draft = folder / path.name
        messages = slicer.vtkMRMLMessageCollection()
        written = scene.WriteToMRB(str(draft), None, messages)
        if written and draft.exists():
            os.replace(draft, path)
            return path
        problem = messages.GetAllMessagesAsString().strip() or problem
    except OSError as error:
        problem = error.strerror or str(error)
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    raise OutputError(
        f'The scene was not saved to "{path.name}": {problem}. Check that the folder exists, can be written to and '
        "has enough free space."
    )


def write_scene(result: SynthesisResult, study: Study, path: str | Path) -> Path:
    """Write a scene of its own with the study's images and the result, without touching the scene that is open.

    A source that had to be registered is stored as it was resampled onto the reference's grid, the others as
    they were read. Raises OutputError as ``save_mrb`` does.
    """
    present = slicer.mrmlScene if hasattr(slicer, "mrmlScene") else None
    scene = slicer.vtkMRMLScene()
    # Slicer's helper functions look for "the" scene; give it back whatever happens.
    slicer.mrmlScene = scene
    logics = _register_logics(scene)
    try:
        add_study_and_result(result, study, scene)
        return save_mrb(scene, path)
    finally:
        for logic in logics:
            logic.SetMRMLScene(None)
        if present is None:
            del slicer.mrmlScene
        else:
            slicer.mrmlScene = present


def add_study_and_result(result: SynthesisResult, study: Study, scene) -> SceneNodes:
    """The study's images as volume nodes named after their sequences, and the result beside them."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    folder = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "MR study")
    uids = {str(source.original.metadata.get("StudyInstanceUID") or "") for source in study.sources} - {""}
    if len(uids) == 1:
        hierarchy.SetItemUID(folder, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName(), uids.pop())
    nodes = {}
    for source in study.sources:
        node = _add_source(scene, source, study)
        if not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(folder, node)
        nodes[source.sequence] = node
    return add_result(result, study, nodes, scene)


def _register_logics(scene) -> list:
    """What the application sets up in its own scene: color tables, segmentation and sequence nodes."""
    logics = [
        slicer.vtkMRMLColorLogic(), slicer.vtkSlicerSegmentationsModuleLogic(), slicer.vtkSlicerSequencesLogic(),
    ]
    for logic in logics:
        logic.SetMRMLScene(scene)
    return logics


def _add_source(scene, source: Source, study: Study):
    low, high = source.intensity_range
    if source.registration.get("applied"):
        array = np.where(source.inside, source.array * np.float32(high - low) + np.float32(low), np.float32(0))
        volume = Volume(array, study.grid, metadata=source.original.metadata)
        name = f"{source.sequence} (registered to {study.reference})"
    else:
        volume, name = source.original, source.sequence
    node = add_volume(scene, volume, name)
    node.GetDisplayNode().SetAutoWindowLevel(False)
    node.GetDisplayNode().SetWindowLevel(high - low, (high + low) / 2)
    return node
