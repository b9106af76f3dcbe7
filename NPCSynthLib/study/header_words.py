"""What a header says in words: its values as text and numbers, and descriptions made comparable."""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache

#: Prefixes that scanners and people glue to T1/T2, as in AXT1, sT2W, ceT1, 3DT1.
_GLUED = "ax|axial|oax|tra|sag|osag|cor|ocor|obl|3d|2d|ce|e|s|pre|post|gd|iso|tse|fse|fs|nav|cube|w"
_PLANE = "ax|axial|oax|tra|transversal|sag|sagittal|osag|cor|coronal|ocor"
#: What "pre" and "post" may stand before without meaning contrast agent: treatments, doses, and the time since one.
_TREATMENT = (
    r"x?rt|rtx|[ei]brt|imrt|igrt|vmat|sbrt|sabr|srs|impt|pbt|tomotherapy|brachy|brachytherapy|protons?(?! den)"
    r"|c?crt|ct?rt|chemo ?rt|chemo ?radi(?:o|ation|otherapy)|ic|nact?|tpf|gp|chemo|chemotherapy|induction|neoadjuvant"
    r"|op|operative|surgery|resection|treatment|tx|therapy|radiation|irradiation|radiotherapy|bestrahlung|radioterapia"
    r"|\d+(?: \d+)? ?c?gy|\d+ ?(?:months?|mo|mths?|weeks?|wks?|years?|yrs?)(?: (?:rt|c?crt))?"
)
#: Ideographs, kana and Hangul, which are written without spaces between words.
_EAST_ASIAN = "\u2e80-\u9fff\uac00-\ud7af"
_WEIGHTING = re.compile(rf"(?<![a-z0-9])({_GLUED})?t([12])(?:w(?:i|eighted)?)?(?!star|[0-9])")


def normalize_text(text: str) -> str:
    """Words of a description as one lower-case string with single spaces, padded with a space at both ends.

    Accents and punctuation go (a "+" stays: it means contrast), T1W/T1WI become T1, glued forms are cut
    ("AXT1FS" -> " ax t1 fs "), T2* becomes t2star.
    """
    text = unicodedata.normalize("NFKD", text.lower())
    text = unicodedata.normalize("NFC", "".join(c for c in text if not unicodedata.combining(c)))
    text = re.sub(r"([tr])2[\s_-]*\*", r"\g<1>2star ", text)
    text = re.sub(rf"([{_EAST_ASIAN}]+)", r" \1 ", text)
    text = re.sub(r"(?<![a-z])(c|iv|gd|gado|km|inj|k)-(?![a-z0-9])", " non contrast ", text)
    text = re.sub(r"[^\w+]|_", " ", text)
    text = re.sub(r"\+", " + ", text)
    text = re.sub(r"\b([ctl])\s*spine", r"\1spine", text)
    text = re.sub(r"\bm d c\b", "mdc", text)
    # A lone letter C beside a named plane is no plane itself: it stands for contrast.
    if re.search(rf"\b({_PLANE})\b", text):
        text = re.sub(r"(?<=[a-z0-9] )c$|(?<=[a-z0-9] )c(?= [^+])", "+c", text.strip())
    text = re.sub(r"\bpost(erior)? fossa", "fossa", text)
    text = re.sub(r"(?<![a-z])t2 ?star", "t2star", text)
    text = _WEIGHTING.sub(lambda m: f" {m[1] or ''} t{m[2]} ", text)
    # Flow compensation is a detail of any sequence, no flow that is measured.
    text = re.sub(r"\bflow ?comp(ensat\w*)?\b", " ", text)
    # Before or after a treatment is not before or after contrast agent.
    text = re.sub(rf"\b(pre|post) ?({_TREATMENT})\b", " ", text)
    text = re.sub(r"\b(fs|gd|gad|km|c|post)(fs|gd|gad|km|c|post)\b", r"\1 \2", text)
    text = re.sub(r"\bc \+|\+ c\b", " +c ", text)
    return f" {' '.join(text.split())} "


@lru_cache(maxsize=4096)
def _phrase(words: str) -> str:
    return normalize_text(words)


def find_phrase(text: str, phrases) -> str | None:
    """The longest of ``phrases`` that stands in ``text`` as whole words; East Asian ones also inside words."""
    hits = [_phrase(p).strip() for p in phrases if _stands_in(p, text)]
    return max(hits, key=len) if hits else None


def _stands_in(phrase: str, text: str) -> bool:
    normal = _phrase(phrase)
    return (normal.strip() if re.search(f"[{_EAST_ASIAN}]", normal) else normal) in text


def texts(value) -> list[str]:
    """A header value as a list of strings, whatever it was."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part for part in value.split("\\") if part.strip()]
    if isinstance(value, (list, tuple)) or hasattr(value, "__iter__"):
        return [str(part) for part in value if str(part).strip()]
    return [str(value)]


def number_of(metadata: Mapping, *keywords: str) -> float | None:
    """The first value of the first keyword that holds a number."""
    for keyword in keywords:
        for text in texts(metadata.get(keyword))[:1]:
            try:
                return float(text)
            except ValueError:
                continue
    return None


def text_of(metadata: Mapping, keyword: str) -> str:
    """All values of a keyword as one string, "" when it is missing."""
    return " ".join(texts(metadata.get(keyword)))


def image_type_of(metadata: Mapping) -> list[str]:
    """The values of Image Type, then of the frame's, in upper case."""
    return [t.strip().upper() for k in ("ImageType", "FrameType") for t in texts(metadata.get(k))]


def dixon_part(text: str) -> str | None:
    """Which image of a Dixon acquisition a description means: "water", "fat", "in" or "opposed" phase."""
    if re.match(r" fat (?!sat|sup)", text):
        return "fat"
    if "dixon" not in text and " ideal " not in text:
        return None
    letters = {"water": r" w (?!o )", "fat": " (f|ff|fat) (?!sat|sup)", "in": " (in|ip) ", "opposed": " (opp|op|out) "}
    return next((part for part, letter in letters.items() if re.search(letter, text)), None)


def echo_kind(metadata: Mapping) -> str | None:
    """"SE" or "GR", else None when the header leaves it open."""
    echo = text_of(metadata, "EchoPulseSequence").upper()
    if echo in ("GRADIENT", "SPIN"):
        return "GR" if echo == "GRADIENT" else "SE"
    scanning = [s.upper() for s in texts(metadata.get("ScanningSequence"))]
    if "GR" in scanning:
        return "GR"
    if "SE" in scanning:
        return "SE"
    pulse = (text_of(metadata, "SequenceName") + " " + text_of(metadata, "PulseSequenceName")).lower()
    if re.search(r"tfl|fl[23]d|fspgr|spgr|bravo|tfe|ffe|mprage|vibe|gre\b|me?fgre", pulse):
        return "GR"
    if re.search(r"tse|fse|spc|tir|haste|cube|\bh2d|\bse", pulse):
        return "SE"
    flip = number_of(metadata, "FlipAngle")
    if flip is not None and flip <= 30 and (number_of(metadata, "EchoTime") or 0) < 10:
        return "GR"
    return "SE" if "IR" in scanning else None
