"""What every exported DICOM object says of itself: whose it is, that it is synthetic, and how it was made."""

import json
import re
from dataclasses import dataclass
from datetime import datetime

import highdicom
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from .. import __version__
from ..inference.result import ENHANCEMENT_GUESSED
from .dicom_source import SourceSeries
from .discretion import is_usual_prompt

NAME = "NPCSynth"
SOFTWARE = f"{NAME} {__version__}"
#: Private element (0099,xx01), creator "NPCSynth": the provenance as JSON, for programs.
PRIVATE_GROUP, PRIVATE_CREATOR, PRIVATE_PROVENANCE = 0x0099, NAME, 0x01
#: Begins every series description; "SYNTH" must be seen where nothing else of a header is.
MARK = "SYNTH"
#: No code of the standard says how such an image is derived.
DERIVATION = ("SYNTHESIS", "99NPCSYNTH", "Synthesis by a neural network")
_FIRST_SERIES_NUMBER = 9001  # far above what scanners count to
_FRAME_OF_REFERENCE = ("FrameOfReferenceUID", "PositionReferenceIndicator")


@dataclass(frozen=True)
class Origin:
    """Where the exported objects come from.

    Attributes:
        sources: the acquired series, the reference first.
        document: content of ``result.json``, cleaned when the export is de-identified.
        moment: when the objects are made (a stand-in when the export is de-identified).
    """

    sources: tuple[SourceSeries, ...]
    document: dict
    moment: datetime

    @property
    def reference(self) -> SourceSeries:
        """The source on whose grid everything lies."""
        return self.sources[0]

    @property
    def day(self) -> str:
        """Date of the objects, as DICOM writes it."""
        return self.moment.strftime("%Y%m%d")

    @property
    def time(self) -> str:
        """Time of the objects, as DICOM writes it."""
        return self.moment.strftime("%H%M%S")


@dataclass(frozen=True)
class NewSeries:
    """A series to be written: its place in the study and what it shows."""

    number: int
    description: str
    uid: str

    @classmethod
    def named(cls, position: int, what: str) -> "NewSeries":
        """The series number ``position`` (from 0) of this export."""
        return cls(_FIRST_SERIES_NUMBER + position, f"{MARK} {what}", generate_uid())


def new_object(
    origin: Origin, series: NewSeries, sop_class: str, modality: str, number: int = 1, syntax=ExplicitVRLittleEndian
) -> highdicom.SOPClass:
    """An object of the source's patient and study, whose modules are copied."""
    header = origin.reference.header
    dataset = highdicom.SOPClass(
        study_instance_uid=header.StudyInstanceUID, series_instance_uid=series.uid, series_number=series.number,
        sop_instance_uid=generate_uid(), sop_class_uid=sop_class, instance_number=number, modality=modality,
        transfer_syntax_uid=syntax,
    )  # fmt: skip
    copy_patient_and_study(dataset, header)
    return dataset


def copy_patient_and_study(dataset: highdicom.SOPClass, header: Dataset) -> None:
    """Patient and study modules as they stand in ``header``, in its character set."""
    if header.get("SpecificCharacterSet"):
        dataset.SpecificCharacterSet = header.SpecificCharacterSet
    dataset.copy_patient_and_study_information(header)


def equipment(origin: Origin) -> dict:
    """Keyword arguments by which highdicom names the maker of an object."""
    return {
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": SOFTWARE,
        # The weights are to a network what the serial number is to a scanner: this one and no other made the image.
        "device_serial_number": origin.document["weights"]["sha256"],
    }


def mark_synthetic(dataset: Dataset, origin: Origin, series: NewSeries, what: str, output: dict | None = None) -> None:
    """Add to a finished object what says that, by what and from what it was synthesized.

    Args:
        what: for a person, e.g. "T1C image".
        output: the entry of the document's "outputs" that the object shows, None for structures.
    """
    document, header = origin.document, origin.reference.header
    copy_elements(dataset, header, (*_FRAME_OF_REFERENCE, "LongitudinalTemporalInformationModified"))
    if dataset.Modality != "RTSTRUCT":
        # Without a body part, whether the examined part is one of a pair would have to be said.
        dataset.BodyPartExamined = header.get("BodyPartExamined") or "HEADNECK"
    for keyword, value in (("Manufacturer", NAME), ("ManufacturerModelName", NAME), ("SoftwareVersions", SOFTWARE),
                           ("DeviceSerialNumber", document["weights"]["sha256"])):
        setattr(dataset, keyword, value)
    day, time = origin.day, origin.time
    for kind in ("InstanceCreation", "Series", "Content", "StructureSet"):
        if kind in ("InstanceCreation", "Series") or f"{kind}Date" in dataset:
            setattr(dataset, f"{kind}Date", day)
            setattr(dataset, f"{kind}Time", time)
    dataset.SeriesDescription = series.description
    dataset.SyntheticData = "YES"
    dataset.ContentQualification = "RESEARCH"
    dataset.DerivationDescription = _in_words(document, what, output)
    dataset.ContributingEquipmentSequence = [_acquired_by(header), _synthesized_by(origin, what)]
    provenance = object_provenance(document, output)
    block = dataset.private_block(PRIVATE_GROUP, PRIVATE_CREATOR, create=True)
    block.add_new(PRIVATE_PROVENANCE, "UT", json.dumps(provenance))


