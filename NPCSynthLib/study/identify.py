"""Tells which MR sequence a series is from its header, or from the file name when there is no header.

What the words and numbers mean is data (``Resources/sequences.json``): aliases and acquisition rules of each
sequence, and the "identification" words for contrast agent, fat suppression and series that cannot be used.
"""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePath

from ..vocabulary import Sequence, load_sequences
from ..vocabulary.sequences import identification_words

#: SOP classes that hold MR images: classic, enhanced, legacy converted enhanced.
MR_IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4",
)
_SPECTROSCOPY_CLASS = "1.2.840.10008.5.1.4.1.1.4.2"

#: A refusal with at least this confidence rests on what the series says it is, not on missing information.
SURE_REFUSAL = 0.8

#: Prefixes that scanners and people glue to T1/T2, as in AXT1, sT2W, ceT1, 3DT1.
_GLUED = "ax|axial|oax|tra|sag|osag|cor|ocor|obl|3d|2d|ce|e|s|pre|post|gd|iso|tse|fse|fs|nav|cube|w"
#: What "pre" and "post" may stand before without meaning contrast agent.
_TREATMENT = "x?rt|c?crt|ct?rt|rtx|op|operative|surgery|treatment|tx|therapy|radiation|radiotherapy|chemo|chemotherapy"
_WEIGHTING = re.compile(rf"(?<![a-z0-9])({_GLUED})?t([12])(?:w(?:i|eighted)?)?(?!star|[0-9])")


@dataclass(frozen=True)
class Identification:
    """What a series is.

    Attributes:
        sequence: id in the vocabulary, or None when the series cannot be used or nothing says what it is.
        confidence: 0..1, how sure ``sequence`` is; where it is None, how sure it is that the series is
            unusable (``SURE_REFUSAL`` and above: scout, diffusion, other modality ...; below: nothing tells).
        reason: why, in words for a person; holds no patient data.
    """

    sequence: str | None
    confidence: float
    reason: str


@dataclass(frozen=True)
class _Weighting:
    """Evidence from one side (words or numbers): sequence ids it allows and how it says so."""

    ids: frozenset[str]
    said: str


def normalize_text(text: str) -> str:
    """Words of a description as one lower-case string with single spaces, padded with a space at both ends.

    Accents and punctuation go (a "+" stays: it means contrast), T1W/T1WI become T1, glued forms are cut
    ("AXT1FS" -> " ax t1 fs "), T2* becomes t2star.
    """
    text = unicodedata.normalize("NFKD", text.lower())
    text = "".join(c for c in text if not unicodedata.combining(c))
    text = re.sub(r"([tr])2[\s_-]*\*", r"\g<1>2star ", text)
    text = re.sub(r"([\u2e80-\u9fff]+)", r" \1 ", text)
    text = re.sub(r"(?<![a-z])c-(?![a-z0-9])", " non contrast ", text)
    text = re.sub(r"[^\w+]|_", " ", text)
    text = re.sub(r"\+", " + ", text)
    text = re.sub(r"\b([ctl])\s*spine", r"\1spine", text)
    text = re.sub(r"\bpost(erior)? fossa", "fossa", text)
    # Before or after a treatment is not before or after contrast agent.
    text = re.sub(rf"\b(pre|post) ?({_TREATMENT})\b", " ", text)
    text = re.sub(r"(?<![a-z])t2 ?star", "t2star", text)
    text = _WEIGHTING.sub(lambda m: f" {m[1] or ''} t{m[2]} ", text)
    text = re.sub(r"\b(fs|gd|gad|km|c|post)(fs|gd|gad|km|c|post)\b", r"\1 \2", text)
    text = re.sub(r"\bc \+|\+ c\b", " +c ", text)
    return f" {' '.join(text.split())} "


@lru_cache(maxsize=4096)
def _phrase(words: str) -> str:
    return normalize_text(words)


def _found(text: str, phrases) -> str | None:
    """The longest of ``phrases`` that stands in ``text`` as whole words; Chinese also inside words."""
    hits = [_phrase(p).strip() for p in phrases if _stands_in(p, text)]
    return max(hits, key=len) if hits else None


def _stands_in(phrase: str, text: str) -> bool:
    if not phrase.isascii() and any("\u2e80" <= c <= "\u9fff" for c in phrase):
        return phrase.strip() in text
    return _phrase(phrase) in text


