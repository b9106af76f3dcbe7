"""From a Study to a SynthesisResult: geometry, bookkeeping, progress, cancel, memory, precision."""

from dataclasses import replace

import numpy as np
import pytest
import torch

pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")

from tiny_weights import write_tiny_weights

from NPCSynthLib.errors import Cancelled, UsageError
from NPCSynthLib.inference import synthesizer as module
from NPCSynthLib.inference.device import Device, choose_device, plan_batch
from NPCSynthLib.inference.geometry import axis_steps, left_coordinate
from NPCSynthLib.inference.labels import to_segments, without_islands
from NPCSynthLib.inference.result import NODES_LEFT_OUT
from NPCSynthLib.inference.slicing import Slicing
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.study.study import Source, Study
from NPCSynthLib.study.volume import Grid, Volume


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory):
    return Synthesizer(write_tiny_weights(tmp_path_factory.mktemp("weights")), "cpu")


def make_study(grid, sequences=("T1", "T2"), seed=0):
    rng = np.random.default_rng(seed)
    sources = []
    for sequence in sequences:
        array = rng.random(grid.shape, dtype=np.float32)
        original = Volume(array, grid, f"{sequence} tra")
        sources.append(Source(sequence, original, array, np.ones(grid.shape, bool), {}, (0.0, 1.0)))
    return Study(grid, sequences[0], tuple(sources), np.ones(grid.shape, bool))


def axial_grid(shape=(5, 24, 20), spacing=(1.0, 1.0, 4.0)):
    return Grid.from_parts(shape, spacing, (0, 0, 0), np.eye(3))


def reoriented(array, grid, order, flip):
    """The same voxels at the same places, stored with other array axes."""
    stored = array.transpose(order)[tuple(slice(None, None, -1 if f else 1) for f in flip)]
    axes = grid.ijk_to_lps[:3, 2::-1][:, list(order)].copy()  # columns k, j, i of the new array
    origin = grid.origin
    for a, f in enumerate(flip):
        if f:
            origin = origin + axes[:, a] * (stored.shape[a] - 1)
            axes[:, a] *= -1
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = axes[:, ::-1], origin
    return np.ascontiguousarray(stored), Grid(stored.shape, matrix)


@pytest.mark.parametrize(
    "order, flip",
    [((0, 1, 2), (True, False, True)), ((2, 0, 1), (False, True, False)), ((1, 2, 0), (True, True, True))],
)
def test_storage_order_does_not_change_the_result(synthesizer, order, flip):
    """A sagittal or flipped file of the same patient gives the same voxels at the same places."""
    grid = axial_grid()
    study = make_study(grid)
    straight = synthesizer.run(study, ["T1C"])
    sources = []
    for s in study.sources:
        array, other = reoriented(s.array, grid, order, flip)
        sources.append(Source(s.sequence, Volume(array, other), array, np.ones(other.shape, bool), {}, (0.0, 1.0)))
    turned = synthesizer.run(Study(other, "T1", tuple(sources), np.ones(other.shape, bool)), ["T1C"])
    expected, _ = reoriented(straight.sequences[0].array, grid, order, flip)
    np.testing.assert_array_equal(turned.sequences[0].array, expected)
    labels, _ = reoriented(straight.segmentation.labelmap, grid, order, flip)
    np.testing.assert_array_equal(turned.segmentation.labelmap, labels)


def test_result_lies_on_the_reference_grid_in_fixed_units(synthesizer):
    a = np.deg2rad(20)
    direction = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, -1]])
    grid = Grid.from_parts((4, 30, 41), (0.45, 0.45, 5.0), (-80, 30, 12), direction)
    result = synthesizer.run(make_study(grid), ["FLAIR", "T2FS"])
    assert result.grid.matches(grid)
    for made in result.sequences:
        assert made.array.shape == grid.shape and made.array.dtype == np.int16
        assert made.uncertainty.shape == grid.shape and made.uncertainty.min() >= 0
        assert made.array.min() >= 0 and made.array.max() <= 2000
    assert [s.sequence for s in result.sequences] == ["FLAIR", "T2FS"]
    assert result.sources == ("T1", "T2") and result.model["name"] == "tiny"


