"""Volumes and segmentation nodes of every kind in the scene, with shapes whose place is known."""

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from NPCSynthLib.scene.matrices import swap_ras_lps, to_vtk
from NPCSynthLib.study.volume import Grid

_TILT = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, 0.96, -0.28], [0, 0.28, 0.96]])
#: All hold a ball of 12 mm around CENTER.
CENTER = np.array([14.2, -21.7, 33.1])
GRIDS = {
    name: Grid.from_parts(shape, spacing, CENTER - direction @ (np.array(shape[::-1]) * spacing / 2), direction)
    for name, shape, spacing, direction in (
        ("axial", (30, 44, 40), (1.0, 1.0, 1.5), np.eye(3)),
        ("oblique, thick slices", (12, 50, 46), (0.9, 0.8, 4.0), _TILT),
        ("flipped", (22, 40, 42), (1.1, 0.9, 2.0), _TILT @ np.diag([1, -1, -1])),
        ("left-handed", (24, 44, 36), (1.0, 1.2, 1.7), _TILT.T @ np.diag([1, 1, -1])),
    )
}


def ball(grid: Grid, radius: float = 12.0, center=CENTER) -> np.ndarray:
    """(k, j, i) bool."""
    index = np.indices(grid.shape)[::-1].reshape(3, -1)
    points = grid.ijk_to_lps[:3, :3] @ index + (grid.origin - center)[:, None]
    return (np.linalg.norm(points, axis=0) < radius).reshape(grid.shape)


def add_image(scene, grid: Grid, name: str = "T1", array: np.ndarray | None = None):
    """Scalar volume node."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    array = (1000 * ball(grid) + 50).astype(np.int16) if array is None else array
    slicer.util.updateVolumeFromArray(node, array)
    node.SetIJKToRASMatrix(to_vtk(swap_ras_lps(grid.ijk_to_lps)))
    return node


def add_labels(scene, grid: Grid, masks: dict, name: str = "drawn", drawn_on=None, shared: bool = True):
    """Segmentation node of binary labelmaps: one image that the segments share, or one each, cut to what is drawn."""
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    if drawn_on is not None:
        node.SetReferenceImageGeometryParameterFromVolumeNode(drawn_on)
    labels = sum((n * mask for n, mask in enumerate(masks.values(), 1)), np.zeros(grid.shape, np.uint8))
    whole = _image(labels.astype(np.uint8), grid) if shared else None
    for number, (label, mask) in enumerate(masks.items(), 1):
        segment = slicer.vtkSegment()
        segment.SetName(label)
        segment.SetLabelValue(number if shared else 1)
        if shared:
            image = whole
        else:
            ranges = [(int(a.min()), int(a.max()) + 1) for a in np.nonzero(mask)] if mask.any() else [(0, 0)] * 3
            image = _image(mask[tuple(slice(*r) for r in ranges)].astype(np.uint8), grid, [r[0] for r in ranges])
        segment.AddRepresentation(slicer.vtkSegmentationConverter.GetBinaryLabelmapRepresentationName(), image)
        node.GetSegmentation().AddSegment(segment, f"Segment_{number}")
    return node


def add_surface(scene, surfaces: dict, name: str = "surface"):
    """Segmentation node of closed surfaces: name -> vtkPolyData in RAS."""
    return _of(scene, surfaces, slicer.vtkSegmentationConverter.GetClosedSurfaceRepresentationName(), name)


def add_planes(scene, contours: dict, name: str = "RTSTRUCT"):
    """Segmentation node of planar contours as SlicerRT makes them: name -> list of (n, 3) LPS mm.

    A closed polyline each, in RAS, the first point repeated at the end (vtkSlicerDicomRtReader).
    """
    made = {}
    for label, lines in contours.items():
        points, cells = vtk.vtkPoints(), vtk.vtkCellArray()
        for line in lines:
            ids = [points.InsertNextPoint(*(np.array([-1, -1, 1]) * point)) for point in line]
            cells.InsertNextCell(len(ids) + 1)
            for point_id in (*ids, ids[0]):
                cells.InsertCellPoint(point_id)
        made[label] = vtk.vtkPolyData()
        made[label].SetPoints(points)
        made[label].SetLines(cells)
    return _of(scene, made, slicer.vtkSegmentationConverter.GetPlanarContourRepresentationName(), name)


def sphere(radius: float = 12.0, center=CENTER):
    """vtkPolyData of a sphere around an LPS point, in RAS."""
    source = vtk.vtkSphereSource()
    source.SetRadius(radius)
    source.SetCenter(-center[0], -center[1], center[2])
    source.SetThetaResolution(64)
    source.SetPhiResolution(64)
    source.Update()
    return source.GetOutput()


def circles(grid: Grid, radius: float = 12.0, center=CENTER) -> list[np.ndarray]:
    """Contours of a ball on the slices of a grid, (n, 3) LPS mm each."""
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    normal, lines = grid.direction[:, 2], []
    for k in range(grid.shape[0]):
        height = (grid.ijk_to_lps[:3, :3] @ (0, 0, k) + grid.origin - center) @ normal
        if abs(height) < radius:
            r = np.sqrt(radius**2 - height**2)
            flat = grid.direction[:, :2] @ np.array([r * np.cos(angle), r * np.sin(angle)])
            lines.append(flat.T + center + height * normal)
    return lines


def add_transform(scene, matrix: np.ndarray, name: str = "transform"):
    """Linear transform node, RAS."""
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(to_vtk(matrix))
    return node


def _of(scene, made: dict, kind: str, name: str):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.GetSegmentation().SetSourceRepresentationName(kind)
    for number, (label, data) in enumerate(made.items(), 1):
        segment = slicer.vtkSegment()
        segment.SetName(label)
        segment.AddRepresentation(kind, data)
        node.GetSegmentation().AddSegment(segment, f"Segment_{number}")
    return node


def _image(array: np.ndarray, grid: Grid, start=(0, 0, 0)):
    """vtkOrientedImageData whose first voxel is ``start`` (k, j, i) of the grid."""
    image = slicer.vtkOrientedImageData()
    ends = [first + n - 1 for first, n in zip(start, array.shape)]
    image.SetExtent(start[2], ends[2], start[1], ends[1], start[0], ends[0])
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())[:] = array.ravel()
    image.SetGeometryFromImageToWorldMatrix(to_vtk(swap_ras_lps(grid.ijk_to_lps)))
    return image
