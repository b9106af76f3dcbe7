"""From closed planar contours to voxels.

A voxel belongs to a structure when its center lies inside the contours of its slice by the even-odd rule: holes drawn
as contours within contours, keyholes and several parts on one slice all come out right, and of a contour that crosses
itself what is enclosed once. A center on the boundary counts on one side only (left and upper edges are inside), so
that the area of shapes whose edges run through centers is right too. The polygon fillers of image libraries take both
sides, and test every pixel of the bounding box against every edge, which takes minutes for the outlines of a head.

Error: voxels and shape differ only within half a pixel's diagonal d of the boundary, so in a slice by an area of at
most perimeter x d + pi d^2 / 4; gain and loss nearly cancel in the volume. Along the normal each contour stands for
half a step to either side.
"""

import numpy as np

from .volume import Grid, to_sitk

#: Contours may lie this far off a slice, in mm or as a part of the slice spacing, before they count as between slices:
#: coordinates are often rounded to 0.01 or 0.1 mm.
_OFF_PLANE_MM, _OFF_PLANE_PART = 0.1, 0.05
#: Points of a contour in a tilted plane may lie this far apart along its normal.
_FLAT_MM = 0.5
#: Two planes farther apart than this, and than the slices, are not joined: they may be two nodes on two slices. Three
#: or more are one structure drawn on every second slice, or on coarser ones.
_LARGEST_STEP_OF_TWO_MM, _LARGEST_STEP_MM = 6.0, 10.0
#: Less than this part of a structure outside the image is the rounding of voxels at its border.
_LEAST_CUT_OFF = 0.01


