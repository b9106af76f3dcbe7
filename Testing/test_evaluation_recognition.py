"""Naming images by their looks, and the section of the proof that counts how often that is right."""

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("open_clip", reason="writing weights needs open_clip_torch")
pytest.importorskip("skimage", reason="the evaluation needs scikit-image (extra: train)")

from test_synthesizer import axial_grid, make_study
from tiny_weights import write_tiny_weights

from NPCSynthLib.evaluation import recognition as section
from NPCSynthLib.evaluation.phantom_cases import phantom
from NPCSynthLib.evaluation.section import Context
from NPCSynthLib.inference.recognition import (
    LEAST_CONFIDENCE,
    Recognition,
    nearest_prompts,
    recognize,
    slice_embeddings,
)
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.study.volume import Grid, to_sitk
from NPCSynthLib.vocabulary import load_sequences


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory):
    return Synthesizer(write_tiny_weights(tmp_path_factory.mktemp("weights")), "cpu")


def looking_like(**probabilities):
    every = dict.fromkeys(load_sequences(), 0.0) | probabilities
    return Recognition(every, least=0.65)


def test_image_that_is_near_to_no_weighting_is_unknown():
    assert looking_like(T1=0.3, T1C=0.4, T2=0.3).known, "all T1 together are 70 %"
    undecided = looking_like(T1=0.4, T2=0.35, PD=0.25)
    assert not undecided.known


def test_a_source_that_looks_like_nothing_known_is_told_under_any_name():
    undecided = looking_like(T1=0.4, T2=0.35, PD=0.25)
    for said in ("T1", "FLAIR"):
        assert f"given as {said} looks like no sequence that the network knows" in undecided.contradiction(said)
    sure = looking_like(T1=0.7, T2=0.3)
    assert sure.contradiction("T1") is None and sure.contradiction("T2") is None


def test_whole_image_is_the_mean_of_its_slices(synthesizer):
    study = make_study(axial_grid((30, 24, 20)))
    vectors = slice_embeddings(synthesizer.loaded, synthesizer.device, study, study.sources[1])
    assert len(vectors) == 12
    np.testing.assert_allclose(vectors.norm(dim=1), 1, atol=1e-3)
    whole = recognize(synthesizer.loaded, synthesizer.device, study, study.sources[1])
    assert whole.probabilities == nearest_prompts(synthesizer.loaded, vectors.mean(dim=0)).probabilities


def test_counts_right_names_false_alarms_and_the_misnamed_file(synthesizer, tmp_path, monkeypatch):
    """With a network that names every image by its brightness, except that PD is foreign to it."""
    grid = Grid.from_parts((6, 24, 20), (2, 2, 4), (5, -7, 30), np.diag([1, 1, -1]))
    head = np.zeros(grid.shape)
    head[1:-1, 4:-4, 4:-4] = np.random.default_rng(0).uniform(0.5, 1, (4, 16, 12))
    for name, sequence in (("one", "T1"), ("two", "T2"), ("fernando", "FLAIR"), ("four", "PD")):
        folder = tmp_path / "heads" / name
        folder.mkdir(parents=True)
        top = {"T1": 100, "T2": 200, "FLAIR": 300, "PD": 400}[sequence]
        sitk.WriteImage(to_sitk((head * top).astype(np.int16), grid), str(folder / f"{sequence}.nii.gz"))

    def look(_, volume):
        ct = bool(volume.array.min() < -500)
        sequence = "T1" if ct else {1: "T1", 2: "T2", 3: "FLAIR"}.get(round(float(volume.array.max()) / 100))
        one = looking_like(**({sequence: 1.0} if sequence else {"T1": 0.5, "T2": 0.5})).probabilities
        return {"volume": one, "slices": [one], "unusual": ct}

    monkeypatch.setattr(section, "look", look)
    monkeypatch.setattr(section, "phantom", lambda seed: phantom(seed, (2, 12, 12)))
    monkeypatch.setitem(synthesizer.loaded.manifest, LEAST_CONFIDENCE, 0.65)
    (tmp_path / "cohorts").mkdir()
    found = section.run(Context(synthesizer, tmp_path, tmp_path / "out", quick=True))
    accuracy = {row[0]: row for row in found.tables[0].rows}
    assert accuracy["heads"][1:5] == (4, 0.75, 0.75, 0.25)
    confusion = {row[0]: row[1:] for row in found.tables[1].rows}
    assert confusion["FLAIR"][list(load_sequences()).index("FLAIR")] == 1
    assert "looks like FLAIR" in found.text and "taken for T2" in found.text
    assert "1 images of no known sequence 0% are called unknown" in found.text and "run warns of 100%" in found.text


@pytest.mark.parametrize("kind", ["negative", "noise", "edges", "folded gray"])
def test_spoilt_images_stay_on_their_grid_and_differ(kind, tmp_path, oblique_grid):
    image = np.zeros(oblique_grid.shape, np.int16)
    image[1:-1, 5:-5, 4:-4] = np.random.default_rng(0).integers(100, 900, (10, 30, 24))
    sitk.WriteImage(to_sitk(image, oblique_grid), str(tmp_path / "T1.nii.gz"))
    made = section._spoilt(tmp_path / "T1.nii.gz", kind)
    assert made.grid.matches(oblique_grid, 1e-3) and np.isfinite(made.array).all()
    alike = np.corrcoef(made.array[2:-2, 8:-8, 8:-8].ravel(), image[2:-2, 8:-8, 8:-8].ravel())[0, 1]
    assert alike < -0.9 if kind == "negative" else abs(alike) < 0.5
