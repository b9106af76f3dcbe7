"""The structures of the segmentation, their TG-263 names and SNOMED CT codes."""

import json
from dataclasses import dataclass
from functools import lru_cache

from ..resources import resource_path


@dataclass(frozen=True)
class Structure:
    """One segment of ``Resources/structures.json``.

    Attributes:
        name: TG-263 name.
        label: value in the labelmap (0 for External, which overlaps all the others).
        class_name: class of the model that it comes from.
        side: "left", "right" or None; paired organs share one class and are split by side.
        single: one organ in one piece; of several parts only the largest is it.
        color: (r, g, b) in 0..1.
        aliases: other names met in clinics.
        code: {"category", "type", "modifier"} as [scheme, value, meaning], modifier may be None.
    """

    name: str
    label: int
    class_name: str
    side: str | None
    single: bool
    color: tuple[float, float, float]
    aliases: tuple[str, ...]
    code: dict


@lru_cache(maxsize=1)
def _document() -> dict:
    return json.loads(resource_path("Resources", "structures.json").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def load_classes() -> tuple[str, ...]:
    """Class names of the segmentation head, in the order of its channels."""
    return tuple(_document()["classes"])


@lru_cache(maxsize=1)
def load_structures() -> tuple[Structure, ...]:
    """Every structure, in order of label, External last."""
    return tuple(
        Structure(
            name=s["name"],
            label=s["label"],
            class_name=s["class"],
            side=s.get("side"),
            single=s.get("single", False),
            color=tuple(s["color"]),
            aliases=tuple(s["aliases"]),
            code=s["code"],
        )
        for s in _document()["segments"]
    )
