"""Simulated MR headers in the habits of scanner vendors and hospitals, each with the truth it was made for.

Descriptions are put together from the parts that vendors and sites use (weighting, technique, plane, fat suppression,
contrast agent, in several languages); parameters are drawn from the ranges of routine protocols at 1.5 and 3 T. In
half of the contrast-enhanced series the agent stands in the description alone, as where technologists leave the tag
empty. Written from knowledge of the vendors' naming, not from what the rules under test accept.
"""

from dataclasses import dataclass

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

PLANES = ("tra", "sag", "cor")


@dataclass(frozen=True)
class SimulatedHeader:
    """A header and what it is: a sequence id, or None for what must be refused; ``kind`` names the distractor."""

    vendor: str
    truth: str | None
    kind: str
    dataset: Dataset


#: Routine parameters: scanning sequence, then (low, high) of TR, TE, TI (ms) and flip angle (degrees).
PARAMETERS = {
    "T1 TSE": (["SE"], (420, 800), (7, 15), None, (90, 160)),
    "T1 SE": (["SE"], (400, 650), (8, 14), None, (70, 90)),
    "T1 FLAIR": (["SE", "IR"], (1800, 3000), (8, 25), (720, 1000), (90, 150)),
    "T1 3D SE": (["SE"], (500, 800), (8, 30), None, (90, 120)),
    "MPRAGE": (["GR", "IR"], (1600, 2500), (2.1, 3.8), (800, 1100), (8, 12)),
    "T1 GRE": (["GR"], (4.0, 9.0), (1.2, 4.2), None, (9, 20)),
    "T1 2D GRE": (["GR"], (150, 350), (2.2, 4.8), None, (60, 80)),
    "T2 TSE": (["SE"], (2800, 6500), (78, 120), None, (90, 160)),
    "T2 3D SE": (["SE"], (2000, 3500), (120, 420), None, (90, 120)),
    "HASTE": (["SE"], (1000, 2000), (80, 110), None, (120, 160)),
    "STIR": (["SE", "IR"], (3200, 6500), (30, 90), (140, 230), (90, 150)),
    "FLAIR": (["SE", "IR"], (7000, 11000), (80, 140), (2100, 2700), (90, 160)),
    "FLAIR 3D": (["SE", "IR"], (4800, 8000), (120, 400), (1600, 2200), (90, 120)),
    "PD": (["SE"], (2000, 4500), (10, 40), None, (90, 160)),
}

