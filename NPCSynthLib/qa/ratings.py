"""Agreement of contours in three words, to find in a long table what needs a look.

The limits are this program's, for orientation: near what experts reach among themselves in the head and neck, and no
criterion by which contours are accepted. Dice falls with the size of a structure at the same distance in mm: of small
ones (chiasm, lenses) trust the distances. Edges of a synthetic image have limits to both sides: an edge that the
acquired image does not show so strongly may be invented.
"""

import math

from .contours import PAIRED_AWAY, TOLERANCES_MM, StructureAgreement

GOOD, FAIR, POOR = "good", "fair", "poor"
#: Measure -> (good from here, fair from here). Where the first is the smaller one, less is better.
LIMITS = {
    "dice": (0.8, 0.6),
    "surface_dice_1mm": (0.8, 0.6),
    "surface_dice_2mm": (0.9, 0.7),
    "surface_dice_3mm": (0.95, 0.8),
    "hd95_mm": (3.0, 6.0),
    "mean_distance_mm": (1.0, 2.0),
    "volume_difference": (0.1, 0.25),
    "edges": (0.8, 0.5),
}
#: Measure -> (good up to here, fair up to here), where too much is wrong as well.
UPPER_LIMITS = {"edges": (1.25, 2.0)}


def rate(measure: str, value: float) -> str | None:
    """GOOD, FAIR or POOR by ``LIMITS`` and ``UPPER_LIMITS``; None for NaN. Raises KeyError for an unknown measure."""
    good, fair = LIMITS[measure]
    if math.isnan(value):
        return None
    most_good, most_fair = UPPER_LIMITS.get(measure, (math.inf, math.inf))
    if value > most_good:
        return FAIR if value <= most_fair else POOR
    if good > fair:
        return GOOD if value >= good else FAIR if value >= fair else POOR
    return GOOD if value <= good else FAIR if value <= fair else POOR


def ratings(one: StructureAgreement) -> dict[str, str | None]:
    """Measure -> rating of one structure, all but "edges"; the volume's difference as a part of the reference's."""
    values = {"dice": one.dice, "hd95_mm": one.hd95_mm, "mean_distance_mm": one.mean_distance_mm}
    values |= {f"surface_dice_{mm:g}mm": value for mm, value in zip(TOLERANCES_MM, one.surface_dice)}
    values["volume_difference"] = abs(one.difference_ml) / one.reference_ml if one.reference_ml > 0 else math.nan
    return {measure: rate(measure, value) for measure, value in values.items()}


def overall(one: StructureAgreement) -> str | None:
    """The worst of the ratings of Dice, surface Dice at 2 mm and HD95, POOR where it ``is_missed`` or ``is_invented``.

    None for what else only the compared contours have, and for what cannot be compared.
    """
    if is_missed(one) or is_invented(one):
        return POOR
    each = ratings(one)
    found = [each[measure] for measure in ("dice", "surface_dice_2mm", "hd95_mm") if each[measure] is not None]
    return max(found, key=(GOOD, FAIR, POOR).index) if found else None


def is_missed(one: StructureAgreement) -> bool:
    """Whether the reference has a structure that the compared contours lack, or leave empty.

    What could not be read there was not missed.
    """
    return one.reference_ml > 0 and (not one.predicted_name or one.predicted_ml == 0)


def is_invented(one: StructureAgreement) -> bool:
    """Whether the compared contours have a tumor or nodes that the reference does not know at all."""
    known = one.reference_name or one.remark.startswith(PAIRED_AWAY)
    return one.name.upper().startswith("GTV") and not known and one.predicted_ml > 0


def rate_edges(one: StructureAgreement, synthetic: str, acquired: str) -> str | None:
    """How much of the acquired image's ``edges`` along the contour the synthetic image shows, too much included."""
    return rate("edges", _edge_ratio(one, synthetic, acquired))


def has_stronger_edge(one: StructureAgreement, synthetic: str, acquired: str) -> bool:
    """Whether the synthetic image shows more of an edge along the contour than is good."""
    return _edge_ratio(one, synthetic, acquired) > UPPER_LIMITS["edges"][0]


def _edge_ratio(one: StructureAgreement, synthetic: str, acquired: str) -> float:
    """NaN where one of the two is not known, or neither shows any edge."""
    there, here = one.edges.get(acquired, math.nan), one.edges.get(synthetic, math.nan)
    if there == 0:
        return math.inf if here > 0 else math.nan
    return here / there