def _texts(value) -> list[str]:
    """A header value as a list of strings, whatever it was."""
    if value is None:
        return []
    if isinstance(value, str):
        return [part for part in value.split("\\") if part.strip()]
    if isinstance(value, (list, tuple)) or hasattr(value, "__iter__"):
        return [str(part) for part in value if str(part).strip()]
    return [str(value)]


def _number(metadata: Mapping, *keywords: str) -> float | None:
    for keyword in keywords:
        for text in _texts(metadata.get(keyword))[:1]:
            try:
                return float(text)
            except ValueError:
                continue
    return None


def _text(metadata: Mapping, keyword: str) -> str:
    return " ".join(_texts(metadata.get(keyword)))


def _image_type(metadata: Mapping) -> list[str]:
    return [t.strip().upper() for k in ("ImageType", "FrameType") for t in _texts(metadata.get(k))]


def identify(metadata: Mapping, name: str = "") -> Identification:
    """Tell which sequence a series is.

    Args:
        metadata: header facts by DICOM keyword (strings, numbers, lists of strings), as ``Volume.metadata`` holds
            them; functional-group attributes of enhanced MR under the keywords of classic MR.
        name: series description or file name; decides alone where ``metadata`` holds nothing of the acquisition.
    """
    if not _has_header(metadata):
        return _identify_by_name(name or _text(metadata, "source_path"))
    refusal = _refuse_by_kind(metadata)
    if refusal:
        return Identification(None, 0.98, refusal)
    description = _text(metadata, "SeriesDescription") or name
    protocol = _text(metadata, "ProtocolName")
    refusal = _refuse_by_words(metadata, description)
    if refusal:
        return Identification(None, 0.95, refusal)
    # GE writes the name of the whole exam into ProtocolName, so that it counts only where the description is silent.
    text = normalize_text(description)
    spoken = description
    if not _word_evidence(text) and protocol:
        refusal = _refuse_by_words(metadata, protocol)
        if refusal:
            return Identification(None, 0.9, refusal)
        text = normalize_text(f"{description} {protocol}")
        spoken = protocol
    refusal = _refuse_by_numbers(metadata)
    if refusal:
        return Identification(None, 0.85, refusal)
    return _decide(metadata, text, spoken)


def _has_header(metadata: Mapping) -> bool:
    keys = ("SOPClassUID", "Modality", "SeriesDescription", "ProtocolName", "RepetitionTime", "EchoTime", "ImageType",
            "ScanningSequence")
    return any(_texts(metadata.get(k)) for k in keys)


def _identify_by_name(name: str) -> Identification:
    stem = re.sub(r"(\.nii|\.nrrd|\.nhdr|\.mh[ad]|\.seg|\.gz|\.dcm)+$", "", PurePath(name).name, flags=re.IGNORECASE)
    if re.search(r"\.seg\.nrrd$", name, re.IGNORECASE):
        return Identification(None, 0.9, "the file name says that it is a segmentation, not an image")
    # BIDS entities other than ce- and acq- name the person and the session, not the sequence.
    stem = re.sub(r"(?<![a-zA-Z0-9])(sub|ses|run|echo|space|res)-[a-zA-Z0-9]+", " ", stem)
    text = normalize_text(stem)
    words = identification_words()
    for rule in [*words["refuse_file"], *words["refuse"]]:
        hit = _found(text, rule["words"]) or next((p for p in rule.get("stems", ()) if p in text), None)
        if hit:
            return Identification(None, 0.85, f'the file name says "{hit}": {rule["reason"]}')
    classes = _word_evidence(text)
    if len(_classes(classes)) != 1:
        what = "names more than one sequence" if classes else "does not say which sequence it is"
        return Identification(None, 0.2, f"there is no header, and the file name {what}; name the sequence yourself")
    sequence, notes, _ = _choose(next(iter(_classes(classes))), classes, _contrast(text, {}), _fat(text, {}))
    if sequence is None:
        return Identification(None, 0.4, "; ".join(notes))
    said = max(classes.values(), key=len)
    reason = f'no header; the file name says "{said}"' + "".join(f"; {n}" for n in notes)
    return Identification(sequence.id, 0.5 if notes else 0.6, reason)


# --- what cannot be used ---------------------------------------------------------------------------------------------

