"""Volume nodes of the MRML scene to volumes of the library.

A volume node stores its voxels in a frame of its own, which a parent transform may place in the world.
When all the sources of a study have the same parent (or none), the study lives in that frame and the
transform needs no attention. When the parents differ, each source is placed in the world first. Either
way every volume remembers the way back to its node's frame, so that results can be put under the
reference's transform.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import slicer
import vtk

from ..errors import InputError
from ..study.headers import header_facts, read_header
from ..study.image_files import check_orientation, made_by_npcsynth, named_synthetic
from ..study.study import DIGITAL_PATIENT, is_simulated
from ..study.volume import Grid, Volume
from .collect import DIGEST, digest
from .matrices import ijk_to_ras, swap_ras_lps, to_numpy, to_vtk

#: Metadata key: (4, 4) array from the study's frame to the node's own frame, both RAS.
STUDY_TO_NODE = "StudyToNode"
#: Node attribute of an image of a digital patient, "YES".
DIGITAL = "NPCSynth.DigitalPatient"
#: Files whose name or header may say that NPCSynth made them; DICOM is asked through the database.
_MARKED_FILES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
#: Modification time of voxels -> their digest: the panel asks often, and large images take 0.1 s.
_DIGESTS: dict[int, str] = {}
_MOST_DIGESTS = 64


def check_node(node) -> None:
    """Raise InputError, naming the node, when it cannot be a source."""
    if node is None:
        raise InputError("A volume that was chosen is no longer in the scene. Choose another one.")
    name = node.GetName()
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise InputError(f'"{name}" is a label map, not an image. Choose the MR image that it was drawn on.')
    if not node.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError(f'"{name}" is not a scalar volume. Choose an MR image.')
    image = node.GetImageData()
    if image is None or 0 in image.GetDimensions() or image.GetPointData().GetScalars() is None:
        raise InputError(f'"{name}" has no image data. Load it again, or choose another volume.')
    if node.IsA("vtkMRMLVectorVolumeNode") or image.GetNumberOfScalarComponents() != 1:
        raise InputError(
            f'"{name}" has {image.GetNumberOfScalarComponents()} values in each voxel (a color or vector image). '
            "Choose a grayscale MR image."
        )
    parent = node.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        raise InputError(
            f'"{name}" lies under the non-linear transform "{parent.GetName()}". In the Data module, clone the '
            "volume, harden the transform on the clone, and choose the clone."
        )


def volume_from_node(node, node_to_study: np.ndarray | None = None, copy: bool = True) -> Volume:
    """The image of a scalar volume node.

    Args:
        node: vtkMRMLScalarVolumeNode.
        node_to_study: (4, 4) from the node's own frame to the frame wanted, both RAS mm; by default
            the node's own frame is kept, whatever linear transform it lies under.
        copy: whether the voxels are a copy that shares nothing with the scene. Without it they are the node's own:
            for a short look only.

    Returns a Volume in LPS with the header that Slicer still knows. Raises InputError for label maps,
    color images, nodes without voxels, non-linear parent transforms and sheared grids.
    """
    check_node(node)
    name = node.GetName()
    node_to_study = np.eye(4) if node_to_study is None else node_to_study
    matrix = node_to_study @ ijk_to_ras(node)
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    if np.abs(axes.T @ axes - np.eye(3)).max() > 1e-3:
        raise InputError(
            f'The voxel grid of "{name}" is sheared by a transform. Use a rigid transform, or resample the volume '
            'with the module "Resample Scalar/Vector/DWI Volume" and choose the result.'
        )
    array = slicer.util.arrayFromVolume(node)
    if copy:
        array = np.array(array)
    metadata = header_from_node(node)
    if node.GetAttribute(DIGITAL) == "YES":
        metadata.update(DIGITAL_PATIENT)
    metadata[STUDY_TO_NODE] = np.linalg.inv(node_to_study)
    return Volume(array, Grid(array.shape, swap_ras_lps(matrix)), name, metadata)


def is_synthetic(node) -> bool:
    """Whether a volume node was made by a program, not acquired.

    By what it says of itself (its attribute, name, DICOM header or file), or because it holds the voxels of a result in
    the scene: Slicer writes neither attribute nor description into NIfTI files.
    """
    return says_synthetic(node) or has_voxels_of_a_result(node)


def says_synthetic(node) -> bool:
    """As ``is_synthetic``, without looking at the voxels."""
    name = node.GetName() or ""
    # A series that a scanner calls synthetic (computed from a multi-parameter acquisition) was acquired all the same.
    of_dicom = node.GetAttribute("DICOM.instanceUIDs") is not None
    by_name = "(synthetic" in name.lower() if of_dicom else named_synthetic(name)
    if node.GetAttribute("NPCSynth.Synthetic") == "YES" or by_name:
        return True
    if header_from_node(node).get("SyntheticData") == "YES":
        return True
    path = _file_of(node)
    return path.name.lower().endswith(_MARKED_FILES) and path.is_file() and made_by_npcsynth(path)


def _file_of(node) -> Path:
    """The file that a node was read from or last saved to; an empty path without any."""
    storage = node.GetStorageNode()
    return Path((storage.GetFileName() if storage is not None else None) or "")


def has_voxels_of_a_result(node) -> bool:
    """Whether a scalar volume node holds exactly the voxels that a run made for another volume node of its scene."""
    scene, image = node.GetScene(), node.GetImageData() if node.IsA("vtkMRMLScalarVolumeNode") else None
    if scene is None or image is None or image.GetPointData().GetScalars() is None:
        return False
    others = [
        other for other in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode", scene)
        if other is not node and other.GetAttribute(DIGEST) and other.GetImageData() is not None
        and other.GetImageData().GetDimensions() == image.GetDimensions()
    ]  # fmt: skip
    return bool(others) and voxels_digest(node) in {other.GetAttribute(DIGEST) for other in others}


def voxels_digest(node) -> str:
    """``collect.digest`` of the voxels, as int16 (which results are) where that changes none of them."""
    state = node.GetImageData().GetMTime()  # VTK gives each time only once
    if state not in _DIGESTS:
        array = slicer.util.arrayFromVolume(node)
        with np.errstate(invalid="ignore"):
            whole = array.astype(np.int16)
        if len(_DIGESTS) >= _MOST_DIGESTS:
            _DIGESTS.clear()
        _DIGESTS[state] = digest(whole if np.array_equal(whole, array) else array)
    return _DIGESTS[state]


def study_volumes(nodes: Mapping) -> dict:
    """Volumes of several nodes in one common frame, ready for ``study.build.build_study``.

    Args:
        nodes: sequence id -> vtkMRMLScalarVolumeNode.

    Raises InputError as ``volume_from_node`` does, for images that NPCSynth made itself, for one whose NIfTI file gives
    two different orientations, and when one node is given for two sequences.
    """
    for node in nodes.values():
        check_node(node)
        if is_synthetic(node):
            raise InputError(f'"{node.GetName()}" was synthesized, not acquired. Choose an acquired MR '
                             "image; if only the name says so, and wrongly, rename it.")  # fmt: skip
        check_orientation(_file_of(node))
    first = {}
    for sequence, node in nodes.items():
        other = first.setdefault(node.GetID(), sequence)
        if other != sequence:
            raise InputError(
                f'"{node.GetName()}" is assigned to both {other} and {sequence}. Assign it to one of them.'
            )
    parents = {node.GetTransformNodeID() for node in nodes.values()}
    shared = len(parents) <= 1
    return {
        sequence: volume_from_node(node, None if shared else node_to_world(node)) for sequence, node in nodes.items()
    }


def add_volume(scene, volume: Volume, name: str):
    """Scalar volume node with the voxels and the place of a volume; no parent transform.

    Voxel types that volume nodes do not take (bool, float16, 64-bit integers) become the nearest that they take.
    """
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, _storable(volume.array))
    node.SetIJKToRASMatrix(to_vtk(swap_ras_lps(volume.grid.ijk_to_lps)))
    node.CreateDefaultDisplayNodes()
    if is_simulated(volume.metadata):
        node.SetAttribute(DIGITAL, "YES")
    return node


def header_from_node(node) -> dict:
    """Facts of the DICOM series that the node was loaded from, as ``study.headers.header_facts`` gives them.

    Empty when the volume was not loaded through Slicer's DICOM database or its file has gone: the image is fine
    all the same. May hold identifiers: never log it.
    """
    uids = (node.GetAttribute("DICOM.instanceUIDs") or "").split()
    dataset = _read(uids[0]) if uids else None
    if dataset is None:
        return {}
    facts = header_facts(dataset)
    # Which images it was, for an export that refers to them.
    frames = int(dataset.get("NumberOfFrames") or 0) if len(uids) == 1 else 0
    facts["SOPInstanceUIDs"] = uids * max(1, frames)
    if frames:
        facts["FrameNumbers"] = list(range(1, frames + 1))
    return facts


def header_of_instance(uid: str) -> dict:
    """``study.headers.header_facts`` of one image that Slicer's DICOM database knows, else an empty dict.

    May hold identifiers: never log it.
    """
    dataset = _read(uid)
    return {} if dataset is None else header_facts(dataset)


def _read(uid: str):
    database = getattr(slicer, "dicomDatabase", None)
    path = database.fileForInstance(uid) if database is not None else ""
    return read_header(Path(path)) if path and Path(path).is_file() else None


def node_to_world(node) -> np.ndarray:
    """(4, 4) float64 from a node's own frame to the world, both RAS mm; its parent transform must be linear."""
    parent = node.GetParentTransformNode()
    if parent is None:
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    parent.GetMatrixTransformToWorld(matrix)
    return to_numpy(matrix)


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype == bool:
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "iu" and array.dtype.itemsize == 8:
        return array.astype(np.float64)
    return array.astype(array.dtype.newbyteorder("="), copy=False)
