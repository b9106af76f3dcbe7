"""The signal equations do what radiologists know of the sequences."""

import numpy as np
import pytest

from NPCSynthLib.phantom.signal import Protocol, nulling_inversion_time, random_protocol, signal, typical_protocol
from NPCSynthLib.phantom.tissues import TISSUES
from NPCSynthLib.vocabulary import Sequence, load_sequences


def brightness(tissue, protocol):
    t = TISSUES[tissue]
    field = protocol.field_strength_t
    return float(signal(t.t1_ms[field], t.t2_ms[field], t.pd, t.fat_fraction, t.enhancement, protocol, t.flow_void))


def protocols(sequence_id, count=40):
    return [random_protocol(sequence_id, np.random.default_rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("sequence_id", list(load_sequences()))
def test_every_sequence_gives_finite_contrast(sequence_id):
    for protocol in protocols(sequence_id):
        values = [brightness(name, protocol) for name in TISSUES]
        assert np.isfinite(values).all() and min(values) >= 0
        assert max(values) < 1.2 and max(values) > 0.02
        assert brightness("air", protocol) == 0
        assert brightness("cortical_bone", protocol) < 0.25 * brightness("muscle", protocol) + 0.02


def test_csf_is_dark_on_t1_and_flair_and_bright_on_t2():
    for protocol in protocols("T1"):
        assert brightness("csf", protocol) < 0.75 * brightness("white_matter", protocol)
    for protocol in protocols("FLAIR"):
        assert brightness("csf", protocol) < 0.3 * brightness("gray_matter", protocol)
    for protocol in protocols("T2"):
        assert brightness("csf", protocol) > 1.6 * brightness("gray_matter", protocol)


def test_gray_and_white_matter_swap_between_t1_and_t2():
    for protocol in protocols("T1"):
        assert brightness("white_matter", protocol) > brightness("gray_matter", protocol)
    for protocol in protocols("T2"):
        assert brightness("white_matter", protocol) < brightness("gray_matter", protocol)


def test_fat_is_bright_on_t1_and_dark_when_suppressed():
    for protocol in protocols("T1"):
        assert brightness("subcutaneous_fat", protocol) > 1.3 * brightness("muscle", protocol)
    for plain, suppressed in (("T1", "T1FS"), ("T2", "T2FS"), ("T1C", "T1CFS")):
        fat = brightness("subcutaneous_fat", typical_protocol(plain))
        assert brightness("subcutaneous_fat", typical_protocol(suppressed)) < 0.15 * fat


def test_stir_nulls_fat_without_spectral_suppression():
    stir = [p for p in protocols("T2FS", 60) if p.kind == "IR"]
    assert 5 < len(stir) < 40
    for protocol in stir:
        assert protocol.fat_suppression == 0
        assert brightness("subcutaneous_fat", protocol) < 0.4 * brightness("npc_tumor", protocol)


def test_flowing_blood_is_dark_in_spin_echoes_and_not_in_gradient_echoes():
    """A carotid beside an enhancing node is black on a TSE and white on a VIBE."""
    for field in (1.5, 3.0):
        spin = Protocol("T1C", field, "TSE", 600, 12, None, 90, 0, 1.0)
        gradient = Protocol("T1C", field, "GRE", 6, 2.5, None, 12, 0, 1.0)
        assert brightness("artery", spin) < 0.5 * brightness("lymph_node", spin)
        assert brightness("artery", gradient) > 1.5 * brightness("lymph_node", gradient)
        for vessel in ("artery", "vein", "venous_sinus"):
            assert brightness(vessel, spin) < 0.6 * brightness("blood", spin)
            assert brightness(vessel, gradient) > 0.9 * brightness("blood", gradient)


def test_fat_is_brighter_on_tse_than_on_se():
    se = Protocol("T2", 1.5, "SE", 4000, 90, None, 90, 0, 0)
    tse = Protocol("T2", 1.5, "TSE", 4000, 90, None, 90, 0, 0)
    assert brightness("subcutaneous_fat", tse) > 1.5 * brightness("subcutaneous_fat", se)
    assert brightness("csf", tse) == brightness("csf", se)


def test_signal_decays_with_echo_time_and_recovers_with_repetition_time():
    for kind in ("SE", "TSE", "GRE"):
        decay = [brightness("gray_matter", Protocol("T2", 3.0, kind, 3000, te, None, 60, 0, 0))
                 for te in (10, 30, 60, 90, 140)]
        recovery = [brightness("gray_matter", Protocol("T2", 3.0, kind, tr, 10, None, 60, 0, 0))
                    for tr in (200, 500, 1000, 3000, 9000)]
        assert np.all(np.diff(decay) < 0) and np.all(np.diff(recovery) > 0)


def test_spoiled_gradient_echo_peaks_at_the_ernst_angle():
    t1, tr = 800.0, 20.0
    angles = np.arange(1, 60, 0.5)
    values = [float(signal(t1, 1e6, 1, 0, 0, Protocol("T1", 1.5, "GRE", tr, 1e-3, None, a, 0, 0))) for a in angles]
    ernst = np.rad2deg(np.arccos(np.exp(-tr / t1)))
    assert abs(angles[int(np.argmax(values))] - ernst) <= 0.5


def test_inversion_time_nulls_the_tissue_it_is_made_for():
    ti = nulling_inversion_time(4000, 9000)
    assert float(signal(4000, 2000, 1, 0, 0, Protocol("FLAIR", 3.0, "IR", 9000, 100, ti, 90, 0, 0))) < 1e-5


def test_contrast_agent_brightens_tumor_and_leaves_the_brain_alone():
    plain, enhanced = typical_protocol("T1"), typical_protocol("T1C")
    for tissue, least in (("npc_tumor", 1.4), ("nodal_tumor", 1.4), ("mucosa", 1.5), ("pituitary", 1.5)):
        assert brightness(tissue, enhanced) > least * brightness(tissue, plain)
    for tissue in ("white_matter", "gray_matter", "csf", "brainstem", "spinal_cord"):
        assert brightness(tissue, enhanced) == brightness(tissue, plain)
    assert brightness("npc_tumor", typical_protocol("T1C")) > 1.4 * brightness("muscle", typical_protocol("T1C"))


def test_too_much_contrast_agent_darkens_by_t2_shortening():
    t = TISSUES["blood"]
    doses = [float(signal(t.t1_ms[3.0], t.t2_ms[3.0], 1, 0, 1, Protocol("T1C", 3.0, "SE", 500, 15, None, 90, 0, c)))
             for c in (0.1, 1, 60)]
    assert doses[1] > doses[0] and doses[2] < doses[1]


def test_tumor_lies_between_muscle_and_mucosa_on_t2():
    for protocol in protocols("T2"):
        assert brightness("muscle", protocol) < brightness("npc_tumor", protocol) < brightness("mucosa", protocol)


def test_arrays_of_any_shape_give_the_same_as_scalars_in_float32():
    protocol = typical_protocol("T1C")
    t1 = np.linspace(300, 3000, 24).reshape(2, 3, 4)
    values = signal(t1, 80.0, 0.8, 0.2, 0.5, protocol)
    assert values.dtype == np.float32 and values.shape == (2, 3, 4)
    assert values[1, 2, 3] == pytest.approx(float(signal(3000, 80.0, 0.8, 0.2, 0.5, protocol)), rel=1e-6)


def test_protocols_follow_the_vocabulary_and_the_seed():
    for sequence in load_sequences().values():
        for seed, protocol in enumerate(protocols(sequence.id, 30)):
            assert protocol == random_protocol(sequence.id, np.random.default_rng(seed))
            assert (protocol.contrast_mmol_l > 0) == sequence.contrast_agent
            assert (protocol.fat_suppression > 0.5 or protocol.kind == "IR") == (
                sequence.fat_suppressed or sequence.inversion_recovery)
            if protocol.kind != "GRE":
                assert sequence.typical["TR"][0] <= protocol.TR_ms <= sequence.typical["TR"][1]
                assert sequence.typical["TE"][0] <= protocol.TE_ms <= sequence.typical["TE"][1]
        assert random_protocol(sequence.id, np.random.default_rng(0), 1.5).field_strength_t == 1.5


def test_a_new_sequence_in_the_vocabulary_needs_no_code(monkeypatch):
    new = Sequence("FLAIRC", "contrast-enhanced FLAIR", ("flairc",), True, False, True,
                   {"TR": [7000, 9000], "TE": [90, 120], "TI": [2000, 2500]}, "T2")
    monkeypatch.setattr("NPCSynthLib.phantom.signal.get_sequence", lambda name: new)
    protocol = random_protocol("FLAIRC", np.random.default_rng(0))
    assert protocol.kind == "IR" and protocol.contrast_mmol_l > 0
    assert brightness("csf", protocol) < 0.3 * brightness("gray_matter", protocol)


def test_every_tissue_has_a_source_and_plausible_values():
    for name, tissue in TISSUES.items():
        assert tissue.name == name and tissue.source
        assert all(0 <= share <= 1 for share in (tissue.pd, tissue.fat_fraction, tissue.enhancement, tissue.flow_void))
        for field in (1.5, 3.0):
            assert 0 < tissue.t2_ms[field] < tissue.t1_ms[field]
        assert tissue.t1_ms[3.0] >= tissue.t1_ms[1.5]