def _refuse_by_kind(metadata: Mapping) -> str | None:
    """The reason why this kind of object is never a source image, else None."""
    modality = _text(metadata, "Modality").upper()
    sop_class = _text(metadata, "SOPClassUID")
    if sop_class == _SPECTROSCOPY_CLASS:
        return "MR spectroscopy, not an image"
    if sop_class and sop_class not in MR_IMAGE_CLASSES:
        kind = f"modality {modality}" if modality and modality != "MR" else "not an MR image object"
        return f"{kind}: only MR images can be used"
    if modality and modality != "MR":
        return f"modality {modality}: only MR images can be used"
    if _text(metadata, "SyntheticData").upper() == "YES":
        return "an image that was synthesized, not acquired"
    if _text(metadata, "ConversionType").upper() in ("DV", "DI", "DF", "SD", "SI", "DRW", "WSD") \
            and not _texts(metadata.get("EchoTime")) and _text(metadata, "BurnedInAnnotation").upper() != "NO":
        return "a secondary capture, not an acquired image"
    if (_number(metadata, "SamplesPerPixel") or 1) > 1:
        return "a color image (screenshot or color map), not an MR sequence"
    if _text(metadata, "BurnedInAnnotation").upper() == "YES":
        return "a screenshot with burned-in text"
    return None


def _refuse_by_words(metadata: Mapping, description: str) -> str | None:
    """The reason why image type, pulse sequence or description rule the series out, else None."""
    image_type = _image_type(metadata)
    pulse = _text(metadata, "SequenceName").lower() + " " + _text(metadata, "PulseSequenceName").lower()
    pulse = pulse.replace("*", "")
    text = normalize_text(description)
    for rule in identification_words()["refuse"]:
        kind = next((t for t in image_type if t in rule.get("image_type", ())), None)
        if kind:
            return f"{rule['reason']} (image type {kind})"
        hit = _found(text, rule["words"])
        if hit:
            return f'{rule["reason"]} (described as "{hit}")'
        stem = next((p for p in rule.get("stems", ()) if p in text), None)
        if stem:
            return f'{rule["reason"]} (described as "{stem}")'
        codes = rule.get("pulse_sequence", ())
        code = next((c for c in codes if re.search(rf"(?<![a-z]){re.escape(c)}", pulse)), None)
        if code:
            return f"{rule['reason']} (pulse sequence {code})"
    if _dixon_part(text) in ("fat", "opposed"):
        return "the fat or opposed-phase image of a Dixon acquisition"
    component = _text(metadata, "ComplexImageComponent").upper()
    if component in ("PHASE", "IMAGINARY", "MIXED") or (
            {"P", "PHASE", "PHASE MAP", "I", "IMAGINARY"} & set(image_type[2:])):
        return "a phase or complex image, not a magnitude image"
    if image_type[:1] == ["DERIVED"] and any(re.search(r"MPR|MIP|RESAMPLED|COMPOSED|REFORMAT", t) for t in image_type):
        return "a reformat derived from another series; use the series that was acquired"
    return None


def _dixon_part(text: str) -> str | None:
    """Which image of a Dixon acquisition a description means: "water", "fat", "in" or "opposed" phase."""
    if re.match(r" fat (?!sat|sup)", text):
        return "fat"
    if "dixon" not in text and " ideal " not in text:
        return None
    letters = {"water": r" w (?!o )", "fat": " (f|fat) (?!sat|sup)", "in": " (in|ip) ", "opposed": " (opp|op|out) "}
    return next((part for part, letter in letters.items() if re.search(letter, text)), None)


