"""Whether an image is of a kind that the weights learned from, and if not, why not, in plain sentences.

No opaque number: several cheap measurements of each acquired image, each with a limit and a sentence of its own.

- size of the body, in mm; whether the image cuts it off; whether neighboring voxels have anything in common; whether
  the gray values are those of CT. Their limits are anatomy and physics, the same for any weights.
- how gray values are spread; how far the encoder's coarsest features lie from those of the training images; whether
  slices, read from top to bottom and from front to back, look like a head the right way up. These were fitted to the
  training images (``evaluation.usual``) and are kept beside the weights in ``usual.safetensors``; weights without that
  file do without these checks, and the result says so.

Mirroring left and right cannot be seen: heads are too symmetric.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from ..errors import Cancelled
from ..model.weights import LoadedModel, add_file
from ..study.normalize import CLIP, block_mean, body_mask, normalize, percentiles
from ..study.study import Study
from ..study.volume import Grid, Volume
from .device import Device
from .geometry import axis_steps
from .recognition import LEAST_CONFIDENCE

_FILE = "usual.safetensors"
_COARSE_MM = 2.5
#: Pictures shown to the encoder: so many heights, pixels of this size, within this field of view.
_HEIGHTS, _PIXEL_MM, _STEP_MM, _VIEW_MM = 8, 1.3, 3.0, 224.0
#: Shares of the body's height from below between which they lie.
_SPAN = (0.1, 0.9)
_QUANTILES = np.linspace(0.02, 0.98, 33)
#: mm from left to right and from front to back, of a middle slice; from brains of children to heads with hair and ears,
#: and necks between shoulders.
WIDTH_MM, DEPTH_MM = (75.0, 250.0), (90.0, 290.0)
#: Share of a side face of the image that body may fill (a nose or the back of the head that sticks out).
FACE_LIMIT = 0.25
#: Least correlation of neighbors; the noisiest training image has 0.77.
NEIGHBOR_LIMIT = 0.6
#: Least part of the gray scale that half of the body takes up. In CT nearly all soft tissue lies between -100 and 100
#: of some 2500 units; the narrowest training image, T2 of a brain, has 0.091, and the limit lies a quarter beyond it.
CROWD_LIMIT = 0.073
#: Share of the image that may lie below Hounsfield units that only air has (-1000). A FLAIR of a public collection has
#: its background at -627.
BELOW_LIMIT, _FAR_BELOW = 0.05, -900.0
#: Less of a head than this does not tell which end is up.
_ENOUGH_MM = 80.0
_FACES = ("right", "left", "front", "back")


@dataclass(frozen=True)
class Finding:
    """One measurement.

    Attributes:
        check: "size", "cut off", "noise", "far below zero", "crowded grays", "gray values", "features", "up and down",
            "front and back".
        score: 0 is perfectly usual, 1 the limit; higher is more unusual.
        sentence: what is wrong, for a person, with {sequence} where the sequence's name belongs.
    """

    check: str
    score: float
    sentence: str


@dataclass(frozen=True)
class Look:
    """What is measured of one image; ``usual`` holds what is compared with the training images.

    Attributes:
        width_mm, depth_mm: of the body, the medians over its slices; height_mm: of all of it.
        faces: share of the image's right, left, front and back face that body fills.
        neighbor: correlation of neighboring voxels within the body.
        below: share of the whole image that lies below -900 in the scanner's units.
        quantiles: (33,) of the gray values inside the body, 0 and 1 its 0.5 and 99.5 percentiles.
        features: (H, C) mean over the body of the encoder's coarsest invariant features, at H heights from below.
        slopes: (H, C) how they change from front to back, per half depth of the body.
    """

    width_mm: float
    depth_mm: float
    height_mm: float
    faces: tuple[float, float, float, float]
    neighbor: float
    below: float
    quantiles: np.ndarray
    features: np.ndarray
    slopes: np.ndarray


@dataclass(frozen=True)
class Usual:
    """What training images look like.

    Attributes:
        curves: (N, 33) their gray value quantiles.
        mean, axes: (C,) and (C, R): features minus mean, times axes, have unit variance in training.
        rest: RMS in training of what lies outside these axes.
        up: (C,) features times it grow upwards in the head.
        back: (C,) slopes times it are about 1 where front is in front, and -1 where it is behind.
        curve_limit, feature_limit: largest distances that training patients had from the others, with a margin.
    """

    curves: np.ndarray
    mean: np.ndarray
    axes: np.ndarray
    rest: float
    up: np.ndarray
    back: np.ndarray
    curve_limit: float
    feature_limit: float

    def curve_distance(self, look: Look) -> float:
        """Mean absolute difference from the most similar training image's quantiles."""
        return float(np.abs(self.curves - look.quantiles).mean(axis=1).min())

    def feature_distance(self, look: Look) -> float:
        """Median over the heights of the root mean square number of standard deviations from the training mean."""
        away = look.features - self.mean
        within = away @ self.axes
        directions = self.axes / np.linalg.norm(self.axes, axis=0)
        outside = np.linalg.norm(away - (away @ directions) @ directions.T, axis=1) / self.rest
        count = self.axes.shape[1]
        return float(np.median(np.sqrt((np.square(within).sum(axis=1) + outside**2) / (count + 1))))

    def upright(self, look: Look) -> float:
        """Correlation, -1..1, of each slice's height with the height that it looks like."""
        guess = (look.features - self.mean) @ self.up
        if guess.std() == 0:
            return 0.0
        return float(np.corrcoef(guess, np.arange(len(guess)))[0, 1])

    def facing(self, look: Look) -> float:
        """Mean over slices, about 1 for front in front and -1 for the reverse."""
        return float((look.slopes @ self.back).mean())


