"""How well two delineations of the same structures agree.

Surface metrics are MONAI's, in mm along each axis. Its surface Dice is that of Nikolov et al. (J Med Internet Res
2021;23:e26151): surface elements count by their area, figures compare with published ones, and since a surface is taken
half a voxel thick to either side, the tolerance is in effect that much wider. HD95 and mean distance go from boundary
voxel to boundary voxel. So nothing below half a voxel is told apart, and on thick slices that is much: compare figures
of one grid only.
"""

import csv
import hashlib
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..errors import Cancelled, InputError, OutputError
from ..study.contours_structures import ReferenceContours, ReferenceStructure
from ..study.volume import SAME_GRID_MM, Grid, Volume
from ..vocabulary import tg263_name
from .edges import body_range, edges_in

#: Begins the remark on a structure whose namesake in the reference was compared with another one.
PAIRED_AWAY = "Not compared:"
#: mm; contouring atlases and interobserver studies of the head and neck lie between these.
TOLERANCES_MM = (1.0, 2.0, 3.0)
#: What the two sides are called in a sentence; either may be drawn by somebody or predicted.
REFERENCE, COMPARED = "reference", "compared contours"


@dataclass(frozen=True)
class StructureAgreement:
    """One structure in reference and compared contours. What cannot be computed is NaN, and ``remark`` says why.

    Attributes:
        name: TG-263 name.
        dice: volume overlap, 0..1.
        surface_dice: for each of ``TOLERANCES_MM`` the part of both surfaces within it of the other one, 0..1.
        hd95_mm: 95th percentile of the distances from surface to surface, the larger of both directions.
        mean_distance_mm: mean distance from surface to surface, averaged over both directions.
        reference_ml, predicted_ml: volumes; NaN where the structure is not drawn, 0 where it is empty.
        worst_slice: index k of the slice where most voxels differ; None when none do, or one side did not draw it.
        remark: sentences on what stands behind missing numbers, else "".
        reference_name, predicted_name: as each side calls it; "" where it is not drawn. A structure that has both, but
            no figures, is empty or could not be read.
        place: (x, y, z) in LPS mm where to look: in the worst slice the middle of what differs most; where nothing can
            differ, of what is drawn. None when nothing is.
        edges: name of an image -> ``edges.edge_contrast`` of the reference's contour in it, or of the compared one
            where the reference has none. Empty when no images were given.
    """

    name: str
    dice: float
    surface_dice: tuple[float, ...]
    hd95_mm: float
    mean_distance_mm: float
    reference_ml: float
    predicted_ml: float
    worst_slice: int | None
    remark: str = ""
    reference_name: str = ""
    predicted_name: str = ""
    place: tuple[float, float, float] | None = None
    edges: Mapping[str, float] = field(default_factory=dict)

    @property
    def difference_ml(self) -> float:
        """Compared minus reference volume."""
        return self.predicted_ml - self.reference_ml