def _refuse_by_numbers(metadata: Mapping) -> str | None:
    """The reason why the way of acquisition rules the series out, else None."""
    scanning = [s.upper() for s in _texts(metadata.get("ScanningSequence"))]
    pulse = (_text(metadata, "SequenceName") + " " + _text(metadata, "PulseSequenceName")).lower().replace("*", "")
    if "EP" in scanning or _text(metadata, "EchoPlanarPulseSequence").upper() == "YES" \
            or re.search(r"(^|\s)(epi|epfid|epse|ep[23]d|ep_)", pulse):
        return "echo-planar imaging (diffusion or functional MR)"
    if (_number(metadata, "DiffusionBValue") or 0) > 0:
        return "diffusion-weighted (it has a b-value)"
    if _text(metadata, "TimeOfFlightContrast").upper() == "YES" or _text(metadata, "PhaseContrast").upper() == "YES":
        return "angiography"
    if "CT" in {o.upper() for o in _texts(metadata.get("ScanOptions"))} or (
            _text(metadata, "CardiacSynchronizationTechnique").upper() in ("PROSPECTIVE", "RETROSPECTIVE", "PACED")):
        return "acquired with cardiac triggering: a heart or vessel examination"
    if _text(metadata, "AngioFlag").upper() == "Y":
        return "angiography (angio flag)"
    contrast = _text(metadata, "AcquisitionContrast").upper()
    if contrast in ("DIFFUSION", "PERFUSION", "FLOW_ENCODED", "TOF", "T2_STAR", "TAGGING", "ARTERIAL_SPIN_LABELING"):
        return f"acquisition contrast is {contrast.replace('_', ' ').lower()}"
    echo_time = _number(metadata, "EchoTime")
    if _kind(metadata) == "GR" and echo_time is not None and echo_time >= 12:
        return f"a gradient echo with TE {echo_time:g} ms, that is T2*-weighted"
    return None


# --- what it is ------------------------------------------------------------------------------------------------------

def _word_evidence(text: str) -> dict[str, str]:
    """Sequence id -> longest alias of it found in ``text``."""
    hits = {s.id: _found(text, [*s.aliases, s.id]) for s in load_sequences().values()}
    return {key: alias for key, alias in hits.items() if alias}


def _class(sequence: Sequence) -> tuple[str, bool]:
    """What the eye tells apart first: weighting, and whether fluid is nulled."""
    return sequence.weighting, sequence.inversion_recovery


def _classes(ids) -> set[tuple[str, bool]]:
    """Classes of these sequences; FLAIR is T2-weighted, so that naming both means FLAIR."""
    sequences = load_sequences()
    classes = {_class(sequences[i]) for i in ids}
    return {c for c in classes if c[1] or (c[0], True) not in classes}


def _kind(metadata: Mapping) -> str | None:
    """"SE" or "GR", else None when the header leaves it open."""
    echo = _text(metadata, "EchoPulseSequence").upper()
    if echo in ("GRADIENT", "SPIN"):
        return "GR" if echo == "GRADIENT" else "SE"
    scanning = [s.upper() for s in _texts(metadata.get("ScanningSequence"))]
    if "GR" in scanning:
        return "GR"
    if "SE" in scanning:
        return "SE"
    pulse = (_text(metadata, "SequenceName") + " " + _text(metadata, "PulseSequenceName")).lower()
    if re.search(r"tfl|fl[23]d|fspgr|spgr|bravo|tfe|ffe|mprage|vibe|gre\b|me?fgre", pulse):
        return "GR"
    if re.search(r"tse|fse|spc|tir|haste|cube|\bh2d|\bse", pulse):
        return "SE"
    flip = _number(metadata, "FlipAngle")
    if flip is not None and flip <= 30 and (_number(metadata, "EchoTime") or 0) < 10:
        return "GR"
    return "SE" if "IR" in scanning else None


def _number_evidence(metadata: Mapping) -> _Weighting | None:
    """Sequences whose acquisition rules fit; None when the numbers are missing or fit nothing."""
    values = {
        "TR": _number(metadata, "RepetitionTime"), "TE": _number(metadata, "EchoTime", "EffectiveEchoTime"),
        "TI": _number(metadata, "InversionTime", "InversionTimes") or None, "flip": _number(metadata, "FlipAngle"),
    }
    kind = _kind(metadata)
    if values["TE"] is None:
        return _enhanced_contrast(metadata)
    if kind is None and values["TR"] is not None and values["TR"] >= 150:
        kind = "SE"
    inverted = values["TI"] is not None
    ids = set()
    for sequence in load_sequences().values():
        for rule in sequence.dicom:
            ranges = {k: v for k, v in rule.items() if k != "kind"}
            # A gradient echo with an inversion time is a prepared T1 sequence even where TR counts one echo alone.
            if "TI" not in rule and inverted and rule["kind"] == "SE":
                continue
            if rule["kind"] == kind and all(values[k] is not None and v[0] <= values[k] <= v[1]
                                            for k, v in ranges.items()):
                ids.add(sequence.id)
    if not ids:
        return None
    units = {"TR": "ms", "TE": "ms", "TI": "ms", "flip": "degrees"}
    said = ", ".join(f"{k} {v:.4g} {units[k]}" for k, v in values.items() if v is not None)
    return _Weighting(frozenset(ids), f"{'gradient' if kind == 'GR' else 'spin'} echo, {said}")


