"""Tells which MR sequence a series is from its header, or from the file name when there is no header.

What the words and numbers mean is data (``Resources/sequences.json``): aliases and acquisition rules of each
sequence, and the "identification" words for contrast agent, fat suppression and series that cannot be used.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from ..vocabulary import Sequence, load_sequences
from ..vocabulary.sequences import identification_words
from .header_words import dixon_part, echo_kind, find_phrase, image_type_of, normalize_text, number_of, text_of, texts
from .refuse import refuse_by_kind, refuse_by_numbers, refuse_by_words

#: A refusal with at least this confidence rests on what the series says it is, not on missing information.
SURE_REFUSAL = 0.8


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


def identify(metadata: Mapping, name: str = "") -> Identification:
    """Tell which sequence a series is.

    Args:
        metadata: header facts by DICOM keyword (strings, numbers, lists of strings), as ``Volume.metadata`` holds
            them; functional-group attributes of enhanced MR under the keywords of classic MR.
        name: series description or file name; decides alone where ``metadata`` holds nothing of the acquisition.
    """
    if not _has_header(metadata):
        return _identify_by_name(name or text_of(metadata, "source_path"))
    refusal = refuse_by_kind(metadata)
    if refusal:
        return Identification(None, 0.98, refusal)
    description = text_of(metadata, "SeriesDescription") or name
    protocol = text_of(metadata, "ProtocolName")
    refusal = refuse_by_words(metadata, description)
    if refusal:
        return Identification(None, 0.95, refusal)
    # GE writes the name of the whole exam into ProtocolName, so that it counts only where the description is silent.
    text = normalize_text(description)
    if not _word_evidence(text) and protocol:
        refusal = refuse_by_words(metadata, protocol)
        if refusal:
            return Identification(None, 0.9, refusal)
        text = normalize_text(f"{description} {protocol}")
    refusal = refuse_by_numbers(metadata)
    if refusal:
        return Identification(None, 0.85, refusal)
    return _decide(metadata, text)


def _has_header(metadata: Mapping) -> bool:
    keys = ("SOPClassUID", "Modality", "SeriesDescription", "ProtocolName", "RepetitionTime", "EchoTime", "ImageType",
            "ScanningSequence")
    return any(texts(metadata.get(k)) for k in keys)


def _identify_by_name(name: str) -> Identification:
    stem = re.sub(r"(\.nii|\.nrrd|\.nhdr|\.mh[ad]|\.seg|\.gz|\.dcm)+$", "", PurePath(name).name, flags=re.IGNORECASE)
    if re.search(r"\.seg\.nrrd$", name, re.IGNORECASE):
        return Identification(None, 0.9, "the file name says that it is a segmentation, not an image")
    # BIDS entities other than ce- and acq- name the person and the session, not the sequence.
    stem = re.sub(r"(?<![a-zA-Z0-9])(sub|ses|run|echo|space|res)-[a-zA-Z0-9]+", " ", stem)
    text = normalize_text(stem)
    words = identification_words()
    for rule in [*words["refuse_file"], *words["refuse"]]:
        hit = find_phrase(text, rule["words"]) or next((p for p in rule.get("stems", ()) if p in text), None)
        if hit:
            return Identification(None, 0.85, f'the file name says "{hit}": {rule["reason"]}')
    classes = _word_evidence(text)
    if len(_classes(classes)) != 1:
        what = "names more than one sequence" if classes else "does not say which sequence it is"
        return Identification(None, 0.2, f"there is no header, and the file name {what}; name the sequence yourself")
    contrast = _contrast(text, {})
    sequence, notes, _ = _choose(next(iter(_classes(classes))), classes, contrast, _fat(text, {}))
    if sequence is None:
        return Identification(None, 0.4, "; ".join(notes))
    if sequence.contrast_agent and "open" in contrast[1]:
        notes.append(contrast[1])
    said = max(classes.values(), key=len)
    reason = f'no header; the file name says "{said}"' + "".join(f"; {n}" for n in notes)
    return Identification(sequence.id, 0.5 if notes else 0.6, reason)


# --- what it is ------------------------------------------------------------------------------------------------------

def _word_evidence(text: str) -> dict[str, str]:
    """Sequence id -> longest alias of it found in ``text``."""
    hits = {s.id: find_phrase(text, [*s.aliases, s.id]) for s in load_sequences().values()}
    return {key: alias for key, alias in hits.items() if alias}


def _class(sequence: Sequence) -> tuple[str, bool]:
    """What the eye tells apart first: weighting, and whether fluid is nulled."""
    return sequence.weighting, sequence.inversion_recovery


def _classes(ids) -> set[tuple[str, bool]]:
    """Classes of these sequences; FLAIR is T2-weighted, so that naming both means FLAIR."""
    sequences = load_sequences()
    classes = {_class(sequences[i]) for i in ids}
    return {c for c in classes if c[1] or (c[0], True) not in classes}


def _number_evidence(metadata: Mapping) -> _Weighting | None:
    """Sequences whose acquisition rules fit; None when the numbers are missing or fit nothing."""
    values = {
        "TR": number_of(metadata, "RepetitionTime"), "TE": number_of(metadata, "EchoTime", "EffectiveEchoTime"),
        "TI": number_of(metadata, "InversionTime", "InversionTimes") or None, "flip": number_of(metadata, "FlipAngle"),
    }
    kind = echo_kind(metadata)
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
    contrast = text_of(metadata, "AcquisitionContrast").upper()
    weighting, fluid = {"T1": ("T1", False), "T2": ("T2", False), "PROTON_DENSITY": ("PD", False),
                        "FLUID_ATTENUATED": ("T2", True), "STIR": ("T2", False)}.get(contrast, (None, False))
    ids = frozenset(s.id for s in load_sequences().values() if _class(s) == (weighting, fluid) and (
        contrast != "STIR" or s.fat_suppressed))
    return _Weighting(ids, f"acquisition contrast {contrast}") if ids else None


def _contrast(text: str, metadata: Mapping) -> tuple[bool | None, str]:
    """(given?, how it is known); None where nothing is said."""
    words = identification_words()
    tagged = any(_names_agent(text_of(metadata, key)) for key in ("ContrastBolusAgent", "ContrastBolusIngredient"))
    tagged |= (number_of(metadata, "ContrastBolusVolume") or 0) > 0
    both = find_phrase(text, words["contrast_both"])
    if both:
        return tagged or None, f'"{both}" in the description leaves open whether contrast agent was given'
    # "without fs" is about fat, not about contrast agent.
    about_fat = find_phrase(text, words["not_fat_suppressed"])
    bare = text.replace(f" {about_fat} ", " ") if about_fat else text
    negative, positive, bare = _agent_words(bare)
    if negative and positive:
        return tagged or None, f'"{negative}" and "{positive}" in the description leave open whether agent was given'
    if negative:
        return False, f'"{negative}" in the description' + (
            " although a contrast agent is recorded" if tagged else "")
    if positive and not tagged and not find_phrase(bare, _contrast_words_but_post()):
        return True, ('"post" in the description leaves open whether it means after contrast agent or after treatment, '
                      "and no contrast agent is recorded")
    if positive:
        return True, f'"{positive}" in the description'
    return (True, "a contrast agent is recorded") if tagged else (None, "")


def _agent_words(text: str) -> tuple[str | None, str | None, str]:
    """The words of a normalized text that deny contrast agent, those that name it, and the text without the former."""
    words = identification_words()
    negative = find_phrase(text, words["no_contrast"])
    bare = text.replace(f" {negative} ", " | ") if negative else text
    positive = find_phrase(bare, words["contrast"])
    if negative and positive and f" | {positive} " in bare:
        # "before Gd" denies the agent that it names.
        bare = bare.replace(f" | {positive} ", " ")
        positive = find_phrase(bare, words["contrast"])
    return negative, positive, bare


#: Begins the header's field for the agent where none was given; the second ones only when nothing follows.
_NO_AGENT, _NO_AGENT_ALONE = ("no", "none", "not", "nil"), ("n", "na", "n a", "non")


def _names_agent(field: str) -> bool:
    """Whether the header's free text for contrast agent names one; scanners and people write there, too, that none was.

    An amount above 0 is one. Words that deny count where the text begins with them, unless a known agent follows.
    """
    text = normalize_text(re.sub(r"[\d.,]+", " ", field))
    if text.strip() in ("", "ml", "cc") or not any(c.isalpha() for c in text):
        return bool(re.search("[1-9]", field))
    if text.split()[0] in _NO_AGENT or text.strip() in _NO_AGENT_ALONE:
        return False
    negative, positive, _ = _agent_words(text)
    return bool(positive) or negative is None or not text.startswith(f" {negative} ")


def _contrast_words_but_post() -> list[str]:
    """Words and aliases that stand for contrast agent, without those that need the word "post" for it."""
    aliases = [alias for s in load_sequences().values() if s.contrast_agent for alias in s.aliases]
    return [p for p in (*identification_words()["contrast"], *aliases) if "post" not in p.split()]


def _fat(text: str, metadata: Mapping) -> tuple[bool | None, str]:
    """(suppressed?, how it is known); None where nothing is said."""
    words = identification_words()
    image_type = set(image_type_of(metadata)[2:])
    if image_type & {"W", "WATER"} or dixon_part(text) == "water":
        return True, "the water image of a Dixon acquisition"
    if image_type & {"IP", "IN_PHASE", "IN"} or dixon_part(text) == "in":
        return False, "the in-phase image of a Dixon acquisition"
    negative = find_phrase(text, words["not_fat_suppressed"])
    if negative:
        return False, f'"{negative}" in the description'
    positive = find_phrase(text, words["fat_suppressed"])
    if positive:
        return True, f'"{positive}" in the description'
    if {o.upper() for o in texts(metadata.get("ScanOptions"))} & {"FS", "SFS", "FATSAT"}:
        return True, "fat saturation in the scan options"
    if text_of(metadata, "SpectrallySelectedSuppression").upper() in ("FAT", "FAT_AND_WATER") \
            or text_of(metadata, "SpectrallySelectedExcitation").upper() == "WATER":
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


def _decide(metadata: Mapping, text: str) -> Identification:
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
    if echo_kind(metadata) == "GR" and by_numbers and not agreed and number_of(metadata, "InversionTime") is None:
        # Scouts, calibrations, angiography and dynamic series are gradient echoes with the same numbers; a gradient
        # echo called T2 is steady-state or T2*-weighted.
        said = f'the description says {named}, which' if by_words else "the description does not say, and"
        return Identification(None, 0.4, f"{said} a gradient echo ({numbers.said}) alone does not prove; name the "
                                         "sequence yourself if you know it")
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
        has_numbers = number_of(metadata, "EchoTime") is not None
        confidence = 0.6 if has_numbers else 0.7
        tail = "the parameters are unusual for it" if has_numbers else "no parameters to check it against"
        reasons = [f'described as "{said}"; {tail}']
    elif len(by_numbers) == 1:
        kind = next(iter(by_numbers))
        confidence = 0.55 if echo_kind(metadata) == "GR" else 0.65
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
    told_apart = any(s.contrast_agent for s in sequences.values() if _class(s) == kind)
    if told_apart and ("although" in contrast[1] or "open" in contrast[1]):
        confidence = min(confidence, 0.5)
    if contrast[0] is None and sequence.weighting == "T1" and not flags[0]:
        reasons.append("no sign of contrast agent")
        confidence -= 0.05
    if "R" in image_type_of(metadata)[2:] or "REAL" in image_type_of(metadata)[2:]:
        notes.append("a real-part image, whose contrast may be inverted")
        confidence = min(confidence, 0.5)
    body = text_of(metadata, "BodyPartExamined").lower()
    if body in ("abdomen", "pelvis", "heart", "knee", "breast", "prostate", "lspine", "liver", "shoulder", "hip"):
        notes.append(f"the header says that it shows the {body}")
        confidence = min(confidence, 0.5)
    return Identification(sequence.id, round(confidence, 2), "; ".join(reasons + notes))
