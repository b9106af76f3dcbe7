"""The MR sequences: what they are called and how they are acquired."""

import difflib
import json
from dataclasses import dataclass
from functools import lru_cache

from ..errors import UsageError
from ..resources import resource_path


@dataclass(frozen=True)
class Sequence:
    """One entry of ``Resources/sequences.json``.

    Attributes:
        id: short name used everywhere, e.g. "T1C".
        name: display name, e.g. "T1-weighted, contrast-enhanced".
        aliases: lower-case forms met in series descriptions and file names.
        contrast_agent, fat_suppressed, inversion_recovery: how it is acquired.
        typical: {"TR": [low, high], "TE": [low, high], "TI": [low, high] or None} in ms.
        weighting: "T1", "T2" or "PD".
        dicom: acquisition parameters that speak for this weighting, any one of them enough: dicts with
            "kind" ("SE" spin echo or "GR" gradient echo) and [low, high] of "TR", "TE", "TI" (ms), "flip" (degrees).
            A rule without "TI" holds only for acquisitions without inversion.
    """

    id: str
    name: str
    aliases: tuple[str, ...]
    contrast_agent: bool
    fat_suppressed: bool
    inversion_recovery: bool
    typical: dict
    weighting: str
    dicom: tuple[dict, ...] = ()


@lru_cache(maxsize=1)
def _document() -> dict:
    return json.loads(resource_path("Resources", "sequences.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def load_sequences() -> dict[str, Sequence]:
    """Every known sequence by id, in the order of the file."""
    sequences = {}
    for entry in _document()["sequences"]:
        entry = {**entry, "aliases": tuple(entry["aliases"]), "dicom": tuple(entry.get("dicom", ()))}
        sequences[entry["id"]] = Sequence(**entry)
    return sequences


def prompt_templates() -> dict:
    """The "prompts" part of the vocabulary file."""
    return _document()["prompts"]


def identification_words() -> dict:
    """The "identification" part of the vocabulary file: words and image types that tell series apart."""
    return _document()["identification"]


def get_sequence(name: str) -> Sequence:
    """The sequence of that id or alias, whatever its case.

    Raises UsageError with the nearest known name when there is none.
    """
    sequences = load_sequences()
    wanted = name.strip().lower()
    names = {}
    for sequence in sequences.values():
        for alias in sequence.aliases:
            names.setdefault(alias, sequence)
    for sequence in sequences.values():
        names[sequence.id.lower()] = sequence
    if wanted in names:
        return names[wanted]
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=0.3)
    hint = f" Did you mean {names[near[0]].id}?" if near else ""
    raise UsageError(f'"{name}" is not a sequence that NPCSynth knows.{hint} Known: {", ".join(sequences)}.')


def parse_sequences(text: str) -> tuple[str, ...]:
    """Ids from a comma-separated list such as "T1C,T2FS", without repeats. Raises UsageError."""
    ids = [get_sequence(part).id for part in text.split(",") if part.strip()]
    if not ids:
        raise UsageError("No sequence was named. Give one or more, for example: T1C,T2FS.")
    return tuple(dict.fromkeys(ids))