def test_air_around_the_patient_is_zero_and_the_skin_is_not_cut(synthesizer):
    study = make_study(axial_grid((4, 40, 40), (2.0, 2.0, 4.0)))
    body = np.zeros(study.grid.shape, bool)
    body[:, 15:25, 15:25] = True
    made = synthesizer.run(Study(study.grid, "T1", study.sources, body), ["T1C"], segment=False).sequences[0].array
    whole = synthesizer.run(study, ["T1C"], segment=False).sequences[0].array
    assert whole[:, :8].any(), "the untrained model would put something there"
    assert not made[:, :11].any() and not made[:, :, 29:].any()
    np.testing.assert_array_equal(made[:, 13:27, 13:27], whole[:, 13:27, 13:27])


def test_batch_size_does_not_change_the_result(synthesizer, monkeypatch):
    study = make_study(axial_grid((7, 24, 20)))
    results = []
    for size in (1, 3, 7):
        monkeypatch.setattr(module, "plan_batch", lambda *_, size=size: size)
        results.append(synthesizer.run(study, ["T1C"]).sequences[0].array.astype(int))
    assert np.abs(results[0] - results[1]).max() <= 8 and np.abs(results[0] - results[2]).max() <= 8


def test_bfloat16_agrees_with_float32(synthesizer, monkeypatch):
    study = make_study(axial_grid())
    images = []
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(synthesizer, "device", Device(torch.device("cpu"), dtype, "test"))
        images.append(synthesizer.run(study, ["T1C"]).sequences[0].array.astype(float))
    assert np.abs(images[0] - images[1]).mean() < 5  # of 1000


def test_memory_too_small_halves_the_batch(synthesizer, monkeypatch):
    study = make_study(axial_grid((6, 24, 20)))
    monkeypatch.setattr(module, "plan_batch", lambda *_: 4)
    expected = synthesizer.run(study, ["T1C"]).sequences[0].array
    sizes, original = [], synthesizer._batch

    def too_big(device, slicing, contouring, rows, *rest):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("test")
        return original(device, slicing, contouring, rows, *rest)

    monkeypatch.setattr(synthesizer, "_batch", too_big)
    result = synthesizer.run(study, ["T1C"])
    assert sizes == [4, 2, 2, 2]
    assert np.abs(result.sequences[0].array.astype(int) - expected).max() <= 8


@pytest.mark.parametrize("words", ["CUDA out of memory.", "MPS backend out of memory (MPS allocated: 5 GB)"])
def test_graphics_memory_that_is_full_already_is_no_error(synthesizer, monkeypatch, words):
    """Apple's allocator has no class of its own for it, and the sources are looked at before anything is planned."""
    study = make_study(axial_grid((6, 24, 20)))
    expected = synthesizer.run(study, ["T1C"])
    gpu = Device(torch.device("mps"), torch.float32, "GPU")
    moved, look = [], synthesizer._look

    def on(device, *rest):
        if device is gpu:
            raise RuntimeError(words)
        return look(device, *rest)

    for name in ("check_memory", "check_images"):
        monkeypatch.setattr(module.preflight, name, lambda *_: [])
    monkeypatch.setattr(module.preflight, "check_device", lambda *_: module.Check("Device", "green", ""))

    monkeypatch.setattr(synthesizer, "device", gpu)
    monkeypatch.setattr(synthesizer, "_move", lambda device: moved.append(device.torch.type))
    monkeypatch.setattr(synthesizer, "_look", on)
    result = synthesizer.run(study, ["T1C"])
    assert np.array_equal(result.sequences[0].array, expected.sequences[0].array) and moved == ["cpu", "mps"]
    assert any("computed on the CPU" in warning for warning in result.warnings) and "CPU" in result.device
    assert synthesizer.check(study, ["T1C"]), "the panel checks first"


def test_partly_covered_source_is_ignored_where_it_is_absent(synthesizer):
    grid = axial_grid((3, 32, 64))
    study = make_study(grid)
    inside = np.ones(grid.shape, bool)
    inside[:, :, 20:] = False
    second = study.sources[1]
    noisy = second.array.copy()
    noisy[:, :, 50:] = 1.5
    results = []
    for array in (second.array, noisy):
        source = Source("T2", second.original, array, inside, {}, (0.0, 1.0))
        part = Study(grid, "T1", (study.sources[0], source), study.body)
        results.append(synthesizer.run(part, ["T1C"], segment=False).sequences[0].array)
    np.testing.assert_array_equal(results[0], results[1])


def test_cancel_stops_the_run(synthesizer):
    calls = []

    def cancel():
        calls.append(1)
        return len(calls) > 2

    with pytest.raises(Cancelled):
        synthesizer.run(make_study(axial_grid((12, 24, 20))), ["T1C", "FLAIR"], cancel=cancel)
    assert len(calls) == 3