def object_provenance(document: dict, output: dict | None) -> dict:
    """The part of ``result.json`` that goes with one object; which images were used, each synthetic MR says itself."""
    keys = ("software", "synthetic", "intended_use", "limits", "created", "weights", "units", "warnings")
    series = ("sequence", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", "registration")
    return {
        **{key: document[key] for key in keys if key in document},
        "reference": document["reference_grid"]["sequence"],
        "sources": [{key: source[key] for key in series if key in source} for source in document["sources"]],
        **({"output": output} if output else {}),
    }


def copy_elements(dataset: Dataset, header: Dataset, keywords) -> None:
    """Those of the elements that the header has."""
    for keyword in keywords:
        if keyword in header:
            dataset[keyword] = header[keyword]


def code_item(value: str, scheme: str, meaning: str) -> Dataset:
    """One coded concept."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def frame_anatomy() -> list[Dataset]:
    """Frame Anatomy Sequence of a multi-frame image: head and neck."""
    item = Dataset()
    item.FrameLaterality, item.AnatomicRegionSequence = "U", [code_item("774007", "SCT", "Head and Neck")]
    return [item]


def concept(code) -> Dataset:
    """One coded concept of the standard's dictionary."""
    return code_item(code.value, code.scheme_designator, code.meaning)


def _in_words(document: dict, what: str, output: dict | None) -> str:
    weights = document["weights"]
    text = (
        f"SYNTHETIC, research use only. {what} made by {SOFTWARE}, weights {weights['name']} {weights['version']} "
        f"(SHA-256 {weights['sha256']}), from acquired {', '.join(s['sequence'] for s in document['sources'])}."
    )
    if document.get("unusual"):
        text += " Its sources are unlike what the network learned from: it may be wrong throughout."
    if output:
        # Before the prompt, which may be long and is cut off: nobody may judge by an enhancement that was invented.
        text += "".join(f" {warning}" for warning in document.get("warnings", ()) if _guesses(warning, output))
        if not output["uncertainty_calibrated"]:
            text += " Its uncertainty was never checked on acquired images: it may be far too low."
        if not is_usual_prompt(output):
            text += " Made from somebody's own words: its contrast may be unusual."
        text += f" Prompt: {output['prompt']}"
    # In the source's character set not every prompt could be written; the private element has it in full.
    return text.encode("ascii", "replace").decode()[:1024]


def _guesses(warning: str, output: dict) -> bool:
    """Whether the warning says that the enhancement of this very image is a guess."""
    named, guess, _ = warning.partition(" is a guess")
    return bool(guess and named.startswith(ENHANCEMENT_GUESSED) and output["sequence"] in re.findall(r"\w+", named))


def _synthesized_by(origin: Origin, what: str) -> Dataset:
    item = Dataset()
    item.Manufacturer, item.ManufacturerModelName, item.SoftwareVersions = NAME, NAME, SOFTWARE
    item.DeviceSerialNumber = origin.document["weights"]["sha256"]
    item.ContributionDateTime = origin.day + origin.time
    item.ContributionDescription = f"Synthesized: {what}"
    item.PurposeOfReferenceCodeSequence = [concept(codes.DCM.SynthesizingEquipment)]
    return item


def _acquired_by(header: Dataset) -> Dataset:
    item = Dataset()
    item.Manufacturer = ""
    copy_elements(item, header, ("Manufacturer", "InstitutionName", "StationName", "ManufacturerModelName",
                                 "DeviceSerialNumber", "SoftwareVersions"))
    item.PurposeOfReferenceCodeSequence = [concept(codes.DCM.AcquisitionEquipment)]
    return item