def compare_contours(
    reference: ReferenceContours,
    predicted: ReferenceContours,
    images: Mapping[str, Volume] | None = None,
    pairs: Mapping[str, str] | None = None,
    known: dict | None = None,
    on_progress: Callable[[float, str], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> tuple[StructureAgreement, ...]:
    """Compare two readings of contours on the grid of one image, structure by structure.

    Structures that mean the same by TG-263 belong together. Structures that were left out on reading are in the table,
    too: their remark says why.

    Args:
        images: name -> image in which the contours' edges are looked up, on any grid in the same space. In one that is
            the same everywhere there are no figures.
        pairs: name in the reference -> name in the compared contours (``ReferenceStructure.name``) of structures that
            belong together whatever they are called; names that are not there are ignored.
        known: what earlier comparisons on this grid and with these images found, {} at first: what is in it is not
            measured again, so that a second look after one structure was redrawn takes no time. Added to.
        on_progress: called with a fraction 0..1 and a stage in words.
        cancel: asked before each structure.

    Returns structures of the reference in its order, then those of the compared contours alone.

    Raises:
        Cancelled: ``cancel`` was true.
        ValueError: the two lie on different grids.
    """
    if not reference.grid.matches(predicted.grid, SAME_GRID_MM):
        raise ValueError("the contours were read onto different grids")
    matched = _matched(reference, predicted, pairs or {})
    known = {} if known is None else known
    steps = len(images or {}) + len(matched)

    def proceed(done: int, stage: str) -> None:
        if cancel is not None and cancel():
            raise Cancelled()
        if on_progress is not None:
            on_progress(done / max(steps, 1), stage)

    looked_up = {}
    for name, image in (images or {}).items():
        proceed(len(looked_up), f"Looking at {name}")
        if name not in known:
            try:
                known[name] = body_range(image)
            except InputError:
                known[name] = None
        looked_up[name] = image, known[name]
    table = []
    for name, *sides in matched:
        proceed(len(looked_up) + len(table), f"Comparing {name}")
        content = tuple(None if side is None else _content(side) for side in sides)
        if content not in known:
            # One structure at a time: dozens of whole masks would fill the memory.
            masks = [None if side is None else side.mask for side in sides]
            known[content] = _agreement(name, *masks, reference.grid, looked_up)
        one = replace(known[content], name=name)
        names = ["" if side is None else side.original_name for side in sides]
        if sides[0] is None and name in (structure.name for structure in reference.structures):
            one = replace(one, remark=f"{PAIRED_AWAY} {name} of the reference was paired with another one by hand.")
        if None not in sides and (pairs or {}).get(name) == sides[1].name:
            one = replace(one, remark=f"{one.remark} Paired by hand.".strip())
        table.append(replace(one, reference_name=names[0], predicted_name=names[1]))
    for side, where, field_name in (
        (reference, REFERENCE, "reference_name"), (predicted, COMPARED, "predicted_name")
    ):
        for original, why in side.left_out:
            name = tg263_name(original)
            number = next((n for n, one in enumerate(table) if one.name == name), len(table))
            one = table[number] if number < len(table) else \
                _agreement(name, None, None, reference.grid, looked_up)
            told = one.remark.replace(_lacking(where), "").strip()
            remark = f"{told} Of the {where}, {why}".strip()
            table[number:number + 1] = [
                replace(one, remark=remark, **{field_name: getattr(one, field_name) or original})]
    return tuple(table)


def _content(structure: ReferenceStructure) -> tuple:
    """The same for two structures of the same voxels alone."""
    return structure.start, structure.crop.shape, hashlib.sha256(np.packbits(structure.crop).tobytes()).digest()


def _matched(
    reference: ReferenceContours, predicted: ReferenceContours, pairs: Mapping[str, str]
) -> list[tuple[str, ReferenceStructure | None, ReferenceStructure | None]]:
    """(name, structure of the reference, compared structure) of each row of the table."""
    left = {structure.name: structure for structure in predicted.structures}
    names = {structure.name for structure in reference.structures}
    by_hand = {first: left.pop(second) for first, second in pairs.items() if first in names and second in left}
    rows = []
    for structure in reference.structures:
        partner = by_hand[structure.name] if structure.name in by_hand else left.pop(structure.name, None)
        rows.append((structure.name, structure, partner))
    return rows + [(name, None, structure) for name, structure in left.items()]


def compare_structures(
    reference: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray], grid: Grid
) -> tuple[StructureAgreement, ...]:
    """Compare structures of the same TG-263 name, aliases counting as the name.

    Args:
        reference, predicted: name as drawn -> (k, j, i) bool mask on ``grid``.

    Returns structures of the reference in its order, then those of the compared contours alone; each is there, also
    where one side lacks it.

    Raises:
        InputError: two structures of one side have aliases of the same name, so that it is unclear which is meant.
        ValueError: a mask does not have the grid's shape.
    """
    sides = [_by_tg263(reference, REFERENCE), _by_tg263(predicted, COMPARED)]
    found = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        (first_name, first), (second_name, second) = (side.get(name, ("", None)) for side in sides)
        found.append(replace(
            _agreement(name, first, second, grid), reference_name=first_name, predicted_name=second_name))
    return tuple(found)


def _agreement(
    name: str, reference: np.ndarray | None, predicted: np.ndarray | None, grid: Grid, images: Mapping | None = None
) -> StructureAgreement:
    """Two masks, or what can be said of one where the other side did not draw the structure (None)."""
    drawn = reference if reference is not None else predicted
    if reference is not None and predicted is not None:
        one = compare_masks(name, reference, predicted, grid)
    else:
        masks = {REFERENCE: reference, COMPARED: predicted}
        volumes = (math.nan if m is None else np.count_nonzero(m) * _voxel_ml(grid) for m in masks.values())
        one = StructureAgreement(
            name, math.nan, (math.nan,) * len(TOLERANCES_MM), math.nan, math.nan, *volumes, None,
            " ".join(_lacking(where) for where, mask in masks.items() if mask is None),
            place=None if drawn is None else _middle(drawn, grid)[1],
        )
    if images and drawn is not None and not drawn.any() and predicted is not None:
        drawn = predicted
    edges = {name: math.nan for name in images or {}} if drawn is None else edges_in(drawn, grid, images or {})
    return replace(one, edges=edges)


def _middle(mask: np.ndarray, grid: Grid) -> tuple[int | None, tuple[float, float, float] | None]:
    """The slice k that holds most of a mask, and the LPS mm of its thickest place there; (None, None) when empty."""
    from scipy import ndimage

    counts = np.count_nonzero(mask, axis=(1, 2))
    if not counts.any():
        return None, None
    k = int(counts.argmax())
    deep = ndimage.distance_transform_edt(np.pad(mask[k], 1), sampling=grid.spacing[1::-1])[1:-1, 1:-1]
    j, i = np.unravel_index(int(deep.argmax()), deep.shape)
    return k, tuple(float(mm) for mm in (grid.ijk_to_lps @ (i, j, k, 1))[:3])


def _lacking(where: str) -> str:
    return f"Not drawn in the {where}."


def _voxel_ml(grid: Grid) -> float:
    return abs(float(np.linalg.det(grid.ijk_to_lps[:3, :3]))) / 1000


def compare_masks(name: str, reference: np.ndarray, predicted: np.ndarray, grid: Grid) -> StructureAgreement:
    """Compare two (k, j, i) bool masks on ``grid``. Raises ValueError when a shape is not the grid's."""
    for mask in (reference, predicted):
        if mask.shape != tuple(grid.shape):
            raise ValueError(f"{name}: a mask of shape {mask.shape} does not lie on a grid of shape {grid.shape}")
    remark, voxel_ml = "", _voxel_ml(grid)
    counts = [int(np.count_nonzero(mask)) for mask in (reference, predicted)]
    worst_slice, place = _middle(reference ^ predicted, grid)
    if all(counts):
        surface_dice, hd95, mean = _surfaces(reference, predicted, grid.spacing[::-1])
    else:
        surface_dice, hd95, mean = (math.nan,) * len(TOLERANCES_MM), math.nan, math.nan
        empty = [f"the {where}" for count, where in zip(counts, (REFERENCE, COMPARED)) if not count]
        remark = f"Empty in {' and '.join(empty)}."
    return StructureAgreement(
        name, dice(reference, predicted), surface_dice, hd95, mean, counts[0] * voxel_ml, counts[1] * voxel_ml,
        worst_slice, remark, place=place or _middle(reference, grid)[1],
    )


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Dice coefficient 2|A∩B| / (|A| + |B|) of two masks (Dice, Ecology 1945;26:297).

    Args:
        first, second: bool arrays of the same shape, on the same grid.

    Returns:
        0..1; NaN when both are empty, since there is nothing to agree on.

    Raises:
        ValueError: the shapes differ.
    """
    if first.shape != second.shape:
        raise ValueError(f"the masks have different shapes: {first.shape} and {second.shape}")
    total = int(np.count_nonzero(first)) + int(np.count_nonzero(second))
    return 2 * int(np.count_nonzero(first & second)) / total if total else float("nan")


def write_csv(
    agreements: Sequence[StructureAgreement], path: str | Path, notes: tuple[str, ...] = (), replace_it: bool = False
) -> None:
    """Write the table, one structure a row; what could not be computed is an empty cell.

    The notes on reading stand in the last cell of every row, so that they stay with the figures wherever these go.

    Args:
        replace_it: whether a file of that name may be replaced; it stays as it was when writing fails.

    Raises OutputError when the file exists already or cannot be written; nothing is left behind then.
    """
    path = Path(path)
    rows = [{**table_row(agreement), "notes": " ".join(notes)} for agreement in agreements]
    for row in rows:  # names come from foreign files, and spreadsheets compute what begins like a formula
        row |= {key: f"'{value}" for key, value in row.items() if isinstance(value, str) and value[:1] in tuple("=+-@")}
    beside = path.with_name(f".{path.name}.part") if replace_it else path
    made = False
    try:
        # Mode x: a table that somebody keeps is never overwritten unasked.
        with open(beside, "x", newline="", encoding="utf-8-sig") as file:  # by the mark Excel knows that it is UTF-8
            made = True
            writer = csv.DictWriter(file, list(rows[0]) if rows else ["structure"])
            writer.writeheader()
            writer.writerows(rows)
        if replace_it:
            beside.replace(path)
    except FileExistsError as error:
        raise OutputError(f"{beside.name} exists already and was not changed. Give another name.") from error
    except OSError as error:
        if made:
            beside.unlink(missing_ok=True)
        raise OutputError(f"{path.name} could not be written: {error.strerror or error}. Choose a folder that you may "
                          "write to, on a disk with free space.") from error


def table_row(agreement: StructureAgreement) -> dict:
    """Column -> value of one structure, rounded, units in the names; None for what could not be computed.

    The names of both sides are there where they differ from the TG-263 name. "worst_slice" counts from 1, as the report
    does, in the order of the voxels and not of the files' numbers; ``StructureAgreement.worst_slice`` is an index and
    counts from 0.
    """
    def rounded(value: float, digits: int) -> float | None:
        return None if math.isnan(value) else round(float(value), digits)

    return {
        "structure": agreement.name,
        **{column: None if name in ("", agreement.name) else name for column, name in (
            ("reference_name", agreement.reference_name), ("predicted_name", agreement.predicted_name))},
        "dice": rounded(agreement.dice, 4),
        **{f"surface_dice_{tolerance:g}mm": rounded(value, 4)
           for tolerance, value in zip(TOLERANCES_MM, agreement.surface_dice)},
        "hd95_mm": rounded(agreement.hd95_mm, 2),
        "mean_distance_mm": rounded(agreement.mean_distance_mm, 2),
        "reference_ml": rounded(agreement.reference_ml, 3),
        "predicted_ml": rounded(agreement.predicted_ml, 3),
        "difference_ml": rounded(agreement.difference_ml, 3),
        **{f"edges_{image}": rounded(value, 4) for image, value in agreement.edges.items()},
        "worst_slice": None if agreement.worst_slice is None else agreement.worst_slice + 1,
        "remark": agreement.remark,
    }


def _by_tg263(masks: Mapping[str, np.ndarray], side: str) -> dict[str, tuple[str, np.ndarray]]:
    """(name as drawn, mask) by TG-263 name; an alias stands for it only where nothing bears the name itself."""
    named = {}
    for name, mask in masks.items():
        known = tg263_name(name)
        if known != name and known in masks:
            known = name
        if known in named:
            raise InputError(f'"{named[known][0]}" and "{name}" of the {side} both mean {known}. Rename or remove the '
                             "one that is not meant.")
        named[known] = name, mask
    return named


def _surfaces(reference: np.ndarray, predicted: np.ndarray, spacing_kji) -> tuple[tuple[float, ...], float, float]:
    """(surface Dice for each tolerance, HD95 mm, mean distance mm) of two masks, neither empty."""
    import torch
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice

    # The box around both is enough; the rim keeps what touches the image's edge closed.
    either = reference | predicted
    box = tuple(
        slice(int(along[0]), int(along[-1]) + 1)
        for along in (np.flatnonzero(either.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    )
    first, second = (torch.from_numpy(np.pad(mask[box], 1))[None, None] for mask in (predicted, reference))
    how = {"include_background": True, "spacing": [float(mm) for mm in spacing_kji]}
    each = (-1, len(TOLERANCES_MM), -1, -1, -1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI warns of its own internals
        overlaps = compute_surface_dice(
            first.expand(each), second.expand(each), list(TOLERANCES_MM), use_subvoxels=True, **how)
        hd95 = compute_hausdorff_distance(first, second, percentile=95, **how)
        mean = compute_average_surface_distance(first, second, symmetric=True, **how)
    return tuple(overlaps[0].tolist()), float(hd95), float(mean)
