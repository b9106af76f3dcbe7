"""From tissue to brightness: the signal equations of the sequences, and protocols to put into them.

Formulas follow Haacke, Brown, Thompson, Venkatesan, "Magnetic Resonance Imaging: Physical Principles and
Sequence Design" (Wiley 1999), and Bernstein, King, Zhou, "Handbook of MRI Pulse Sequences" (Elsevier 2004).
"""

from dataclasses import dataclass

import numpy as np

from ..vocabulary import Sequence, get_sequence
from .tissues import FAT_T1_MS, FAT_T2_MS, RELAXIVITY_R1, RELAXIVITY_R2, TISSUES

# Concentration in blood a few minutes after 0.1 mmol/kg spread over about 0.2 l/kg of extracellular fluid.
STANDARD_CONTRAST_MMOL_L = 0.5

# A train of refocusing pulses suppresses the J-coupling of fat, whose T2 then seems longer: fat is brighter
# on TSE than on SE (Henkelman et al., J Magn Reson Imaging 1992;2:533-540). Factor estimated.
_TSE_FAT_T2_FACTOR = 2.2

# Reversible dephasing 1/T2' at 1.5 T in 1/s, growing with the field (estimated from T2 and T2* of white matter).
_R2_PRIME_1_5T = 3.0


@dataclass(frozen=True)
class Protocol:
    """How one sequence is acquired.

    Attributes:
        sequence: id in the vocabulary.
        field_strength_t: 1.5 or 3.0.
        kind: "SE", "TSE", "GRE" (spoiled; with ``TI_ms`` an inversion-prepared GRE such as MPRAGE) or
            "IR" (inversion recovery with a TSE readout: FLAIR, STIR).
        TR_ms, TE_ms: repetition and (effective) echo time.
        TI_ms: inversion time or None.
        flip_deg: excitation flip angle; only GRE heeds it.
        fat_suppression: share of the fat signal that spectral suppression removes, 0..1.
        contrast_mmol_l: concentration of contrast agent in blood, 0 when none was given.
    """

    sequence: str
    field_strength_t: float
    kind: str
    TR_ms: float
    TE_ms: float
    TI_ms: float | None
    flip_deg: float
    fat_suppression: float
    contrast_mmol_l: float


def _magnetization(t1, t2, protocol: Protocol):
    """Signed transverse magnetization per proton at the echo, for relaxation times in ms."""
    tr, te, ti = protocol.TR_ms, protocol.TE_ms, protocol.TI_ms
    recovery = np.exp(-tr / t1)
    if protocol.kind in ("SE", "TSE"):
        longitudinal = 1 - 2 * np.exp(-(tr - te / 2) / t1) + recovery
        return longitudinal * np.exp(-te / t2)
    if protocol.kind == "IR":
        longitudinal = 1 - 2 * np.exp(-ti / t1) + recovery
        return longitudinal * np.exp(-te / t2)
    if protocol.kind != "GRE":
        raise ValueError(f"unknown kind of sequence: {protocol.kind}")
    angle = np.deg2rad(protocol.flip_deg)
    dephasing = np.exp(-te * (1 / t2 + _R2_PRIME_1_5T * protocol.field_strength_t / 1.5 / 1000))
    if ti is not None:
        longitudinal = 1 - 2 * np.exp(-ti / t1) / (1 + recovery)
        return longitudinal * np.sin(angle) * dephasing
    return (1 - recovery) / (1 - np.cos(angle) * recovery) * np.sin(angle) * dephasing


def signal(t1_ms, t2_ms, pd, fat_fraction, uptake, protocol: Protocol, flow_void=0.0) -> np.ndarray:
    """Magnitude of the signal of each voxel, relative to that of all CSF protons fully relaxed.

    With C = uptake * contrast: 1/T1' = 1/T1 + r1 C, 1/T2' = 1/T2 + r2 C. Then, for the water and the fat component,

    - SE, TSE: 1 - 2 exp(-(TR - TE/2)/T1) + exp(-TR/T1), times exp(-TE/T2) (Haacke, ch. 8; TSE with the
      effective TE, Bernstein, ch. 16.4, and a longer T2 for fat);
    - IR: 1 - 2 exp(-TI/T1) + exp(-TR/T1), times exp(-TE/T2) (Haacke, ch. 8);
    - GRE, spoiled: (1 - E1) sin a / (1 - E1 cos a), times exp(-TE/T2*) (Ernst; Bernstein, ch. 14.1); with TI the
      longitudinal part is the steady state of repeated inversion, 1 - 2 exp(-TI/T1) / (1 + exp(-TR/T1)), with
      the readout's own saturation left out.

    The components add in phase, weighted by ``fat_fraction``; spectral suppression leaves (1 - efficacy) of fat.

    Spin echoes (SE, TSE, IR) have (1 - flow_void) of it, whatever their TE. What blood that enters the slice
    unsaturated adds is left out: without contrast agent arteries are about as gray as muscle in gradient echoes.

    Args:
        t1_ms, t2_ms: of the water component; pd, fat_fraction, uptake, flow_void: as in ``Tissue``. Scalars or arrays
            of any shapes that broadcast.

    Returns:
        float32 array of the broadcast shape, >= 0.
    """
    t1, t2, pd, fat, uptake = (
        np.asarray(a, np.float32) for a in (t1_ms, t2_ms, pd, fat_fraction, uptake)
    )
    field = protocol.field_strength_t
    if protocol.contrast_mmol_l > 0:
        concentration = uptake * np.float32(protocol.contrast_mmol_l)
        t1 = 1 / (1 / t1 + concentration * np.float32(RELAXIVITY_R1[field] / 1000))
        t2 = 1 / (1 / t2 + concentration * np.float32(RELAXIVITY_R2[field] / 1000))
    fat_t2 = FAT_T2_MS[field] * (_TSE_FAT_T2_FACTOR if protocol.kind in ("TSE", "IR") else 1.0)
    fat_signal = np.float32(_magnetization(FAT_T1_MS[field], fat_t2, protocol) * (1 - protocol.fat_suppression))
    water_signal = _magnetization(t1, t2, protocol)
    if protocol.kind != "GRE":
        pd = pd * (1 - np.asarray(flow_void, np.float32))
    return np.abs(pd * (water_signal * (1 - fat) + fat_signal * fat)).astype(np.float32)


