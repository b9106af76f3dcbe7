"""The weights that ship are whole, fit the vocabulary, and truly synthesize."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.inference.wording import similarities
from NPCSynthLib.model.weights import load_weights
from NPCSynthLib.phantom.acquire import acquire
from NPCSynthLib.phantom.anatomy import make_anatomy
from NPCSynthLib.phantom.patient import make_patient
from NPCSynthLib.phantom.signal import typical_protocol
from NPCSynthLib.resources import resource_path
from NPCSynthLib.study.build import build_study
from NPCSynthLib.study.volume import Grid, to_sitk
from NPCSynthLib.vocabulary import canonical_prompt, load_classes, load_sequences

MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def synthesizer():
    return Synthesizer(device="cpu")


def test_size_stays_what_the_extensions_index_takes():
    sizes = [p.stat().st_size for p in resource_path("weights").glob("*.safetensors")]
    assert max(sizes) <= 16 * MEBIBYTE and sum(sizes) <= 40 * MEBIBYTE


def test_weights_fit_the_vocabulary():
    """A prompt changed after training would need open_clip in every run, and a class would be misnamed."""
    loaded = load_weights()
    assert loaded.manifest["prompts"] == {s.id: canonical_prompt(s) for s in load_sequences().values()}
    assert loaded.model.config.classes == load_classes()
    assert {"T1", "T1C", "T2", "FLAIR"} <= set(loaded.manifest["calibration"]) <= set(load_sequences())


@pytest.mark.parametrize("words, sequence", [
    ("T1 image", "T1"), ("T1 with gadolinium", "T1C"), ("fat-suppressed T1, no contrast", "T1FS"), ("T2 image", "T2"),
    ("T1 with gadolinium and fat suppression", "T1CFS"), ("fat-suppressed T2", "T2FS"), ("FLAIR MRI", "FLAIR"),
])
def test_words_for_agent_and_fat_suppression_are_told_apart(synthesizer, words, sequence):
    pytest.importorskip("open_clip", reason="free text needs open_clip_torch")
    near = similarities(synthesizer.loaded, synthesizer.loaded.text_features(words)[0])
    assert max(near, key=near.get) == sequence


@pytest.fixture(scope="module")
def acquired():
    """T1 and T2 on thick axial slices, 1.2 x 1.2 x 4 mm, of a patient that no training saw."""
    anatomy = make_anatomy(6)
    spacing, shape = np.array((1.2, 1.2, 4.0)), (28, 160, 150)
    center = (anatomy.grid.ijk_to_lps @ [*(np.array(anatomy.grid.shape[::-1]) - 1) / 2, 1])[:3]
    grid = Grid.from_parts(shape, spacing, center - spacing * (np.array(shape[::-1]) - 1) / 2, np.eye(3))
    return {s: acquire(anatomy, typical_protocol(s), np.random.default_rng(0), grid=grid) for s in ("T1", "T2")}


def test_missing_sequence_of_a_new_patient_is_closer_than_its_source(synthesizer, acquired):
    """T1 to T2 and back must beat copying the source and a flat gray."""
    studies = {sequence: build_study({sequence: volume}) for sequence, volume in acquired.items()}
    for source, target in (("T1", "T2"), ("T2", "T1")):
        study, truth = studies[source], studies[target].sources[0].array
        made = synthesizer.run(study, [target], segment=False).sequences[0].array / 1000.0
        error = np.abs(made - truth)[study.body].mean()
        copy = np.abs(study.sources[0].array - truth)[study.body].mean()
        flat = np.abs(np.median(truth[study.body]) - truth)[study.body].mean()
        assert error < 0.9 * copy and error < 0.9 * flat, (source, target, error, copy, flat)


def test_image_under_a_wrong_name_is_noticed(synthesizer, acquired):
    right = build_study(acquired)
    swapped = build_study({"T1": acquired["T2"], "T2": acquired["T1"]})
    assert not [w for w in synthesizer.run(right, ["PD"], segment=False).warnings if "looks like" in w]
    doubts = [w for w in synthesizer.run(swapped, ["PD"], segment=False).warnings if "looks like" in w]
    assert doubts


@pytest.mark.xfail(strict=True, reason="known: these weights see 5.7 % FLAIR in it, and the alarm begins below 5 %")
def test_t1_under_the_name_of_flair_is_noticed(synthesizer, acquired):
    warnings = synthesizer.run(build_study({"FLAIR": acquired["T1"]}), ["PD"], segment=False).warnings
    assert any("looks like T1" in warning for warning in warnings)


def test_identify_looks_at_the_images_when_asked(acquired, tmp_path):
    from NPCSynthLib.cli.main import app

    for name, volume in (("T1", acquired["T1"]), ("T2", acquired["T1"])):  # the second one under a wrong name
        sitk.WriteImage(to_sitk(volume.array, volume.grid), str(tmp_path / f"{name}.nii.gz"))
    done = CliRunner().invoke(app, ["identify", str(tmp_path), "--look", "--json"])
    assert done.exit_code == 0, done.stderr
    entries = {entry["sequence"]: entry for entry in json.loads(done.stdout)}
    assert entries["T1"]["image_sequence"] == "T1" and "looks like" not in entries["T1"]["reason"]
    assert entries["T2"]["image_sequence"] == "T1" and "looks like T1" in entries["T2"]["reason"]


def test_every_result_says_how_little_the_contours_learned_from(synthesizer, acquired):
    warnings = synthesizer.run(build_study(acquired), ["PD"]).warnings
    assert any("simulated patients and 12 real slices" in warning for warning in warnings)


def test_prompt_decides_the_sequence(synthesizer):
    """Fluid is dark on T1 and bright on T2, from the same source, by text alone."""
    patient = make_patient(5, ("T2FS",), "small")
    study = build_study(patient.volumes)
    fluid = (study.sources[0].array > 0.8) & study.body
    result = synthesizer.run(study, ["T1", "T2"], segment=False)
    t1, t2 = (s.array[fluid].mean() - np.median(s.array[study.body]) for s in result.sequences)
    assert t2 > t1


def test_organs_are_found_on_fine_pixels(synthesizer):
    """Neck protocols have pixels finer than those of most training crops."""
    anatomy = make_anatomy(1, (14, 336, 280), (4.0, 0.7, 0.7))
    study = build_study({"T2": acquire(anatomy, typical_protocol("T2"), np.random.default_rng(0), grid=anatomy.grid)})
    segmentation = synthesizer.run(study, ["T1"]).segmentation
    for segment in segmentation.segments:
        if segment.name in ("Brain", "Brainstem", "Eye_L", "Eye_R", "Parotid_L"):  # of the cord there is one slice
            made, true = segmentation.mask(segment), anatomy.structures[segment.name]
            assert 2 * (made & true).sum() > 0.7 * (made.sum() + true.sum()), segment.name
