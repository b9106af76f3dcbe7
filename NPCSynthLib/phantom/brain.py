"""The inside of the skull: meninges, brain with its folds, ventricles, brainstem, pituitary, venous sinuses."""

from dataclasses import dataclass

import numpy as np

from .shapes import Canvas, blend, ellipsoid, mirrored, tube

SIDES = (1, -1)


@dataclass(frozen=True)
class Cranium:
    """The space within the skull on one block of the canvas.

    Attributes:
        block: slices (k, j, i).
        cavity: distance in mm to its wall, negative inside.
    """

    block: tuple
    cavity: np.ndarray


def cranium(canvas: Canvas) -> Cranium:
    """The cavity of the skull: vault, middle fossae and posterior fossa down to the foramen magnum."""
    block = canvas.block((-80, -90, -62), (80, 130, 112))
    x, y, z = canvas.at(block)
    lateral = np.clip((np.abs(x) - 7) / 15, 0, 1) * np.clip((-y - 12) / 26, 0, 1)
    floor = 8 + 9 * lateral
    # The vault narrows toward the temples, which leaves room for the temporalis.
    wide = x * (1 + 0.003 * np.clip(10 - y, 0, 45))
    vault = np.maximum(ellipsoid((0, 20, 34), (69, 87, 54)).distance(wide, y, z), floor - z)
    clivus = (y - 9) * np.float32(0.899) + (z - 2) * np.float32(0.438)
    posterior = np.maximum(ellipsoid((0, 60, -8), (54, 45, 33)).distance(x, y, z), -clivus)
    temporal = [ellipsoid((s * 39, -4, 4), (26, 34, 25)).distance(x, y, z) for s in SIDES]
    foramen = tube([(0, 34, -20), (0, 41, -40), (0, 42, -52)], [16, 14.5, 12.5]).distance(x, y, z)
    cavity = blend([vault, posterior, *temporal], 9.0)
    petrous = [
        tube(mirrored([(15, 16, -16), (36, 27, -15), (60, 38, -17)], s), [6, 9.5, 14]).distance(x, y, z) for s in SIDES
    ]
    cavity = np.maximum(cavity, -np.minimum(*petrous))
    cavity = np.minimum(cavity, foramen) + np.float32(0.5) * canvas.noise("skull", 18.0, block)
    return Cranium(block, cavity)


def paint_brain(canvas: Canvas, space: Cranium, rng: np.random.Generator) -> dict:
    """Fill the cavity. Returns {"Brain": mask, "Brainstem": mask}, bool (k, j, i)."""
    block, cavity = space.block, space.cavity
    x, y, z = canvas.at(block)
    labels = canvas.labels[block]
    inside = cavity < 0
    labels[inside] = canvas.label("csf")
    labels[inside & (cavity > -1.0)] = canvas.label("dura")

    atrophy = rng.uniform(0, 1)
    depth = -(cavity + 2.0 + 0.6 * atrophy + 0.5 * canvas.noise("brain surface", 14.0, block))
    tent = 15 - 0.28 * np.abs(x) - 0.25 * (y - 40)
    notch = y - 19 - 0.55 * np.clip(np.abs(x) - 15, 0, None)
    below_tent = (z < tent) & (notch > 0)
    tent_gap = np.where(notch > 0, np.abs(z - tent), 99)

    cisterns = np.minimum(
        ellipsoid((0, 8, 3), (12, 9, 9)).distance(x, y, z), ellipsoid((0, 29, 4), (18.5, 13, 10)).distance(x, y, z)
    )
    cerebrum = (depth > 0) & ~below_tent & (tent_gap > 0.9) & (cisterns > 0)
    cerebrum &= (z > 2) | (np.abs(x) > 15) | (y > 30)
    _paint_cerebrum(canvas, block, labels, cerebrum, depth, atrophy)

    cerebellar = ellipsoid((0, 66, -13), (53, 41, 31)).distance(x, y, z)
    cerebellum = (depth > 0) & below_tent & (tent_gap > 0.9) & (cerebellar < 0) & (cisterns > 0)
    _paint_cerebellum(canvas, block, labels, cerebellum, np.minimum(depth, -cerebellar))
    tentorium = inside & (tent_gap < 0.9) & ~cerebrum & ~cerebellum & (np.abs(x) + np.abs(y - 35) > 30)
    around_callosum = ((y - 18) / 44) ** 2 + ((z - 22) / 30) ** 2 > 1.2
    falx = np.abs(x + 1.5 * canvas.noise("midline", 35.0, block)) < 0.7
    falx &= inside & around_callosum & ~below_tent & (z > 8)
    labels[tentorium | falx] = canvas.label("dura")
    _paint_ventricles(canvas, rng, atrophy)
    stem = _paint_brainstem(canvas)
    _paint_around_sella(canvas)
    _paint_venous_sinuses(canvas)

    brain = np.zeros(canvas.grid.shape, bool)
    surface = (depth > 0) & ((~below_tent & (cerebrum | (cisterns > 0) & (z > 4))) | (below_tent & (cerebellar < 1)))
    brain[block] = surface & inside & ((z > 2) | (np.abs(x) > 15) | (y > 30))
    brain &= ~stem
    return {"Brain": brain, "Brainstem": stem}


