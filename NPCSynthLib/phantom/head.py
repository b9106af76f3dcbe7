"""Body surface, skull, face, orbits, nose, sinuses, mouth and the airway."""

import numpy as np

from .brain import SIDES, Cranium
from .shapes import Canvas, blend, box, ellipsoid, mirrored, tube

_SOFT = ("deep_fat", "muscle", "subcutaneous_fat", "connective_tissue")


def paint_body(canvas: Canvas, rng: np.random.Generator):
    """Skin, subcutaneous fat and deep fat. Returns the body and its layer of skin, both bool (k, j, i)."""
    nose = rng.uniform(0.85, 1.15)
    block = canvas.block((-200, -130, -300), (200, 150, 120))
    x, y, z = canvas.at(block)
    parts = [
        ellipsoid((0, 19, 25), (81, 101, 78)),
        ellipsoid((0, -32, -40), (62, 51, 66)),
        ellipsoid((0, -60, -88), (29, 28, 19)),
        ellipsoid((0, -64, -58), (31, 25, 24)),
        *(ellipsoid((s * 30, 4, -48), (42, 50, 48)) for s in SIDES),
        ellipsoid((0, 58, -50), (50, 42, 44)),
        ellipsoid((0, 62, -14), (64, 57, 42)),
        ellipsoid((0, 48, -215), (185, 72, 62)),
    ]
    distances = [part.distance(x, y, z) for part in parts]
    neck_x, neck_y = 57 + 0.0022 * (z + 95) ** 2 * (z < -95), 52 + 0.001 * (z + 95) ** 2
    neck = (np.hypot(x / neck_x, (y - 24) / neck_y) - 1) * 50
    distances.append(np.maximum(neck, z + 25))
    body = blend(distances, 22.0)
    details = [
        tube([(0, -80, -6), (0, -90, -20), (0, -97 - 6 * nose, -34)], [7, 8, 8.5 * nose]).distance(x, y, z),
        *(ellipsoid((s * 9, -91, -38), (8, 10, 7)).distance(x, y, z) for s in SIDES),
        tube([(-20, -84, -60), (0, -91, -56), (20, -84, -60)], [4, 6, 4]).distance(x, y, z),
        tube([(-19, -83, -69), (0, -90, -70), (19, -83, -69)], [4, 6, 4]).distance(x, y, z),
        tube([(-48, -60, 10), (-26, -75, 10), (0, -79, 8), (26, -75, 10), (48, -60, 10)], 7).distance(x, y, z),
    ]
    for s in SIDES:
        details.append(tube(mirrored([(46, -14, -76), (32, -50, -87), (8, -68, -90)], s), 13).distance(x, y, z))
        details.append(tube(mirrored([(42, -66, -21), (58, -48, -20), (68, -18, -18)], s), 9).distance(x, y, z))
    details += [ellipsoid((s * 31.5, -60, -4), (15, 15, 11)).distance(x, y, z) for s in SIDES]
    body = blend([body, *details], 8.0)
    ears = [ellipsoid((s * 77, 28, -10), (6.5, 15, 30), tilt_deg=-12).distance(x, y, z) for s in SIDES]
    body = blend([body, *ears], 4.0) + np.float32(0.5) * canvas.noise("skin", 12.0, block)

    plump = rng.uniform(0.6, 1.5)

    def near(cx, cy, cz, reach):
        return np.exp(-((np.abs(x) - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2) / (2 * reach**2))

    fat = 2.6 + plump * (2.0 + 7 * near(46, -52, -48, 20) + 3 * near(0, 78, -100, 30) + 8 * near(0, -50, -106, 22))
    fat += plump * 1.5 * np.clip((-z - 70) / 60, 0, 1)
    fat -= 2.5 * np.clip(z / 40, 0, 1) * plump
    labels = canvas.labels[block]
    labels[body < 0] = canvas.label("skin")
    labels[body < -2.0] = canvas.label("subcutaneous_fat")
    labels[body < -2.0 - fat] = canvas.label("deep_fat")
    labels[(body < -2) & (np.minimum(*ears) < -1.5) & (np.abs(x) > 75)] = canvas.label("cartilage")
    solid = np.zeros(canvas.grid.shape, bool)
    solid[block] = body < 0
    skin = np.zeros_like(solid)
    skin[block] = (body < 0) & (body >= -2.0)
    return solid, skin


def paint_face_muscles(canvas: Canvas):
    """Muscles of mastication and of expression."""
    for side in SIDES:
        def muscle(shape, rough=0.8):
            canvas.paint("muscle", shape, rough=rough, over=_SOFT)

        muscle(ellipsoid((side * 67, -10, 16), (9, 34, 40)))
        muscle(tube(mirrored([(64, -10, 0), (58, -14, -20), (50, -20, -38)], side), [9, 9, 6], flatten=(0.8, 1.4, 1)))
        muscle(ellipsoid((side * 57, -17, -60), (8.5, 18, 27), tilt_deg=-12))
        muscle(ellipsoid((side * 38, -8, -58), (8.5, 17, 25), tilt_deg=-15))
        muscle(tube(mirrored([(22, -16, -34), (34, -6, -31), (46, 6, -27)], side), [8, 11, 5.5], flatten=(1, 1, 0.95)))
        muscle(tube(mirrored([(34, -66, -62), (46, -44, -60), (44, -26, -58)], side), [2.5, 3, 2.5], (1, 1, 3.2)), 0.3)
        muscle(tube(mirrored([(52, -30, -24), (40, -66, -52)], side), [2.2, 2.5]), 0.3)
    canvas.paint("muscle", tube(
        [(-24, -76, -64), (0, -87, -57), (24, -76, -64), (0, -86, -71), (-24, -76, -64)], 3.2), over=_SOFT)
    canvas.paint("muscle", ellipsoid((0, -78, -90), (14, 7, 9)), over=_SOFT)


def paint_skull(canvas: Canvas, space: Cranium):
    """Vault and base with tables and marrow, temporal bones, clivus, facial bones without the mandible."""
    x, y, z = canvas.at(space.block)
    labels = canvas.labels[space.block]
    thick = 6.0 + 0.8 * canvas.noise("vault thickness", 30.0, space.block) + 1.5 * np.clip((y - 60) / 40, 0, 1)
    thick = np.where(z < 14, np.clip(thick - 0.12 * (14 - z), 3.4, None), thick)
    thick = np.where(z < -41, 0, thick)
    shell = (space.cavity >= 0) & (space.cavity < thick) & (labels != canvas.label("air"))
    labels[shell] = canvas.label("cortical_bone")
    spongy = shell & (space.cavity > 1.5) & (space.cavity < thick - 1.5)
    labels[spongy] = canvas.label("fatty_marrow")

    for side in SIDES:
        def at(*points):
            return mirrored(points, side)

        # Temporal bone: dense petrous part, mastoid with air cells, ear canal.
        petrous = tube(at((13, 14, -17), (36, 26, -16), (55, 35, -19)), [6, 9, 11])
        canvas.bone(petrous, cortex=2.5)
        mastoid = ellipsoid((side * 56, 38, -29), (11, 13, 18))
        canvas.bone(mastoid, cortex=1.5)
        block, cells = canvas.mask(mastoid, inset=2.0)
        cells &= np.abs(canvas.noise("mastoid cells", 4.0, block)) > 0.45
        canvas.labels[block][cells] = canvas.label("air")
        canvas.paint("cortical_bone", ellipsoid((side * 36, 27, -16), (9, 5, 5)))
        canvas.paint("csf", ellipsoid((side * 33, 26, -15), (2.5, 2, 2)))
        canvas.paint("air", tube(at((44, 22, -17), (62, 20, -16), (90, 22, -12)), [2.8, 3.0, 3.4]),
                     spare=("cartilage",))
        # Greater wing, pterygoid plates, cheekbone and its arch, upper jaw.
        canvas.bone(tube(at((14, -14, -10), (32, -22, -4), (54, -34, 6)), [7, 5, 4], flatten=(1, 0.7, 1)), cortex=1.5)
        canvas.paint("cortical_bone", tube(at((14, -17, -16), (14, -14, -44)), [1.6, 1.3], flatten=(0.8, 2.6, 1)))
        canvas.paint("cortical_bone", tube(at((17, -17, -16), (22, -9, -42)), [1.6, 1.2], flatten=(0.8, 2.6, 1)))
        canvas.bone(tube(at((40, -68, -22), (58, -48, -20), (70, -20, -18), (70, 6, -19)), [7, 5, 3, 3.5]), cortex=1.2)
        canvas.bone(tube(at((42, -66, -18), (51, -58, -6), (50, -58, 10)), [4, 3.2, 3.6]), cortex=1.2)
        canvas.bone(ellipsoid((side * 26, -48, -31), (19, 23, 20)), cortex=1.2)
        canvas.bone(tube(at((4, -76, 2), (4, -83, -14)), [3.0, 2.0]), cortex=1.2)
    canvas.bone(box((0, 0, -15), (16, 23, 12.5), rounding=9), cortex=1.5)
    canvas.bone(box((0, 14.5, -20), (13, 6.0, 22), rounding=4, tilt_deg=-26), cortex=1.4, rough=0.4)
    brow = [(-47, -57, 12), (-25, -72, 13), (0, -75, 12), (25, -72, 13), (47, -57, 12)]
    canvas.bone(tube(brow, [4, 5, 5.5, 5, 4]), cortex=1.5)
    # Where the bones above reach into the cavity, the cavity wins.
    inside = space.cavity < 0
    labels[inside] = canvas.label("csf")


def paint_jaws(canvas: Canvas, rng: np.random.Generator):
    """Hard palate, mandible, teeth, tongue and the floor of the mouth."""
    width = rng.uniform(0.95, 1.05)
    canvas.paint("mucosa", box((0, -47, -47.5), (20, 30, 4.5), rounding=3))
    canvas.bone(box((0, -47, -46.5), (21, 29, 2.8), rounding=1.2), cortex=1.0, rough=0.2)

    def arch(center_y, half_width, length, z, n=15):
        t = np.linspace(-1, 1, n)
        return [(half_width * np.sign(a) * abs(a) ** 0.55, center_y + length * abs(a) ** 2.0, z) for a in t]

    canvas.paint("mucosa", tube(arch(-76, 27, 42, -53), 8))
    canvas.bone(tube(arch(-75, 27, 42, -51), 6), cortex=1.3)
    for side in SIDES:
        def at(*points):
            return mirrored(np.array(points) * (width, 1, 1), side)

        canvas.bone(tube(at((0, -77, -91), (18, -71, -90), (34, -50, -87), (45, -20, -79)), [8, 7.5, 7, 6.5],
                         flatten=(0.75, 0.8, 1.35)), cortex=1.8)
        canvas.bone(tube(at((47, -14, -74), (48, -6, -50), (49, 3, -34)), [7, 6.5, 5], flatten=(0.62, 2.0, 1)),
                    cortex=1.5)
        canvas.bone(tube(at((49, 4, -38), (50, 8, -26)), [4.5, 5], flatten=(1.4, 0.9, 1)), cortex=1.3)
        canvas.bone(tube(at((47, -12, -48), (47, -18, -34)), [4, 2.5], flatten=(0.6, 1.3, 1)), cortex=1.2)
    canvas.bone(tube(arch(-78, 26, 44, -80), 6.5), cortex=1.4)

    canvas.paint("connective_tissue", ellipsoid((0, -46, -72), (25, 34, 20)), over=_SOFT)
    canvas.paint("mucosa", ellipsoid((0, -44, -66), (24, 31, 21)), spare=("cortical_bone", "fatty_marrow", "air"))
    canvas.paint("tongue", ellipsoid((0, -44, -67), (22, 29.5, 20)), rough=0.6,
                 spare=("cortical_bone", "fatty_marrow"))
    block, tongue = canvas.mask(ellipsoid((0, -40, -70), (18, 24, 16)))
    x, y, z = canvas.at(block)
    fibers = np.abs(canvas.noise("tongue fibers", (5.0, 9.0, 14.0), block)) < 0.16
    canvas.labels[block][tongue & fibers] = canvas.label("deep_fat")
    canvas.labels[block][tongue & (np.abs(x) < 0.7)] = canvas.label("connective_tissue")
    for side in SIDES:
        canvas.paint("muscle", tube(mirrored([(5, -70, -88), (6, -36, -94)], side), [4, 5], flatten=(1, 1, 1.3)),
                     over=(*_SOFT, "tongue", "mucosa"))
        canvas.paint("muscle", tube(mirrored([(26, -58, -88), (12, -50, -96), (4, -46, -97)], side), [2, 2.2, 2]),
                     over=_SOFT)
    air = rng.uniform(0.4, 1.6)
    mouth = tube([(0, -68, -55), (0, -48, -48.5 - air), (0, -24, -53)], [0.8, air, 0.7], flatten=(9, 1, 1))
    canvas.paint("air", mouth, over=("mucosa", "tongue"))
    for level, center_y in ((-60, -77), (-70, -77)):
        path = np.array(arch(center_y, 26, 42, level, n=29))
        steps = np.linalg.norm(np.diff(path, axis=0), axis=1)
        along = np.concatenate([[0], np.cumsum(steps)])
        for s in np.linspace(0.03, 0.97, 14) * along[-1]:
            place = [np.interp(s, along, path[:, a]) for a in range(3)]
            back = (place[1] - center_y) / 42
            canvas.paint("teeth", ellipsoid(place, (3.1 + 1.6 * back, 3.1 + 1.6 * back, 9 - 2.5 * back)))


def paint_orbits(canvas: Canvas) -> dict:
    """Orbits with fat, muscles, optic nerve and globe. Returns {"Eye_L": mask, "Eye_R": mask}."""
    eyes = {}
    for side, name in zip(SIDES, ("Eye_L", "Eye_R")):
        def at(*points):
            return mirrored(points, side)

        cone = tube(at((31, -66, -4), (29, -50, -3), (20, -30, 0), (13, -18, 3)), [17.5, 16.5, 10, 3.5])
        canvas.paint("cortical_bone", cone, inset=-1.4, over=(*_SOFT, "fatty_marrow", "cortical_bone"))
        canvas.paint("deep_fat", cone, spare=("skin", "subcutaneous_fat", "air"))
        center = np.array((side * 31.5, -60, -4.0))
        apex = at((13, -20, 3))[0]
        for dx, dz in ((0, 10.5), (0, -10.5), (10.5, 0), (-10.5, 0)):
            belly = (center + apex) / 2 + (dx * 0.85, 0, dz * 0.85)
            canvas.paint("muscle", tube([apex, belly, center + (dx, 2, dz)], [1.2, 2.5, 1.2]), over=("deep_fat",))
        back = center + (-side * 2.5, 11, 0.5)
        nerve = [back, (center + apex) / 2 + (0, 0, 0.5), apex, at((9, -11, 7))[0]]
        canvas.paint("csf", tube(nerve, 2.9))
        canvas.paint("optic_nerve", tube(nerve, 1.8))
        canvas.paint("parotid", ellipsoid(center + (side * 12, -2, 8), (3, 6, 6)), over=("deep_fat",))
        globe = ellipsoid(center, (12.2, 12.2, 12.0))
        canvas.paint("connective_tissue", globe)
        canvas.paint("vitreous", globe, inset=1.2)
        canvas.paint("lens", ellipsoid(center + (0, -7.5, 0), (4.6, 2.2, 4.6)))
        eyes[name] = np.zeros(canvas.grid.shape, bool)
        block, mask = canvas.mask(globe)
        eyes[name][block] = mask
    return eyes


def paint_airway(canvas: Canvas, rng: np.random.Generator):
    """Nose with turbinates and septum, paranasal sinuses, pharynx, larynx and trachea, all lined by mucosa."""
    bone = ("cortical_bone", "fatty_marrow", "deep_fat", "muscle", "mucosa", "connective_tissue", "subcutaneous_fat")
    lining = rng.uniform(0.8, 1.6)

    def room(shape, thickness, rough=0.4, over=bone):
        canvas.paint("mucosa", shape, inset=-thickness, rough=rough, over=over)
        canvas.paint("air", shape, rough=rough, over=("mucosa",))

    # Maxillary, sphenoid, frontal and ethmoid sinuses.
    for side in SIDES:
        size = rng.uniform(0.88, 1.12)
        sinus = ellipsoid((side * 28, -47, -28), np.array((13.5, 17, 16)) * size)
        room(sinus, lining * rng.uniform(0.6, 2.2), rough=1.0)
        if rng.random() < 0.3:
            block, wet = canvas.mask(sinus, rough=1.0)
            wet &= (canvas.at(block)[1] > -47 + rng.uniform(-6, 10)) & canvas.is_any(block, ("air",))
            canvas.labels[block][wet] = canvas.label("secretion")
        sphenoid = ellipsoid((side * rng.uniform(6.5, 8), -9, -13), np.array((7.0, 12, 9)) * rng.uniform(0.8, 1.1))
        room(sphenoid, lining * 0.7)
        if rng.random() < 0.8:
            room(ellipsoid((side * 9, -72, 11), (7, 3.0, rng.uniform(3.5, 6))), 0.7)
        block, cells = canvas.mask(box((side * 9, -40, -7), (6.5, 20, 9), rounding=4))
        cells &= canvas.is_any(block, bone)
        canvas.labels[block][cells] = canvas.label("mucosa")
        cells &= canvas.noise(f"ethmoid {side}", 6.5, block) > -0.25
        canvas.labels[block][cells] = canvas.label("air")

    # Nasal cavity: mucosa, then air, then turbinates and septum standing in it.
    nose = [
        box((0, -50, -35), (14.5, 34, 10.5), rounding=6),
        ellipsoid((0, -46, -26), (11.5, 27, 22)),
        *(tube(mirrored([(6, -88, -40), (6.5, -78, -36)], s), [4, 5]) for s in SIDES),
    ]
    for part in nose:
        canvas.paint("mucosa", part, over=bone)
        canvas.paint("air", part, inset=2.0, over=("mucosa",))
    bend = rng.normal(0, 1.5)
    for side in SIDES:
        swell = rng.uniform(0.85, 1.2)
        for dx, z, r in ((9.0, -38, 3.9), (8.0, -27, 3.2), (6.5, -18, 2.2)):
            turbinate = tube(mirrored([(dx, -74, z), (dx, -45, z), (dx - 0.5, -24, z)], side),
                             np.array([0.7, 1, 0.8]) * r * swell, flatten=(0.85, 1, 1.25))
            canvas.paint("mucosa", turbinate, rough=0.3, over=("air",))
            canvas.paint("cortical_bone", turbinate, inset=2.6, over=("mucosa",))
    septum = tube([(0, -86, -34), (bend, -60, -28), (0, -18, -28)], [1.5, 1.4, 1.4], flatten=(1, 1, 12))
    canvas.paint("mucosa", septum, over=("air",))
    canvas.paint("cartilage", septum, inset=0.8, over=("mucosa",))

    # Nasopharynx with its recesses, then down to the trachea.
    wall = rng.uniform(2.4, 4.0)
    pharynx = ellipsoid((0, -7, -30), (12.5, 10, 13))
    canvas.paint("mucosa", pharynx, inset=-wall, rough=0.6, over=bone)
    canvas.paint("mucosa", ellipsoid((0, 3, -24), (12, 6, 8)), rough=0.6, over=bone)
    for side in SIDES:
        canvas.paint("mucosa", ellipsoid((side * 14, 1, -28), (5, 5, 9)), over=bone)
    canvas.paint("air", pharynx, rough=0.5, over=("mucosa",))
    canvas.paint("air", tube([(0, -22, -28), (0, -8, -30)], [9, 9], flatten=(1.1, 1, 1.2)), over=("mucosa",))
    for side in SIDES:
        canvas.paint("air", tube(mirrored([(11, 0, -27), (16, 4, -26)], side), [2.2, 1.2], flatten=(1, 1, 2.5)),
                     over=("mucosa",))
        canvas.paint("mucosa", ellipsoid((side * 12.5, -4, -29), (3.5, 3.5, 5)), over=("air",))
    throat = tube([(0, -6, -36), (0, -4, -52), (0, -8, -72), (0, -14, -92), (0, -20, -104)], [7, 5.5, 5.5, 6, 5],
                  flatten=(1.7, 1, 1))
    canvas.paint("muscle", throat, inset=-4.2, rough=0.4, over=_SOFT)
    canvas.paint("mucosa", throat, inset=-2.4, rough=0.4, over=(*bone, "tongue"))
    canvas.paint("air", throat, rough=0.3, over=("mucosa",))
    for side in SIDES:
        tonsil = rng.uniform(0.8, 1.3)
        canvas.paint("lymph_node", ellipsoid((side * 14, -9, -64), np.array((5, 6, 9)) * tonsil),
                     over=("mucosa", "muscle", "deep_fat", "air"))
    # Soft palate and uvula hang behind the hard palate.
    palate = tube([(0, -20, -46.5), (0, -10, -49), (0, -6, -58), (0, -7, -64)], [3.6, 4, 3.4, 2.2], (3.2, 1, 1))
    canvas.paint("mucosa", palate, over=(*_SOFT, "air", "mucosa", "cortical_bone"))
    canvas.paint("muscle", palate, inset=2.0, over=("mucosa",))
    canvas.paint("mucosa", tube([(0, -16, -88), (0, -10, -80)], [1.6, 1.8], flatten=(4, 1, 1)), over=("air",))
    canvas.paint("cartilage", tube([(0, -18, -93), (0, -11, -82)], [0.8, 0.9], (5, 1, 1)), over=("air", "mucosa"))
    larynx = tube(
        [(0, -22, -104), (0, -24, -118), (0, -20, -130), (0, -14, -150), (0, -4, -230)], [6, 4.5, 7.5, 8.5, 9])
    canvas.paint("mucosa", larynx, inset=-2, rough=0.3, over=(*bone,))
    canvas.paint("air", larynx, over=("mucosa",))
    for side in SIDES:
        vocal_fold = box((side * 5, -22, -117), (3, 9, 2.2), rounding=1.5)
        canvas.paint("muscle", vocal_fold, over=("air", "mucosa", "deep_fat"))
