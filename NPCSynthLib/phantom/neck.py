"""Spine, cord, neck muscles, salivary glands, larynx skeleton, vessels and lymph nodes."""

import numpy as np

from .brain import SIDES
from .shapes import Canvas, box, ellipsoid, mirrored, tube

_SOFT = ("deep_fat", "muscle", "subcutaneous_fat", "connective_tissue")
_CANAL = [(0, 42, -40), (0, 40, -58), (0, 38, -80), (0, 37, -105), (0, 40, -135), (0, 50, -180), (0, 58, -230)]


def paint_neck_muscles(canvas: Canvas, rng: np.random.Generator):
    """Muscles that hold and turn the head, with fat between them."""
    bulk = rng.uniform(1.05, 1.25)
    canvas.paint("muscle", tube([(0, 70, -30), (0, 66, -60), (0, 66, -100), (0, 72, -150), (0, 80, -240)],
                                [20, 21, 21, 24, 26], (1.7, 1, 1)), rough=0.9, over=("deep_fat",))
    for side in SIDES:
        def muscle(points, radii, flatten=(1, 1, 1), rough=0.9):
            shape = tube(mirrored(points, side), np.array(radii) * bulk, flatten)
            # The fat of the fascial plane sets each muscle off from the next.
            canvas.paint("deep_fat", shape, inset=-0.6, rough=rough, over=("muscle",))
            canvas.paint("muscle", shape, rough=rough, over=_SOFT[:2])

        # Sternocleidomastoid, from the mastoid to the breastbone.
        muscle([(58, 40, -40), (55, 30, -70), (44, 10, -105), (28, -10, -140), (16, -20, -175)],
               [8, 10.5, 11, 10, 8], (1, 1.6, 1))
        muscle([(40, 72, -26), (44, 64, -60), (42, 62, -100), (40, 66, -150)], [4, 6, 7, 7], (1, 1.7, 1))
        muscle([(26, 80, -26), (30, 74, -60), (28, 72, -100), (26, 76, -150)], [5, 7, 6.5, 6], (1.5, 0.9, 1))
        muscle([(12, 84, -26), (13, 78, -55), (13, 74, -95), (13, 78, -150)], [6, 8.5, 8.5, 8], (1.1, 1.2, 1))
        muscle([(14, 64, -42), (15, 60, -70), (14, 60, -110), (14, 66, -160)], [6, 8, 8, 8], (1.2, 0.9, 1))
        muscle([(32, 54, -46), (33, 50, -75), (32, 50, -110), (34, 58, -160)], [5, 7.5, 8, 9], (1, 1.1, 1))
        muscle([(46, 44, -60), (50, 46, -95), (54, 58, -140)], [6, 8.5, 9], (0.8, 1.3, 1))
        muscle([(28, 28, -75), (32, 26, -105), (40, 24, -150)], [6, 9.5, 11], (1, 1.1, 1))
        muscle([(8, 96, -60), (16, 94, -90), (30, 88, -120), (60, 78, -150), (110, 66, -170)],
               [2.5, 3.5, 4.5, 6, 9], (2.2, 1, 1))
        muscle([(7, 12, -22), (9, 10, -50), (9, 8, -90), (9, 10, -150)], [5, 6, 5.5, 5], (1.25, 0.9, 1), rough=0.5)
        muscle([(36, -30, -92), (30, -24, -98), (16, -38, -100)], [3.5, 3.5, 3])
        muscle([(54, 30, -44), (46, 12, -70), (34, -12, -92)], [4, 4.5, 3.5])
        muscle([(26, 14, -22), (22, 2, -55), (17, -16, -92)], [2, 2.6, 2.4], rough=0.3)
        muscle([(7, -38, -104), (8, -34, -130), (9, -30, -170)], [3, 3.5, 4], (2, 1, 1))
        canvas.paint("muscle", ellipsoid((side * 17, 1, -36), (3, 6, 10)), over=_SOFT)
    # Thin sheets of fat run between and within the muscles behind the spine.
    block = canvas.block((-75, 40, -260), (75, 120, -25))
    septa = np.abs(canvas.noise("muscle septa", (9.0, 9.0, 40.0), block)) < 0.07
    canvas.labels[block][septa & canvas.is_any(block, ("muscle",))] = canvas.label("deep_fat")
    canvas.paint("connective_tissue", box((0, 84, -100), (0.9, 22, 70), rounding=0.8), over=("muscle", "deep_fat"))


