"""The text tower: open_clip's, over the vocabulary's tokens."""

import numpy as np
import pytest
import torch

pytest.importorskip("open_clip", reason="free text needs open_clip_torch")

from NPCSynthLib.model.network import ModelConfig
from NPCSynthLib.model.text import END, TextTower, clip_tokens, tokens_of_vocabulary
from NPCSynthLib.vocabulary import canonical_prompt, load_sequences, training_prompt
from NPCSynthLib.vocabulary.sequences import prompt_templates

FREE_OF_SUPPRESSION = prompt_templates()["fat"]["false"]
FREE_OF_AGENT = prompt_templates()["agent"]["false"]
CONFIG = ModelConfig(text_width=32, text_layers=1, text_heads=2)


@pytest.fixture(scope="module")
def tower():
    torch.manual_seed(0)
    return TextTower(CONFIG, tokens_of_vocabulary()).eval()


def test_every_prompt_of_the_vocabulary_is_known(tower):
    rng = np.random.default_rng(0)
    timing = {"TR": 5321.0, "TE": 97.0, "TI": 1864.0}
    prompts = [training_prompt(s, rng, t) for s in load_sequences().values() for t in (None, timing) for _ in range(20)]
    prompts += [canonical_prompt(s) for s in load_sequences().values()]
    rows, unknown = tower.tokenize(prompts)
    assert unknown == []
    assert (rows[:, -1] == 0).all(), "a prompt fills the whole context and may have been cut"


def test_unknown_words_are_reported_and_left_out(tower):
    rows, unknown = tower.tokenize(["T2 image", "T2 zebra image"])
    assert unknown == ["zebra"]
    assert torch.equal(rows[0], rows[1])


def test_other_prompts_in_the_batch_do_not_change_a_prompt(tower):
    with torch.inference_mode():
        alone, _ = tower.encode(["T1 image"])
        both, _ = tower.encode(["T1 image", "head and neck MR, T2-weighted, repetition time 4000 ms, echo time 90 ms"])
    torch.testing.assert_close(alone.pooled[0], both.pooled[0])
    torch.testing.assert_close(alone.tokens[0], both.tokens[0, : alone.tokens.shape[1]])


def test_numbers_change_the_text(tower):
    with torch.inference_mode():
        features, _ = tower.encode(["T2-weighted, TE 90 ms", "T2-weighted, TE 20 ms"])
    assert (features.pooled[0] - features.pooled[1]).abs().max() > 1e-4


@pytest.mark.parametrize("wording", ["T2, TE {}", "echo time {} ms, T2", "T2 ({}ms)", "T2w FLAIR TI {}, axial"])
def test_a_number_is_one_token_of_its_size(wording):
    number = [set(clip_tokens(wording.format(n))) - set(clip_tokens(wording.format(""))) for n in (90, 91, 900, 4500)]
    assert all(len(tokens) == 1 for tokens in number)
    assert number[0] == number[1] and max(number[1]) < max(number[2]) < max(number[3])


@pytest.mark.parametrize("words", ["T2", "T1w 3D", "T2FS"])
def test_digits_in_a_word_are_no_number(words):
    assert max(clip_tokens(words)) < END


def test_numbers_of_about_the_same_size_begin_alike(tower):
    weight = tower.transformer.token_embedding.weight.detach()
    rows = [tower.tokenize([f"TE {n}"])[0][0, 2] for n in (80, 90, 2000)]
    near, far = (float((weight[rows[0]] - weight[row]).norm()) for row in rows[1:])
    assert near < 0.7 * far


def test_the_end_of_a_prompt_with_numbers_is_found(tower):
    """open_clip takes the greatest row for the end."""
    rows, _ = tower.tokenize(["T2-weighted, TR 16000 ms, TE 90 ms"])
    assert int(rows.max()) == tower._row[END] == len(tower.tokens) - 1


def test_prompts_say_whether_contrast_and_fat_suppression_are_there():
    rng = np.random.default_rng(1)
    for sequence in load_sequences().values():
        for _ in range(30):
            text = training_prompt(sequence, rng)
            if any(words in text for words in FREE_OF_AGENT):
                assert not sequence.contrast_agent, text
            if any(words in text for words in FREE_OF_SUPPRESSION):
                assert not sequence.fat_suppressed, text


def test_pieces_of_a_wording_come_in_any_order():
    rng = np.random.default_rng(2)
    texts = [training_prompt(load_sequences()["T2FS"], rng) for _ in range(1500)]
    assert any(text.startswith("axial") for text in texts) and any(text.endswith("axial") for text in texts)


def test_times_are_named_where_they_are_given_and_nowhere_else():
    rng = np.random.default_rng(3)
    for sequence in load_sequences().values():
        for _ in range(30):
            assert "73" in training_prompt(sequence, rng, {"TR": 4321.0, "TE": 73.2, "TI": 2345.0})
            assert not any(name in training_prompt(sequence, rng) for name in ("TR ", "TE 7", "time"))


def test_words_do_not_contradict_the_echo_time_beside_them():
    rng = np.random.default_rng(4)
    t2 = load_sequences()["T2"]
    short, long = ([training_prompt(t2, rng, {"TR": 4000.0, "TE": echo, "TI": None}) for _ in range(400)]
                   for echo in (30.0, 100.0))  # fmt: skip
    assert not any("long TE" in text for text in short)
    assert any("long TE" in text for text in long)


def test_only_t1_is_called_a_gradient_echo():
    rng = np.random.default_rng(5)
    for sequence in load_sequences().values():
        texts = " ".join(training_prompt(sequence, rng) for _ in range(400))
        for technique in ("MPRAGE", "gradient echo", "VIBE"):
            assert (technique in texts) == (sequence.weighting == "T1"), (sequence.id, technique)
