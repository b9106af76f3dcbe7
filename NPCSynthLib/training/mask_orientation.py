"""Does a mask sit on its image? Where its header cannot be believed, the image tells which way round it lies.

Programs that save contours as NIfTI often get the order and direction of the axes wrong. A mask is tried in every way
that its array fits the image's, and each is scored by what it separates: drawn contours enclose tissue that differs
from what lies around it, and follow its edges; a mask in a wrong place does so by chance alone. Chance is measured on
the same image, by shifting the mask within its slices.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ..errors import InputError
from ..study.align import overlap
from ..study.contours_raster import resample_mask
from ..study.normalize import body_mask, normalize, percentiles
from ..study.volume import Grid, Volume

#: A placement less sure than this is doubtful, and so is one whose contrast chance reaches too (standard deviations).
SURE = 0.9
LEAST_CONTRAST = 4.0
#: So much of a mask must lie within the body.
LEAST_BODY = 0.9
#: Two placements that share so much (Dice) are one answer.
_SAME = 0.9
_RING_MM = 6.0
_REACH_MM = 12.0
_MOST_VOXELS = 20_000
_BINS = 24
_AXES = ("slices", "rows", "columns")


@dataclass(frozen=True, eq=False)
class Placement:
    """A mask on the grid of its image.

    Attributes:
        mask: (k, j, i) bool on the image's grid.
        how: which way round it lies, in words ("as its header says", "rows reversed", …).
        by_header: whether that is where its header places it.
        confidence: 0..1, how sure this way is among all that were tried.
        in_body: part of the mask that lies within the body, 0..1.
        doubt: a sentence why it must not be used unseen, or None.
    """

    mask: np.ndarray
    how: str
    by_header: bool
    confidence: float
    in_body: float
    doubt: str | None


def place_mask(mask: Volume, image: Volume) -> Placement:
    """Find how a mask lies on its image, by the image.

    Args:
        mask: its voxels above 0 are the structure; its header is one guess among others.
        image: the image that it was drawn on, slice by slice (planes of constant k).

    Raises:
        InputError: the mask is empty, or it fits the image neither voxel by voxel nor by its header.
    """
    if not (mask.array > 0).any():
        raise InputError(f"{mask.name} is empty.")
    ways = _ways(mask, image)
    if not ways:
        raise InputError(f"{mask.name} has another size than its image and lies elsewhere by its header, so that it "
                         "cannot be placed.")
    judge = _Judge(image)
    scores = [judge.score(placed) for _, _, placed in ways]
    totals = np.array([s.total for s in scores])
    best = int(totals.argmax())
    how, by_header, placed = ways[best]
    odds = np.exp(np.minimum(0, totals - totals[best]))
    alike = np.array([_dice(placed, other) > _SAME for _, _, other in ways])
    # Of ways that give the same mask one counts; where the header's is among them, it has the name.
    confidence = 1 / (1 + odds[~alike].sum())
    for n in np.flatnonzero(alike):
        if ways[n][1]:
            how, by_header, placed = ways[n]
            best = int(n)
    score, doubt = scores[best], None
    if score.in_body < LEAST_BODY:
        doubt = f"{mask.name} lies outside of the body for {1 - score.in_body:.0%}, whichever way it is turned."
    elif score.contrast < LEAST_CONTRAST:
        doubt = (f"{mask.name} follows nothing that can be seen in its image, whichever way it is turned: that it sits "
                 "where it was drawn could not be confirmed.")
    elif confidence < SURE:
        doubt = f"{mask.name} could lie in more than one way on its image; most likely: {how} ({confidence:.0%})."
    return Placement(placed, how, by_header, float(confidence), score.in_body, doubt)


def _ways(mask: Volume, image: Volume) -> list[tuple[str, bool, np.ndarray]]:
    """(words, whether the header says so, mask on the image's grid) of every way to lay the mask."""
    array = mask.array > 0
    header = _header_way(mask.grid, image.grid)
    ways = []
    for order in itertools.permutations(range(3)):
        if tuple(array.shape[axis] for axis in order) != image.array.shape:
            continue
        for signs in itertools.product((1, -1), repeat=3):
            says = header == (order, signs)
            placed = array.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
            ways.append(("as its header says" if says else _words(order, signs), says, placed))
    if ways:
        return ways
    # Of another size: by its header alone, or with x and y in the other convention (RAS for LPS).
    for signs in ((1, 1, 1), (-1, -1, 1), (-1, 1, 1), (1, -1, 1)):
        grid = Grid(mask.grid.shape, np.diag((*signs, 1.0)) @ mask.grid.ijk_to_lps)
        if overlap(grid, image.grid) == 0:
            continue
        placed = resample_mask(array, grid, image.grid)
        if placed.any():
            plain = signs == (1, 1, 1)
            words = "as its header says" if plain else "as its header says with axes of the other convention"
            ways.append((words, plain, placed))
    return ways


def _header_way(mask: Grid, image: Grid):
    """(order, signs) by which the mask's array becomes the image's, when the headers say that the voxels coincide."""
    offset = np.linalg.solve(image.ijk_to_lps, mask.ijk_to_lps)
    turn = np.rint(offset[:3, :3])
    if np.abs(offset[:3, :3] - turn).max() > 1e-2 or not (np.abs(turn).sum(0) == 1).all():
        return None
    if not (np.abs(turn).sum(1) == 1).all():
        return None
    turn = turn[::-1, ::-1]  # rows: axes of the image, columns: axes of the mask, both k, j, i
    order = tuple(int(np.abs(row).argmax()) for row in turn)
    signs = tuple(int(row[axis]) for row, axis in zip(turn, order, strict=True))
    if tuple(mask.shape[axis] for axis in order) != image.shape:
        return None
    first = tuple(0 if sign > 0 else n - 1 for sign, n in zip(signs, image.shape, strict=True))
    return (order, signs) if np.abs(offset[2::-1, 3] - first).max() < 0.1 else None


def _words(order, signs) -> str:
    parts = [] if order == (0, 1, 2) else ["rows and columns exchanged" if order == (0, 2, 1) else "axes exchanged"]
    turned = [name for name, sign in zip(_AXES, signs, strict=True) if sign < 0]
    parts += [f"{' and '.join(turned)} reversed"] if turned else []
    return ", ".join(parts) or "voxel by voxel as the image"


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * np.count_nonzero(one & other) / max(1, np.count_nonzero(one) + np.count_nonzero(other))


@dataclass(frozen=True)
class _Score:
    """``contrast``, ``edges``: in standard deviations above chance; ``total``: what ways are compared by."""

    contrast: float
    edges: float
    in_body: float

    @property
    def total(self) -> float:
        return self.contrast + 0.5 * self.edges - 20 * max(0.0, LEAST_BODY - self.in_body)


class _Judge:
    """Scores masks on one image."""

    def __init__(self, image: Volume):
        body = body_mask(image.array, image.grid.spacing)
        levels = np.clip(normalize(image.array, *percentiles(image.array, body)), 0, 1.2)
        self.spacing = image.grid.spacing[[1, 0]]  # row and column
        levels = ndimage.gaussian_filter(levels, (0, *(1.0 / self.spacing).clip(0.3)))
        self.reach = np.ceil(_REACH_MM / self.spacing).astype(int)
        pad = ((0, 0), *((n, n) for n in self.reach))
        self.levels = np.pad(np.minimum(levels * (_BINS / 1.2), _BINS - 1).astype(np.int8), pad)
        rows, columns = np.gradient(levels, *self.spacing, axis=(1, 2))
        self.edges = np.pad(np.hypot(rows, columns).astype(np.float32), pad)
        self.body = body

    def score(self, mask: np.ndarray) -> _Score:
        in_body = float(self.body[mask].mean())
        slices = np.flatnonzero(mask.any(axis=(1, 2)))
        inside, ring, edge = [], [], []
        for k in slices:
            out = ndimage.distance_transform_edt(~mask[k], sampling=self.spacing)
            within = ndimage.distance_transform_edt(np.pad(mask[k], 1), sampling=self.spacing)[1:-1, 1:-1]
            one = self.spacing.max() * 1.01
            for found, where in (
                (inside, mask[k]), (ring, (out > 0) & (out <= max(_RING_MM, 2 * one))),
                (edge, ((out > 0) & (out <= one)) | ((within > 0) & (within <= one))),
            ):
                j, i = np.nonzero(where)
                found.append(np.stack([np.full(j.size, k), j, i]))
        inside, ring, edge = (_some(np.concatenate(found, axis=1)) for found in (inside, ring, edge))
        # A mask without a ring fills its slices.
        if not ring.size:
            return _Score(0.0, 0.0, in_body)
        steps = [np.unique(np.rint(np.linspace(-n, n, 7)).astype(int)) for n in self.reach]
        chance = [(dj, di) for dj in steps[0] for di in steps[1] if (dj, di) != (0, 0)]
        figures = np.array([self._figures(inside, ring, edge, *shift) for shift in [(0, 0), *chance]])
        spread = figures[1:].std(axis=0)
        contrast, edges = (figures[0] - figures[1:].mean(axis=0)) / np.maximum(spread, 1e-9)
        return _Score(float(contrast), float(edges), in_body)

    def _figures(self, inside, ring, edge, dj: int, di: int) -> tuple[float, float]:
        """(mutual information of being inside and intensity, mean gradient at the contour) of the shifted mask."""
        move = np.array([0, self.reach[0] + dj, self.reach[1] + di])[:, None]
        counts = [np.bincount(self.levels[tuple(at + move)], minlength=_BINS) + 0.5 for at in (inside, ring)]
        weights = np.array([c.sum() for c in counts])
        share = weights / weights.sum()
        each = [c / n for c, n in zip(counts, weights, strict=True)]
        both = share[0] * each[0] + share[1] * each[1]
        information = sum(w * float((p * np.log(p / both)).sum()) for w, p in zip(share, each, strict=True))
        return information, float(self.edges[tuple(edge + move)].mean())


def _some(points: np.ndarray) -> np.ndarray:
    """At most so many of the (3, n) points, evenly taken."""
    return points[:, :: points.shape[1] // _MOST_VOXELS + 1]
