"""The MR sequences and structures that NPCSynth knows, read from ``Resources/*.json``."""

from .prompts import canonical_prompt, training_prompt
from .sequences import Sequence, get_sequence, load_sequences, parse_sequences
from .structures import PREDICTED, Structure, is_known_structure, load_classes, load_structures, tg263_name

__all__ = [
    "PREDICTED", "Sequence", "Structure", "canonical_prompt", "get_sequence", "is_known_structure", "load_classes",
    "load_sequences", "load_structures", "parse_sequences", "tg263_name", "training_prompt",
]
