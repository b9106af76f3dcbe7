"""Pre-flight: every finding has its level and its sentence; what was prepared for it serves the run that follows."""

import dataclasses
import math
import shutil
import types
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")

from tiny_weights import write_tiny_weights

from NPCSynthLib.inference import device as device_module
from NPCSynthLib.inference import job, preflight, wording
from NPCSynthLib.inference import synthesizer as synthesizer_module
from NPCSynthLib.inference.device import Device, choose_device, kernel_error
from NPCSynthLib.inference.job import InProcess
from NPCSynthLib.inference.preflight import AMBER, GREEN, RED, Check, check_images, check_sequences, worst
from NPCSynthLib.inference.process import WorkerProcess
from NPCSynthLib.inference.recognition import Recognition
from NPCSynthLib.inference.request import SynthesisRequest
from NPCSynthLib.inference.result import NOT_CHECKED
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.study.study import Source, Study
from NPCSynthLib.study.volume import Grid, Volume

ALIGNED = {
    "applied": False, "translation_mm": 0.2, "rotation_deg": 0.1, "reason": "Already aligned: 0.2 mm.", "warning": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def head() -> Study:
    """T1, and T2 on a finer grid: an oblique patient of 24 slices of 5 mm with a reversed slice order."""
    a = 0.3
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, -1]])
    grid = Grid.from_parts((24, 100, 90), (1.1, 0.9, 5.0), (20.0, -7.5, 100.0), turn)
    rng = np.random.default_rng(0)
    body = np.zeros(grid.shape, bool)
    body[1:-1, 10:-10, 8:-8] = True
    sources = []
    for sequence in ("T1", "T2"):
        array = (body * rng.uniform(0.2, 1.0, body.shape)).astype(np.float32)
        original = Volume((array * 800).astype(np.int16), grid, f"{sequence} tra", {"StudyDate": "20260101"})
        sources.append(Source(sequence, original, array, np.ones_like(body), dict(ALIGNED), (0.0, 800.0)))
    return Study(grid, "T1", tuple(sources), body)


def changed(study: Study, sequence: str, **changes) -> Study:
    """The study with another source."""
    return dataclasses.replace(study, sources=tuple(
        dataclasses.replace(s, **changes) if s.sequence == sequence else s for s in study.sources
    ))  # fmt: skip


def original(study: Study, sequence: str, **changes) -> Study:
    return changed(study, sequence, original=dataclasses.replace(study.source(sequence).original, **changes))


def found(checks, name: str) -> Check:
    (check,) = (check for check in checks if check.name == name)
    return check


def looks(said: str, probability: float = 0.97) -> Recognition:
    others = [s for s in ("T1", "T2", "FLAIR", "PD") if s != said]
    return Recognition({said: probability, **{s: (1 - probability) / 3 for s in others}}, least=0.65)


def test_the_worst_finding_counts():
    checks = [Check("a", level, "") for level in (GREEN, RED, AMBER)]
    assert worst(checks) == RED and worst(checks[::2]) == AMBER and worst([]) == GREEN


def test_images_that_fit_together_are_green_and_the_figures_are_said(head):
    checks = check_images(head)
    assert {check.level for check in checks} == {GREEN}
    assert "99 x 90 x 120 mm in 24 slices" in found(checks, "Field of view").sentence
    assert "0.9 x 1.1 x 5 mm" in found(checks, "Resolution").sentence
    assert "100%" in found(checks, "T2: overlap").sentence
    assert "0.2 mm" in found(checks, "T2: alignment").sentence


