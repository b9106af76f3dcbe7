"""Solid shapes as signed distances, and the canvas that the digital anatomy is painted on.

Coordinates are millimetres in the anatomy's own frame: x to the patient's left, y posterior, z superior, the
pituitary fossa at the origin. A distance is negative inside.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..study.volume import Grid

# Lattices of the noise cover this cube of the anatomy, mm from the origin; beyond it the noise fades to 0.
_NOISE_REACH_MM = 180.0


@dataclass(frozen=True)
class Shape:
    """A solid: ``distance(x, y, z)`` in mm (arrays in, array out), and the box (low, high) that holds it.

    ``parts`` are the shapes whose union it is, when looking at each in its own box is quicker.
    """

    low: np.ndarray
    high: np.ndarray
    distance: Callable
    parts: tuple = ()


def ellipsoid(center, radii, tilt_deg: float = 0.0) -> Shape:
    """Ellipsoid with radii along x, y, z, tilted about the x axis (positive: its front goes down)."""
    center, radii = np.asarray(center, np.float32), np.asarray(radii, np.float32)
    cos, sin = np.cos(np.deg2rad(tilt_deg)), np.sin(np.deg2rad(tilt_deg))

    def distance(x, y, z):
        dx, dy, dz = x - center[0], y - center[1], z - center[2]
        if tilt_deg:
            dy, dz = dy * np.float32(cos) + dz * np.float32(sin), dz * np.float32(cos) - dy * np.float32(sin)
        a, b, c = dx / radii[0], dy / radii[1], dz / radii[2]
        inner = np.sqrt(a * a + b * b + c * c)
        slope = np.sqrt((a / radii[0]) ** 2 + (b / radii[1]) ** 2 + (c / radii[2]) ** 2)
        return inner * (inner - 1) / np.maximum(slope, np.float32(1e-6))

    reach = np.array([radii[0], *(2 * [max(radii[1:])])]) if tilt_deg else radii
    return Shape(center - reach, center + reach, distance)


def box(center, half, rounding: float = 2.0, tilt_deg: float = 0.0) -> Shape:
    """Rounded box with half-widths along x, y, z, tilted about the x axis like ``ellipsoid``."""
    center, half = np.asarray(center, np.float32), np.asarray(half, np.float32) - np.float32(rounding)
    cos, sin = np.float32(np.cos(np.deg2rad(tilt_deg))), np.float32(np.sin(np.deg2rad(tilt_deg)))

    def distance(x, y, z):
        dx, dy, dz = x - center[0], y - center[1], z - center[2]
        if tilt_deg:
            dy, dz = dy * cos + dz * sin, dz * cos - dy * sin
        dx, dy, dz = np.abs(dx) - half[0], np.abs(dy) - half[1], np.abs(dz) - half[2]
        outside = np.sqrt(np.maximum(dx, 0) ** 2 + np.maximum(dy, 0) ** 2 + np.maximum(dz, 0) ** 2)
        return outside + np.minimum(np.maximum(np.maximum(dx, dy), dz), 0) - np.float32(rounding)

    reach = np.full(3, np.linalg.norm(half) + rounding) if tilt_deg else half + rounding
    return Shape(center - reach, center + reach, distance)


def tube(points, radii, flatten=(1.0, 1.0, 1.0)) -> Shape:
    """Tube along a smooth curve through ``points`` with a radius at each; ``flatten`` stretches x, y, z.

    A flatten of (2, 1, 1) makes the cross section twice as wide along x as ``radii`` says.
    """
    stretch = np.asarray(flatten, np.float32)
    path = _smooth_path(np.column_stack([points, np.broadcast_to(radii, len(points))]).astype(np.float64))
    knots, widths = path[:, :3].astype(np.float32) / stretch, path[:, 3].astype(np.float32)

    def piece(start, end, w0, w1):
        along = end - start

        def distance(x, y, z):
            dx, dy, dz = x / stretch[0] - start[0], y / stretch[1] - start[1], z / stretch[2] - start[2]
            t = np.clip((dx * along[0] + dy * along[1] + dz * along[2]) / max(along @ along, np.float32(1e-6)), 0, 1)
            d = np.sqrt((dx - t * along[0]) ** 2 + (dy - t * along[1]) ** 2 + (dz - t * along[2]) ** 2)
            return d - (w0 + t * (w1 - w0))

        reach = max(w0, w1) * stretch
        return Shape(np.minimum(start, end) * stretch - reach, np.maximum(start, end) * stretch + reach, distance)

    parts = tuple(map(piece, knots[:-1], knots[1:], widths[:-1], widths[1:]))
    return Shape(
        np.min([part.low for part in parts], 0), np.max([part.high for part in parts], 0),
        lambda x, y, z: np.minimum.reduce([part.distance(x, y, z) for part in parts]), parts,
    )


def _smooth_path(rows: np.ndarray, steps: int = 3) -> np.ndarray:
    """Catmull-Rom curve through the rows, ``steps`` pieces between neighbours."""
    if len(rows) < 3:
        return rows
    padded = np.vstack([2 * rows[0] - rows[1], rows, 2 * rows[-1] - rows[-2]])
    t = (np.arange(steps) / steps)[:, None]
    pieces = []
    for p0, p1, p2, p3 in zip(padded, padded[1:], padded[2:], padded[3:]):
        pieces.append(
            0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
                   + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
        )
    return np.vstack([*pieces, rows[-1:]])


def blend(distances, softness: float):
    """Union of distances with a fillet of about ``softness`` mm."""
    result = distances[0]
    for other in distances[1:]:
        h = np.maximum(softness - np.abs(result - other), 0) / np.float32(softness)
        result = np.minimum(result, other) - h * h * np.float32(softness / 4)
    return result


def smooth_noise(grid: Grid, scale_mm, seed) -> np.ndarray:
    """Smooth random field, (k, j, i) float32 of unit variance, with bumps of about ``scale_mm``.

    Cubic B-spline on a random lattice in space: the same field at any resolution. The grid must have the
    identity direction. ``scale_mm`` is one number or three for x, y, z.
    """
    scales = np.broadcast_to(np.asarray(scale_mm, float), 3)
    counts = [int(2 * _NOISE_REACH_MM / s) + 5 for s in scales]
    field = np.random.default_rng(seed).standard_normal(counts[::-1], np.float32)
    for a, axis in reversed(list(enumerate(_axes(grid)))):
        weights = _spline_weights(axis, scales[a], counts[a])
        used = np.flatnonzero(weights.any(0))
        near = np.take(field, used, axis=2 - a)
        field = np.moveaxis(np.tensordot(weights[:, used], near, (1, 2 - a)), 0, 2 - a)
    # The variance that the spline's weights leave is 0.479 an axis on average.
    return np.ascontiguousarray(field / np.float32(0.479**1.5))


def _axes(grid: Grid):
    """Positions in mm of the voxels along x, y and z."""
    return [grid.origin[a] + grid.spacing[a] * np.arange(grid.shape[2 - a]) for a in range(3)]


def mirrored(points, side: int):
    """The points with x multiplied by ``side`` (+1 patient's left, -1 right)."""
    return np.asarray(points, float) * (side, 1, 1)


class Canvas:
    """Labels on a grid, painted tissue after tissue; later paint covers earlier paint.

    Each voxel knows where it lies in the standard anatomy: pose, body size and a smooth warp (drawn
    from ``rng``) are undone first, so that shapes are always written in standard coordinates. What is painted
    depends on the seed and the position alone, never on the grid.

    Attributes:
        labels: (k, j, i) uint8; index into ``tissues``.
        x, y, z: (k, j, i) float32 standard coordinates in mm.
    """

    def __init__(self, grid: Grid, tissues: tuple[str, ...], seed: int, rng: np.random.Generator):
        self.grid, self.tissues, self._seed = grid, tissues, seed
        self.labels = np.zeros(grid.shape, np.uint8)
        self._noises: dict = {}
        self._warp_mm = 0.0
        self.x, self.y, self.z = self._standard_coordinates(rng)

    def _standard_coordinates(self, rng):
        scale = rng.uniform(0.95, 1.05) * rng.uniform(0.97, 1.03, 3)
        pitch, yaw, roll = np.deg2rad(rng.normal(0, 1, 3) * (3.0, 2.0, 1.5)).clip(-0.1, 0.1)
        turn = (
            np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
            @ np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
            @ np.array([[np.cos(roll), 0, np.sin(roll)], [0, 1, 0], [-np.sin(roll), 0, np.cos(roll)]])
        )
        pose = turn / scale[:, None]
        self._unpose = np.linalg.inv(pose)
        matrix = pose.astype(np.float32)
        i, j, k = (axis.astype(np.float32) for axis in _axes(self.grid))
        coordinates = []
        for row, name in zip(matrix, "xyz"):
            place = (row[2] * k)[:, None, None] + (row[1] * j)[:, None] + row[0] * i
            shift = np.float32(2.0) * self.noise(f"warp {name}", 70.0)
            shift += np.float32(0.5) * self.noise(f"fine warp {name}", 25.0)
            self._warp_mm = max(self._warp_mm, float(np.abs(shift).max()))
            coordinates.append(place + shift)
        self._noises.clear()
        return coordinates

    def noise(self, name: str, scale_mm, block=(slice(None),) * 3) -> np.ndarray:
        """``smooth_noise`` of this canvas by name, kept for the next call."""
        key = (name, str(scale_mm))
        if key not in self._noises:
            self._noises[key] = smooth_noise(self.grid, scale_mm, [self._seed, *name.encode()])
        return self._noises[key][block]

    def block(self, low, high):
        """Slices (k, j, i) of the voxels that a shape within [low, high] may touch."""
        low, high = np.asarray(low, float), np.asarray(high, float)
        center = self._unpose @ (low + high) / 2
        reach = np.abs(self._unpose) @ ((high - low) / 2 + self._warp_mm)
        first = np.ceil((center - reach - self.grid.origin) / self.grid.spacing).clip(0)
        last = np.floor((center + reach - self.grid.origin) / self.grid.spacing).clip(-1)
        return tuple(slice(int(a), max(int(b) + 1, int(a))) for a, b in zip(first[::-1], last[::-1]))

    def at(self, block):
        """Standard coordinates x, y, z of a block."""
        return self.x[block], self.y[block], self.z[block]

    def label(self, tissue: str) -> int:
        """Number of a tissue."""
        return self.tissues.index(tissue)

    def is_any(self, block, tissues) -> np.ndarray:
        """True where the block holds one of those tissues now."""
        table = np.zeros(256, bool)
        table[[self.label(t) for t in tissues]] = True
        return table[self.labels[block]]

    def paint(self, tissue: str, shape: Shape, inset: float = 0.0, rough: float = 0.0, over=None, spare=None):
        """Fill a shape.

        Args:
            inset: shrink the shape by so many mm (negative: grow).
            rough: amplitude in mm of bumps of its surface.
            over: paint only over these tissues; spare: never over these.
        """
        block, mask = self.mask(shape, inset, rough)
        if over is not None:
            mask &= self.is_any(block, over)
        if spare is not None:
            mask &= ~self.is_any(block, spare)
        self.labels[block][mask] = self.label(tissue)

    def mask(self, shape: Shape, inset: float = 0.0, rough: float = 0.0):
        """(block, bool array of the block): the voxels inside the shape."""
        pad = max(-inset, 0) + 2 * rough
        block = self.block(shape.low - pad, shape.high + pad)
        if shape.parts:
            distance = np.full(self.labels[block].shape, 99, np.float32)
            for part in shape.parts:
                own = self.block(part.low - pad * 2.5, part.high + pad * 2.5)
                own = tuple(slice(max(o.start, b.start), min(o.stop, b.stop)) for o, b in zip(own, block))
                if any(o.stop <= o.start for o in own):
                    continue
                local = tuple(slice(o.start - b.start, o.stop - b.start) for o, b in zip(own, block))
                distance[local] = np.minimum(distance[local], part.distance(*self.at(own)))
        else:
            distance = shape.distance(*self.at(block))
        if rough:
            distance = distance + np.float32(rough) * self.noise("rough", 9.0, block)
        return block, distance < -inset

    def bone(self, shape: Shape, marrow: str = "fatty_marrow", cortex: float = 1.6, rough: float = 0.5, over=None):
        """A bone: marrow within a cortex of so many mm."""
        self.paint("cortical_bone", shape, rough=rough, over=over)
        allowed = None if over is None else (*over, "cortical_bone")
        self.paint(marrow, shape, inset=cortex, rough=rough, over=allowed)


def _spline_weights(positions, scale, count):
    """(n, count) float32: weights of the lattice points at each position, mm."""
    place = (np.asarray(positions) + _NOISE_REACH_MM) / scale + 2
    t = np.abs(place[:, None] - np.arange(count))
    near = 2 / 3 - t**2 + t**3 / 2
    far = np.clip(2 - t, 0, None) ** 3 / 6
    return np.where(t < 1, near, far).astype(np.float32)