def fill(polygons: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Pixels whose centers lie inside, by the even-odd rule over all polygons together.

    Args:
        polygons: (n, 2) float arrays of (i, j) pixel coordinates, centers at whole numbers; closed by themselves.
        shape: (rows, columns); what lies outside is cut off.

    Returns (rows, columns) bool.
    """
    rows, columns = shape
    toggles = np.zeros((rows, columns + 1), bool)
    starts = np.concatenate(polygons)
    ends = np.concatenate([np.roll(polygon, -1, axis=0) for polygon in polygons])
    # Every edge runs downwards, so that both edges of a keyhole's channel cross a row at exactly the same place.
    down = starts[:, 1] <= ends[:, 1]
    upper, lower = np.where(down[:, None], starts, ends), np.where(down[:, None], ends, starts)
    first = np.ceil(np.clip(upper[:, 1], 0, rows)).astype(int)
    beyond = np.ceil(np.clip(lower[:, 1], 0, rows)).astype(int)
    crossed = beyond - first
    edge = np.repeat(np.arange(len(starts)), crossed)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(crossed) - crossed, crossed) + first[edge]
    slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
    column = np.ceil(np.clip(upper[edge, 0] + slope * (row - upper[edge, 1]), 0, columns)).astype(int)
    np.logical_xor.at(toggles, (row, column), True)
    return np.logical_xor.accumulate(toggles, axis=1)[:, :columns]


def rasterize(contours: list[np.ndarray], grid: Grid) -> tuple[np.ndarray, list[str]]:
    """The voxels of one structure.

    On slices that carry contours these alone count. A slice between two contours at most one step apart (the median
    distance between the structure's planes, up to 10 mm or two slices) takes the shape between theirs, by their signed
    distances (Raya and Udupa, IEEE Trans Med Imaging 1990;9:32-42); the first and last contour reach half a step
    outwards. Wider gaps stay empty. Contours in planes that the slices cut at an angle are filled in their own planes,
    on voxels as fine as the finest side of the grid's, and looked up at each voxel's center.

    Args:
        contours: (n, 3) float arrays of LPS mm, n >= 3, each closed by itself and flat.
        grid: where the voxels shall lie.

    Returns:
        (mask, notes): (k, j, i) bool, and what was not straightforward, as phrases for a sentence that begins with the
        structure's name.

    Raises:
        ValueError: the contours are not flat, or lie in planes that are not parallel; the message is such a phrase.
    """
    to_ijk = np.linalg.inv(grid.ijk_to_lps)
    placed = [points @ to_ijk[:3, :3].T + to_ijk[:3, 3] for points in contours]
    slice_mm = _slice_distance(grid)
    tolerance = max(_OFF_PLANE_MM, _OFF_PLANE_PART * slice_mm) / slice_mm
    if all(np.ptp(points[:, 2]) <= tolerance for points in placed):
        return _on_slices(placed, grid)
    own = _grid_of_planes(contours, grid)
    if own is None:
        return np.zeros(grid.shape, bool), ["lies outside the image"]
    to_own = np.linalg.inv(own.ijk_to_lps)
    mask, notes = _on_slices([points @ to_own[:3, :3].T + to_own[:3, 3] for points in contours], own)
    notes.insert(0, "was drawn in planes that the slices cut at an angle, and was resampled")
    if not any("cut off" in note for note in notes):  # by the corners of an image that is tilted to the planes
        notes += cut_off(mask, np.linalg.solve(grid.ijk_to_lps, own.ijk_to_lps), grid)
    return resample_mask(mask, own, grid), notes


def cut_off(mask: np.ndarray, to_image: np.ndarray, image: Grid) -> list[str]:
    """How much of a mask lies outside an image, where it is 1 % or more: a phrase as ``rasterize`` returns, or none.

    Args:
        mask: (k, j, i) bool.
        to_image: (4, 4) affine matrix from the mask's voxel indices (i, j, k) to the image's.
        image: its voxels reach half a voxel beyond their centers.
    """
    total = outside = 0
    for k in np.flatnonzero(mask.any(axis=(1, 2))):  # slice by slice: the outline of a head has millions of voxels
        rows, columns = np.nonzero(mask[k])
        there = to_image[:3, :3] @ np.stack([columns, rows, np.full(len(rows), k)]) + to_image[:3, 3:]
        size = np.array(image.shape[::-1])[:, None]
        # A hundredth of a voxel is the rounding of coordinates.
        outside += int(((there < -0.51) | (there > size - 0.49)).any(axis=0).sum())
        total += len(rows)
    if outside < max(1, _LEAST_CUT_OFF * total):
        return []
    if outside == total:
        return ["lies outside the image"]
    ml = abs(np.linalg.det((image.ijk_to_lps @ to_image)[:3, :3])) / 1000
    return [f"leaves the image with {outside * ml:.3g} of its {total * ml:.3g} ml; it was cut off there, so its volume "
            "and its agreement are those of the rest"]


def _slice_distance(grid: Grid) -> float:
    """mm between slices along their normal."""
    normal = np.cross(grid.direction[:, 0], grid.direction[:, 1])
    return float(abs(grid.ijk_to_lps[:3, 2] @ normal) / np.linalg.norm(normal))


def _typical(steps: np.ndarray) -> float:
    """The median; of two in the middle the smaller, for a gap is no step."""
    return float(np.sort(steps)[(len(steps) - 1) // 2])


def _on_slices(contours: list[np.ndarray], grid: Grid) -> tuple[np.ndarray, list[str]]:
    """As ``rasterize``, for contours parallel to the slices, in (i, j, k) voxel coordinates."""
    slice_mm = _slice_distance(grid)
    tolerance = max(_OFF_PLANE_MM, _OFF_PLANE_PART * slice_mm) / slice_mm
    positions, planes, twice = _planes(contours, tolerance)
    steps = np.diff(positions)
    step = _typical(steps) if len(steps) else 1.0
    largest = (_LARGEST_STEP_OF_TWO_MM, 1.01 * slice_mm) if len(steps) < 2 else (_LARGEST_STEP_MM, 2.05 * slice_mm)
    if step * slice_mm > max(largest):
        step = 1.0
    mask, notes = np.zeros(grid.shape, bool), []
    size = np.array(grid.shape[2:0:-1])
    filled = {}

    def plane(n: int) -> np.ndarray:
        if n not in filled:
            filled[n] = fill(planes[n], grid.shape[1:])
        return filled[n]

    between = False
    for k in range(grid.shape[0]):
        after = int(np.searchsorted(positions, k))
        near = min((n for n in (after - 1, after) if 0 <= n < len(positions)), key=lambda n: abs(positions[n] - k))
        if abs(positions[near] - k) <= tolerance:
            mask[k] = plane(near)
        elif 0 < after < len(positions) and steps[after - 1] <= 1.25 * step:
            weight = (k - positions[after - 1]) / steps[after - 1]
            mask[k] = _shape_between(plane(after - 1), plane(after), weight, grid.spacing[1::-1])
            between = True
        elif -0.5 * step <= k - positions[near] < 0.5 * step:
            mask[k] = plane(near)
        # Slices come in order, so that planes left behind are not needed again.
        for n in [n for n in filled if n < after - 1]:
            del filled[n]
    if between:
        notes.append("has no contours of its own on some slices between others; its shape there is interpolated")
    if twice:
        notes.append(f"has {twice} contour{'s' * (twice > 1)} that the file holds twice; counted once")
    gaps = int(np.count_nonzero(steps > 1.25 * step))
    if gaps:
        notes.append(f"has {gaps} gap{'s' * (gaps > 1)} between its contours along the slices; left empty")
    # A hundredth of a voxel is the rounding of coordinates.
    off = sum(bool((points[:, :2] < -0.51).any() or (points[:, :2] > size - 0.49).any()
                   or not -0.5 - tolerance <= points[0, 2] <= grid.shape[0] - 0.5 + tolerance) for points in contours)
    if off:
        notes.append(f"leaves the image with {off} of its {len(contours)} contours; it was cut off there")
    if not mask.any():
        notes.append("holds no voxel's center: it is too small for this image, or lies outside it")
    return mask, notes


def _planes(contours: list[np.ndarray], tolerance: float) -> tuple[np.ndarray, list[list[np.ndarray]], int]:
    """Contours grouped by plane: (slice coordinate of each, increasing; the (i, j) polygons of each; how many were left
    out because the same one was there already, which by the even-odd rule would be a hole)."""
    groups, levels = _levels(np.array([points[:, 2].mean() for points in contours]), tolerance)
    planes = []
    for group in groups:
        polygons = {np.unique(np.round(contours[n][:, :2], 3), axis=0).tobytes(): contours[n][:, :2] for n in group}
        planes.append(list(polygons.values()))
    return levels, planes, len(contours) - sum(map(len, planes))


def _levels(heights: np.ndarray, tolerance: float) -> tuple[list[np.ndarray], np.ndarray]:
    """(indices of the contours in each plane, mean height of each, increasing)."""
    order = np.argsort(heights, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(heights[order]) > tolerance) + 1)
    return groups, np.array([heights[group].mean() for group in groups])


def _shape_between(first: np.ndarray, second: np.ndarray, weight: float, spacing: np.ndarray) -> np.ndarray:
    """``weight`` 0..1: how far from the first mask to the second."""
    from scipy import ndimage  # slow to load, and Slicer loads this file when it starts

    met = [_overlapping(first, second), _overlapping(second, first)]
    # Parts that overlap nothing on the other side would vanish at once: they end half-way.
    result = first & ~met[0] if weight < 0.5 else second & ~met[1]
    first, second = met
    if not first.any():
        return result
    rows, columns = np.nonzero(first | second)
    box = (slice(max(rows.min() - 1, 0), rows.max() + 2), slice(max(columns.min() - 1, 0), columns.max() + 2))
    distances = [
        ndimage.distance_transform_edt(np.pad(mask[box], 1), spacing)
        - ndimage.distance_transform_edt(np.pad(~mask[box], 1, constant_values=True), spacing)
        for mask in (first, second)
    ]
    result[box] |= ((1 - weight) * distances[0] + weight * distances[1] > 0)[1:-1, 1:-1]
    return result


def _overlapping(mask: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The connected parts of a mask that another one overlaps."""
    from scipy import ndimage

    parts, _ = ndimage.label(mask, np.ones((3, 3)))
    return np.isin(parts, np.unique(parts[mask & other])) & mask


def _grid_of_planes(contours: list[np.ndarray], grid: Grid) -> Grid | None:
    """Voxels along the contours' own planes, as fine as the grid's finest side, where contours and image meet.

    None when they do not meet. Raises ValueError as ``rasterize`` says.
    """
    areas = [np.cross(points - points[0], np.roll(points, -1, axis=0) - points[0]).sum(axis=0) for points in contours]
    largest = areas[int(np.argmax([np.linalg.norm(area) for area in areas]))]
    if not largest.any():
        raise ValueError("has contours that enclose no area")
    normal = largest / np.linalg.norm(largest)
    if any(np.ptp(points @ normal) > _FLAT_MM for points in contours):
        raise ValueError("has contours that are not flat or not parallel to each other")
    along = grid.direction[:, int(np.argmin(np.abs(normal @ grid.direction[:, :2])))]
    u = along - (along @ normal) * normal
    u /= np.linalg.norm(u)
    axes = np.column_stack([u, np.cross(normal, u), normal])
    finest = float(grid.spacing.min())
    _, levels = _levels(np.array([(points @ normal).mean() for points in contours]), _OFF_PLANE_MM)
    step = _typical(np.diff(levels)) if len(levels) > 1 else _slice_distance(grid)
    spacing = np.array([finest, finest, step / np.ceil(step / finest)])
    n = np.array(grid.shape[::-1])
    corners = np.array([[a, b, c] for a in (-0.5, n[0] - 0.5) for b in (-0.5, n[1] - 0.5) for c in (-0.5, n[2] - 0.5)])
    image = (corners @ grid.ijk_to_lps[:3, :3].T + grid.origin) @ axes
    points = np.concatenate(contours) @ axes
    start = points.min(axis=0) - (0, 0, step)
    # The first contour's plane is one of the grid's, whatever is cut off.
    skipped = np.ceil(np.maximum(image.min(axis=0) - start, 0) / spacing)
    start = start + skipped * spacing
    stop = np.minimum(points.max(axis=0) + (0, 0, step), image.max(axis=0))
    count = np.floor((stop - start) / spacing).astype(int) + 2
    if (count < 2).any():
        return None
    return Grid.from_parts(count[::-1], spacing, axes @ start, axes)


def resample_mask(mask: np.ndarray, grid: Grid, target: Grid, to_mask: np.ndarray | None = None) -> np.ndarray:
    """A (k, j, i) bool mask on ``grid`` at the voxel centers of ``target``, by the nearest voxel; False outside.

    ``to_mask`` is a (4, 4) affine matrix from points of ``target`` to those of ``grid``, both LPS mm, where they are
    not the same. ``align.resample`` does the same for images, in four times the memory.
    """
    import SimpleITK as sitk

    transform = sitk.AffineTransform(3)
    if to_mask is not None:
        transform.SetMatrix(to_mask[:3, :3].ravel().tolist())
        transform.SetTranslation(to_mask[:3, 3].tolist())
    image = sitk.Resample(
        to_sitk(mask.astype(np.uint8), grid), [int(n) for n in reversed(target.shape)],
        transform, sitk.sitkNearestNeighbor, target.origin.tolist(),
        target.spacing.tolist(), target.direction.ravel().tolist(), 0,
    )
    return sitk.GetArrayFromImage(image).astype(bool)