def _paint_cerebrum(canvas, block, labels, where, depth, atrophy):
    x, y, z = canvas.at(block)
    # Sulci are where a smooth noise field crosses zero.
    fold = _distance_to_zero(
        canvas, canvas.noise("fold", 7.0, block) + np.float32(0.25) * canvas.noise("fold fine", 4.5, block))
    callosum = np.sqrt(((y - 19) / 38) ** 2 + ((z - 18) / 20) ** 2)
    middle = np.abs(x + 1.5 * canvas.noise("midline", 35.0, block)) + np.clip(1 - callosum, 0, None) * 60
    depth = np.minimum(depth, middle)
    reach = 19 + 3 * canvas.noise("fold depth", 16.0, block)
    fold = fold + np.clip(depth - reach, 0, None)
    off = z - 10 - 0.28 * (y + 5) + 1.5 * canvas.noise("sylvian", 20.0, block)
    sylvian = np.abs(off) + np.clip(35 - np.abs(x), 0, None) + np.clip(np.abs(y - 8) - 30, 0, None) * 0.7
    insula = np.abs(np.abs(x) - 36 - 0.02 * (y - 6) ** 2) + np.clip(np.abs(off) - 10, 0, None)
    insula = insula + np.clip(np.abs(y - 6) - 22, 0, None) * 0.7
    fissure = np.minimum(np.minimum(middle, sylvian), insula)
    sulcus_width = (0.35 + 0.5 * atrophy) * np.clip(1.15 - depth / 20, 0, 1)
    gray = (fold < sulcus_width + 2.5) | (depth < 2.4) | (fissure < 3.4)
    csf = ((fold < sulcus_width) & (depth < 20)) | (fissure < 0.7)
    labels[where] = canvas.label("white_matter")
    labels[where & gray] = canvas.label("gray_matter")
    labels[where & csf] = canvas.label("csf")
    # Between the halves and below the corpus callosum hangs the septum pellucidum in the ventricle.
    under = where & (callosum < 0.70) & (np.abs(x) < 4) & (z > 14 + 0.1 * (y - 15)) & (y < 40)
    labels[under & (np.abs(x) > 0.6)] = canvas.label("csf")
    core = where & (np.abs(x) < 34)
    for side in SIDES:
        for center, radii in (((13, 3, 21), (5, 13, 9)), ((24, 5, 13), (6, 18, 11)), ((11, 24, 15), (9, 15, 9))):
            nucleus = ellipsoid(mirrored(center, side), radii).distance(x, y, z)
            labels[core & (nucleus + 0.6 * canvas.noise("rough", 9.0, block) < 0)] = canvas.label("deep_gray")
    for side in SIDES:
        hippocampus = tube(mirrored([(24, 14, -4), (27, 24, -1), (26, 36, 5)], side), [5, 4.5, 3.5]).distance(x, y, z)
        labels[where & (hippocampus < 0)] = canvas.label("gray_matter")


def _distance_to_zero(canvas, field):
    """Distance in mm to where a smooth field crosses zero, to first order (|f| over its slope)."""
    slopes = np.gradient(field, *canvas.grid.spacing[::-1].astype(np.float32))
    slope = np.sqrt(sum(s * s for s in slopes))
    return np.abs(field) / np.maximum(slope, np.float32(0.02))


def _paint_cerebellum(canvas, block, labels, where, depth):
    x, y, z = canvas.at(block)
    folia = _distance_to_zero(canvas, canvas.noise("folia", (12.0, 5.5, 3.6), block))
    labels[where] = canvas.label("cerebellum_gray")
    core = depth + 2.5 * canvas.noise("cerebellar core", 12.0, block) > 18 + 6 * np.exp(-((x / 7) ** 2))
    white = core | ((folia > 2.1) & (depth > 3))
    labels[where & white] = canvas.label("cerebellum_white")
    labels[where & ~white & (folia < 0.35) & (depth < 9)] = canvas.label("csf")
    # Peduncles join the hemispheres to the pons.
    for side in SIDES:
        peduncle = tube(mirrored([(9, 33, -12), (17, 44, -13), (20, 54, -14)], side), [7, 7, 6]).distance(x, y, z)
        labels[(peduncle < 0) & (depth > -8)] = canvas.label("cerebellum_white")


