"""How well two delineations of the same structures agree.

Surface metrics are MONAI's, in mm along each axis. Its surface Dice is that of Nikolov et al. (J Med Internet Res
2021;23:e26151): surface elements count by their area, figures compare with published ones, and since a surface is taken
half a voxel thick to either side, the tolerance is in effect that much wider. HD95 and mean distance go from boundary
voxel to boundary voxel. So nothing below half a voxel is told apart, and on thick slices that is much: compare figures
of one grid only.
"""

import csv
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError, OutputError
from ..study.volume import Grid
from ..vocabulary import tg263_name

#: mm; contouring atlases and interobserver studies of the head and neck lie between these.
TOLERANCES_MM = (1.0, 2.0, 3.0)


@dataclass(frozen=True)
class StructureAgreement:
    """One structure in the reference and in the prediction. What cannot be computed is NaN, and ``remark`` says why.

    Attributes:
        name: TG-263 name.
        dice: volume overlap, 0..1.
        surface_dice: for each of ``TOLERANCES_MM`` the part of both surfaces within it of the other one, 0..1.
        hd95_mm: 95th percentile of the distances from surface to surface, the larger of both directions.
        mean_distance_mm: mean distance from surface to surface, averaged over both directions.
        reference_ml, predicted_ml: volumes.
        worst_slice: index k of the slice where most voxels differ; None when none do.
        remark: a sentence on what stands behind missing numbers, else "".
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

    @property
    def difference_ml(self) -> float:
        """Predicted minus reference volume."""
        return self.predicted_ml - self.reference_ml


def compare_structures(
    reference: Mapping[str, np.ndarray], predicted: Mapping[str, np.ndarray], grid: Grid
) -> tuple[StructureAgreement, ...]:
    """Compare structures of the same TG-263 name, aliases counting as the name.

    Args:
        reference, predicted: name as drawn -> (k, j, i) bool mask on ``grid``.

    Returns structures of the reference in its order, then those of the prediction alone; each is there, also where one
    side lacks it.

    Raises:
        InputError: two structures of one side have aliases of the same name, so that it is unclear which is meant.
        ValueError: a mask does not have the grid's shape.
    """
    sides = [_by_tg263(reference, "reference"), _by_tg263(predicted, "prediction")]
    nothing = np.zeros(grid.shape, bool)
    found = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        lacking = [where for side, where in zip(sides, ("reference", "prediction")) if name not in side]
        remark = f"Not drawn in the {lacking[0]}." if lacking else ""
        found.append(compare_masks(name, sides[0].get(name, nothing), sides[1].get(name, nothing), grid, remark))
    return tuple(found)


def compare_masks(
    name: str, reference: np.ndarray, predicted: np.ndarray, grid: Grid, remark: str = ""
) -> StructureAgreement:
    """Compare two (k, j, i) bool masks on ``grid``. Raises ValueError when a shape is not the grid's."""
    for mask in (reference, predicted):
        if mask.shape != tuple(grid.shape):
            raise ValueError(f"{name}: a mask of shape {mask.shape} does not lie on a grid of shape {grid.shape}")
    voxel_ml = abs(float(np.linalg.det(grid.ijk_to_lps[:3, :3]))) / 1000
    counts = [int(np.count_nonzero(mask)) for mask in (reference, predicted)]
    differing = np.count_nonzero(reference ^ predicted, axis=(1, 2))
    if all(counts):
        surface_dice, hd95, mean = _surfaces(reference, predicted, grid.spacing[::-1])
    else:
        surface_dice, hd95, mean = (math.nan,) * len(TOLERANCES_MM), math.nan, math.nan
        empty = [where for count, where in zip(counts, ("the reference", "the prediction")) if not count]
        remark = remark or f"Empty in {' and '.join(empty)}."
    return StructureAgreement(
        name, dice(reference, predicted), surface_dice, hd95, mean, counts[0] * voxel_ml, counts[1] * voxel_ml,
        int(differing.argmax()) if differing.any() else None, remark,
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


def write_csv(agreements: tuple[StructureAgreement, ...], path: str | Path) -> None:
    """Write the table, one structure a row; what could not be computed is an empty cell.

    Raises OutputError when the file exists already or cannot be written; nothing is left behind then.
    """
    path = Path(path)
    try:
        # Mode x: a table that somebody keeps is never overwritten.
        with open(path, "x", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(table_row(agreements[0])) if agreements else ["structure"])
            writer.writeheader()
            writer.writerows(table_row(agreement) for agreement in agreements)
    except FileExistsError as error:
        raise OutputError(f"{path.name} exists already and was not changed. Give another name.") from error
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OutputError(f"{path.name} could not be written: {error.strerror or error}. Choose a folder that you may "
                          "write to, on a disk with free space.") from error


def table_row(agreement: StructureAgreement) -> dict:
    """Column -> value of one structure, rounded, units in the names; None for what could not be computed."""
    def rounded(value: float, digits: int) -> float | None:
        return None if math.isnan(value) else round(float(value), digits)

    return {
        "structure": agreement.name,
        "dice": rounded(agreement.dice, 4),
        **{f"surface_dice_{tolerance:g}mm": rounded(value, 4)
           for tolerance, value in zip(TOLERANCES_MM, agreement.surface_dice)},
        "hd95_mm": rounded(agreement.hd95_mm, 2),
        "mean_distance_mm": rounded(agreement.mean_distance_mm, 2),
        "reference_ml": rounded(agreement.reference_ml, 3),
        "predicted_ml": rounded(agreement.predicted_ml, 3),
        "difference_ml": rounded(agreement.difference_ml, 3),
        "worst_slice": agreement.worst_slice,
        "remark": agreement.remark,
    }


def _by_tg263(masks: Mapping[str, np.ndarray], side: str) -> dict[str, np.ndarray]:
    """Masks by TG-263 name; an alias stands for it only where nothing bears the name itself."""
    named, original = {}, {}
    for name, mask in masks.items():
        known = tg263_name(name)
        if known != name and known in masks:
            known = name
        if known in named:
            raise InputError(f'"{original[known]}" and "{name}" of the {side} both mean {known}. Rename or remove the '
                             "one that is not meant.")
        named[known], original[known] = mask, name
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