def test_progress_rises_to_one(synthesizer):
    seen = []
    synthesizer.run(make_study(axial_grid((9, 24, 20))), ["T1C"], on_progress=lambda f, text: seen.append((f, text)))
    fractions = [f for f, _ in seen]
    assert fractions == sorted(fractions) and fractions[-1] == 1.0 and len(seen) >= 4
    assert any("slice" in stage for _, stage in seen)


@pytest.mark.parametrize(
    "targets, message",
    [(["T1"], "cannot be both"), (["T1CE", "T2"], "cannot be both"), ([], "No sequence"), (["T3W"], "Did you mean")],
)
def test_impossible_targets_are_refused(synthesizer, targets, message):
    with pytest.raises(UsageError, match=message):
        synthesizer.run(make_study(axial_grid()), targets)


def test_enhancement_without_an_enhanced_source_is_called_a_guess(synthesizer):
    grid = axial_grid((2, 24, 20))
    for sources, guessed in ((("T1", "T2"), True), (("T1C", "T2"), False)):
        result = synthesizer.run(make_study(grid, sources), ["T1CFS"], segment=False)
        assert any("T1CFS is a guess" in w for w in result.warnings) == guessed


@pytest.mark.parametrize("sources, targets, told", [
    (("T1C", "T2"), ["T1", "T2FS"], True), (("T1CFS",), ["T1FS"], True), (("T1C", "T1FS"), ["T1"], False),
    (("T1C", "T2"), ["T2FS"], False), (("T2",), ["T1"], False),
])  # fmt: skip
def test_an_unenhanced_image_from_enhanced_ones_alone_is_called_a_guess(synthesizer, sources, targets, told):
    """What contrast agent brightened may be left in it, and pass for fat, blood or marrow."""
    result = synthesizer.run(make_study(axial_grid((2, 24, 20)), sources), targets, segment=False)
    guesses = [w for w in result.warnings if f"synthetic {targets[0]} is a guess: every T1-weighted source" in w]
    assert len(guesses) == told


@pytest.mark.parametrize("slices, told", [(9, False), (3, True)])
def test_enhancement_outside_of_the_enhanced_source_is_called_a_guess(synthesizer, slices, told):
    """A few slices of T1C say nothing of the rest of the neck; other sequences are not concerned."""
    study = make_study(axial_grid((9, 24, 20)), ("T1C", "T2"))
    inside = np.zeros(study.grid.shape, bool)
    inside[:slices] = True
    sources = tuple(replace(s, inside=inside) if s.sequence == "T1C" else s for s in study.sources)
    result = synthesizer.run(replace(study, sources=sources), ["T1CFS", "T2FS"], segment=False)
    guesses = [w for w in result.warnings if "is a guess" in w]
    assert len(guesses) == told and all("T1CFS is a guess outside of the acquired T1C" in w for w in guesses)


def test_enhancement_that_rests_on_the_users_word_is_called_a_guess(synthesizer):
    study = make_study(axial_grid((2, 24, 20)), ("T1C", "T2"))
    nameless = tuple(replace(s, original=replace(s.original, name="series 3")) for s in study.sources)
    result = synthesizer.run(replace(study, sources=nameless), ["T1CFS"], segment=False)
    (guess,) = [w for w in result.warnings if "is a guess" in w]
    assert "T1CFS is a guess unless contrast agent was given for the image used as T1C" in guess


def test_unknown_words_of_a_prompt_become_a_warning(synthesizer):
    prompts = {"T2FS": "T2 zebra fat suppressed"}
    result = synthesizer.run(make_study(axial_grid()), ["T2FS"], segment=False, prompts=prompts)
    assert any("zebra" in w for w in result.warnings)
    assert result.sequences[0].prompt == "T2 zebra fat suppressed"


def test_sequence_that_the_weights_never_met_is_offered_with_a_warning(tmp_path):
    synthesizer = Synthesizer(write_tiny_weights(tmp_path, ["T1", "T2", "T1C"]), "cpu")
    result = synthesizer.run(make_study(axial_grid()), ["PD"], segment=False)
    assert any("never trained on PD" in w for w in result.warnings)