#: For each vendor: (truth without agent and fat suppression, parameters, description with {p} for the plane, pulse
#: sequence name).
PLAIN = {
    "Siemens": [
        ("T1", "T1 TSE", "t1_tse_{p}", "*tse2d1_3"), ("T1", "T1 TSE", "t1_tse_{p}_512_3mm", "*tse2d1_5"),
        ("T1", "T1 SE", "t1_se_{p}", "*se2d1"), ("T1", "T1 FLAIR", "t1_tirm_{p}_dark-fluid", "*tir2d1_7"),
        ("T1", "T1 3D SE", "t1_space_{p}_p2_iso", "*spc_42ns"),
        ("T1", "MPRAGE", "t1_mprage_{p}_p2_iso", "*tfl3d1_16ns"),
        ("T1", "MPRAGE", "t1_mpr_{p}_iso_0.9", "*tfl3d1_16ns"), ("T1", "T1 GRE", "t1_vibe_{p}", "*fl3d1_ns"),
        ("T1", "T1 GRE", "t1_starvibe_{p}", "*fl3d1_ns"), ("T1", "T1 2D GRE", "t1_fl2d_{p}", "*fl2d1"),
        ("T1", "T1 TSE", "T1 TSE {p}", "*tse2d1_3"), ("T1", "T1 TSE", "Hals t1_tse_{p}", "*tse2d1_3"),
        ("T2", "T2 TSE", "t2_tse_{p}", "*tse2d1_15"), ("T2", "T2 TSE", "t2_tse_{p}_320", "*tse2d1_17"),
        ("T2", "T2 3D SE", "t2_space_{p}_p2_iso", "*spc_282ns"), ("T2", "HASTE", "t2_haste_{p}", "*h2d1_205"),
        ("T2", "T2 TSE", "t2_blade_{p}", "*tseB2d1_25"), ("FLAIR", "FLAIR", "t2_tirm_{p}_dark-fluid", "*tir2d1_16"),
        ("FLAIR", "FLAIR 3D", "t2_space_dark-fluid_{p}_p2_iso", "*spcir_278ns"),
        ("FLAIR", "FLAIR", "t2_flair_{p}", "*tir2d1_21"), ("PD", "PD", "pd_tse_{p}", "*tse2d1_7"),
    ],
    "GE": [
        ("T1", "T1 TSE", "{P} T1 FSE", "fse-xl"), ("T1", "T1 SE", "{P} T1 SE", "memp"),
        ("T1", "T1 FLAIR", "{P} T1 FLAIR", "t1flair"), ("T1", "T1 3D SE", "{P} CUBE T1", "Cube"),
        ("T1", "MPRAGE", "{P} 3D T1 BRAVO", "bravo"), ("T1", "T1 GRE", "{P} 3D FSPGR", "fspgr"),
        ("T1", "T1 2D GRE", "{P} FSPGR T1", "fspgr"), ("T1", "T1 TSE", "{P} T1 PROPELLER", "propeller"),
        ("T1", "T1 TSE", "O{P} T1", "fse-xl"), ("T1", "T1 TSE", "T1 {P} NECK", "fse-xl"),
        ("T2", "T2 TSE", "{P} T2 FSE", "fse-xl"), ("T2", "T2 TSE", "{P} T2 FRFSE", "frfse-xl"),
        ("T2", "T2 TSE", "{P} T2 PROPELLER", "propeller"), ("T2", "T2 3D SE", "{P} CUBE T2", "Cube"),
        ("T2", "HASTE", "{P} SSFSE T2", "ssfse"), ("FLAIR", "FLAIR", "{P} T2 FLAIR", "t2flair"),
        ("FLAIR", "FLAIR 3D", "{P} CUBE T2 FLAIR", "Cube"), ("PD", "PD", "{P} PD FSE", "fse-xl"),
    ],
    "Philips": [
        ("T1", "T1 TSE", "T1W_TSE_{p}", "TSE"), ("T1", "T1 SE", "T1W_SE_{p}", "SE"),
        ("T1", "T1 TSE", "WIP T1W_aTSE_{p} SENSE", "TSE"), ("T1", "MPRAGE", "sT1W_3D_TFE_{p}", "T1TFE"),
        ("T1", "T1 GRE", "T1W_3D_FFE_{p}", "T1FFE"), ("T1", "T1 3D SE", "3D_T1W_VISTA_{p}", "TSE"),
        ("T1", "T1 FLAIR", "T1W_IR_TSE_{p}", "TIR"), ("T1", "T1 TSE", "T1 TSE {P} CLEAR", "TSE"),
        ("T2", "T2 TSE", "T2W_TSE_{p}", "TSE"), ("T2", "T2 TSE", "T2W_TSE_DRIVE_{p}", "TSE"),
        ("T2", "T2 TSE", "T2W_MultiVane_{p}", "TSE"), ("T2", "T2 3D SE", "3D_T2W_VISTA_{p}", "TSE"),
        ("FLAIR", "FLAIR", "T2W_FLAIR_{p}", "TIR"), ("FLAIR", "FLAIR 3D", "3D_FLAIR_{p}", "TIR"),
        ("FLAIR", "FLAIR 3D", "Brain_VIEW_FLAIR {p}", "TIR"), ("PD", "PD", "PDW_TSE_{p}", "TSE"),
    ],
    "UIH": [
        ("T1", "T1 TSE", "t1_fse_{p}", "fse"), ("T1", "T1 SE", "t1_se_{p}", "se"),
        ("T1", "MPRAGE", "t1_gre_fsp_3d_{p}", "gre_fsp"), ("T1", "T1 GRE", "t1_quick3d_{p}", "gre_quick3d"),
        ("T1", "T1 3D SE", "t1_fse_mx_3d_{p}", "fse_mx"), ("T1", "T1 FLAIR", "t1_fse_flair_{p}", "fse_ir"),
        ("T2", "T2 TSE", "t2_fse_{p}", "fse"), ("T2", "T2 TSE", "t2_fse_arms_{p}", "fse_arms"),
        ("T2", "T2 3D SE", "t2_fse_mx_3d_{p}", "fse_mx"), ("FLAIR", "FLAIR", "t2_fse_flair_{p}", "fse_ir"),
        ("FLAIR", "FLAIR", "t2_flair_{p}", "fse_ir"), ("PD", "PD", "pd_fse_{p}", "fse"),
    ],
    "Canon": [
        ("T1", "T1 SE", "T1 SE {P}", "SE2D"), ("T1", "T1 TSE", "T1 FSE {P}", "FSE2D+3"),
        ("T1", "T1 TSE", "T1WI {P}", "FSE2D+3"), ("T1", "T1 GRE", "T1 3D FFE {P}", "FE3D"),
        ("T1", "MPRAGE", "MPRAGE {P}", "FE3D_fc"), ("T2", "T2 TSE", "T2WI {P}", "FSE2D+13"),
        ("T2", "T2 TSE", "T2 FSE {P} JET", "FSE2D+17"), ("T2", "HASTE", "T2 FASE {P}", "FASE2D"),
        ("FLAIR", "FLAIR", "FLAIR {P}", "FIR2D+17"), ("FLAIR", "FLAIR", "T2 FLAIR {P}", "FIR2D+17"),
        ("PD", "PD", "PDWI {P}", "FSE2D+5"),
    ],
}

