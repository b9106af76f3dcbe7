"""How well a contour follows the edges of an image."""

import math
from collections.abc import Mapping

import numpy as np

from ..study.normalize import body_mask, percentiles
from ..study.volume import Grid, Volume

#: mm; an edge this far from the contour counts 61 %, twice as far 14 %. About what observers differ by.
REACH_MM = 1.5
#: mm between the samples across the contour.
_STEP_MM = 0.25
#: Pixels; takes the steps of the voxels out of the outline, and of the direction of its normals.
_SMOOTH, _SMOOTH_NORMALS = 0.7, 1.2
#: Part of the contour that must lie in the image for a figure.
_ENOUGH = 0.5


def edge_contrast(mask: np.ndarray, grid: Grid, image: Volume, intensity_range: tuple[float, float]) -> float:
    """Mean change of brightness right across a contour, as a part of the image's brightness range in the body.

    Across each point of the outline in each slice the image is read along the normal, and the derivative of a Gaussian
    of standard deviation s = 1.5 mm is applied, times s sqrt(2 pi). So a sharp step of height h at distance d gives
    h exp(-d^2 / 2 s^2), and one that is itself blurred by b gives less: on the contour h s / sqrt(s^2 + b^2)
    (scale-normalized derivative: Lindeberg, Int J Comput Vis 1998;30:117-154). Magnitudes are averaged over the length
    of the outline, whichever side is brighter. 0 means that nothing is to be seen where the contour runs, 0.2 that
    the brightness changes there by a fifth of the body's range; a contour beside the edge and a blurred edge lower it.
    Adding to all intensities, or scaling them, changes nothing. Noise adds a little (0.013 for noise of 3 % in pixels
    of 0.8 mm), so that a smooth synthetic image starts from slightly less than an acquired one. Edges between slices
    are left out: contours are drawn in slices.

    Args:
        mask: (k, j, i) bool on ``grid``; its outline is taken to a fraction of a pixel.
        image: any image in the same space (LPS mm) on any grid, read by linear interpolation.
        intensity_range: its 0.5 and 99.5 percentiles in the body, as ``body_range`` gives them.

    Returns:
        0 and up, hardly above 1; NaN where there is no outline, or less than half of it lies within the image.

    Raises:
        ValueError: the mask does not have the grid's shape.
    """
    from scipy import ndimage

    if mask.shape != tuple(grid.shape):
        raise ValueError(f"a mask of shape {mask.shape} does not lie on a grid of shape {grid.shape}")
    points, normals, lengths = _outline(mask, grid)
    if not len(points):
        return math.nan
    offsets = np.arange(-3 * REACH_MM, 3 * REACH_MM + _STEP_MM / 2, _STEP_MM)
    kernel = offsets / REACH_MM**2 * np.exp(-(offsets**2) / (2 * REACH_MM**2)) * _STEP_MM
    to_ijk = np.linalg.inv(image.grid.ijk_to_lps)
    start = points @ to_ijk[:3, :3].T + to_ijk[:3, 3]
    along = normals @ to_ijk[:3, :3].T
    response = np.zeros(len(points))
    inside = np.ones(len(points), bool)
    last = np.array(image.grid.shape[::-1]) - 1
    array = np.asarray(image.array)
    for offset, weight in zip(offsets, kernel):
        index = start + offset * along
        inside &= ((index >= -0.5) & (index <= last + 0.5)).all(axis=1)
        response += weight * ndimage.map_coordinates(array, index.T[::-1], np.float64, order=1, mode="nearest")
    if lengths[inside].sum() < _ENOUGH * lengths.sum():
        return math.nan
    low, high = intensity_range
    return float(np.average(np.abs(response[inside]), weights=lengths[inside]) / (high - low))


def body_range(image: Volume) -> tuple[float, float]:
    """The 0.5 and 99.5 percentiles of an image in its own body. Raises InputError as ``study.normalize`` does."""
    return percentiles(image.array, body_mask(image.array, image.grid.spacing))


def edges_in(
    mask: np.ndarray, grid: Grid, images: Mapping[str, tuple[Volume, tuple[float, float] | None]]
) -> dict[str, float]:
    """``edge_contrast`` in each of several images: name -> (image, its ``body_range``) gives name -> figure.

    NaN where there is no range, since the image is the same everywhere.
    """
    return {
        name: math.nan if limits is None else edge_contrast(mask, grid, image, limits)
        for name, (image, limits) in images.items()
    }


def _outline(mask: np.ndarray, grid: Grid) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of the outlines in the slices: (n, 3) LPS mm, (n, 3) unit normals in the slice, (n,) mm of outline each.

    Points lie where the lines between neighboring pixels' centers cross the outline. Such crossings of lines that are w
    apart stand for w |cos| of length, with the normal's angle to the line: over both directions cos^2 adds up to one,
    so that the lengths do to the outline's.
    """
    from scipy import ndimage

    rows, columns = np.nonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0)
    margin = 3
    box = (rows.min(), rows.max() + 1), (columns.min(), columns.max() + 1)
    width_i, width_j = (float(mm) for mm in grid.spacing[:2])
    found = []
    for k in np.flatnonzero(mask.any(axis=(1, 2))):
        plane = np.pad(mask[k, slice(*box[0]), slice(*box[1])].astype(np.float32), margin)
        wide = ndimage.gaussian_filter(plane, _SMOOTH_NORMALS, mode="constant")
        slope_j, slope_i = np.gradient(wide, width_j, width_i)
        plane = ndimage.gaussian_filter(plane, _SMOOTH, mode="constant")
        for axis, width in ((0, width_i), (1, width_j)):
            step = np.array([1, 0]) if axis == 0 else np.array([0, 1])
            near = plane[: plane.shape[0] - step[0], : plane.shape[1] - step[1]]
            far = plane[step[0]:, step[1]:]
            j, i = np.nonzero((near >= 0.5) != (far >= 0.5))
            part = (0.5 - near[j, i]) / (far[j, i] - near[j, i])
            slope = np.array([
                (1 - part) * s[j, i] + part * s[j + step[0], i + step[1]] for s in (slope_i, slope_j)])  # (i, j) per mm
            steep = np.linalg.norm(slope, axis=0)
            keep = steep > 0
            normal = -slope[:, keep] / steep[keep]
            column = i[keep] + part[keep] * step[1] + box[1][0] - margin
            row = j[keep] + part[keep] * step[0] + box[0][0] - margin
            index = np.stack([column, row, np.full(len(row), float(k))])
            found.append((index, normal, width * np.abs(normal[1 - axis])))
    index, normal, lengths = (np.concatenate(parts, axis=-1) for parts in zip(*found))
    points = index.T @ grid.ijk_to_lps[:3, :3].T + grid.origin
    return points, normal.T @ grid.direction[:, :2].T, lengths