def test_unknown_device_is_refused():
    with pytest.raises(UsageError, match="not a device"):
        choose_device("tpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_missing_gpu_is_said_and_the_cpu_used():
    device, notes = choose_device("gpu")
    assert device.torch.type == "cpu" and "no usable GPU" in notes[0]


def test_batch_fits_the_free_memory(monkeypatch):
    from NPCSynthLib.inference import device as devices
    from NPCSynthLib.model.network import ModelConfig

    cpu = choose_device("cpu")[0]
    config = ModelConfig()
    for free, expected in ((10**6, 1), (10**12, 4)):
        monkeypatch.setattr(devices, "free_memory", lambda _, free=free: free)
        assert plan_batch(cpu, config, 2, 256, 256, 50) == expected


@pytest.mark.parametrize("spacing, across", [((1, 1, 5), 0), ((5, 1, 1), 2), ((1, 5, 1), 1), ((1, 1, 1.2), 0)])
def test_slices_lie_across_the_thick_direction(spacing, across):
    slicing = Slicing.plan(Grid.from_parts((8, 9, 10), spacing, (0, 0, 0), np.eye(3)), 4)
    assert slicing.order[0] == across


def test_finer_pixels_are_brought_to_the_finest_asked_for():
    grid = Grid.from_parts((2, 60, 90), (0.5, 0.5, 4), (0, 0, 0), np.eye(3))
    assert Slicing.plan(grid, 4).work == (43, 64)
    assert Slicing.plan(grid, 4, 1.0).work == (30, 45)


def test_slices_are_put_back_where_they_were():
    grid = Grid.from_parts((4, 5, 6), (3, 1, 1), (0, 0, 0), np.diag([-1, 1, -1]))
    slicing = Slicing.plan(grid, 4)
    array = np.arange(120).reshape(4, 5, 6)
    np.testing.assert_array_equal(slicing.put(slicing.take(array)), array)


def test_axes_of_an_oblique_grid_are_told_apart():
    a = np.deg2rad(40)
    direction = np.array([[0, 0, 1], [np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0]])
    toward, sign = axis_steps(Grid.from_parts((2, 2, 2), (1, 1, 1), (0, 0, 0), direction))
    assert toward == (0, 2, 1) and sign == (1, 1, 1)


@pytest.mark.parametrize("flip", [1, -1])
def test_paired_organs_are_named_by_the_patients_side(flip):
    grid = Grid.from_parts((3, 20, 40), (2, 2, 2), (-40.0 * flip, 0, 0), np.diag([flip, 1, 1]))
    classes = np.zeros(grid.shape, np.uint8)
    names = ("background", "body", "Eye")
    classes[:, 5:10, 5:10] = classes[:, 5:10, 30:35] = 2
    result, _ = to_segments(classes, classes > 0, names, np.ones(grid.shape, bool), grid)
    left = left_coordinate(grid)
    for segment in result.segments:
        if segment.name in ("Eye_L", "Eye_R"):
            mask = result.mask(segment)
            assert mask.sum() == 75
            assert (left[mask].mean() > 0) == (segment.name == "Eye_L")


def test_organs_of_a_turned_and_cropped_head_keep_their_sides():
    """The body's middle is no guide here: both eyes lie on the same side of it."""
    grid = Grid.from_parts((3, 20, 40), (2, 2, 2), (0, 0, 0), np.eye(3))
    classes = np.zeros(grid.shape, np.uint8)
    classes[:, 5:10, 2:7] = classes[:, 5:10, 14:19] = 2
    result, _ = to_segments(classes, classes > 0, ("background", "body", "Eye"), np.ones(grid.shape, bool), grid)
    masks = {s.name: result.mask(s) for s in result.segments}
    assert masks["Eye_R"][:, 5:10, 2:7].all() and masks["Eye_R"].sum() == 75
    assert masks["Eye_L"][:, 5:10, 14:19].all() and masks["Eye_L"].sum() == 75


def test_an_organ_of_one_piece_is_its_largest_part():
    grid = Grid.from_parts((4, 20, 40), (2, 2, 2), (0, 0, 0), np.eye(3))
    classes = np.zeros(grid.shape, np.uint8)
    classes[:, 2:12, 2:12] = 2
    classes[:, 15:18, 30:35] = 2
    result, _ = to_segments(classes, classes > 0, ("background", "body", "Brain"), np.ones(grid.shape, bool), grid)
    brain = next(result.mask(s) for s in result.segments if s.name == "Brain")
    assert brain[:, 2:12, 2:12].all() and brain.sum() == 4 * 100


@pytest.mark.parametrize("structure, kept", [("GTVp", 160), ("GTVn", 115)])
def test_every_part_of_a_tumor_is_kept_but_nodes_that_are_sure_nowhere(structure, kept):
    """The largest is not always the right one: on NPC slices it was a false island as often as not."""
    grid = Grid.from_parts((4, 20, 40), (2, 2, 2), (0, 0, 0), np.eye(3))
    classes, sure = np.zeros(grid.shape, np.uint8), np.zeros(grid.shape, bool)
    classes[:, 2:12, 2:12] = classes[:, 15:18, 30:35] = classes[:, 2:11, 25:30] = 2
    sure[1, 5, 5] = sure[2, 16, 31] = True
    result, notes = to_segments(classes, sure, ("background", "body", structure), np.ones(grid.shape, bool), grid)
    mask = next(result.mask(s) for s in result.segments if s.name == structure)
    assert mask[:, 2:12, 2:12].all() and mask[:, 15:18, 30:35].all() and mask.sum() == 4 * kept
    assert any("left out of GTVn: 1, of 1.4 ml" in note for note in notes) == (structure == "GTVn")


@pytest.mark.parametrize("order, flip", [((0, 1, 2), (True, False, True)), ((2, 0, 1), (False, True, False))])
def test_a_node_that_the_network_is_not_sure_of_is_told_instead(synthesizer, monkeypatch, order, flip):
    """Whatever the order that the file is stored in."""
    model = synthesizer.loaded.model
    names, segment = model.config.classes, model.segment

    def two_nodes(invariant, present):
        logits = torch.zeros_like(segment(invariant, present))
        logits[:, names.index("body")] = 1.0
        logits[:, names.index("GTVn"), 4:12, 3:8] = 9.0
        logits[:, names.index("GTVn"), 4:12, 12:17] = 2.5  # likeliest, with half of the probability
        return logits

    monkeypatch.setattr(model, "segment", two_nodes)
    sure = np.zeros((5, 24, 20), bool)
    sure[:, 4:12, 3:8] = True
    expected, grid = reoriented(sure, axial_grid(), order, flip)
    result = synthesizer.run(make_study(grid), ["T1C"])
    node = next(result.segmentation.mask(s) for s in result.segmentation.segments if s.name == "GTVn")
    np.testing.assert_array_equal(node, expected)
    assert f"{NODES_LEFT_OUT}: 1, of 0.8 ml in all. Look for nodes yourself." in result.warnings


def test_of_a_paired_organ_the_largest_part_of_each_side_is_kept():
    grid = Grid.from_parts((4, 20, 60), (2, 2, 2), (-59.0, 0, 0), np.eye(3))
    classes = np.zeros(grid.shape, np.uint8)
    classes[:, 5:10, 10:15] = classes[:, 5:10, 45:50] = 2
    classes[:, 15:18, 2:5] = classes[:, 15:18, 55:58] = 2
    result, _ = to_segments(classes, classes > 0, ("background", "body", "Parotid"), np.ones(grid.shape, bool), grid)
    masks = {s.name: result.mask(s) for s in result.segments}
    assert masks["Parotid_R"].sum() == masks["Parotid_L"].sum() == 4 * 25
    assert masks["Parotid_R"][:, 5:10, 10:15].all() and masks["Parotid_L"][:, 5:10, 45:50].all()


def test_organ_that_crosses_the_middle_a_little_is_not_cut():
    grid = Grid.from_parts((3, 20, 40), (2, 2, 2), (-39.0, 0, 0), np.eye(3))
    classes = np.zeros(grid.shape, np.uint8)
    classes[:, 5:10, 19:30] = 2
    result, _ = to_segments(classes, classes > 0, ("background", "body", "Eye"), np.ones(grid.shape, bool), grid)
    masks = {s.name: result.mask(s) for s in result.segments}
    assert masks["Eye_L"].sum() == 3 * 5 * 11 and not masks["Eye_R"].any()


def test_what_was_not_found_or_not_checked_is_said(synthesizer):
    result = synthesizer.run(make_study(axial_grid((2, 24, 20))), ["PD"])
    absent = [s.name for s in result.segmentation.segments if not result.segmentation.mask(s).any()]
    assert absent, "the tiny model finds some structures at most"
    assert any(w.startswith("Not found:") and absent[0] in w for w in result.warnings)
    assert any("uncertainty of PD was never checked" in w for w in result.warnings)
    assert not result.sequences[0].calibrated


def test_small_islands_are_dropped_by_volume():
    mask = np.zeros((4, 10, 10), bool)
    mask[0, 0, 0] = True
    mask[2, 2:6, 2:6] = True
    cleaned = without_islands(mask, voxel_mm3=5.0)
    assert cleaned.sum() == 16 and not cleaned[0, 0, 0]