#: How fat suppression is written; {d} is the plain description. STIR has descriptions of its own.
FAT = {
    "Siemens": ("{d}_fs", "{d}_fatsat", "{d} FS", "{d}_fettsat"),
    "GE": ("{d} FS", "{d} FatSat", "{d} FAT SAT", "FS {d}"),
    "Philips": ("{d}_SPIR", "{d}_SPAIR", "{d} FS", "{d}_FatSat"),
    "UIH": ("{d}_fs", "{d}_fs_p2", "{d} 压脂"),
    "Canon": ("{d} FatSat", "{d} FS", "{d} 脂肪抑制"),
}
DIXON_WATER = {
    "Siemens": ("t{n}_tse_dixon_{p}_W", "t{n}_tse_dixon_{p}_Water"),
    "GE": ("WATER: {P} T{n} FLEX", "WATER:{P} T{n} IDEAL"),
    "Philips": ("T{n}W_mDIXON_TSE_{p}", "W T{n}W_mDIXON_{p}"), "UIH": ("t{n}_fse_wfi_{p}_water",),
    "Canon": ("T{n} FSE DIXON WATER {P}",),
}
STIR = {
    "Siemens": ("t2_tirm_{p}", "t2_stir_{p}", "STIR {p}", "t2_tirm_{p}_fs"), "GE": ("{P} STIR", "{P} FSE-IR STIR"),
    "Philips": ("STIR_TSE_{p}", "STIR_longTE_{p}", "T2W_STIR_{p}"), "UIH": ("t2_fse_stir_{p}", "stir_{p}"),
    "Canon": ("STIR {P}", "FSE STIR {P}"),
}

