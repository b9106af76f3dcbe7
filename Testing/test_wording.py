"""A user's own words for a target."""

import numpy as np
import pytest

pytest.importorskip("open_clip", reason="free text needs open_clip_torch")

from test_synthesizer import axial_grid, make_study
from tiny_weights import write_tiny_weights

from NPCSynthLib.errors import UsageError
from NPCSynthLib.inference import wording
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.vocabulary import canonical_prompt, get_sequence


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory):
    return Synthesizer(write_tiny_weights(tmp_path_factory.mktemp("weights")), "cpu")


def test_nonsense_is_refused_before_anything_is_computed(synthesizer, monkeypatch):
    monkeypatch.setattr(synthesizer, "_slices", lambda *_: pytest.fail("computed"))
    with pytest.raises(UsageError, match="name no MR sequence"):
        synthesizer.run(make_study(axial_grid()), ["T1C"], prompts={"T1C": "a photo of a cat"})


def test_words_that_mean_another_sequence_to_the_model_are_said(synthesizer):
    own = canonical_prompt(get_sequence("T2"))
    said = wording.check_wording(synthesizer.loaded, "T1C", own)
    assert any("takes your words for T1C to mean T2" in warning for warning in said)
    assert len(wording.check_wording(synthesizer.loaded, "T2", own)) == 1


def test_similarity_is_one_to_the_prompt_itself(synthesizer):
    features, _ = synthesizer.loaded.text_features(canonical_prompt(get_sequence("PD")))
    similar = wording.similarities(synthesizer.loaded, features)
    assert set(similar) == set(synthesizer.sequences) and similar["PD"] == pytest.approx(1, abs=1e-5)


def test_decode_gives_what_a_run_gives(synthesizer):
    study = make_study(axial_grid())
    canonical = synthesizer.loaded.text_features(canonical_prompt(get_sequence("T1C")))[0]
    other = synthesizer.loaded.text_features(canonical_prompt(get_sequence("PD")))[0]
    images = synthesizer.decode(study, [other, canonical])
    np.testing.assert_array_equal(images[1], synthesizer.predict(study, "T1C"))
