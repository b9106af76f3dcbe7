"""Segmentation nodes of the scene to masks on the grid of an image: loaded, drawn by hand or predicted alike.

On the main thread ``copy_segmentation`` takes what is needed out of the scene; turning that into masks takes longer and
can be done in any thread.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from ..errors import Cancelled, InputError
from ..study.contours_raster import cut_off, rasterize, resample_mask
from ..study.contours_structures import ReferenceContours, ReferenceStructure, named_apart
from ..study.headers import read_header
from ..study.volume import Grid
from ..vocabulary import PREDICTED
from .matrices import ijk_to_ras, swap_ras_lps, to_numpy, to_vtk
from .results import SYNTHETIC_TAG
from .volumes import check_node, header_from_node, is_synthetic, volume_from_node

LABELS = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
#: Loaded by SlicerRT; its name is all that Slicer itself knows of it.
PLANES = slicer.vtkSegmentationConverter.GetSegmentationPlanarContourRepresentationName()
#: Voxels; two lattices that agree so well are the same.
_SAME_LATTICE = 1e-3
_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True)
class CopiedSegment:
    """One segment as it was in the scene.

    Attributes:
        name: as the scene has it, or one made up where it has none.
        kind: LABELS, SURFACE or PLANES.
        data: of labels (their (k, j, i) image, which segments share, the segment's value, (4, 4) IJK to RAS mm), or
            None where nothing is drawn; of surfaces vtkPolyData; of planar contours a list of (n, 3) RAS mm. All in
            the segmentation's own frame.
    """

    name: str
    kind: str
    data: object


@dataclass(frozen=True)
class CopiedSegmentation:
    """A segmentation node's content, sharing nothing with the scene.

    Attributes:
        name: the node's, for messages on the screen; may name a patient, never log it or write it into files.
        segments: in the node's order.
        grid: of the image, in the image's own frame (LPS), without its parent transform.
        to_image: (4, 4) from the segmentation's own frame to the image's, both RAS mm: all parent transforms.
        image_name: the image's, as ``name``.
        notes: sentences for the user that name no node.
    """

    name: str
    segments: tuple[CopiedSegment, ...]
    grid: Grid
    to_image: np.ndarray
    image_name: str
    notes: tuple[str, ...]

    def contours(self, whose: str, cancel: Callable[[], bool] | None = None) -> ReferenceContours:
        """Its structures as masks on the image's grid.

        Labels on the same lattice stay exactly as they are, others take the nearest voxel. Surfaces are filled as
        Slicer does it, contours as ``study.contours_raster`` does.

        Args:
            whose: "the reference", for the notes.
            cancel: asked before each segment.

        Raises:
            Cancelled: ``cancel`` was true.
            InputError: nothing is drawn, nothing can be filled, or nothing lies in the image.
        """
        structures, notes, left_out = [], list(self.notes), []
        drawn = resampled = False
        for segment in self.segments:
            if cancel is not None and cancel():
                raise Cancelled()
            try:
                mask, exact, told = self._mask(segment)
            except ValueError as error:
                left_out.append((segment.name, f"{segment.name} was left out: it {error}."))
                continue
            notes += [f"{segment.name} of {whose} {phrase}." for phrase in told]
            drawn |= mask is not None
            resampled |= not exact
            structures.append(ReferenceStructure.of(
                segment.name, np.zeros(self.grid.shape, bool) if mask is None else mask))
        if not structures:
            reasons = " ".join(why for _, why in left_out)
            raise InputError(f'"{self.name}" holds no contours that can be used. {reasons}')
        if not drawn:
            raise InputError(f'"{self.name}" is empty: nothing is drawn in any of its {len(self.segments)} segments. '
                             "Choose another segmentation.")
        if not any(structure.crop.any() for structure in structures):
            raise InputError(
                f'Nothing of "{self.name}" lies within "{self.image_name}": they seem to belong to different '
                "examinations, or to another frame of reference. Choose the image that the contours were drawn on, or "
                "register the two.")
        if resampled:
            notes.append(f"{whose[0].upper()}{whose[1:]} lies on another voxel grid than the image; each voxel took "
                         "the label of the nearest one.")
        unique, told = named_apart(structures, whose)
        return ReferenceContours(
            unique, self.grid, None, (), tuple(dict.fromkeys([*notes, *told, *(why for _, why in left_out)])),
            tuple(left_out))

    def _mask(self, segment: CopiedSegment) -> tuple[np.ndarray | None, bool, list[str]]:
        """((k, j, i) bool on the grid, None where nothing is drawn; whether no voxel was resampled; phrases on it)."""
        if segment.kind == LABELS and segment.data is not None:
            labels, value, matrix = segment.data
            mask = labels == value
            return _onto(self.grid, mask, matrix, self.to_image) if mask.any() else (None, True, [])
        if segment.kind == SURFACE and segment.data.GetNumberOfCells():
            # Filled on the image's own lattice, beyond the image too: nothing is lost in between.
            mask, _, told = _onto(self.grid, *_fill(segment.data, self.grid, self.to_image), np.eye(4))
            return mask, True, told
        if segment.kind == PLANES and segment.data:
            to_lps = _LPS @ self.to_image
            mask, told = rasterize([points @ to_lps[:3, :3].T + to_lps[:3, 3] for points in segment.data], self.grid)
            return mask, True, told
        return None, True, []


def copy_segmentation(node, image_node) -> CopiedSegmentation:
    """Take a segmentation out of the scene, to be drawn on the grid of an image. The scene is not changed.

    Args:
        node: vtkMRMLSegmentationNode, whatever it was made from and whatever representation it keeps.
        image_node: vtkMRMLScalarVolumeNode.

    Linear parent transforms of both nodes are applied.

    Raises InputError, naming the node, when one of the two is missing, of another kind or under a non-linear transform,
    when the segmentation has no segments or only representations that cannot be drawn on a grid, and when DICOM says
    that it lies in another frame of reference than the image (unless one of the two was moved by a transform).
    """
    if node is None or not node.IsA("vtkMRMLSegmentationNode"):
        raise InputError("A segmentation that was chosen is no longer in the scene. Choose another one.")
    if image_node is None:
        raise InputError(f'There is no image to compare "{node.GetName()}" on. Load the one that it was drawn on, and '
                         "choose it.")
    check_node(image_node)
    name, segmentation = node.GetName(), node.GetSegmentation()
    parent = node.GetParentTransformNode()
    if parent is not None and not parent.IsTransformToWorldLinear():
        raise InputError(
            f'"{name}" lies under the non-linear transform "{parent.GetName()}". In the Data module, clone the '
            "segmentation, harden the transform on the clone, and choose the clone.")
    if segmentation is None or segmentation.GetNumberOfSegments() == 0:
        raise InputError(f'"{name}" has no segments. Draw or load some, or choose another segmentation.')
    to_image = node_to_node(node, image_node)
    notes = _frame_notes(node, image_node)
    segments, hidden, unnamed, copies = [], [], [], {}
    for number in range(segmentation.GetNumberOfSegments()):
        segment_id, segment = segmentation.GetNthSegmentID(number), segmentation.GetNthSegment(number)
        label = (segment.GetName() or "").strip()
        if not label:
            label = f"Segment {number + 1}"
            unnamed.append(label)
        display = node.GetDisplayNode()
        if display is not None and not display.GetSegmentVisibility(segment_id):
            hidden.append(label)
        segments.append(CopiedSegment(label, *_copy(node, segment, copies)))
    if unnamed:
        notes.append(f"Segments without a name were called by their place: {', '.join(unnamed)}. They match nothing "
                     "until you name them in the module Segmentations, or pair them by hand.")
    if hidden:
        notes.append(f"Hidden in the views, and compared all the same: {', '.join(hidden)}.")
    return CopiedSegmentation(
        name, tuple(segments), volume_from_node(image_node, copy=False).grid, to_image, image_node.GetName(),
        tuple(notes))


def drawn_on(node):
    """The volume node that a segmentation says it was drawn on (its reference geometry), or None."""
    return node.GetNodeReference(slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole())


def is_predicted(node) -> bool:
    """Whether a program made a segmentation or some of its segments: by its attributes, name, tags, header or file."""
    return says_predicted(node) or bool(predicted_segments(node, whole=False))


def predicted_segments(node, whole: bool) -> list[str]:
    """IDs of a segmentation node's segments that a program predicted: all where it did the ``whole`` (what
    ``says_predicted`` says), else those with the tag, or the name that ours have."""
    segmentation = node.GetSegmentation()
    names = segmentation.GetSegmentIDs() if segmentation is not None else ()
    segments = {name: segmentation.GetSegment(name) for name in names}
    return [name for name, segment in segments.items()
            if whole or segment.HasTag(SYNTHETIC_TAG) or (segment.GetName() or "").endswith(PREDICTED)]


def says_predicted(node) -> bool:
    """As ``is_predicted``, without asking the segments."""
    if is_synthetic(node):
        return True
    header = segmentation_header(node)
    return header is not None and header.get("SyntheticData") == "YES"


def series_of(node) -> str:
    """UID of the DICOM series that a segmentation was loaded from, or ""."""
    tree = node.GetScene().GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    item = tree.GetItemByDataNode(node) if tree is not None else 0
    return tree.GetItemUID(item, slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMUIDName()) if item else ""


def segmentation_header(node):
    """The DICOM header (pydicom Dataset) that a segmentation was loaded from, or None. Identifies a patient."""
    database, series = getattr(slicer, "dicomDatabase", None), series_of(node)
    files = list(database.filesForSeries(series)) if series and database is not None else []
    return read_header(Path(files[0])) if files and Path(files[0]).is_file() else None


def content_of(node) -> tuple:
    """What changes when a segmentation's or a volume's content or place does; for comparing with a later look."""
    parent = node.GetParentTransformNode()
    place = vtk.vtkMatrix4x4()
    if parent is not None and parent.IsTransformToWorldLinear():
        parent.GetMatrixTransformToWorld(place)
    found = [node.GetID(), parent is None or parent.IsTransformToWorldLinear(), tuple(to_numpy(place).ravel())]
    if not node.IsA("vtkMRMLSegmentationNode"):
        image = node.GetImageData()
        return (*found, tuple(ijk_to_ras(node).ravel()), image.GetMTime() if image is not None else 0)
    segmentation = node.GetSegmentation()
    source = segmentation.GetSourceRepresentationName()
    for n in range(segmentation.GetNumberOfSegments()):
        segment = segmentation.GetNthSegment(n)
        data = segment.GetRepresentation(source)
        found.append((segment.GetName(), data.GetMTime() if data is not None else 0))
    return tuple(found)


def show_place(place, image_node) -> None:
    """Center every slice view of the scene on a place, (x, y, z) LPS mm in an image's own frame."""
    matrix = vtk.vtkMatrix4x4()
    if image_node.GetParentTransformNode() is not None:
        image_node.GetParentTransformNode().GetMatrixTransformToWorld(matrix)
    world = to_numpy(matrix) @ _LPS @ (*place, 1)
    slicer.vtkMRMLSliceNode.JumpAllSlices(
        image_node.GetScene(), *world[:3], slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def node_to_node(node, other) -> np.ndarray:
    """(4, 4) from a node's own frame to another one's, both RAS mm; their parent transforms must be linear."""
    if node.GetTransformNodeID() == other.GetTransformNodeID():
        return np.eye(4)
    matrix = vtk.vtkMatrix4x4()
    slicer.vtkMRMLTransformNode.GetMatrixTransformBetweenNodes(
        node.GetParentTransformNode(), other.GetParentTransformNode(), matrix)
    return to_numpy(matrix)


def _frame_notes(node, image_node) -> list[str]:
    """Whether the contours belong on the image, by DICOM or by what the segmentation was drawn on."""
    header, drawn = segmentation_header(node), drawn_on(node)
    frames = _frames(header) if header is not None else set()
    if not frames and drawn is not None:
        frames = {uid for uid in [header_from_node(drawn).get("FrameOfReferenceUID")] if uid}
    here = header_from_node(image_node).get("FrameOfReferenceUID")
    if frames and here and here not in frames:
        if node.GetTransformNodeID() != image_node.GetTransformNodeID():
            return ["The contours are of another DICOM frame of reference than the image; they are compared where the "
                    "transform places them. Check that it is right."]
        raise InputError(
            f'"{node.GetName()}" lies in another DICOM frame of reference than "{image_node.GetName()}": its contours '
            "would come out in the wrong place. Choose the image that they were drawn on, or register the two and put "
            "the segmentation under the transform.")
    if frames and here or drawn is image_node:
        return []
    if drawn is None:
        return ["Nothing says which image the contours were drawn on: they are placed by their coordinates. Check in "
                "the views that they lie where they should."]
    return ["The contours were drawn on another image: they are placed by their coordinates. Check that the patient "
            "did not move between the two."]


def _frames(header) -> set[str]:
    """Frame of reference UIDs that an RTSTRUCT or a SEG lies in."""
    named = [header, *(header.get("ReferencedFrameOfReferenceSequence") or [])]
    return {str(item.FrameOfReferenceUID) for item in named if item.get("FrameOfReferenceUID")}


def _copy(node, segment, copies: dict) -> tuple[str, object]:
    """(kind, data) of a ``CopiedSegment``; ``copies`` keeps label images that segments share."""
    source = node.GetSegmentation().GetSourceRepresentationName()
    kinds = [kind for kind in dict.fromkeys((source, LABELS, PLANES, SURFACE)) if segment.GetRepresentation(kind)]
    kind = next((kind for kind in kinds if kind in (LABELS, PLANES, SURFACE)), None)
    if kind is None:
        raise InputError(
            f'"{node.GetName()}" keeps its segments as "{source}", which cannot be compared. In the module '
            "Segmentations, under Representations, create the binary labelmap, then compare again.")
    found = segment.GetRepresentation(kind)
    if kind == LABELS:
        if found not in copies:
            copies[found] = _copied_labels(found)
        if copies[found] is None:
            return kind, None
        labels, matrix = copies[found]
        return kind, (labels, segment.GetLabelValue(), matrix)
    if kind == SURFACE:
        surface = vtk.vtkPolyData()
        surface.DeepCopy(found)
        return kind, surface
    return kind, _closed_lines(found)


def _copied_labels(image) -> tuple[np.ndarray, np.ndarray] | None:
    """((k, j, i) labels, (4, 4) from their indices to RAS mm) of a vtkOrientedImageData; None when it is empty."""
    scalars = image.GetPointData().GetScalars() if not image.IsEmpty() else None
    if scalars is None:
        return None
    extent, matrix = image.GetExtent(), vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    # Indices count from the image's own zero, which need not be its first voxel.
    first = np.eye(4)
    first[:3, 3] = extent[::2]
    return numpy_support.vtk_to_numpy(scalars).reshape(image.GetDimensions()[::-1]).copy(), to_numpy(matrix) @ first


def _closed_lines(planes) -> list[np.ndarray]:
    """(n, 3) RAS mm of each contour of a planar contour representation, the last point not repeated."""
    contours = []
    if planes.GetPoints() is None:
        return contours
    points = numpy_support.vtk_to_numpy(planes.GetPoints().GetData())
    for cells in (planes.GetLines(), planes.GetPolys()):
        ids = vtk.vtkIdList()
        cells.InitTraversal()
        while cells.GetNextCell(ids):
            contour = points[[ids.GetId(n) for n in range(ids.GetNumberOfIds())]].astype(float)
            if len(contour) > 1 and np.array_equal(contour[0], contour[-1]):
                contour = contour[:-1]
            if len(contour) > 2:
                contours.append(contour)
    return contours


def _onto(grid: Grid, mask: np.ndarray, to_ras: np.ndarray, to_image: np.ndarray) -> tuple[np.ndarray, bool, list[str]]:
    """As ``_mask`` returns, of a mask in a frame that ``to_image`` places."""
    offset = np.linalg.solve(grid.ijk_to_lps, _LPS @ to_image @ to_ras)
    told = cut_off(mask, offset, grid)
    shift = np.round(offset[:3, 3]).astype(int)
    longest = max(*mask.shape, *grid.shape)
    if np.abs(offset[:3, :3] - np.eye(3)).max() * longest < _SAME_LATTICE and \
            np.abs(offset[:3, 3] - shift).max() < _SAME_LATTICE:
        result = np.zeros(grid.shape, bool)
        here, there = [], []
        for n, size, start in zip(grid.shape, mask.shape, shift[::-1]):
            low, high = max(start, 0), min(start + size, n)
            here.append(slice(low, max(low, high)))
            there.append(slice(low - start, max(low, high) - start))
        result[tuple(here)] = mask[tuple(there)]
        return result, True, told
    own = Grid(mask.shape, swap_ras_lps(to_ras))
    to_mask = np.linalg.inv(_LPS @ to_image @ _LPS)
    return resample_mask(mask, own, grid, to_mask), False, told


def _fill(surface, grid: Grid, to_image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mask, its IJK to RAS) of a closed surface, on the lattice of ``grid`` in the image's frame."""
    transform, moved = vtk.vtkTransform(), vtk.vtkTransformPolyDataFilter()
    transform.SetMatrix(to_vtk(to_image))
    moved.SetTransform(transform)
    moved.SetInputData(surface)
    moved.Update()
    lattice = slicer.vtkOrientedImageData()
    lattice.SetDimensions(*reversed(grid.shape))
    lattice.SetGeometryFromImageToWorldMatrix(to_vtk(swap_ras_lps(grid.ijk_to_lps)))
    segmentation, segment = slicer.vtkSegmentation(), slicer.vtkSegment()
    segmentation.SetSourceRepresentationName(SURFACE)
    segment.AddRepresentation(SURFACE, moved.GetOutput())
    segmentation.AddSegment(segment, "segment")
    segmentation.SetConversionParameter(
        slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName(),
        slicer.vtkSegmentationConverter.SerializeImageGeometry(lattice))
    filled = None
    if segmentation.CreateRepresentation(LABELS):
        filled = _copied_labels(segment.GetRepresentation(LABELS))
    if filled is None:
        raise ValueError("has a surface that could not be filled")
    return filled[0] > 0, filled[1]