#: How sites write that the agent was given, and that it was not; {d} is the description.
GIVEN = (
    "{d} +C", "{d}+C", "+C {d}", "{d} C+", "{d} post", "{d}_POST", "POST {d}", "{d} Gd", "{d}_GD", "{d} +Gd", "{d} Gad",
    "{d}_CE", "CE {d}", "{d} post contrast", "{d} W CONTRAST", "{d} with contrast",
    "{d} KM", "{d}_KM", "{d} nach KM", "{d} post KM", "{d} +KM", "{d}_mit_KM", "{d} n.KM",
    "{d} gado", "{d} GADO", "{d} inj", "{d} après injection", "{d} avec gado", "{d} injecté",
    "{d} mdc", "{d} dopo mdc", "{d} con mdc", "{d} post mdc", "{d} con contraste", "{d} contraste", "{d} pós contraste",
    "{d} met contrast", "{d} na gado", "{d} po kontraście", "{d} efter kontrast", "{d} с контрастом",
    "{d} 增强", "{d}_增强扫描", "{d}_zengqiang", "{d} 造影", "{d} 造影後", "{d}_Dotarem", "{d} Gadovist",
)
NOT_GIVEN = (
    "{d} pre", "{d}_PRE", "PRE {d}", "{d} nativ", "{d}_nativ", "{d} ohne KM", "{d} vor KM", "{d} W/O",
    "{d} w/o contrast",
    "{d} NON CONTRAST", "{d} sans injection", "{d} avant gado", "{d} senza mdc", "{d} sin contraste",
    "{d} sem contraste", "{d} bez kontrastu", "{d} utan kontrast", "{d} без контраста", "{d} 平扫", "{d}_pingsao",
    "{d} 造影前", "{d} C-", "{d} zonder contrast", "{d} precontrast", "{d} post RT", "{d} post OP",
)

