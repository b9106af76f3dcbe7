"""Nasopharyngeal carcinoma: primary tumor and nodal metastases, differing from patient to patient."""

import numpy as np

from .shapes import Canvas, blend, ellipsoid, mirrored

# Tissues that the tumor does not replace.
_SPARED = ("brainstem", "spinal_cord", "gray_matter", "white_matter", "cerebellum_gray", "cerebellum_white", "csf",
           "deep_gray", "artery", "skin", "teeth", "optic_nerve", "vitreous", "lens")


def paint_tumor(canvas: Canvas, body: np.ndarray, rng: np.random.Generator) -> dict:
    """Paint the tumor. Returns {"GTVp": mask} and, in most patients, "GTVn", bool (k, j, i)."""
    structures = {"GTVp": _paint_primary(canvas, rng)}
    nodes = _paint_nodes(canvas, body, rng)
    if nodes.any():
        structures["GTVn"] = nodes & ~structures["GTVp"]
    return structures


def _paint_primary(canvas, rng):
    side = rng.choice([-1, 1])
    size = rng.uniform(0.8, 1.25)
    parts = [
        ellipsoid((side * rng.uniform(3, 9), rng.uniform(0, 3), -27), np.array((13, 9, 12)) * size),
        ellipsoid((side * 13, 2, -28), np.array((8, 8, 11)) * size),
    ]
    if rng.random() < 0.5:
        parts.append(ellipsoid((side * 23, 0, -36), np.array((9, 10, 13)) * size))
    if rng.random() < 0.5:
        parts.append(ellipsoid((side * 4, 11, -19), np.array((11, 8, 12)) * size))
    if rng.random() < 0.3:
        parts.append(ellipsoid((side * 11, -2, -10), np.array((8, 9, 9)) * size))
    if rng.random() < 0.3:
        parts.append(ellipsoid((side * 6, -20, -28), np.array((7, 12, 9)) * size))
    low = np.min([part.low for part in parts], 0) - 8
    high = np.max([part.high for part in parts], 0) + 8
    block = canvas.block(low, high)
    coordinates = canvas.at(block)
    distance = blend([part.distance(*coordinates) for part in parts], 6.0)
    distance = distance + 1.8 * canvas.noise("tumor edge", 9.0, block)
    distance = distance + 0.6 * canvas.noise("tumor edge fine", 4.0, block)
    # It grows along soft tissue and marrow; cortex and open airway hold it back.
    distance = distance + 2.0 * canvas.is_any(block, ("cortical_bone",)) + 2.5 * canvas.is_any(block, ("air",))
    inside = (distance < 0) & ~canvas.is_any(block, _SPARED)
    canvas.labels[block][inside] = canvas.label("npc_tumor")
    cavity = inside & (distance < -6) & (canvas.noise("tumor necrosis", 8.0, block) > 1.4)
    canvas.labels[block][cavity] = canvas.label("necrosis")
    mask = np.zeros(canvas.grid.shape, bool)
    mask[block] = inside
    return mask


def _paint_nodes(canvas, body, rng):
    mask = np.zeros(canvas.grid.shape, bool)
    side = rng.choice([-1, 1])
    candidates = []
    if rng.random() < 0.8:
        count = rng.integers(1, 4)
        levels = [(45, 14, -70), (46, 12, -88), (43, 6, -108)][:count]
        candidates += [(mirrored(level, side), rng.uniform(7, 14)) for level in levels]
        if rng.random() < 0.4:
            candidates.append((mirrored((44, 14, -74), -side), rng.uniform(6, 10)))
    if rng.random() < 0.6:
        candidates.append((np.array((side * 18.5, 9, -42.0)), rng.uniform(4.5, 7)))
    for center, size in candidates:
        center = np.asarray(center, float) + rng.normal(0, 1.2, 3)
        radii = size * np.array((0.8, 0.9, 1.15)) * rng.uniform(0.9, 1.1, 3)
        necrotic = size > 7 and rng.random() < 0.45
        block, inside = canvas.mask(ellipsoid(center, radii), rough=0.7)
        inside &= body[block] & ~canvas.is_any(block, (*_SPARED, "cortical_bone", "red_marrow", "air", "npc_tumor"))
        canvas.labels[block][inside] = canvas.label("nodal_tumor")
        mask[block] |= inside
        if necrotic:
            core = ellipsoid(center, radii * rng.uniform(0.5, 0.7))
            canvas.paint("necrosis", core, rough=0.5, over=("nodal_tumor",))
    return mask
