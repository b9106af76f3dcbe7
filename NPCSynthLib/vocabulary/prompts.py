"""Text that describes a sequence to the model. Prompts never carry diagnosis or identity."""

import numpy as np

from .sequences import Sequence, prompt_templates


def canonical_prompt(sequence: Sequence) -> str:
    """The one prompt that a routine run uses for this sequence."""
    return prompt_templates()["canonical"].format(name=sequence.name)


def training_prompt(sequence: Sequence, rng: np.random.Generator, timing: dict | None = None) -> str:
    """A random wording for this sequence.

    Args:
        timing: true {"TR", "TE", "TI"} in ms when they are known (simulated images); they are then
            named when the wording has a place for them. Without it only wordings without numbers are used.
    """
    templates = prompt_templates()
    wordings = [templates["canonical"], *templates["paraphrases"]]
    if timing is None:
        wordings = [w for w in wordings if "{TR}" not in w]
    words = {
        "name": sequence.name,
        "id": sequence.id,
        "weighting": sequence.weighting,
        "fat": rng.choice(templates["fat"][str(sequence.fat_suppressed).lower()]),
        "agent": rng.choice(templates["agent"][str(sequence.contrast_agent).lower()]),
    }
    if timing is not None:
        words |= {key: round(value) for key, value in timing.items() if value is not None}
    wording = str(rng.choice(wordings))
    text = wording.format(**words)
    if sequence.inversion_recovery:
        if timing is not None and timing.get("TI") and "{TR}" in wording:
            text += ", " + str(rng.choice(templates["inversion"])).format(TI=round(timing["TI"]))
        elif "FLAIR" not in text:
            text += ", FLAIR"
    return text