def nulling_inversion_time(t1_ms: float, TR_ms: float) -> float:
    """Inversion time in ms at which a tissue of that T1 gives no signal with "IR" (1 - 2 e^-TI/T1 + e^-TR/T1 = 0)."""
    return float(t1_ms * (np.log(2) - np.log1p(np.exp(-TR_ms / t1_ms))))


def typical_protocol(sequence_id: str, field_strength_t: float = 3.0) -> Protocol:
    """The middle of the vocabulary's ranges as a TSE (IR where it inverts), with good fat suppression."""
    sequence = get_sequence(sequence_id)
    TR, TE = (sum(sequence.typical[key]) / 2 for key in ("TR", "TE"))
    TI = None
    if sequence.inversion_recovery:
        TI = _nulling_csf(sequence, TR, field_strength_t)
    return Protocol(
        sequence.id, field_strength_t, "IR" if sequence.inversion_recovery else "TSE", TR, TE, TI, 90.0,
        0.95 if sequence.fat_suppressed else 0.0,
        STANDARD_CONTRAST_MMOL_L if sequence.contrast_agent else 0.0,
    )


def random_protocol(
    sequence_id: str, rng: np.random.Generator, field_strength_t: float | None = None
) -> Protocol:
    """A protocol as some hospital might run it, drawn from what the vocabulary says of the sequence.

    T1-weighted sequences are at times gradient echoes (spoiled 3D, MPRAGE), fat-suppressed T2 at times STIR.
    The field strength is 1.5 or 3.0 T at random unless given.
    """
    sequence = get_sequence(sequence_id)
    field = field_strength_t or float(rng.choice([1.5, 3.0]))
    TR, TE = (float(rng.uniform(*sequence.typical[key])) for key in ("TR", "TE"))
    kind, TI, flip = "TSE", None, 90.0
    suppression = float(1 - 0.25 * rng.beta(1.2, 3.0)) if sequence.fat_suppressed else 0.0
    if sequence.inversion_recovery:
        kind = "IR"
        TI = _nulling_csf(sequence, TR, field) * float(rng.uniform(0.97, 1.03))
    elif sequence.weighting == "T1":
        draw = rng.random()
        if draw < 0.20:
            kind, TR, TE = "GRE", float(rng.uniform(5, 30)), float(rng.uniform(1.5, 5))
            # Near and above the Ernst angle of white matter, where weighting is T1.
            ernst = np.rad2deg(np.arccos(np.exp(-TR / TISSUES["white_matter"].t1_ms[field])))
            flip = float(ernst * rng.uniform(1.3, 2.4))
        elif draw < 0.40 and not sequence.fat_suppressed:
            kind, TR, TE = "GRE", float(rng.uniform(1700, 2500)), float(rng.uniform(2, 5))
            TI, flip = float(rng.uniform(850, 1100)), float(rng.uniform(7, 12))
        elif draw < 0.60:
            kind = "SE"
    elif sequence.weighting == "T2" and sequence.fat_suppressed and rng.random() < 0.35:
        kind, suppression = "IR", 0.0
        TI = nulling_inversion_time(FAT_T1_MS[field], TR) * float(rng.uniform(0.9, 1.0))
    elif sequence.weighting == "PD" and rng.random() < 0.3:
        kind = "SE"
    contrast = STANDARD_CONTRAST_MMOL_L * float(rng.uniform(0.5, 1.5)) if sequence.contrast_agent else 0.0
    return Protocol(sequence.id, field, kind, TR, TE, TI, flip, suppression, contrast)


#: Sequences that are acquired at any echo time when a study asks what T2 is.
ANY_ECHO = ("T2", "T2FS")
ECHO_TIMES_MS = (15.0, 130.0)


def random_echo_time(rng: np.random.Generator) -> float:
    """An echo time in ms for a sequence of ``ANY_ECHO``, far outside of what is typical too."""
    return float(rng.uniform(*ECHO_TIMES_MS))


def _nulling_csf(sequence: Sequence, TR_ms: float, field_strength_t: float) -> float:
    low, high = sequence.typical["TI"]
    return float(np.clip(nulling_inversion_time(TISSUES["csf"].t1_ms[field_strength_t], TR_ms), low, high))
