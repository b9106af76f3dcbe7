"""De-identification by the basic profile of DICOM PS3.15, on request only.

Identity enters an export through the headers of the acquired images and in no other way: these are cleaned, with
dicom-anonymizer, before anything is made from them. Cleaning the finished objects instead would also take away what
says that they are synthetic. Pixels are left alone: a face can be rendered from a head's images.
"""

import copy
import importlib.metadata
import re
from dataclasses import replace
from datetime import datetime

from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ..errors import UsageError
from ..inference.result import ENHANCEMENT_GUESSED, NODES_LEFT_OUT
from ..vocabulary import canonical_prompt, get_sequence, load_sequences
from .dicom_header import Origin, concept

#: Instead of the time of the export, which may be that of the treatment; some objects must have one.
_NO_TIME = datetime(1900, 1, 1)
#: The edition of the standard whose profile is applied.
_PROFILE = "dicomfields_2026c"
#: What dicom-anonymizer writes in place of dates and times.
_STAND_INS = ("00010101", "000000.00")
#: Groups of the header that tell of patient, trial, visit, request and study; all else in them is left out, since the
#: profile forgets some of it (alternative calendars, nested issuers, departments by code).
_TELLING_GROUPS = (0x0008, 0x0010, 0x0012, 0x0032, 0x0038, 0x0040)
_KEPT = {"SpecificCharacterSet", "ImageType", "SOPClassUID", "SOPInstanceUID", "Modality", "Manufacturer",
         "ManufacturerModelName"}
#: Must be there, if without a value.
_EMPTY = ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
          "StudyID", "PositionReferenceIndicator")
_MISSING = "De-identification needs the package dicom-anonymizer. Install it: pip install dicom-anonymizer"


def deidentified(origin: Origin) -> Origin:
    """The same origin without identity: headers cleaned, UIDs replaced alike wherever they occur, free text left out.

    Raises UsageError when dicom-anonymizer is not installed.
    """
    try:
        from dicomanonymizer.simpledicomanonymizer import get_UID
    except ImportError as error:
        raise UsageError(_MISSING) from error
    sources = tuple(
        replace(source, header=_clean_header(source.header),
                frames=tuple(_clean_frame(f, get_UID) for f in source.frames))
        for source in origin.sources
    )
    return Origin(sources, _clean_document(origin.document, get_UID), _NO_TIME)


def _clean_header(header: Dataset) -> Dataset:
    from dicomanonymizer.simpledicomanonymizer import get_UID

    cleaned = copy.deepcopy(header)
    _apply_profile(cleaned)
    for tag in [tag for tag in cleaned.keys() if tag.group in _TELLING_GROUPS]:
        if keyword_for_tag(tag) not in _KEPT:
            del cleaned[tag]
    for keyword in _EMPTY:
        setattr(cleaned, keyword, "")
    # The profile leaves the name and ID empty or to a dummy; one for each study keeps patients apart in an archive.
    pseudonym = get_UID(str(header.StudyInstanceUID))[-12:]
    cleaned.PatientName, cleaned.PatientID = f"Anonymous^{pseudonym}", f"ANON-{pseudonym}"
    cleaned.PatientIdentityRemoved = "YES"
    version = importlib.metadata.version("dicom-anonymizer")
    cleaned.DeidentificationMethod = f"PS3.15 basic profile (dicom-anonymizer {version})"
    cleaned.DeidentificationMethodCodeSequence = [concept(codes.DCM.BasicApplicationConfidentialityProfile)]
    cleaned.LongitudinalTemporalInformationModified = "REMOVED"
    return cleaned


def _apply_profile(dataset: Dataset) -> None:
    """dicom-anonymizer looks at the top level only; what is nested is cleaned in the same way."""
    from dicomanonymizer.simpledicomanonymizer import anonymize_dataset, initialize_actions

    anonymize_dataset(dataset, delete_private_tags=True, base_rules_gen=lambda: initialize_actions(_PROFILE))
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                _apply_profile(item)
        elif element.VR in ("DA", "DT", "TM") and str(element.value).startswith(_STAND_INS):
            element.value = ""  # stand-ins such as a birth in the year 1 are no valid dates to some systems


def _clean_frame(frame, new_uid):
    keep = ("SOPClassUID", "SliceThickness")
    return replace(frame, uid=new_uid(frame.uid), facts={k: frame.facts[k] for k in keep if k in frame.facts})


def _clean_document(document: dict, new_uid) -> dict:
    cleaned = {k: v for k, v in document.items() if k not in ("created", "refused", "seconds")}
    cleaned["warnings"] = _telling_nothing(document)
    cleaned["sources"] = []
    for source in document["sources"]:
        entry = {"sequence": source["sequence"]}
        for key in ("SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
            if key in source:
                entry[key] = new_uid(source[key])
        if "registration" in source:  # its warning names series
            entry["registration"] = {k: v for k, v in source["registration"].items() if k != "warning"}
        cleaned["sources"].append(entry)
    cleaned["outputs"] = []
    for output in document["outputs"]:
        usual = output["prompt"] == canonical_prompt(get_sequence(output["sequence"]))
        cleaned["outputs"].append(output if usual else {**output, "prompt": "own words, left out"})
    return cleaned


def _telling_nothing(document: dict) -> list[str]:
    """The warnings that share no word with a series, a file or a prompt in own words; a word too few is no harm."""
    private = [source["description"] for source in document["sources"]]
    private += [refused["series"] for refused in document["refused"]]
    words = {word for text in private for word in _words(text)}
    for output in document["outputs"]:
        words |= _words(output["prompt"]) - _words(canonical_prompt(get_sequence(output["sequence"])))
    words -= {name.casefold() for name in load_sequences()}
    ours = (ENHANCEMENT_GUESSED, NODES_LEFT_OUT)  # of our own words and of numbers alone
    return [w for w in document["warnings"] if w.startswith(ours) or not words & _words(w)]


def _words(text: str) -> set[str]:
    return set(re.findall(r"[^\W_]+", text.casefold()))