def paint_spine(canvas: Canvas) -> np.ndarray:
    """Vertebrae with discs, dural sac and cord. Returns the spinal cord as bool (k, j, i)."""
    # Atlas and dens; the axis carries the dens.
    for side in SIDES:
        canvas.bone(ellipsoid((side * 21, 32, -44), (9, 9, 8)), "red_marrow", cortex=1.3)
        front_arch = tube(mirrored([(0, 11.5, -43), (10, 15, -43), (20, 26, -43)], side), [3.6, 3.6, 4])
        back_arch = tube(mirrored([(22, 40, -43), (14, 57, -43), (0, 62, -43)], side), [3.6, 3.4, 3.8])
        canvas.bone(front_arch, "red_marrow", 1.2)
        canvas.bone(back_arch, "red_marrow", 1.2)
        canvas.bone(tube(mirrored([(24, 34, -44), (36, 36, -46)], side), [5, 4]), "red_marrow", 1.2)
        canvas.bone(ellipsoid((side * 15, 31, -33), (7, 9, 5)), "red_marrow", 1.3)
    canvas.bone(tube([(0, 20, -33), (0, 21, -52)], [5, 6]), "red_marrow", 1.2)
    levels = [-59, -76, -92.5, -109, -125.5, -142.5, -161, -181, -202, -224]
    centers = [(0.0, np.interp(z, [-224, -142, -100, -59], [44, 24, 19, 22]), z) for z in levels]
    for (_, y, z), below in zip(centers, [*centers[1:], (0, 44, -246)]):
        wide, deep = 12.5 + max(0, (-z - 110) * 0.03), 8.5 + max(0, (-z - 110) * 0.03)
        half = (z - below[2]) / 2
        canvas.paint("disc", box((0, (y + below[1]) / 2, z - half), (wide, deep, 4.2), rounding=3.5),
                     over=(*_SOFT, "red_marrow", "cortical_bone"))
        canvas.bone(box((0, y, z), (wide, deep, half - 2.2), rounding=4), "red_marrow", 1.1, rough=0.3)
        back = np.interp(z, [p[2] for p in _CANAL][::-1], [p[1] for p in _CANAL][::-1])
        for side in SIDES:
            canvas.bone(tube(mirrored([(10, y + 4, z), (19, back - 3, z - 1)], side), [4, 6]), "red_marrow", 1.2)
            canvas.bone(tube(mirrored([(19, back, z), (18, back + 6, z - 4), (8, back + 13, z - 4)], side),
                             [6.5, 4.5, 3.5], (1, 1, 1.15)), "red_marrow", 1.3)
        canvas.bone(tube([(0, back + 13, z - 4), (0, back + 27 + 5 * (z in (-59, -142.5)), z - 11)], [4, 3.6],
                         (0.8, 1, 1.2)), "red_marrow", 1.2)
    radii = np.array([9.5, 8.5, 7.6, 7.4, 7.6, 7.6, 7.6])
    over = ("deep_fat", "muscle", "cortical_bone", "red_marrow", "disc", "connective_tissue", "csf", "dura")
    canvas.paint("deep_fat", tube(_CANAL, radii + 1.0, flatten=(1.45, 1, 1)), over=over[:-2])
    canvas.paint("dura", tube(_CANAL, radii, flatten=(1.4, 1, 1)), over=over)
    canvas.paint("csf", tube(_CANAL, radii - 0.8, flatten=(1.4, 1, 1)), over=over)
    cord_path = [(0, 39.5, -36), *[(x, y - 0.3, z) for x, y, z in _CANAL]]
    shape = tube(cord_path, [5.0, 4.6, 4.1, 4.0, 4.0, 4.0, 3.6, 3.4], flatten=(1.4, 1, 1))
    block, inside = canvas.mask(shape)
    inside &= (canvas.z[block] < -41) & ~canvas.is_any(block, ("brainstem",))
    canvas.labels[block][inside] = canvas.label("spinal_cord")
    block_h, gray = canvas.mask(tube(cord_path, 1.5, flatten=(1.7, 0.8, 1)))
    gray &= canvas.is_any(block_h, ("spinal_cord",))
    canvas.labels[block_h][gray] = canvas.label("deep_gray")
    cord = np.zeros(canvas.grid.shape, bool)
    cord[block] = inside
    return cord