@pytest.mark.parametrize("report, level, words", [
    ({"applied": True, "translation_mm": 3.1, "reason": "Registered: moved by 3.1 mm."}, GREEN, "3.1 mm"),
    ({"applied": True, "translation_mm": 14.0, "reason": "Registered: moved by 14.0 mm."}, AMBER, "That is far"),
    ({"applied": True, "rotation_deg": 17.0, "reason": "Registered: moved by 17.0 degrees."}, AMBER, "That is far"),
    ({"translation_mm": 99.0, "warning": '"T2 tra" could not be registered.'}, AMBER, "could not be registered"),
])
def test_misregistration(head, report, level, words):
    check = found(check_images(changed(head, "T2", registration={**ALIGNED, **report})), "T2: alignment")
    assert check.level == level and words in check.sentence


def test_a_source_that_shows_half_of_the_body_is_amber(head):
    inside = np.ones(head.grid.shape, bool)
    inside[:, :50] = False
    check = found(check_images(changed(head, "T2", inside=inside)), "T2: overlap")
    assert check.level == AMBER and "50%" in check.sentence


def test_a_slab_and_thick_slices_are_amber(head):
    grid = Grid.from_parts(head.grid.shape, (1.1, 0.9, 1.0), head.grid.origin, head.grid.direction)
    slab = found(check_images(dataclasses.replace(head, grid=grid)), "Field of view")
    assert slab.level == AMBER and "slab" in slab.sentence
    thick = Grid.from_parts(head.grid.shape, (1.1, 0.9, 8.0), head.grid.origin, head.grid.direction)
    check = found(check_images(original(head, "T2", grid=thick)), "Resolution")
    assert check.level == AMBER and ": T2. Expect blur" in check.sentence


def test_other_days_frames_and_8_bits_are_amber(head):
    data = {"StudyDate": "20260301", "FrameOfReferenceUID": "1.2", "BitsStored": 8.0}
    study = original(original(head, "T2", metadata=data), "T1", metadata={"StudyDate": "1", "FrameOfReferenceUID": "1"})
    checks = check_images(study)
    assert {found(checks, name).level for name in ("Dates", "Frame of reference", "Images")} == {AMBER}


def test_an_image_that_does_not_say_whose_it_is_beside_one_that_does_is_amber(head):
    checks = check_images(original(head, "T2", metadata={"PatientID": "4711"}))
    check = found(checks, "Patient")
    assert check.level == AMBER and "T1 is of the same patient as T2" in check.sentence and "4711" not in check.sentence
    nobody = check_images(original(original(head, "T1", metadata={}), "T2", metadata={}))
    assert "Patient" not in [check.name for check in nobody], "two files: the panel and the tutorial tell that"


def test_one_image_in_two_rows_is_red(head):
    volume = head.source("T1").original
    request = SynthesisRequest(("T1C",))
    computer = InProcess(lambda weights, device: None)
    checks = computer.preflight({"T1": volume, "T2": dataclasses.replace(volume, name="copy of T1")}, request)
    check = found(checks, "Images")
    assert check.level == RED and "T1 and T2 are the same image" in check.sentence and "copy of T1" in check.sentence


def test_contrast_agent_on_the_users_word_alone_asks(head):
    """An image without it can look alike."""
    for name, level in (("series 7", AMBER), ("T1 CE tra", GREEN)):
        t1 = head.source("T1")
        t1c = dataclasses.replace(t1, sequence="T1C", original=dataclasses.replace(t1.original, name=name))
        study = dataclasses.replace(head, reference="T1C", sources=(t1c,))
        check = found(check_sequences(study, {"T1C": looks("T1")}), "T1C: sequence")
        assert check.level == level and ("rests on your word" in check.sentence) == (level == AMBER)