def _enhanced_contrast(metadata: Mapping) -> _Weighting | None:
    """Enhanced MR without timing: its Acquisition Contrast names the weighting."""
    contrast = _text(metadata, "AcquisitionContrast").upper()
    weighting, fluid = {"T1": ("T1", False), "T2": ("T2", False), "PROTON_DENSITY": ("PD", False),
                        "FLUID_ATTENUATED": ("T2", True), "STIR": ("T2", False)}.get(contrast, (None, False))
    ids = frozenset(s.id for s in load_sequences().values() if _class(s) == (weighting, fluid) and (
        contrast != "STIR" or s.fat_suppressed))
    return _Weighting(ids, f"acquisition contrast {contrast}") if ids else None


def _contrast(text: str, metadata: Mapping) -> tuple[bool | None, str]:
    """(given?, how it is known); None where nothing is said."""
    words = identification_words()
    tag = " ".join([_text(metadata, "ContrastBolusAgent"), _text(metadata, "ContrastBolusIngredient")]).strip()
    empty = ("", "no", "none", "n", "nil", "0", "without", "ohne", "na", "n/a", "not given", "no contrast", "non")
    tagged = tag.lower() not in empty or (_number(metadata, "ContrastBolusVolume") or 0) > 0
    both = _found(text, words["contrast_both"])
    if both:
        return tagged or None, f'"{both}" in the description leaves open whether contrast agent was given'
    # "without fs" is about fat, not about contrast agent.
    about_fat = _found(text, words["not_fat_suppressed"])
    bare = text.replace(f" {about_fat} ", " ") if about_fat else text
    negative = _found(bare, words["no_contrast"])
    bare = bare.replace(f" {negative} ", " ") if negative else bare
    positive = _found(bare, words["contrast"])
    if negative and positive:
        return tagged or None, f'"{negative}" and "{positive}" in the description leave open whether agent was given'
    if negative:
        return False, f'"{negative}" in the description' + (
            " although a contrast agent is recorded" if tagged else "")
    if positive:
        return True, f'"{positive}" in the description'
    return (True, "a contrast agent is recorded") if tagged else (None, "")


def _fat(text: str, metadata: Mapping) -> tuple[bool | None, str]:
    """(suppressed?, how it is known); None where nothing is said."""
    words = identification_words()
    image_type = set(_image_type(metadata)[2:])
    if image_type & {"W", "WATER"} or _dixon_part(text) == "water":
        return True, "the water image of a Dixon acquisition"
    if image_type & {"IP", "IN_PHASE", "IN"} or _dixon_part(text) == "in":
        return False, "the in-phase image of a Dixon acquisition"
    negative = _found(text, words["not_fat_suppressed"])
    if negative:
        return False, f'"{negative}" in the description'
    positive = _found(text, words["fat_suppressed"])
    if positive:
        return True, f'"{positive}" in the description'
    if {o.upper() for o in _texts(metadata.get("ScanOptions"))} & {"FS", "SFS", "FATSAT"}:
        return True, "fat saturation in the scan options"
    if _text(metadata, "SpectrallySelectedSuppression").upper() in ("FAT", "FAT_AND_WATER") \
            or _text(metadata, "SpectrallySelectedExcitation").upper() == "WATER":
        return True, "spectral fat suppression recorded"
    return None, ""


def _choose(kind: tuple[str, bool], words: Mapping[str, str], contrast, fat):
    """(Sequence or None, notes, implied flags used) of that class with these properties.

    ``words``: aliases found; where every alias found for the class stands for a property (STIR, T1CE), it holds.
    """
    family = [s for s in load_sequences().values() if _class(s) == kind]
    named = [s for s in family if s.id in words]
    longest = max((len(words[s.id]) for s in named), default=0)
    best = [s for s in named if len(words[s.id]) == longest]
    given, suppressed = contrast[0], fat[0]
    if given is None and best:
        given = all(s.contrast_agent for s in best)
    if suppressed is None:
        suppressed = any(s.fat_suppressed for s in best) or (bool(named) and all(s.fat_suppressed for s in named))
    notes = []
    fits = [s for s in family if s.fat_suppressed == bool(suppressed)]
    if not fits:
        if not kind[1]:
            what = "with" if suppressed else "without"
            note = f"{kind[0]}-weighted {what} fat suppression is not among the known sequences"
            return None, [note], (bool(given), bool(suppressed))
        notes.append("fat suppression is not told apart for this sequence")
        fits = family
    exact = [s for s in fits if s.contrast_agent == bool(given)]
    if not exact:
        notes.append("acquired after contrast agent, which is not told apart for this weighting")
        exact = fits
    exact.sort(key=lambda s: -len(words.get(s.id, "")))
    return exact[0], notes, (bool(given), bool(suppressed))


