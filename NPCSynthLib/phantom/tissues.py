"""What the tissues of the head and neck are to an MR scanner: T1, T2, water, fat and uptake of contrast agent.

Sources, cited by key in each entry:

- Stanisz: Stanisz GJ et al., Magn Reson Med 2005;54:507-512 (T1, T2 at 1.5 and 3 T).
- Bojorquez: Bojorquez JZ et al., Magn Reson Imaging 2017;35:69-80 (review of normal tissues at 3 T).
- de Bazelaire: de Bazelaire CM et al., Radiology 2004;230:652-659 (fat, marrow, muscle at 1.5 and 3 T).
- Gold: Gold GE et al., AJR 2004;183:343-351 (musculoskeletal tissues at 1.5 and 3 T).
- Rooney: Rooney WD et al., Magn Reson Med 2007;57:308-318 (brain and CSF T1 against field).
- Wansapura: Wansapura JP et al., J Magn Reson Imaging 1999;9:531-538 (brain at 3 T).
- Reichert: Reichert IL et al., Magn Reson Imaging 2005;23:611-618 (cortical bone, ultrashort TE).
- Ai: Ai QYH et al., AJNR Am J Neuroradiol 2020;41:2339-2344 (T1rho of nasopharyngeal carcinoma at 3 T, 62 ms).
- Rohrer: Rohrer M et al., Invest Radiol 2005;40:715-724 (relaxivities of contrast agents).

"Estimated" says that no measurement at both fields was taken over; the value then follows from the
tissue named and from how the tissue looks beside others in clinical images.
"""

from dataclasses import dataclass

# Gadobutrol in plasma at 37 degrees C, l/(mmol s), by field strength in T (Rohrer).
RELAXIVITY_R1 = {1.5: 5.2, 3.0: 5.0}
RELAXIVITY_R2 = {1.5: 6.1, 3.0: 7.1}

# The fat component of any tissue, ms (de Bazelaire, subcutaneous fat; single-echo T2).
FAT_T1_MS = {1.5: 343.0, 3.0: 382.0}
FAT_T2_MS = {1.5: 58.0, 3.0: 68.0}


@dataclass(frozen=True)
class Tissue:
    """One tissue.

    Attributes:
        name: key in ``TISSUES``.
        t1_ms, t2_ms: relaxation times in ms of the WATER component, by field strength in T (1.5 and 3.0).
        pd: signal-giving protons relative to CSF, 0..1.
        flow_void: share of the signal that is lost to a spin echo because the blood has flowed on between the pulses
            that excite and refocus its slice, 0..1. A gradient echo has no such second pulse and loses nothing
            (Bernstein, "Handbook of MRI Pulse Sequences", 2004; Bradley WG et al., AJR 1984;143:1167-1174).
        fat_fraction: share of those protons that belong to fat, 0..1.
        enhancement: concentration of contrast agent relative to that of blood a few minutes after injection,
            0..1; multiply by ``Protocol.contrast_mmol_l``.
        source: where the values come from.
    """

    name: str
    t1_ms: dict
    t2_ms: dict
    pd: float
    fat_fraction: float
    enhancement: float
    source: str
    flow_void: float = 0.0