def _paint_ventricles(canvas, rng, atrophy):
    size = 0.8 + 0.6 * atrophy * rng.uniform(0.5, 1)
    for side in SIDES:
        horn = size * rng.uniform(0.92, 1.08)
        canvas.paint("csf", tube(
            mirrored([(8, -13, 18), (8, 2, 26), (12, 22, 30), (21, 42, 22), (29, 34, 4), (33, 14, -5)], side),
            np.array([4.2, 4.6, 4.6, 5.2, 2.8, 1.8]) * horn))
        canvas.paint("csf", tube(mirrored([(21, 42, 21), (22, 62, 17)], side), np.array([4.6, 2.2]) * horn))
        canvas.paint("choroid_plexus", tube(mirrored([(14, 30, 27), (21, 43, 20)], side), [1.3, 2.8]))
    canvas.paint("csf", ellipsoid((0, 15, 13), (2.0 * size, 13, 10)))
    canvas.paint("csf", tube([(0, 30, 8), (0, 42, -6)], [1.4, 1.6]))
    canvas.paint("csf", tube([(0, 44, -2), (0, 48, -14), (0, 46, -27)], [2.5, 4.5, 2.5], flatten=(1.9, 1, 1)))
    canvas.paint("csf", ellipsoid((0, 62, -42), (12, 11, 6)), over=("cerebellum_gray", "csf"))


def _paint_brainstem(canvas):
    parts = (
        ellipsoid((0, 27, 6), (17, 11, 10)),
        ellipsoid((0, 31, -13), (17, 12.5, 14)),
        tube([(0, 35, -22), (0, 39, -40)], [8.5, 6.5], flatten=(1.1, 1, 1)),
    )
    stem = np.zeros(canvas.grid.shape, bool)
    block = canvas.block((-20, 12, -46), (20, 50, 18))
    x, y, z = canvas.at(block)
    distance = blend([part.distance(x, y, z) for part in parts], 4.0)
    # The interpeduncular fossa notches the midbrain in front, the aqueduct runs behind.
    notch = ellipsoid((0, 15, 6), (5, 5, 9)).distance(x, y, z)
    solid = (distance < 0) & (notch > 0) & (z > -41)
    solid &= ~(canvas.is_any(block, ("csf",)) & (y > 38) & (np.abs(x) < 10))
    canvas.labels[block][solid] = canvas.label("brainstem")
    stem[block] = solid
    aqueduct = tube([(0, 33, 12), (0, 36, 2), (0, 42, -7)], [1.2, 1.2, 1.6])
    canvas.paint("csf", aqueduct)
    return stem


def _paint_around_sella(canvas):
    canvas.paint("pituitary", ellipsoid((0, 1, -1), (6.5, 5, 4)))
    canvas.paint("pituitary", tube([(0, 2, 2), (0, 4, 9)], [1.1, 1.0]))
    canvas.paint("optic_nerve", tube([(-9, 9, 12), (0, 3, 9.5), (9, 9, 12)], [1.8, 2.2, 1.8]))
    for side in SIDES:
        canvas.paint("venous_sinus", ellipsoid((side * 12, 3, -2), (5.5, 10, 6)))
        canvas.paint("optic_nerve", tube(mirrored([(0, 3, 9.5), (8, -10, 7)], side), [2.0, 2.0]))


def _paint_venous_sinuses(canvas):
    over = ("dura", "csf", "gray_matter", "cerebellum_gray", "white_matter")
    angles = np.deg2rad(np.linspace(35, 190, 12))
    # Along the inner table, in the midline, from the forehead over the vertex to the occiput.
    midline = [(0, 20 - 84 * np.cos(a), 34 + 51 * np.sin(a)) for a in angles]
    canvas.paint("venous_sinus", tube(midline, np.linspace(1.5, 4.2, 12)), over=over)
    canvas.paint("venous_sinus", tube([(0, 58, 20), (0, 80, 10), (0, 101, 4)], [1.6, 2.2, 3.5]), over=over)
    for side in SIDES:
        canvas.paint("venous_sinus", tube(
            mirrored([(0, 101, 2), (26, 96, -3), (46, 76, -6), (54, 52, -10)], side), [3.5, 3.6, 3.8, 4]), over=over)