#: What must be refused: (kind, parameters, changes of the header, descriptions).
DISTRACTORS = {
    "Siemens": [
        ("scout", "T1 GRE", {}, ("localizer", "AAHead_Scout_32ch", "AAHead_Scout_MPR_sag", "localizer_3ebenen")),
        ("diffusion", "T2 TSE", {"ScanningSequence": "EP", "SequenceName": "*ep_b1000"},
         ("ep2d_diff_3scan_trace_p2", "resolve_3scan_trace_tra", "ep2d_diff_b0_b1000", "Diffusion tra")),
        ("diffusion", "T2 TSE", {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC", "ND"]},
         ("ep2d_diff_ADC", "ADC", "resolve_tra_ADC")),
        ("functional", "T2 TSE", {"ScanningSequence": "EP"}, ("ep2d_bold_moco", "rest")),
        ("susceptibility", "T1 2D GRE", {"EchoTime": 20.0}, 
         ("t2_swi_tra", "SWI_Images", "t2_fl2d_tra_hemo", "mIP_Images(SW)")),
        ("angiography", "T1 GRE", {"SequenceName": "*fl3d1r_tof"}, ("TOF_3D_multi-slab", "fl_tof_tra")),
        ("dynamic", "T1 GRE", {}, ("t1_twist_dyn", "t1_vibe_dyn_perfusion", "ep2d_perf")),
        ("subtraction", "T1 GRE", {"ImageType": ["DERIVED", "PRIMARY", "SUBTRACTION", "M"]}, 
         ("t1_vibe_tra_SUB", "SUB t1_vibe")),
        ("reformat", "MPRAGE", {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, ("t1_mprage_MPR_tra", "MPR cor")),
        ("projection", "T1 GRE", {"ImageType": ["DERIVED", "PRIMARY", "MIP"]}, ("t1_vibe_MIP", "MIP cor")),
        ("Dixon fat", "T1 GRE", {}, ("t1_vibe_dixon_tra_F", "t1_vibe_dixon_tra_opp", "t1_tse_dixon_tra_F")),
        ("field map", "T1 2D GRE", {"SequenceName": "*fm2d2r"}, ("gre_field_mapping",)),
        ("phase", "T1 TSE", {"ImageType": ["ORIGINAL", "PRIMARY", "P", "ND"]}, ("t1_tse_tra",)),
        ("steady state", "T1 GRE", {}, ("t2_ciss3d_tra", "trufi_loc", "t2_trufi_cor")),
        ("map", "T1 GRE", {}, ("T1 map", "t2_map_tra")),
    ],
    "GE": [
        ("scout", "T1 GRE", {}, ("3-plane Loc", "3PL LOC SSFSE", "LOCALIZER", "Scout")),
        ("calibration", "T1 GRE", {}, ("ASSET cal", "Calibration Scan", "ARC Calibration")),
        ("diffusion", "T2 TSE", {"ScanningSequence": ["EP", "SE"]}, 
         ("Ax DWI b1000", "Ax DWI PROPELLER", "DTI 25 dir")),
        ("diffusion", "T2 TSE", {"ImageType": ["DERIVED", "SECONDARY", "COMBINED"]}, 
         ("Apparent Diffusion Coefficient (mm2/s)", "ADC (10^-6 mm2/s)", "Isotropic DWI")),
        ("susceptibility", "T1 2D GRE", {"EchoTime": 22.0}, 
         ("Ax SWAN", "Ax T2* GRE", "Ax MERGE", "FILT_PHA: Ax SWAN")),
        ("angiography", "T1 GRE", {}, ("3D TOF MRA", "INHANCE 3D", "PJN:COL:MRA", "Ax TRICKS")),
        ("perfusion", "T1 GRE", {}, ("Ax Perfusion DSC", "3D ASL", "Ax DCE T1", "DISCO +C")),
        ("subtraction", "T1 GRE", {}, ("SUB Ax LAVA", "(903/900)-SUB")),
        ("reformat", "MPRAGE", {"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]}, 
         ("Ax T1 BRAVO Reformat", "REFORMAT COR")),
        ("Dixon fat", "T1 GRE", {}, ("FAT: Ax LAVA FLEX", "OutPhase: Ax LAVA FLEX", "FAT:Ax T2 IDEAL")),
        ("steady state", "T1 GRE", {}, ("3D FIESTA-C", "Ax FIESTA")),
        ("screenshot", "T1 TSE", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, ("Screen Save", "Ax T1")),
        ("spectroscopy", "T2 TSE", {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4.2"}, ("PROBE-P", "Ax T1")),
    ],
    "Philips": [
        ("scout", "T1 GRE", {}, ("Survey", "SURVEY_32ch", "SmartBrain", "3-plane_Survey", "Plan Scan")),
        ("calibration", "T1 GRE", {}, ("Ref_Head_32", "SENSE REF", "CoilSurvey")),
        ("diffusion", "T2 TSE", {"EchoPlanar": 63}, ("DWI_3b", "DwiSE", "DWIBS", "b1000 tra", "eADC")),
        ("diffusion", "T2 TSE", {"ImageType": ["DERIVED", "PRIMARY", "ADC", "ADC", "UNSPECIFIED"]}, 
         ("dADC", "dReg DWI", "ADC map")),
        ("diffusion", "T2 TSE", {"DiffusionBValue": 800.0}, ("TSE_split_tra", "T2 tra b800")),
        ("susceptibility", "T1 2D GRE", {"EchoTime": 23.0}, ("T2W_FFE_tra", "SWIp", "VenoBOLD", "T2* FFE")),
        ("angiography", "T1 GRE", {}, ("3D TOF", "s3DI_MC_HR", "PCA_3D", "TRANCE", "B_FFE_3D_TOF")),
        ("perfusion", "T1 GRE", {}, ("DSC_perfusion", "pCASL", "THRIVE_dyn", "4D-TRAK")),
        ("Dixon fat", "T1 TSE", {"ImageType": ["ORIGINAL", "PRIMARY", "F", "F", "DERIVED"]}, 
         ("T1W_mDIXON_TSE", "T2W_mDIXON")),
        ("Dixon fat", "T1 TSE", {"ImageType": ["ORIGINAL", "PRIMARY", "OP", "OP", "DERIVED"]}, ("T1W_mDIXON_TSE",)),
        ("field map", "T1 GRE", {"ImageType": ["ORIGINAL", "PRIMARY", "B0", "B0", "UNSPECIFIED"]}, 
         ("B0 map", "T1 tra")),
        ("phase", "T1 TSE", {"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "SE"]}, ("T1W_TSE",)),
        ("steady state", "T1 GRE", {}, ("bFFE_tra", "3D_bTFE", "BTFE cor")),
        ("projection", "T1 GRE", {"ImageType": ["DERIVED", "SECONDARY", "PROJECTION IMAGE"]}, 
         ("MIP T1W_3D", "sT1W_3D_TFE")),
    ],
    "UIH": [
        ("scout", "T1 GRE", {}, ("gre_scout", "3plane_scout", "定位像", "dingwei")),
        ("diffusion", "T2 TSE", {"ScanningSequence": "EP", "SequenceName": "epi_dwi"}, 
         ("dwi_epi_tra", "epi_dwi_tra_b1000", "弥散", "tra_ADC")),
        ("angiography", "T1 GRE", {}, ("tof_3d_tra", "tof3d_neck")),
        ("susceptibility", "T1 2D GRE", {"EchoTime": 20.0}, ("swi_tra", "gre_swi_3d")),
        ("perfusion", "T1 GRE", {}, ("t1_gre_quick3d_dyn", "灌注", "asl_3d")),
    ],
    "Canon": [
        ("scout", "T1 GRE", {}, ("Locator", "Multi Locator", "Loc 3D", "LOCATOR SAG")),
        ("calibration", "T1 GRE", {}, ("Map", "SPEEDER MAP", "Shimming")),
        ("diffusion", "T2 TSE", {"ScanningSequence": ["SE", "EP"], "SequenceName": "SEEPI2D+0.7"}, 
         ("DWI b=1000", "ISO_DWI", "拡散強調", "ADC")),
        ("angiography", "T1 GRE", {}, ("TOF MRA", "MRA 3D", "TIME-SLIP", "FBI")),
        ("susceptibility", "T1 2D GRE", {"EchoTime": 25.0}, ("T2* FE", "FSBB")),
        ("perfusion", "T1 GRE", {}, ("Dynamic T1", "ASTAR", "ダイナミック")),
        ("projection", "T1 GRE", {}, ("MIP", "MIP MRA")),
    ],
}

_MAKER = {"Siemens": "SIEMENS", "GE": "GE MEDICAL SYSTEMS", "Philips": "Philips Medical Systems", "UIH": "UIH",
          "Canon": "CANON_MEC"}


def simulated_headers(seed: int = 0) -> list[SimulatedHeader]:
    """About 1,900 headers: every description of every vendor without agent and with each way of writing it in turn."""
    rng = np.random.default_rng(seed)
    headers, given, not_given = [], _cycle(GIVEN), _cycle(NOT_GIVEN)
    for vendor, entries in PLAIN.items():
        for number, (truth, parameters, template, pulse) in enumerate(entries):
            for plane in PLANES:
                plain = _place(template, plane)
                fat = FAT[vendor][(number + PLANES.index(plane)) % len(FAT[vendor])].format(d=plain)
                variants = [(truth, plain)]
                if truth in ("T1", "T2"):
                    variants.append((truth + "FS", fat))
                if truth == "T1":
                    variants += [("T1", next(not_given).format(d=plain)), ("T1FS", next(not_given).format(d=fat))]
                    variants += [("T1C", next(given).format(d=plain)) for _ in range(3)]
                    variants += [("T1CFS", next(given).format(d=fat)) for _ in range(3)]
                if truth == "FLAIR":
                    variants += [("FLAIR", next(given).format(d=plain))]
                for n, (what, description) in enumerate(variants):
                    tag = "C" in what and n % 2 == 0
                    headers.append(_header(rng, vendor, what, what, parameters, description, pulse, tag))
        for n, templates in ((1, DIXON_WATER[vendor]), (2, DIXON_WATER[vendor])):
            for template in templates:
                description = template.format(n=n, p="tra", P="Ax")
                water = {"ImageType": ["ORIGINAL", "PRIMARY", "W", "W", "DERIVED"]} if vendor == "Philips" else {}
                what = f"T{n}FS"
                headers.append(_header(rng, vendor, what, what, f"T{n} TSE", description, "", False, **water))
        for template in STIR[vendor]:
            for plane in PLANES:
                headers.append(_header(rng, vendor, "T2FS", "T2FS", "STIR", _place(template, plane), "", False))
        for kind, parameters, changes, descriptions in DISTRACTORS[vendor]:
            for description in descriptions:
                headers.append(_header(rng, vendor, None, kind, parameters, description, "", False, **changes))
    return headers


def _cycle(templates):
    while True:
        yield from templates


def _place(template: str, plane: str) -> str:
    return template.format(p=plane, P={"tra": "Ax", "sag": "Sag", "cor": "Cor"}[plane])


def _header(rng, vendor, truth, kind, parameters, description, pulse, tagged, **changes) -> SimulatedHeader:
    scanning, *ranges = PARAMETERS[parameters]
    tr, te, ti, flip = (round(float(rng.uniform(*r)), 2) if r else None for r in ranges)
    if vendor == "Philips" and "IR" in scanning:
        scanning = ["IR"]
    # Newer software of Siemens and Philips writes enhanced objects.
    enhanced = vendor in ("Siemens", "Philips") and not changes and rng.random() < 0.25
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID = EnhancedMRImageStorage if enhanced else MRImageStorage
    ds.Modality, ds.Manufacturer, ds.SeriesDescription = "MR", _MAKER[vendor], description[:64]
    ds.ProtocolName = "HEAD NECK W/WO CONTRAST" if vendor == "GE" else description
    ds.SamplesPerPixel, ds.BodyPartExamined = 1, "HEAD"
    ds.MagneticFieldStrength = float(rng.choice([1.5, 3.0]))
    readout = "FFE" if "GR" in scanning else "SE"
    magnitude = {"Siemens": ["M", "NORM", "DIS2D"], "Philips": ["M_" + readout, "M", readout],
                 "GE": ["OTHER"], "UIH": ["M", "UCA"], "Canon": ["GDC"]}[vendor]
    ds.ImageType = ["ORIGINAL", "PRIMARY", *magnitude]
    if enhanced:
        ds.ImageType = ["ORIGINAL", "PRIMARY", "M", "NONE"]
        _add_groups(ds, scanning, tr, te, ti, flip, pulse)
    else:
        ds.ScanningSequence, ds.RepetitionTime, ds.EchoTime, ds.FlipAngle = scanning, tr, te, flip
        if ti is not None:
            ds.InversionTime = ti
        elif vendor == "GE":
            ds.InversionTime = 0
        if pulse and vendor != "Philips":
            ds.SequenceName = pulse
    if tagged:
        ds.ContrastBolusAgent = str(rng.choice(["Gadovist", "DOTAREM", "10 ml Gd-DTPA", "YES"]))
    elif rng.random() < 0.3:
        ds.ContrastBolusAgent = ""
    if "EchoPlanar" in changes:
        ds.private_block(0x2001, "Philips Imaging DD 001", create=True).add_new(0x13, "SL", changes.pop("EchoPlanar"))
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return SimulatedHeader(vendor, truth, kind, ds)


def _add_groups(ds: Dataset, scanning, tr, te, ti, flip, pulse) -> None:
    """The functional groups in which enhanced MR keeps its timing."""
    ds.EchoPulseSequence = "GRADIENT" if "GR" in scanning else "SPIN"
    ds.PulseSequenceName = pulse
    timing, echo, modifier, shared = Dataset(), Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, timing.FlipAngle = tr, flip
    echo.EffectiveEchoTime = te
    modifier.InversionRecovery = "YES" if ti else "NO"
    if ti:
        modifier.InversionTimes = ti
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = Sequence([timing]), Sequence([echo])
    shared.MRModifierSequence = Sequence([modifier])
    ds.SharedFunctionalGroupsSequence = Sequence([shared])
