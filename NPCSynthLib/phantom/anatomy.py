"""The digital head and neck: a patient made of nothing but a seed.

Analytic solids, bent by smooth random fields and painted one over another. No patient's image went into it.
"""

from dataclasses import dataclass

import numpy as np

from ..study.volume import Grid
from .brain import cranium, paint_brain
from .head import paint_airway, paint_body, paint_face_muscles, paint_jaws, paint_orbits, paint_skull
from .neck import paint_glands, paint_lymph_nodes, paint_neck_muscles, paint_spine, paint_vessels
from .shapes import Canvas
from .tissues import TISSUES
from .tumor import paint_tumor

# Center of the field of view from the pituitary fossa, LPS mm: vertex and lower neck are cut alike.
_CENTER_MM = np.array((0.0, 6.0, -18.0))


@dataclass(frozen=True)
class Anatomy:
    """A patient as a map of tissues.

    Attributes:
        seed: what it was made from; the texture of the tissues follows from it too.
        labels: (k, j, i) uint8, 0 is air.
        grid: where the voxels lie (LPS, mm, identity direction); the pituitary fossa is near the origin.
        tissue_names: label -> key in ``TISSUES``.
        structures: TG-263 name -> (k, j, i) bool mask. Structures outside the field of view, and GTVs that this
            patient does not have, are absent.
    """

    seed: int
    labels: np.ndarray
    grid: Grid
    tissue_names: tuple[str, ...]
    structures: dict


def make_anatomy(seed: int, shape=(96, 128, 128), spacing=(2.0, 2.0, 2.0), tumor: bool = True) -> Anatomy:
    """Make the head and neck of the patient with that seed.

    The same seed gives the same patient on any grid.

    Args:
        shape: voxels (k, j, i).
        spacing: voxel size in mm along (k, j, i).
        tumor: with a nasopharyngeal carcinoma, and in most patients nodal metastases.
    """
    spacing_ijk = np.asarray(spacing, float)[::-1]
    size = np.array(shape[::-1])
    grid = Grid.from_parts(shape, spacing_ijk, _CENTER_MM - spacing_ijk * (size - 1) / 2, np.eye(3))
    names = ("air", *(name for name in TISSUES if name != "air"))
    # One stream of random numbers for each part, so that changing one leaves the others as they are.
    pose, body_rng, brain_rng, face_rng, neck_rng, tumor_rng = (
        np.random.default_rng([seed, part]) for part in range(6)
    )
    canvas = Canvas(grid, names, seed, pose)
    body, skin = paint_body(canvas, body_rng)
    paint_face_muscles(canvas)
    paint_neck_muscles(canvas, neck_rng)
    space = cranium(canvas)
    paint_skull(canvas, space)
    paint_jaws(canvas, face_rng)
    structures = paint_brain(canvas, space, brain_rng)
    structures |= paint_orbits(canvas)
    paint_airway(canvas, face_rng)
    structures["SpinalCord"] = paint_spine(canvas)
    structures |= paint_glands(canvas, neck_rng)
    paint_vessels(canvas, neck_rng)
    paint_lymph_nodes(canvas, neck_rng)
    if tumor:
        lesions = paint_tumor(canvas, body, tumor_rng)
        lesion = np.logical_or.reduce(list(lesions.values()))
        structures = lesions | {name: mask & ~lesion for name, mask in structures.items()}
    # Whatever has been painted too far out: skin covers it.
    shallow = ("skin", "cartilage", "mucosa", "air")
    canvas.labels[skin & ~canvas.is_any(..., shallow)] = canvas.label("skin")
    canvas.labels[~body] = 0
    inner = body & ~skin
    structures = {name: mask & inner for name, mask in structures.items()} | {"External": body}
    structures = {name: mask for name, mask in structures.items() if mask.any()}
    return Anatomy(seed, canvas.labels, grid, names, structures)