def _decide(metadata: Mapping, text: str, spoken: str) -> Identification:
    sequences = load_sequences()
    words = _word_evidence(text)
    by_words = _classes(words)
    numbers = _number_evidence(metadata)
    by_numbers = _classes(numbers.ids) if numbers else set()
    named = "/".join(sorted(c[0] if not c[1] else "FLAIR" for c in by_words))
    measured = "/".join(sorted(c[0] if not c[1] else "FLAIR" for c in by_numbers))
    if not by_words and not by_numbers:
        return Identification(None, 0.3, "neither the description nor TR/TE/TI say which sequence it is")

    agreed = by_words & by_numbers
    if by_words and by_numbers and not agreed:
        kind, confidence = min(by_numbers), 0.4
        reasons = [f"contradiction: the description says {named}, but the parameters ({numbers.said}) are those of "
                   f"{measured}; check it"]
        words = {}
    elif len(agreed) == 1:
        kind, confidence = next(iter(agreed)), 0.95
        said = max((a for i, a in words.items() if _class(sequences[i]) == kind), key=len)
        reasons = [f'described as "{said}", and {numbers.said} agree']
    elif by_words and not by_numbers:
        if len(by_words) > 1:
            # "T1 ... dark fluid" is T1-weighted with inversion; other pairs stay open without numbers.
            if by_words != {("T1", False), ("T2", True)}:
                return Identification(None, 0.3, f"the description names several weightings ({named}) and the "
                                                 "parameters do not decide")
            by_words = {("T1", False)}
        kind = next(iter(by_words))
        said = max((a for i, a in words.items() if _class(sequences[i]) == kind), key=len)
        has_numbers = _number(metadata, "EchoTime") is not None
        confidence = 0.6 if has_numbers else 0.7
        tail = "the parameters are unusual for it" if has_numbers else "no parameters to check it against"
        reasons = [f'described as "{said}"; {tail}']
    elif len(by_numbers) == 1:
        kind = next(iter(by_numbers))
        confidence = 0.55 if _kind(metadata) == "GR" else 0.65
        reasons = [f"the description does not say; judged as {measured} by {numbers.said}"]
    else:
        return Identification(None, 0.3, f"description and parameters leave it open ({named or measured})")

    contrast, fat = _contrast(text, metadata), _fat(text, metadata)
    if numbers and kind in by_numbers:
        matching = [sequences[i] for i in numbers.ids if _class(sequences[i]) == kind]
        if all(s.fat_suppressed for s in matching):
            fat = (True, "the short inversion time suppresses fat")
    sequence, notes, flags = _choose(kind, words, contrast, fat)
    if sequence is None:
        return Identification(None, 0.6, "; ".join(reasons + notes))
    reasons += [how for _, how in (fat, contrast) if how]
    if "although" in contrast[1] or "open" in contrast[1]:
        confidence = min(confidence, 0.5)
    if contrast[0] is None and sequence.weighting == "T1" and not flags[0]:
        reasons.append("no sign of contrast agent")
        confidence -= 0.05
    if "R" in _image_type(metadata)[2:] or "REAL" in _image_type(metadata)[2:]:
        notes.append("a real-part image, whose contrast may be inverted")
        confidence = min(confidence, 0.5)
    body = _text(metadata, "BodyPartExamined").lower()
    if body in ("abdomen", "pelvis", "heart", "knee", "breast", "prostate", "lspine", "liver", "shoulder", "hip"):
        notes.append(f"the header says that it shows the {body}")
        confidence = min(confidence, 0.5)
    return Identification(sequence.id, round(confidence, 2), "; ".join(reasons + notes))