# name: T1 at 1.5 T, T1 at 3 T, T2 at 1.5 T, T2 at 3 T, PD, fat fraction, enhancement, source, flow void if any
_TABLE = {
    "air": (1000, 1000, 1, 1, 0.0, 0.0, 0.0, "no protons"),
    "skin": (900, 1150, 35, 32, 0.65, 0.05, 0.20, "estimated from muscle (Stanisz), shorter T2"),
    "subcutaneous_fat": (900, 1150, 40, 38, 0.92, 0.94, 0.02, "de Bazelaire (fat component); PD estimated"),
    "deep_fat": (900, 1150, 40, 38, 0.90, 0.90, 0.03, "de Bazelaire; orbital and parapharyngeal, estimated"),
    "muscle": (1008, 1412, 40, 38, 0.78, 0.03, 0.08, "Stanisz; T2 between Stanisz and Gold"),
    "tongue": (1000, 1350, 46, 43, 0.80, 0.15, 0.12, "estimated from muscle (Stanisz) with intrinsic fat"),
    "cortical_bone": (200, 200, 0.5, 0.5, 0.20, 0.0, 0.0, "Reichert"),
    "fatty_marrow": (1100, 1400, 45, 42, 0.80, 0.72, 0.05, "fat: de Bazelaire; adult skull and clivus, estimated"),
    "red_marrow": (1050, 1350, 45, 42, 0.75, 0.42, 0.12, "de Bazelaire (vertebral marrow), water part estimated"),
    "disc": (1050, 1250, 75, 68, 0.72, 0.0, 0.02, "estimated from cartilage (Stanisz, Gold) with more water"),
    "cartilage": (1040, 1200, 36, 32, 0.65, 0.05, 0.02, "Stanisz; Gold"),
    "thyroid_cartilage": (1050, 1250, 33, 30, 0.60, 0.20, 0.04, "estimated from cartilage (Gold), partly ossified"),
    "teeth": (250, 250, 0.4, 0.4, 0.08, 0.0, 0.0, "estimated from cortical bone (Reichert)"),
    "gray_matter": (1124, 1500, 95, 92, 0.83, 0.0, 0.0, "Stanisz; T1 at 3 T between Stanisz and Wansapura"),
    "white_matter": (700, 900, 72, 69, 0.71, 0.0, 0.0, "Stanisz (T2); Wansapura and Rooney (T1)"),
    "deep_gray": (1000, 1250, 82, 72, 0.79, 0.0, 0.0, "Rooney (T1); T2 estimated, shorter by iron"),
    "cerebellum_gray": (1150, 1480, 95, 92, 0.83, 0.0, 0.0, "estimated from gray matter (Stanisz, Wansapura)"),
    "cerebellum_white": (720, 930, 75, 72, 0.72, 0.0, 0.0, "estimated from white matter (Stanisz, Rooney)"),
    "csf": (4200, 4300, 1900, 1700, 1.0, 0.0, 0.0, "Rooney (T1); T2 estimated"),
    "brainstem": (780, 1020, 77, 74, 0.74, 0.0, 0.0, "estimated from white matter and cord (Stanisz)"),
    "spinal_cord": (745, 993, 74, 78, 0.73, 0.0, 0.0, "Stanisz"),
    "vitreous": (3800, 4000, 1200, 1000, 1.0, 0.0, 0.0, "estimated from CSF"),
    "lens": (1000, 1200, 32, 28, 0.60, 0.0, 0.0, "estimated from protein-rich, dark lens on T2"),
    "optic_nerve": (815, 1083, 77, 78, 0.73, 0.02, 0.0, "Stanisz"),
    "parotid": (900, 1200, 72, 66, 0.85, 0.38, 0.25, "estimated: glandular water with fat lobules"),
    "submandibular": (950, 1250, 76, 70, 0.85, 0.15, 0.30, "estimated: less fat than the parotid"),
    "mucosa": (1150, 1450, 105, 95, 0.88, 0.0, 0.75, "estimated from enhancing, T2-bright mucosa"),
    "lymph_node": (1050, 1400, 78, 72, 0.85, 0.03, 0.30, "estimated from lymphoid tissue beside muscle"),
    "artery": (1441, 1932, 290, 275, 0.90, 0.0, 1.0, "Stanisz (blood); fast flow, void estimated", 0.84),
    "vein": (1441, 1932, 220, 180, 0.90, 0.0, 1.0, "Stanisz (blood); slow flow, void estimated", 0.56),
    "venous_sinus": (1441, 1932, 200, 160, 0.90, 0.0, 0.90, "Stanisz (blood); slow flow, void estimated", 0.50),
    "blood": (1441, 1932, 250, 230, 0.90, 0.0, 1.0, "Stanisz; static blood, T2 of mixed oxygenation"),
    "pituitary": (950, 1250, 88, 82, 0.82, 0.0, 0.75, "estimated from gray matter; no blood-brain barrier"),
    "choroid_plexus": (1300, 1700, 140, 130, 0.90, 0.0, 0.70, "estimated between gray matter and CSF"),
    "dura": (950, 1250, 40, 36, 0.50, 0.0, 0.35, "estimated from muscle (Stanisz), fibrous"),
    "connective_tissue": (850, 1100, 36, 32, 0.60, 0.20, 0.12, "estimated from muscle (Stanisz), fibrous"),
    "npc_tumor": (1120, 1450, 76, 70, 0.85, 0.0, 0.42, "T2 estimated from T1rho (Ai); the rest estimated"),
    "nodal_tumor": (1120, 1450, 82, 76, 0.85, 0.0, 0.40, "estimated from the primary tumor"),
    "white_matter_lesion": (1250, 1550, 150, 135, 0.84, 0.0, 0.0, "estimated from white matter with edema"),
    "edema": (1250, 1550, 140, 130, 0.86, 0.0, 0.03, "estimated from white matter with more free water"),
    "glioma_enhancing": (1250, 1600, 125, 115, 0.86, 0.0, 0.60, "estimated from gray matter and edema"),
    "necrosis": (2200, 2600, 320, 280, 0.93, 0.0, 0.03, "estimated between edema and CSF, protein-rich"),
    "secretion": (1900, 2200, 450, 380, 0.96, 0.0, 0.0, "estimated from watery sinus secretion"),
}

TISSUES: dict[str, Tissue] = {
    name: Tissue(name, {1.5: row[0], 3.0: row[1]}, {1.5: row[2], 3.0: row[3]}, *row[4:])
    for name, row in _TABLE.items()
}
"""Every tissue by name."""