def look_at(loaded: LoadedModel, device: Device, volume: Volume) -> Look:
    """Measure one image as it was acquired. Raises InputError when it is the same everywhere."""
    coarse, grid, factors = _coarse(volume)
    body = body_mask(coarse, grid.spacing)
    places = _places(grid, body)
    width, depth = _extent(places)
    low, high = percentiles(coarse, body)
    quantiles = np.quantile(normalize(coarse[body], low, high), _QUANTILES).astype(np.float32)
    features, slopes = _features(loaded, device, volume, low, high, grid, body, places)
    height = float(np.ptp(places[:, 2]))
    return Look(width, depth, height, _face_shares(grid, body), _neighbors(volume, factors, body),
                float((coarse < _FAR_BELOW).mean()), quantiles, features, slopes)


def why_unusual(usual: Usual | None, look: Look) -> list[Finding]:
    """Every measurement of an image, the most unusual first; those with a score above 1 are beyond their limit.

    Without ``usual`` those that need no comparison with the training images.
    """
    face = int(np.argmax(look.faces))
    crowd = half_width(look.quantiles)
    found = [
        _size(look),
        Finding(
            "cut off", look.faces[face] / FACE_LIMIT,
            f"{{sequence}} seems to be cut off: the body reaches far along the {_FACES[face]} edge of the image.",
        ),
        Finding(
            "noise", (1 - look.neighbor) / (1 - NEIGHBOR_LIMIT),
            "{sequence} is hardly more than noise: neighboring voxels have little in common.",
        ),
        Finding(
            "far below zero", min(2.0, look.below / BELOW_LIMIT),
            f"{{sequence}} has values below {_FAR_BELOW:.0f}, as CT has for air and MR images do not have.",
        ),
        Finding(
            "crowded grays", CROWD_LIMIT / max(crowd, 1e-6),
            f"Half of the gray values of {{sequence}} lie within {crowd:.0%} of their range: as in CT, not as in MR.",
        ),
    ]  # fmt: skip
    if usual is not None:
        found += _compared(usual, look)
    return sorted(found, key=lambda finding: -finding.score)


def _compared(usual: Usual, look: Look) -> list[Finding]:
    """The measurements that are held against the training images."""
    return [
        Finding(
            "gray values", usual.curve_distance(look) / usual.curve_limit,
            "The gray values of {sequence} are not spread as in the MR images that the network learned from.",
        ),
        Finding(
            "features", usual.feature_distance(look) / usual.feature_limit,
            "{sequence} looks to the network unlike the images that it learned from.",
        ),
        Finding(
            "up and down", 1 - usual.upright(look) if look.height_mm >= _ENOUGH_MM else 0.0,
            "{sequence} seems to be upside down: read upwards, its slices look like a head read downwards.",
        ),
        Finding(
            "front and back", 1 - usual.facing(look),
            "Front and back of {sequence} seem to be exchanged.",
        ),
    ]  # fmt: skip


def half_width(quantiles: np.ndarray) -> float:
    """Narrowest part of the gray scale (0 and 1 the body's 0.5 and 99.5 percentiles) that holds half of the body."""
    half = round(0.5 / (_QUANTILES[1] - _QUANTILES[0]))
    return float((quantiles[half:] - quantiles[:-half]).min())


