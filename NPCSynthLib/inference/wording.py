"""Words of one's own for a target: do they name a sequence at all, and does the model read them as that one?

Distance from the known prompts in the text embedding was tried for the first question and cannot answer it: the tower
brings nonsense as near to some known prompt as it does a good paraphrase (``evaluation.text`` has the figures). So
words are looked up in the vocabulary, and the embedding says which sequence the model takes them for.
"""

import re

import torch

from ..errors import UsageError
from ..model.network import TextFeatures
from ..model.text import NUMBER
from ..model.weights import LoadedModel
from ..phantom.signal import ANY_ECHO, ECHO_TIMES_MS
from ..study.header_words import find_phrase, normalize_text
from ..vocabulary import canonical_prompt, get_sequence, load_sequences

_ECHO_TIME = re.compile(r"\b(?:TE|echo time)\D{0,4}(\d+(?:\.\d+)?)", re.IGNORECASE)


def names_a_sequence(prompt: str) -> bool:
    """Whether any word that the vocabulary knows for any sequence stands in the prompt."""
    known = [word for s in load_sequences().values() for word in (s.id, s.name, *s.aliases)]
    return find_phrase(normalize_text(prompt), known) is not None


@torch.inference_mode()
def similarities(loaded: LoadedModel, features: TextFeatures) -> dict[str, float]:
    """Cosine, in the space shared with images, of a prompt with the canonical one of each sequence that was trained."""
    ids = list(loaded.manifest["prompts"])
    known = [loaded.text_features(loaded.manifest["prompts"][i])[0].pooled for i in ids]
    device = loaded.model.logit_scale.device
    vectors = loaded.model.text_embedding(torch.cat([*known, features.pooled]).to(device))
    return dict(zip(ids, (vectors[:-1] @ vectors[-1]).tolist(), strict=True))


def check_wording(loaded: LoadedModel, target: str, prompt: str) -> list[str]:
    """Warnings about a prompt in free text for a target (sequence id).

    Raises UsageError when the prompt names no MR sequence.
    """
    if not names_a_sequence(prompt):
        raise UsageError(
            f'The words given for {target} name no MR sequence. Say which one it is, for example "'
            f'{canonical_prompt(get_sequence(target))}".'
        )
    warnings = [f"{target} was made from your own words; check that they describe {target}. Its uncertainty was "
                "checked for the usual words alone."]
    if NUMBER.search(prompt):
        warnings.append(_about_numbers(loaded, target, prompt))
    similar = similarities(loaded, loaded.text_features(prompt)[0])
    taken_for = max(similar, key=similar.get)
    if target in similar and taken_for != target:
        warnings.append(
            f"The model takes your words for {target} to mean {taken_for}: the image may look like {taken_for}. "
            f'Other words may do better, or none: then "{loaded.manifest["prompts"][target]}" is used.'
        )
    return warnings


def _about_numbers(loaded: LoadedModel, target: str, prompt: str) -> str:
    low, high = ECHO_TIMES_MS
    if not (target in ANY_ECHO and loaded.manifest.get("reads_echo_times")):
        return (f"Leave numbers out of your words for {target}: the model is meant to pass over them, and often does "
                "not. The image may be wrong.")
    told = _ECHO_TIME.search(prompt)
    if told and not low <= float(told[1]) <= high:
        return (f"The model learned echo times from {low:g} to {high:g} ms: what it makes of {told[1]} ms for {target} "
                "is a guess.")
    return (f"An echo time in your words changes the contrast of {target} as learned from simulated images, and only "
            "roughly: look at it. Leave other numbers out, they can spoil the image.")