def paint_glands(canvas: Canvas, rng: np.random.Generator) -> dict:
    """Salivary and thyroid glands, hyoid and laryngeal cartilage. Returns {"Parotid_L": mask, "Parotid_R": mask}."""
    parotids = {}
    free = (*_SOFT, "submandibular")
    for side, name in zip(SIDES, ("Parotid_L", "Parotid_R")):
        size = rng.uniform(0.92, 1.12)
        mask = np.zeros(canvas.grid.shape, bool)
        lobes = (
            ellipsoid((side * 61, 8, -48), np.array((9, 20, 25)) * size, tilt_deg=8),
            ellipsoid((side * 52, 16, -46), np.array((12, 10, 19)) * size),
            ellipsoid((side * 66, -8, -42), np.array((5, 13, 14)) * size),
        )
        for lobe in lobes:
            block, inside = canvas.mask(lobe, rough=0.8)
            x, y, _ = canvas.at(block)
            # Deep to the gland stays the skin's fat, in front the masseter.
            inside &= canvas.is_any(block, ("deep_fat", "connective_tissue", "subcutaneous_fat")) | (
                canvas.is_any(block, ("muscle",)) & (y > 4))
            canvas.labels[block][inside] = canvas.label("parotid")
            mask[block] |= inside
        block, lobules = canvas.mask(ellipsoid((side * 58, 6, -48), (14, 26, 30)))
        lobules &= np.abs(canvas.noise("lobules", (4.0, 5.0, 6.0), block)) < 0.12
        lobules &= canvas.is_any(block, ("parotid",))
        canvas.labels[block][lobules] = canvas.label("deep_fat")
        parotids[name] = mask
        canvas.paint("submandibular", ellipsoid((side * 33, -26, -94), np.array((9, 15, 11)) * rng.uniform(0.9, 1.1)),
                     rough=0.8, over=free)
        canvas.paint("submandibular", ellipsoid((side * 16, -60, -84), (5, 13, 5)), over=_SOFT)
        canvas.bone(tube(mirrored([(0, -36, -100), (14, -30, -100), (23, -12, -97)], side), [3, 2.6, 2], (1, 1, 1.3)),
                    "red_marrow", 1.1, over=(*_SOFT,))
        plate = tube(mirrored([(0, -40, -114), (11, -33, -115), (20, -16, -116)], side), [2, 1.8, 1.8], (1, 1, 6))
        canvas.paint("thyroid_cartilage", plate, over=(*_SOFT, "mucosa"))
        canvas.paint("thyroid_cartilage", tube(mirrored([(0, -31, -131), (11, -22, -131), (0, -10, -130)], side), 2.2,
                                               (1, 1, 2)), over=(*_SOFT, "mucosa"))
        canvas.paint("submandibular", ellipsoid((side * 17, -14, -148), (8, 9, 18)), rough=0.8, over=_SOFT)
    return parotids


def paint_vessels(canvas: Canvas, rng: np.random.Generator):
    """Carotid, vertebral and basilar arteries, jugular veins, with the fat of the carotid sheath."""
    tissue = (*_SOFT, "parotid", "submandibular")
    everything = (*tissue, "cortical_bone", "fatty_marrow", "red_marrow", "csf", "dura", "venous_sinus", "gray_matter")
    dominant = rng.choice([-1, 1])
    for side in SIDES:
        jitter = rng.normal(0, 1.0, (1, 3))

        def at(*points):
            return mirrored(np.array(points) + jitter, side)

        internal = at((27, 12, -95), (28, 13, -75), (26, 12, -52), (24, 13, -34), (25, 14, -22), (17, 8, -17),
                      (11.5, 7, -9), (11, -3, -2), (12, 2, 6))
        canvas.paint("artery", tube(internal, [3.6, 2.7, 2.6, 2.6, 2.5, 2.4, 2.3, 2.3, 2.1]), over=everything)
        canvas.paint("artery", tube(at((12, 2, 7), (26, -4, 9), (42, 0, 10)), [1.6, 1.4, 1.0]), over=everything)
        common = tube(at((27, 13, -93), (27, 10, -120), (22, 6, -170), (18, 8, -230)), [4.2, 3.6, 3.6, 3.8])
        canvas.paint("artery", common, over=tissue)
        canvas.paint("artery", tube(at((27, 11, -93), (30, 2, -78), (44, 6, -58), (50, 8, -36)), [2.2, 1.9, 1.6, 1.3]),
                     over=tissue)
        wide = 1.18 if side == dominant else 0.88
        jugular = at((40, 30, -12), (31, 21, -25), (33, 21, -50), (36, 18, -80), (36, 10, -110), (30, 2, -160))
        canvas.paint("vein", tube(jugular, np.array([3.6, 4.2, 4.4, 5.2, 5.6, 6.0]) * wide, (1.1, 1, 1)),
                     over=everything)
        canvas.paint("vein", tube(at((52, 12, -34), (53, 11, -60), (44, -2, -82), (38, 6, -95)), [1.8, 2.0, 1.8, 2.0]),
                     over=tissue)
        canvas.paint("vein", tube(at((58, 12, -75), (56, 14, -105), (46, 16, -150)), [1.8, 2.0, 2.4]),
                     over=(*tissue, "deep_fat"))
        canvas.paint("artery", tube(
            at((16, 23, -150), (16, 25, -110), (17, 26, -70), (25, 30, -50), (24, 40, -42), (8, 33, -33),
               (1, 21, -22)),
            [1.9, 1.9, 1.9, 1.9, 1.8, 1.7, 1.6]), over=everything)
    canvas.paint("artery", tube([(0, 20.5, -23), (0, 16.5, -12), (0, 15, -1)], [1.8, 1.7, 1.5]), over=everything)


def paint_lymph_nodes(canvas: Canvas, rng: np.random.Generator):
    """Small normal nodes along the jugular chain, under the jaw and in the posterior triangle."""
    places = [(40, 8, -72), (43, 14, -84), (44, 6, -98), (41, 2, -116), (36, -8, -86), (30, -42, -96), (12, -58, -99),
              (52, 36, -88), (50, 38, -112), (58, -4, -58)]
    for side in SIDES:
        for place in places:
            size = rng.uniform(2.0, 4.2)
            place = mirrored(np.array(place) + rng.normal(0, 1.5, 3), side)
            canvas.paint("lymph_node", ellipsoid(place, (size, size * 1.1, size * rng.uniform(1.2, 1.8))), over=_SOFT)
