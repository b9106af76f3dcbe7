"""Text that describes a sequence to the model. Prompts never carry diagnosis or identity."""

import numpy as np

from .sequences import Sequence, prompt_templates


def canonical_prompt(sequence: Sequence) -> str:
    """The one prompt that a routine run uses for this sequence."""
    return prompt_templates()["canonical"].format(name=sequence.name)


def training_prompt(sequence: Sequence, rng: np.random.Generator, timing: dict | None = None) -> str:
    """A random wording for this sequence: a whole sentence of the vocabulary, or its pieces in any order.

    Args:
        timing: true {"TR", "TE", "TI"} in ms where they are to be named (simulated images).
    """
    if rng.random() < 0.5:
        return _free_wording(sequence, rng, timing)
    templates = prompt_templates()
    wordings = [templates["canonical"], *templates["paraphrases"]] if timing is None else templates["timed"]
    text = str(rng.choice(wordings)).format(
        name=sequence.name,
        id=sequence.id,
        weighting=sequence.weighting,
        fat=rng.choice(templates["fat"][str(sequence.fat_suppressed).lower()]),
        agent=rng.choice(templates["agent"][str(sequence.contrast_agent).lower()]),
        **_rounded(timing),
    )
    if sequence.inversion_recovery:
        if timing is not None and timing.get("TI"):
            text += ", " + str(rng.choice(templates["inversion"])).format(TI=round(timing["TI"]))
        if "FLAIR" not in text:
            text += ", FLAIR"
    return text


def _rounded(timing: dict | None) -> dict[str, int]:
    return {name: round(value) for name, value in (timing or {}).items() if value is not None}


def _free_wording(sequence: Sequence, rng: np.random.Generator, timing: dict | None) -> str:
    """Pieces in any order. What a sequence has is always said; what it has not, and the rest, half of the time."""
    templates = prompt_templates()
    free = templates["free"]

    def piece(choices: list[str], chance: float = 0.5) -> list[str]:
        return [str(rng.choice(choices))] if rng.random() < chance else []

    weightings = free["weighting"]["inversion" if sequence.inversion_recovery else sequence.weighting]
    if timing is not None and timing["TE"] < sequence.typical["TE"][0]:
        weightings = [words for words in weightings if not words.startswith("long TE")]
    weighting = piece(weightings, 1)
    fat = piece(templates["fat"][str(sequence.fat_suppressed).lower()], 1 if sequence.fat_suppressed else 0.3)
    if sequence.weighting == "T2" and sequence.fat_suppressed and rng.random() < 0.25:
        weighting, fat = piece(free["inverted_fat"], 1), []
    techniques = free["technique"]["any"] + free["technique"].get(sequence.weighting, [])
    agent = piece(templates["agent"][str(sequence.contrast_agent).lower()], 1 if sequence.contrast_agent else 0.3)
    inner = [agent, weighting, fat, piece(techniques, 0.4), piece(free["plane"], 0.3)]
    said = [words for words in inner if words]
    said = [said[n][0] for n in rng.permutation(len(said))]
    noun, region = piece(free["noun"], 0.7), piece(free["region"], 0.5)
    said = said + noun + region if rng.random() < 0.6 else noun + region + said
    if timing is not None:
        said += [str(rng.choice(free["timing"])).format(**_rounded(timing))]
    return str(rng.choice((" ", " ", ", "))).join(said)