@pytest.mark.parametrize("name, seen, level, words", [
    ("T2 tra", {"T2": 1.0}, GREEN, "and the image looks like it"),
    ("T2 tra", {"T1": 1.0, "T2": 0.0}, AMBER, "looks like T1"),
    ("T2 tra", {"T1": 0.4, "T2": 0.35, "PD": 0.25}, AMBER, "looks like no sequence that the network knows"),
    ("t1_se_tra", {"T2": 1.0}, AMBER, "is used as T2, but by its header or name it is T1"),
    ("series 7", {"T2": 1.0}, GREEN, "its header and name do not say"),
    ("series 7", {"T1": 0.7, "T2": 0.3}, AMBER, "Nothing confirms"),
])
def test_header_and_image_are_compared_with_what_the_image_is_used_as(head, name, seen, level, words):
    recognitions = {"T1": looks("T1"), "T2": Recognition(seen, least=0.65)}
    check = found(check_sequences(original(head, "T2", name=name), recognitions), "T2: sequence")
    assert check.level == level and words in check.sentence


def test_the_kernel_test_computes_for_real():
    cpu = choose_device("cpu")[0]
    full = kernel_error(Device(cpu.torch, torch.float32, ""))
    assert full < 1e-5 < kernel_error(Device(cpu.torch, torch.bfloat16, "")) < device_module.KERNEL_TOLERANCE
    assert kernel_error(Device(torch.device("meta"), torch.float32, "")) == math.inf


def test_a_device_that_computes_wrongly_is_red_and_one_that_was_passed_over_amber(monkeypatch):
    cpu = choose_device("cpu")[0]
    assert preflight.check_device(cpu, []).level == GREEN
    passed_over = preflight.check_device(cpu, ["There is no usable GPU here, so the CPU is used."])
    assert passed_over.level == AMBER and "no usable GPU" in passed_over.sentence
    monkeypatch.setattr(device_module, "kernel_error", lambda device: 0.5)
    assert preflight.check_device(cpu, []).level == RED


@pytest.fixture
def synthesizer(weights):
    return Synthesizer(weights, "cpu")


@pytest.mark.parametrize("free, level", [(1e12, GREEN), (4e6, RED)])
def test_memory_is_compared_with_what_is_free(synthesizer, head, monkeypatch, free, level):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=int(free)))
    monkeypatch.setattr(psutil, "swap_memory", lambda: types.SimpleNamespace(free=0))
    (check,) = preflight.check_memory(synthesizer, head, 3, True)
    assert check.level == level and "GB are free" in check.sentence


def test_memory_that_is_tight_is_amber(synthesizer, head, monkeypatch):
    need = preflight.result_bytes(head, 3, True)
    monkeypatch.setattr(device_module, "slice_bytes", lambda *_a: 1)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=int(1.1 * need)))
    (check,) = preflight.check_memory(synthesizer, head, 3, True)
    assert check.level == AMBER and "tight" in check.sentence
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=int(0.9 * need)))
    monkeypatch.setattr(psutil, "swap_memory", lambda: types.SimpleNamespace(free=int(0.2 * need)))
    (check,) = preflight.check_memory(synthesizer, head, 3, True)
    assert check.level == AMBER, "it fits with what the system can put aside"


def test_a_disk_that_is_too_full_is_red(head, tmp_path, monkeypatch):
    assert preflight.check_disk(head, 3, True, tmp_path).level == GREEN
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: types.SimpleNamespace(free=1000))
    check = preflight.check_disk(head, 3, True, tmp_path)
    assert check.level == RED and str(tmp_path) in check.sentence


def test_words_that_the_model_does_not_know_are_named(synthesizer, monkeypatch):
    """What an untrained network takes words for means nothing: here it takes them for what they name."""
    monkeypatch.setattr(wording, "similarities", lambda loaded, features: {"T1C": 1.0, "FLAIR": 1.0})
    prompts = {"T1C": "T1-weighted with gadolinium zebra", "T2": "zebra giraffe"}
    checks = preflight.check_prompts(synthesizer.loaded, ["T1C", "T2", "PD"], prompts)
    check = found(checks, "T1C: words")
    assert check.level == AMBER and "zebra" in check.sentence and "gadolinium" not in check.sentence
    check = found(checks, "T2: words")
    assert check.level == RED and "name no MR sequence" in check.sentence
    assert not [check for check in checks if check.name.startswith("PD")]


