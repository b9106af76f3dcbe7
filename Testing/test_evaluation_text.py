"""Own words for a target, and the section of the proof that asks whether the text is real."""

import itertools
import re

import numpy as np
import pytest
import torch

pytest.importorskip("open_clip", reason="free text needs open_clip_torch")
pytest.importorskip("skimage", reason="the evaluation needs scikit-image (extra: train)")

from tiny_weights import write_tiny_weights

from NPCSynthLib.evaluation import text
from NPCSynthLib.evaluation.phantom_cases import phantom, scan
from NPCSynthLib.evaluation.section import Context
from NPCSynthLib.inference import wording
from NPCSynthLib.inference.synthesizer import Synthesizer
from NPCSynthLib.phantom.signal import typical_protocol
from NPCSynthLib.vocabulary import canonical_prompt, get_sequence, load_sequences, training_prompt
from NPCSynthLib.vocabulary.sequences import prompt_templates

SMALL = (8, 64, 56)


@pytest.fixture(scope="module")
def synthesizer(tmp_path_factory):
    return Synthesizer(write_tiny_weights(tmp_path_factory.mktemp("weights"), ("T1", "T1FS", "T2")), "cpu")


def template_prompts():
    """Every whole sentence that training can draw, numbers as "#", and many wordings in pieces."""
    templates = prompt_templates()
    rng = np.random.default_rng(0)
    for s in load_sequences().values():
        yield from (training_prompt(s, rng) for _ in range(300))
    for s in load_sequences().values():
        words = {"name": s.name, "id": s.id, "weighting": s.weighting, "TR": "#", "TE": "#"}
        fat, agent = (templates[k][str(v).lower()] for k, v in (("fat", s.fat_suppressed), ("agent", s.contrast_agent)))
        sentences = [templates["canonical"], *templates["paraphrases"], *templates["timed"]]
        for wording_, f, a in itertools.product(sentences, fat, agent):
            yield wording_.format(**words, fat=f, agent=a)


def test_paraphrases_are_not_what_training_meets():
    met = {re.sub(r"\W+", " ", p).lower() for p in template_prompts()}
    for sequence in load_sequences():
        wordings = text.paraphrases(sequence)
        assert len(set(wordings)) >= 7
        for words in wordings:
            assert re.sub(r"\W+", " ", re.sub(r"\d+", "#", words)).lower() not in met, words


def test_every_prompt_with_a_meaning_names_a_sequence_and_no_nonsense_does():
    for prompt in itertools.chain(template_prompts(), *map(text.paraphrases, load_sequences())):
        assert wording.names_a_sequence(prompt), prompt
    for prompt in text.NONSENSE:
        assert not wording.names_a_sequence(prompt), prompt


def test_right_prompt_wins_when_words_are_heeded_and_empty_words_cost(monkeypatch):
    anatomy = phantom(1, SMALL)
    [case] = text.phantom_questions(anatomy, ["T1C"])
    monkeypatch.setattr(text, "features_of", lambda _, prompt: prompt)
    right = canonical_prompt(get_sequence("T1C"))

    class Obedient:
        def decode(self, study, texts):
            return [case.truth if words == right else case.truth * 0.3 for words in texts]

    rows = text.ask(Obedient(), case, ("T1", "T1C", "T2"))
    prompts = {r["words"]: r for r in rows if r["kind"] == "prompt"}
    assert max(prompts, key=lambda s: prompts[s]["ssim"]) == "T1C"
    assert prompts["T1C"]["agreement"] == 99
    [empty] = [r for r in rows if r["kind"] == "empty"]
    assert prompts["T1C"]["psnr"] - empty["psnr"] > 3
    table = text.swap_table([("phantom 1", "T1C", rows)], ("T1", "T1C", "T2"))
    assert table.rows[0][-2:] == ("yes", "yes")


@pytest.mark.parametrize("target", ["T2", "T2FS"])
def test_echo_times_are_judged_by_the_signal_equations(monkeypatch, target):
    anatomy = phantom(1, SMALL)
    monkeypatch.setattr(text, "features_of", lambda _, prompt: int(re.search(r"TE (\d+)", prompt)[1]))

    class Physicist:
        def __init__(self, sign):
            self.sign = sign

        def decode(self, study, times):
            images = [scan(anatomy, typical_protocol(target)).array * 0 for _ in times]
            for image, te in zip(images, times, strict=True):
                image += 0.5 - self.sign * te / 1000
                image[anatomy.labels == anatomy.tissue_names.index("csf")] = 0.5 + self.sign * te / 1000
            return images

    right, wrong = (text.sweep(Physicist(sign), anatomy, target, times=(30, 60, 90, 120)) for sign in (1, -1))
    for tissue in ("muscle", "tumor"):
        ranks = [text.rank_agreement([r for r in rows if r["tissue"] == tissue]) for rows in (right, wrong)]
        assert ranks == [pytest.approx(1), pytest.approx(-1)]
    assert text.slope([{"made": 0.5 + n / 1000, "physics": n / 10} for n in range(4)]) == pytest.approx(0.01)
    assert text.rank_agreement([{"made": 0.5, "physics": n} for n in range(4)]) is None


def test_section_runs_on_phantoms_alone(synthesizer, tmp_path, monkeypatch):
    monkeypatch.setattr(text, "phantom", lambda seed: phantom(seed, (2, 32, 32)))
    monkeypatch.setattr(text, "PARAPHRASES", {s: p[:1] for s, p in text.PARAPHRASES.items()})
    (tmp_path / "data").mkdir()
    without = write_tiny_weights(tmp_path / "runs" / "second", configuration="no-t1fs")
    context = Context(synthesizer, tmp_path / "data", tmp_path / "out", quick=True,
                      baselines={"second run": without})
    section = text.run(context)
    assert len(section.tables) == 7 and "of 3 rows" in section.text
    assert all(len(row) == len(table.columns) for table in section.tables for row in table.rows)
    with torch.inference_mode():  # everything was kept: asked again, nothing is computed
        monkeypatch.setattr(text, "ask", lambda *_: pytest.fail("asked again"))
        assert text.run(context).text == section.text
