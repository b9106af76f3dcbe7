"""The structures of the segmentation, their TG-263 names and SNOMED CT codes, and what clinics call them."""

import json
import re
from dataclasses import dataclass
from functools import lru_cache

from ..resources import resource_path

#: Ends the names of structures that the network drew, wherever other programs list them: what TG-263 (guiding principle
#: on custom qualifiers) puts behind a caret. A list of structures often shows nothing of an object but their names.
PREDICTED = "^SYN"


@dataclass(frozen=True)
class Structure:
    """One segment of ``Resources/structures.json``.

    Attributes:
        name: TG-263 name.
        label: value in the labelmap (0 for External, which overlaps all the others).
        class_name: class of the model that it comes from.
        side: "left", "right" or None; paired organs share one class and are split by side.
        single: in one piece; of several parts (on its side, where it has one) only the largest is it.
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


def tg263_name(name: str) -> str:
    """The TG-263 name (AAPM Task Group 263, 2018) of a structure that a clinic or program named its own way.

    Case, separators and the place of the side do not matter: "parotid_left", "Lt Parotid" and "PAROTID L" are all
    "Parotid_L". Qualifiers do: "GTVp_old", "Parotid_L_opt" and "PRV SpinalCord" are other structures, and so are names
    with TG-263's own signs: "Brain~" (a part), "GTVp!" (cropped), "_Parotid_L" (not for evaluation). They come back as
    they are, without surrounding blanks, as does every name that the table does not know. What NPCSynth predicted comes
    back without ``PREDICTED``.
    """
    name = name.strip().removesuffix(PREDICTED)
    return name if _QUALIFIED.search(name) else _names().get(_key(name), name)


def is_known_structure(name: str) -> bool:
    """Whether a name is a TG-263 name of the table, not one that somebody made up."""
    return name in set(_names().values())


#: A hyphen between two words only parts them ("GTV-N", "Optic Nerve-L"); anywhere else it is a sign as the others are.
_QUALIFIED = re.compile(r"[~+!^*?]|^_|(?<![^\W_]|\s)-|-(?!\s*[^\W_])")


@lru_cache(maxsize=1)
def _names() -> dict[tuple[str, str], str]:
    """(letters and digits, side) -> TG-263 name."""
    table = {}
    for entry in _document()["segments"]:
        for name in (entry["name"], *entry["aliases"]):
            table[_key(name)] = entry["name"]
    for entry in _document()["other_names"]:
        for side in "LR" if entry["paired"] else ("",):
            for name in (entry["name"], *entry["aliases"]):
                table[_key(f"{name} {side}")] = f"{entry['name']}_{side}" if side else entry["name"]
    return table


_SIDES = {word: side for side, words in {"l": "l lt left li links", "r": "r rt right re rechts"}.items()
          for word in words.split()}


def _key(name: str) -> tuple[str, str]:
    """What is left of a name without case, separators and side, and the side ("l", "r" or "")."""
    # A capital after a small letter begins a word: ParotidL, LeftEye.
    words = re.findall(r"\w+", re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).lower())
    sides = [_SIDES[word] for word in words if word in _SIDES]
    if len(sides) != 1 or len(words) == 1:
        return "".join(words), ""
    return "".join(word for word in words if word not in _SIDES), sides[0]