def test_words_that_the_model_takes_for_another_sequence_are_amber(synthesizer, monkeypatch):
    monkeypatch.setattr(wording, "similarities", lambda loaded, features: {"T1C": 0.1, "T2": 0.9})
    check = found(preflight.check_prompts(synthesizer.loaded, ["T1C"], {"T1C": "T1 with gadolinium"}), "T1C: words")
    assert check.level == AMBER and "to mean T2" in check.sentence
    check = found(preflight.check_prompts(synthesizer.loaded, ["T2"], {"T2": "heavily T2-weighted"}), "T2: words")
    assert check.level == GREEN


def test_images_unlike_those_of_the_training_are_amber(synthesizer, head, monkeypatch):
    monkeypatch.setattr(synthesizer_module, "find_unusual", lambda *_a: ["T2 seems to be upside down."])
    check = found(synthesizer.check(head, ["PD"]), "Looks")
    assert check.level == AMBER and "upside down" in check.sentence


def test_looks_that_nothing_was_compared_with_are_not_called_usual():
    (usual,), (unknown,) = preflight.check_looks([], True), preflight.check_looks([], False)
    assert usual.level == unknown.level == GREEN and "Nothing unusual was" in usual.sentence
    assert "Nothing unusual was" not in unknown.sentence and NOT_CHECKED in unknown.sentence


def test_enhancement_without_an_enhanced_source_asks(synthesizer, head):
    check = found(synthesizer.check(head, ["T1C"]), "Contrast agent")
    assert check.level == AMBER and "is a guess" in check.sentence
    assert "Contrast agent" not in [check.name for check in synthesizer.check(head, ["PD"])]


@pytest.mark.parametrize(("target", "time", "reads", "told"), [
    ("T2", "TE 90 ms", True, "changes the contrast of T2"), ("T2FS", "echo time 90 ms", True, "contrast of T2FS"),
    ("T2", "TE = 300", True, "what it makes of 300 ms for T2 is a guess"), ("T2", "TE 9.5 ms", True, "is a guess"),
    ("T2", "TE 90 ms", False, "Leave numbers out"), ("T1", "TE 90 ms", True, "Leave numbers out"),
    ("T2", "3 mm", True, "Leave other numbers out"),
])  # fmt: skip
def test_what_numbers_in_words_of_ones_own_do_is_said(synthesizer, monkeypatch, target, time, reads, told):
    monkeypatch.setitem(synthesizer.loaded.manifest, "reads_echo_times", reads)
    checks = preflight.check_prompts(synthesizer.loaded, [target], {target: f"{target}-weighted image, {time}"})
    assert any(check.level == AMBER and told in check.sentence for check in checks)


def test_a_target_that_the_model_never_met_is_amber(tmp_path):
    loaded = Synthesizer(write_tiny_weights(tmp_path, ("T1", "T2")), "cpu").loaded
    checks = preflight.check_prompts(loaded, ["T1", "FLAIR"], {})
    assert [(check.name, check.level) for check in checks] == [("FLAIR: training", AMBER)]


# ---- the whole, as a run asks for it ----------------------------------------------------------------------------


def volumes(study: Study) -> dict:
    return {source.sequence: source.original for source in study.sources}


def test_the_run_uses_what_was_prepared_for_the_check(weights, head, monkeypatch):
    built = []
    real = job.build_study
    monkeypatch.setattr(job, "build_study", lambda *a, **k: built.append(1) or real(*a, **k))
    computer = InProcess(weights=weights)
    given = volumes(head)
    computer.preflight(given, SynthesisRequest(("PD",), device="cpu", segment=False))
    study, _ = computer.compute(given, SynthesisRequest(("PD",), device="cpu", segment=False))
    assert len(built) == 1 and study.source("T1").original is given["T1"]
    computer.preflight(given, SynthesisRequest(("PD",), device="cpu"))
    given["T1"] = dataclasses.replace(given["T1"], array=np.flip(given["T1"].array, 2))
    study, _ = computer.compute(given, SynthesisRequest(("PD",), device="cpu", segment=False))
    assert len(built) == 3 and study.source("T1").original is given["T1"], "another image is prepared anew"


