"""Takes out of sentences what may tell who the patient is: for a report that names nobody unless asked to."""

import re
from collections.abc import Callable, Iterable
from functools import lru_cache

from ..resources import resource_path
from ..vocabulary import canonical_prompt, get_sequence, load_sequences

#: Stands for what was taken out.
GAP = "…"
_A_SERIES = "a series"
#: Unique identifiers, dates, times of day, file names and paths.
_TELLING = re.compile(
    r"\b\d+(?:\.\d+){4,}\b"
    r"|\b(?:19|20)\d{2}[-/.]?[01]\d[-/.]?[0-3]\d\b|\b[0-3]?\d[/.][01]?\d[/.](?:19|20)\d{2}\b"
    r"|\b[0-2]?\d:[0-5]\d(?::[0-5]\d(?:\.\d+)?)?\b"
    r"|\S*[/\\]\S*[/\\]\S*|\S+\.(?:dcm|ima|nii|nii\.gz|nrrd|nhdr|mha|mhd)\b",
    re.IGNORECASE,
)
_QUOTED = re.compile(r'"[^"]*"|“[^”]*”')
_WORD = re.compile(r"[^\W_]+")
#: Words of ordinary sentences that a series may be called by as well.
_ORDINARY = frozenset("a an and are as at by for from in is it not of on or the this to was with series".split())


def discreet(document: dict) -> Callable[[str], str]:
    """A function that takes out of a sentence about this result what may lead to the patient.

    Series descriptions, file names and prompts in own words may hold a name: they go, as ``without`` does it.

    Args:
        document: the provenance of the result, see ``provenance``.
    """
    names = [str(source.get("description", "")) for source in document["sources"]]
    names += [str(refused["series"]) for refused in document["refused"]]
    return without(names, [output["prompt"] for output in document["outputs"] if not is_usual_prompt(output)])


def without(names: Iterable[str], others: Iterable[str] = ()) -> Callable[[str], str]:
    """A function that takes names of series, files or folders out of a sentence, and all words of them and of others.

    Everything in quotation marks goes too, which is how our sentences name a series, and so do UIDs, dates, times and
    file names. Words of the MR vocabulary stay. A word too few is no harm.
    """
    names = list(names)
    private = {word for name in (*names, *others) for word in words(name)}
    private = {w for w in private - _usual_words() if not (w.isdigit() and len(w) < 3)}
    sequences = {name.casefold() for name in load_sequences()}
    longest = sorted({n for n in names if n.strip() and n.strip().casefold() not in sequences}, key=len, reverse=True)

    def clean(sentence: str) -> str:
        for name in longest:
            sentence = sentence.replace(name, _A_SERIES)
        sentence = _TELLING.sub(GAP, _QUOTED.sub(_A_SERIES, sentence))
        return _WORD.sub(lambda word: GAP if word[0].casefold() in private else word[0], sentence)

    return clean


def is_usual_prompt(output: dict) -> bool:
    """Whether an entry of the document's outputs was made with the vocabulary's own words."""
    return output["prompt"] == canonical_prompt(get_sequence(output["sequence"]))


def words(text: str) -> set[str]:
    """Its words, without case."""
    return {word.casefold() for word in _WORD.findall(text)}


@lru_cache(maxsize=1)
def _usual_words() -> frozenset[str]:
    vocabulary = resource_path("Resources", "sequences.json").read_text(encoding="utf-8")
    return _ORDINARY | words(vocabulary)