def _size(look: Look) -> Finding:
    """0 in the middle of the range, 1 at its ends, by ratio."""
    scores = []
    for mm, (low, high) in ((look.width_mm, WIDTH_MM), (look.depth_mm, DEPTH_MM)):
        middle = np.sqrt(low * high)
        scores.append(abs(np.log(max(mm, 1.0) / middle)) / np.log(high / middle))
    return Finding(
        "size", float(max(scores)),
        f"{{sequence}} shows a body {look.width_mm:.0f} mm wide and {look.depth_mm:.0f} mm deep, as no head is: it may "
        "be another part of the body, or its voxel size is wrong.",
    )  # fmt: skip


def _coarse(volume: Volume) -> tuple[np.ndarray, Grid, list[int]]:
    """The volume averaged over blocks of about 2.5 mm, so that all the rest costs next to nothing; its grid, and the
    voxels of a block along each array axis."""
    spacing = volume.grid.spacing[::-1]
    factors = [min(max(1, round(_COARSE_MM / mm)), n) for mm, n in zip(spacing, volume.array.shape, strict=True)]
    array = np.nan_to_num(np.asarray(volume.array, np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    array = block_mean(array, factors)
    matrix = volume.grid.ijk_to_lps.copy()
    shift = (np.array(factors[::-1]) - 1) / 2
    matrix[:3, 3] += matrix[:3, :3] @ shift
    matrix[:3, :3] *= factors[::-1]
    return array, Grid(array.shape, matrix), factors


def _places(grid: Grid, body: np.ndarray) -> np.ndarray:
    """(N, 3) LPS positions of the body's voxels."""
    kji = np.argwhere(body)
    return kji[:, ::-1] @ grid.ijk_to_lps[:3, :3].T + grid.origin


def _extent(places: np.ndarray) -> tuple[float, float]:
    """Width and depth of the body in mm, the medians over slices."""
    z = places[:, 2]
    slabs = np.floor((z - z.min()) / 5.0).astype(int)
    sizes = []
    for slab in np.unique(slabs):
        here = places[slabs == slab, :2]
        sizes.append(np.ptp(here, axis=0) + _COARSE_MM)
    width, depth = np.median(sizes, axis=0)
    return float(width), float(depth)


def _face_shares(grid: Grid, body: np.ndarray) -> tuple[float, ...]:
    """Share of the image's right, left, front and back face that body fills; slices end above and below as they do."""
    shares = dict.fromkeys(_FACES, 0.0)
    toward, sign = axis_steps(grid)
    for axis in range(3):
        if toward[axis] == 2:
            continue
        low, high = (_FACES[2 * toward[axis]], _FACES[2 * toward[axis] + 1])
        if sign[axis] < 0:
            low, high = high, low
        # the outermost voxels of a file are often blank, or half a block
        filled = body.mean(axis=tuple(a for a in range(3) if a != axis))
        body_there = body.any(axis=axis).mean()
        for name, end in ((low, filled[:2].max()), (high, filled[-2:].max())):
            shares[name] = float(end / max(body_there, 1e-6))
    return tuple(shares[name] for name in _FACES)


def _neighbors(volume: Volume, factors: list[int], body: np.ndarray) -> float:
    """Correlation of neighbors along the two finest axes, within the body, in the middle fifth of the thickest one."""
    spacing = volume.grid.spacing[::-1]
    thick = int(np.argmax(spacing))
    axes = [a for a in range(3) if a != thick]
    count = volume.array.shape[thick]
    part = [slice(None)] * 3
    part[thick] = slice(2 * count // 5, max(3 * count // 5, 2 * count // 5 + 1))
    array = np.nan_to_num(np.asarray(volume.array[tuple(part)], np.float32))
    mask = body
    for axis in range(3):
        mask = np.repeat(mask, factors[axis], axis=axis)[tuple(
            slice(0, volume.array.shape[a]) if a == axis else slice(None) for a in range(3))]
    mask = mask[tuple(part)]
    found = []
    for axis in axes:
        one, other = [slice(None)] * 3, [slice(None)] * 3
        one[axis], other[axis] = slice(0, -1), slice(1, None)
        one, other = tuple(one), tuple(other)
        both = mask[one] & mask[other]
        if both.sum() < 100:
            continue
        x, y = array[one][both], array[other][both]
        if x.std() > 0 and y.std() > 0:
            found.append(float(np.corrcoef(x, y)[0, 1]))
    return max(found, default=1.0)


@torch.inference_mode()
def _features(loaded: LoadedModel, device: Device, volume: Volume, low: float, high: float, grid: Grid,
              body: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """``Look.features`` and ``Look.slopes`` from axial slices, whatever the image's own slices are."""
    stride = loaded.model.config.stride
    first, last = places.min(axis=0), places.max(axis=0)
    middle = (first + last) / 2
    sides = [stride * max(1, int(np.ceil(min(mm, _VIEW_MM) / _PIXEL_MM / stride))) for mm in (last - first)[:2]]
    x, y = (middle[axis] + _PIXEL_MM * (np.arange(n) - (n - 1) / 2) for axis, n in enumerate(sides))
    z = first[2] + (last[2] - first[2]) * np.linspace(*_SPAN, _HEIGHTS)
    stacks = _sample(volume.array, volume.grid, np.add.outer(z, (-_STEP_MM, 0, _STEP_MM)).ravel(), y, x, 1, low)
    stacks = normalize(stacks, low, high).reshape(_HEIGHTS, 3, len(y), len(x))
    inside = _sample(body.astype(np.uint8), grid, z, y[2::4], x[2::4], 0, 0).astype(np.float32)
    images = torch.from_numpy(stacks).to(device.torch).clamp_(0, CLIP[1])
    images = images.contiguous(memory_format=torch.channels_last)
    with device.autocast():
        coarsest = loaded.model.encode(images).invariant[-1]
    coarsest = coarsest.float().cpu().numpy()
    weight = F.adaptive_avg_pool2d(torch.from_numpy(inside)[:, None], coarsest.shape[-2:]).numpy() + 1e-6
    features = (coarsest * weight).sum(axis=(2, 3)) / weight.sum(axis=(2, 3))
    row = np.arange(coarsest.shape[2], dtype=np.float32)[None, None, :, None]
    behind = row - (row * weight).sum(axis=(2, 3), keepdims=True) / weight.sum(axis=(2, 3), keepdims=True)
    lever = behind * weight
    return features, (coarsest * lever).sum(axis=(2, 3)) / np.abs(lever).sum(axis=(2, 3))


def _sample(array: np.ndarray, grid: Grid, z, y, x, order: int, outside: float) -> np.ndarray:
    """(z, y, x) float32 at LPS positions on a lattice along the patient's axes."""
    inverse = np.linalg.inv(grid.ijk_to_lps)[[2, 1, 0]]  # to k, j, i
    at = inverse[:, 2, None, None, None] * z[:, None, None] + inverse[:, 1, None, None, None] * y[:, None]
    at = at + inverse[:, 0, None, None, None] * x + inverse[:, 3, None, None, None]
    values = ndimage.map_coordinates(array, at, np.float32, order=order, mode="constant", cval=outside, prefilter=False)
    return np.nan_to_num(values)


def save_usual(folder: Path, usual: Usual, least_confidence: float) -> None:
    """Write ``usual`` beside the weights and name it in their manifest, with ``Recognition.least``.

    Raises OutputError; the weights are as they were then.
    """
    arrays = {f.name: np.array(getattr(usual, f.name), np.float32, order="C") for f in fields(usual)}
    add_file(folder, _FILE, arrays, {LEAST_CONFIDENCE: least_confidence})


def load_usual(loaded: LoadedModel) -> Usual | None:
    """What is kept with the weights; None when nothing is. Raises WeightsError when it is damaged."""
    arrays = loaded.further(_FILE)
    if arrays is None:
        return None
    values = {name: array.numpy() for name, array in arrays.items()}
    return Usual(**{name: value if value.ndim else float(value) for name, value in values.items()})


def knows_usual(loaded: LoadedModel) -> bool:
    """Whether images are compared with the training images at all."""
    return usual_sha256(loaded) is not None


def usual_sha256(loaded: LoadedModel) -> str | None:
    """By the manifest, the hash of what images are compared with; None when nothing is kept with the weights."""
    return loaded.manifest["files"].get(_FILE, {}).get("sha256")


def find_unusual(
    loaded: LoadedModel, device: Device, study: Study, cancel: Callable[[], bool] | None = None
) -> list[str]:
    """Sentences on every source that is not like what the weights learned from, as far as they know (``knows_usual``).

    Raises Cancelled when ``cancel``, asked before every source, says so.
    """
    usual = load_usual(loaded)
    sentences = []
    for source in study.sources:
        if cancel and cancel():
            raise Cancelled()
        for finding in why_unusual(usual, look_at(loaded, device, source.original)):
            if finding.score > 1:
                sentences.append(finding.sentence.format(sequence=source.sequence))
    return sentences