def test_images_that_cannot_be_used_are_red(weights, head):
    apart = dataclasses.replace(head.source("T2").original, grid=Grid.from_parts(
        head.grid.shape, head.grid.spacing, head.grid.origin + 1000, head.grid.direction))  # fmt: skip
    (check,) = InProcess(weights=weights).preflight({**volumes(head), "T2": apart}, SynthesisRequest(("PD",)))
    assert check.level == RED and check.name == "Images" and "show no common region" in check.sentence


def test_a_request_that_makes_no_sense_is_red(weights, head):
    for targets, reference, words in ((["T1"], None, "both a source and a target"), (["PD"], "FLAIR", "cannot be the")):
        (check,) = InProcess(weights=weights).preflight(
            volumes(head), SynthesisRequest(tuple(targets), reference=reference, device="cpu")
        )
        assert check.level == RED and check.name == "Request" and words in check.sentence


def test_a_weights_file_replaced_by_another_one_is_red(tmp_path, head):
    folder = write_tiny_weights(tmp_path / "mine")
    computer = InProcess(weights=folder)
    assert found(computer.preflight(volumes(head), SynthesisRequest(("PD",), device="cpu")), "Weights").level == GREEN
    (folder / "text.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    check = found(computer.preflight(volumes(head), SynthesisRequest(("PD",), device="cpu")), "Weights")
    assert check.level == RED and "not the one that its manifest describes" in check.sentence
    (folder / "model.safetensors").write_bytes(b"")
    check = found(computer.preflight(volumes(head), SynthesisRequest(("PD",), device="cpu")), "Weights")
    assert check.level == RED and "model.safetensors" in check.sentence


def test_weights_exchanged_as_a_whole_are_said_and_the_new_ones_are_used_next(tmp_path, head):
    folder = write_tiny_weights(tmp_path / "mine")
    computer = InProcess(weights=folder)
    computer.preflight(volumes(head), SynthesisRequest(("PD",), device="cpu"))
    shutil.rmtree(folder)
    write_tiny_weights(folder, ("T1", "T2", "PD"))
    check = found(computer.preflight(volumes(head), SynthesisRequest(("PD",), device="cpu")), "Weights")
    assert check.level == RED and "exchanged" in check.sentence
    assert found(computer.preflight(volumes(head), SynthesisRequest(("PD",), device="cpu")), "Weights").level == GREEN


def test_one_model_is_held_that_of_the_jobs_weights_or_else_of_the_computers():
    made = []
    computer = InProcess(lambda weights, device: made.append((weights, device)) or object(), weights=Path("own"))
    own = computer.synthesizer("cpu")
    assert computer.synthesizer("cpu", Path("own")) is own
    computer.synthesizer("cpu", Path("others"))
    assert computer.synthesizer("cpu") is not own
    assert made == [(Path("own"), "cpu"), (Path("others"), "cpu"), (Path("own"), "cpu")]


def test_the_worker_finds_the_same(weights, head, tmp_path):
    worker = WorkerProcess(weights=weights)
    try:
        there = worker.preflight(volumes(head), SynthesisRequest(("PD",), device="cpu"))
    finally:
        worker.close()
    here = InProcess(weights=weights, handover=tmp_path).preflight(
        volumes(head), SynthesisRequest(("PD",), device="cpu")
    )
    assert [check.name for check in there] == [check.name for check in here] and there[-1].name == "Disk"
    levels = [(c.name, c.level) for c in here if c.name != "Memory"]
    assert [(c.name, c.level) for c in there if c.name != "Memory"] == levels
