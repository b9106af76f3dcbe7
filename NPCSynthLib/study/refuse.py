"""Tells from its header whether a series can be a source image at all."""

import re
from collections.abc import Mapping

from ..vocabulary.sequences import identification_words
from .header_words import dixon_part, echo_kind, find_phrase, image_type_of, normalize_text, number_of, text_of, texts

#: SOP classes that hold MR images: classic, enhanced, legacy converted enhanced.
MR_IMAGE_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4",
)
_SPECTROSCOPY_CLASS = "1.2.840.10008.5.1.4.1.1.4.2"


def refuse_by_kind(metadata: Mapping) -> str | None:
    """The reason why this kind of object is never a source image, else None."""
    modality = text_of(metadata, "Modality").upper()
    sop_class = text_of(metadata, "SOPClassUID")
    if sop_class == _SPECTROSCOPY_CLASS:
        return "MR spectroscopy, not an image"
    if sop_class and sop_class not in MR_IMAGE_CLASSES:
        kind = f"modality {modality}" if modality and modality != "MR" else "not an MR image object"
        return f"{kind}: only MR images can be used"
    if modality and modality != "MR":
        return f"modality {modality}: only MR images can be used"
    if text_of(metadata, "SyntheticData").upper() == "YES":
        return "an image that was synthesized, not acquired"
    if text_of(metadata, "ConversionType").upper() in ("DV", "DI", "DF", "SD", "SI", "DRW", "WSD") \
            and not texts(metadata.get("EchoTime")) and text_of(metadata, "BurnedInAnnotation").upper() != "NO":
        return "a secondary capture, not an acquired image"
    if (number_of(metadata, "SamplesPerPixel") or 1) > 1:
        return "a color image (screenshot or color map), not an MR sequence"
    if text_of(metadata, "BurnedInAnnotation").upper() == "YES":
        return "a screenshot with burned-in text"
    return None


def refuse_by_words(metadata: Mapping, description: str) -> str | None:
    """The reason why image type, pulse sequence or description rule the series out, else None."""
    image_type = image_type_of(metadata)
    pulse = text_of(metadata, "SequenceName").lower() + " " + text_of(metadata, "PulseSequenceName").lower()
    pulse = pulse.replace("*", "")
    text = normalize_text(description)
    for rule in identification_words()["refuse"]:
        kind = next((t for t in image_type if t in rule.get("image_type", ())), None)
        if kind:
            return f"{rule['reason']} (image type {kind})"
        hit = find_phrase(text, rule["words"])
        if hit:
            return f'{rule["reason"]} (described as "{hit}")'
        stem = next((p for p in rule.get("stems", ()) if p in text), None)
        if stem:
            return f'{rule["reason"]} (described as "{stem}")'
        codes = rule.get("pulse_sequence", ())
        code = next((c for c in codes if re.search(rf"(?<![a-z]){re.escape(c)}", pulse)), None)
        if code:
            return f"{rule['reason']} (pulse sequence {code})"
    if dixon_part(text) in ("fat", "opposed"):
        return "the fat or opposed-phase image of a Dixon acquisition"
    component = text_of(metadata, "ComplexImageComponent").upper()
    if component in ("PHASE", "IMAGINARY", "MIXED") or (
            {"P", "PHASE", "PHASE MAP", "I", "IMAGINARY"} & set(image_type[2:])):
        return "a phase or complex image, not a magnitude image"
    if image_type[:1] == ["DERIVED"] and any(re.search(r"MPR|MIP|RESAMPLED|COMPOSED|REFORMAT", t) for t in image_type):
        return "a reformat derived from another series; use the series that was acquired"
    return None


def is_diffusion_weighted(metadata: Mapping) -> bool:
    """True where the header tells a b-value above zero."""
    return (number_of(metadata, "DiffusionBValue") or 0) > 0


def refuse_by_numbers(metadata: Mapping) -> str | None:
    """The reason why the way of acquisition rules the series out, else None."""
    scanning = [s.upper() for s in texts(metadata.get("ScanningSequence"))]
    pulse = (text_of(metadata, "SequenceName") + " " + text_of(metadata, "PulseSequenceName")).lower().replace("*", "")
    if "EP" in scanning or text_of(metadata, "EchoPlanarPulseSequence").upper() == "YES" \
            or re.search(r"(^|\s)(epi|epfid|epse|ep[23]d|ep_)", pulse):
        return "echo-planar imaging (diffusion or functional MR)"
    if is_diffusion_weighted(metadata):
        return "diffusion-weighted (it has a b-value)"
    if "YES" in (text_of(metadata, "TimeOfFlightContrast").upper(), text_of(metadata, "PhaseContrast").upper()):
        return "angiography"
    if "CT" in {o.upper() for o in texts(metadata.get("ScanOptions"))} or (
            text_of(metadata, "CardiacSynchronizationTechnique").upper() in ("PROSPECTIVE", "RETROSPECTIVE", "PACED")):
        return "acquired with cardiac triggering: a heart or vessel examination"
    if text_of(metadata, "AngioFlag").upper() == "Y":
        return "angiography (angio flag)"
    contrast = text_of(metadata, "AcquisitionContrast").upper()
    if contrast in ("DIFFUSION", "PERFUSION", "FLOW_ENCODED", "TOF", "T2_STAR", "TAGGING", "ARTERIAL_SPIN_LABELING"):
        return f"acquisition contrast is {contrast.replace('_', ' ').lower()}"
    echo_time = number_of(metadata, "EchoTime")
    if echo_kind(metadata) == "GR" and echo_time is not None and echo_time >= 12:
        return f"a gradient echo with TE {echo_time:g} ms, that is T2*-weighted"
    return None
