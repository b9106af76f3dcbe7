"""DICOM headers in, plain facts out: what identification, provenance and DICOM output need to know of a series."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .refuse import MR_IMAGE_CLASSES

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"

#: Kept from the data set itself.
_KEYWORDS = (
    # who and which examination (DICOM output repeats these)
    "SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "PatientAge", "PatientSize", "PatientWeight", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID",
    "StudyDescription", "AccessionNumber", "ReferringPhysicianName", "SeriesInstanceUID", "SeriesNumber", "SeriesDate",
    "SeriesTime", "FrameOfReferenceUID", "PositionReferenceIndicator", "PatientPosition", "BodyPartExamined",
    "SOPClassUID", "Modality", "InstitutionName", "Manufacturer", "ManufacturerModelName", "SoftwareVersions",
    "MagneticFieldStrength",
    # what was acquired
    "SeriesDescription", "ProtocolName", "ImageType", "ImageComments", "ScanningSequence", "SequenceVariant",
    "ScanOptions", "MRAcquisitionType", "SequenceName", "PulseSequenceName", "AngioFlag", "RepetitionTime", "EchoTime",
    "InversionTime", "FlipAngle", "EchoTrainLength", "EchoNumbers", "NumberOfAverages", "PixelBandwidth",
    "ImagedNucleus", "ResonantNucleus", "SliceThickness", "SpacingBetweenSlices", "AcquisitionNumber",
    "AcquisitionDate", "AcquisitionTime", "AcquisitionDateTime", "TemporalPositionIdentifier",
    "NumberOfTemporalPositions", "TriggerTime", "DiffusionBValue", "ContrastBolusAgent", "ContrastBolusIngredient",
    "ContrastBolusVolume", "ContrastBolusRoute", "ConversionType", "DerivationDescription", "BurnedInAnnotation",
    "SyntheticData", "SamplesPerPixel", "PhotometricInterpretation", "BitsStored", "NumberOfFrames", "Rows", "Columns",
    "LossyImageCompression", "CardiacSynchronizationTechnique",
    # enhanced MR
    "EchoPulseSequence", "EchoPlanarPulseSequence", "TimeOfFlightContrast", "PhaseContrast",
    "SpectrallySelectedSuppression", "AcquisitionContrast", "ComplexImageComponent", "VolumetricProperties",
)

#: Kept from the functional groups of enhanced MR: group, keyword there, keyword here.
_FUNCTIONAL = (
    ("MRTimingAndRelatedParametersSequence", "RepetitionTime", "RepetitionTime"),
    ("MRTimingAndRelatedParametersSequence", "FlipAngle", "FlipAngle"),
    ("MRTimingAndRelatedParametersSequence", "RFEchoTrainLength", "EchoTrainLength"),
    ("MREchoSequence", "EffectiveEchoTime", "EchoTime"),
    ("MRModifierSequence", "InversionRecovery", "InversionRecovery"),
    ("MRModifierSequence", "InversionTimes", "InversionTime"),
    ("MRModifierSequence", "SpectrallySelectedSuppression", "SpectrallySelectedSuppression"),
    ("MRModifierSequence", "SpectrallySelectedExcitation", "SpectrallySelectedExcitation"),
    ("MRDiffusionSequence", "DiffusionBValue", "DiffusionBValue"),
    ("MRImageFrameTypeSequence", "FrameType", "FrameType"),
    ("MRImageFrameTypeSequence", "ComplexImageComponent", "ComplexImageComponent"),
    ("MRImageFrameTypeSequence", "AcquisitionContrast", "AcquisitionContrast"),
    ("PixelMeasuresSequence", "SliceThickness", "SliceThickness"),
    ("PixelMeasuresSequence", "SpacingBetweenSlices", "SpacingBetweenSlices"),
    ("FrameContentSequence", "StackID", "StackID"),
    ("FrameContentSequence", "TemporalPositionIndex", "TemporalPositionIdentifier"),
    ("FrameContentSequence", "FrameAcquisitionNumber", "AcquisitionNumber"),
    ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", "TriggerTime"),
)


@dataclass(frozen=True)
class Frame:
    """One slice as its header describes it: a classic file, or one frame of an enhanced one.

    Attributes:
        path: file it comes from.
        index: frame number in the file, from 0; None for a classic single-frame file.
        uid: SOPInstanceUID of the file.
        instance: InstanceNumber, 0 when missing.
        facts: header facts (see ``header_facts``), shared groups and this frame's groups merged.
        position: (3,) LPS mm of the centre of the first pixel, or None.
        orientation: (6,) direction cosines along a row (increasing column) and along a column, or None.
        pixel_spacing: (2,) mm between rows, between columns, or None.
        size: (rows, columns), or None.
        slope, intercept: stored value to scanner unit.
        inverted: MONOCHROME1, where low values are bright.
    """

    path: Path
    index: int | None
    uid: str
    instance: int
    facts: dict
    position: np.ndarray | None
    orientation: np.ndarray | None
    pixel_spacing: np.ndarray | None
    size: tuple[int, int] | None
    slope: float
    intercept: float
    inverted: bool


def read_frames(path: Path) -> list[Frame] | None:
    """The slices of a DICOM file from its header alone, or None when the file cannot be understood.

    Never raises for what stands in the file: damaged values inside of sequences are decoded here, where any error
    that pydicom may raise means the same.
    """
    dataset = read_header(path)
    # A file cut inside its header reads without complaint up to the cut; what must be there is then missing.
    if dataset is None or (str(dataset.get("SOPClassUID", "")) in MR_IMAGE_CLASSES and not dataset.get("Rows")):
        return None
    try:
        return frames_of(dataset, path)
    except Exception:
        return None


def looks_like_dicom(path: Path) -> bool:
    """True when the file's first bytes are DICOM's, whatever its name."""
    try:
        with open(path, "rb") as file:
            start = file.read(132)
    except OSError:
        return False
    # Old files lack the preamble and begin with group 0002 or 0008, little endian.
    return start[128:132] == b"DICM" or (len(start) > 8 and start[:2] in (b"\x02\x00", b"\x08\x00") and start[3] == 0)


def read_header(path: Path):
    """pydicom Dataset without pixels, or None when the file cannot be understood as DICOM."""
    import pydicom

    with warnings.catch_warnings():
        # pydicom's warnings quote header values, which may identify the patient.
        warnings.simplefilter("ignore")
        try:
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            # A header cut short is read without complaint up to the cut, so that the class is missing or at its end.
            if "SOPClassUID" not in dataset and "Modality" not in dataset:
                return None
            list(dataset)  # decodes every top-level element: what cannot be decoded shows itself here and not later
        except Exception:
            return None
    return dataset


def source_instances(dataset) -> list[str]:
    """SOP instance UIDs of the series that a DICOM object (pydicom Dataset) says it was made on, none where it names
    single images only: each slice of a series names others."""
    return [str(item.ReferencedSOPInstanceUID) for series in dataset.get("ReferencedSeriesSequence") or []
            for item in series.get("ReferencedInstanceSequence") or []]  # fmt: skip


def _plain(value):
    """A DICOM value as str, float or list of str; None when empty."""
    from pydicom.multival import MultiValue

    if value is None:
        return None
    if isinstance(value, (MultiValue, list, tuple)):
        values = [_printable(v) for v in value]
        return values if any(values) else None
    if isinstance(value, bool) or isinstance(value, str):
        return _printable(value) or None
    try:
        return float(value)
    except (TypeError, ValueError):
        return _printable(value) or None


def _printable(value) -> str:
    """As text without what a terminal or a log would take as a command (control characters, broken encodings)."""
    text = str(value).strip()[:1024]  # no text of ours is longer by the standard; damaged files hold pages
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text).strip()


def header_facts(dataset) -> dict:
    """Facts of a data set by DICOM keyword (str, float or list of str), empty ones left out.

    Enhanced MR: attributes of the shared functional groups appear under the keywords of classic MR.
    """
    facts = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for keyword in _KEYWORDS:
            value = _plain(dataset.get(keyword))
            if value is not None:
                facts[keyword] = value
        agents = dataset.get("ContrastBolusAgentSequence") or []
        if agents and "ContrastBolusAgent" not in facts:
            facts["ContrastBolusAgent"] = str(agents[0].get("CodeMeaning", "") or "contrast agent")
        for group in dataset.get("SharedFunctionalGroupsSequence") or []:
            facts |= _group_facts(group)
        _add_private_facts(dataset, facts)
    return facts


def _add_private_facts(dataset, facts: dict) -> None:
    """Diffusion weighting and echo-planar readout, which classic MR has no public place for."""
    epi_factor = _private(dataset, 0x2001, "Philips Imaging DD 001", 0x13)
    # Below that it may be a gradient-and-spin-echo readout of an ordinary sequence.
    if epi_factor is not None and epi_factor > 10:
        facts["EchoPlanarPulseSequence"] = "YES"
    for group, creator, element in (
        (0x0019, "SIEMENS MR HEADER", 0x0C), (0x2001, "Philips Imaging DD 001", 0x03), (0x0043, "GEMS_PARM_01", 0x39),
    ):
        value = _private(dataset, group, creator, element)
        if value is not None and "DiffusionBValue" not in facts:
            # GE adds 1e9 to the b-value of some protocols.
            facts["DiffusionBValue"] = float(value % 1e6) if value < 1e12 else 0.0
    component = _private(dataset, 0x0043, "GEMS_PARM_01", 0x2F)
    if component in (1, 2, 3) and "ComplexImageComponent" not in facts:
        facts["ComplexImageComponent"] = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}[int(component)]


def _private(dataset, group: int, creator: str, element: int) -> float | None:
    try:
        value = dataset.private_block(group, creator)[element].value
    except (KeyError, ValueError):
        return None
    if isinstance(value, bytes):
        value = value.decode("ascii", "ignore")
    if isinstance(value, str):
        value = value.split("\\")
    if hasattr(value, "__iter__"):
        value = next(iter(value), None)
    number = _finite(value, -1.0)
    return number if number >= 0 else None


def _group_facts(group) -> dict:
    facts = {}
    for sequence, there, here in _FUNCTIONAL:
        items = group.get(sequence) or []
        value = _plain(items[0].get(there)) if items else None
        if value is not None:
            if isinstance(value, list) and there == "InversionTimes":
                value = float(value[0])
            facts[here] = value
    return facts


def _vector(value, count: int) -> np.ndarray | None:
    try:
        vector = np.array([float(v) for v in value], float)
    except (TypeError, ValueError):
        return None
    # Nothing lies a hundred meters off the scanner's center.
    return vector if vector.shape == (count,) and np.isfinite(vector).all() and np.abs(vector).max() < 1e5 else None


def _from_groups(groups, sequence: str, keyword: str):
    for group in groups:
        items = group.get(sequence) or []
        if items and items[0].get(keyword) is not None:
            return items[0].get(keyword)
    return None


def _finite(value, otherwise: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return otherwise
    return number if np.isfinite(number) else otherwise


def frames_of(dataset, path: Path) -> list[Frame]:
    """The slices of one MR file. A file whose per-frame groups are missing gives one frame without geometry."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        facts = header_facts(dataset)
        enhanced = str(dataset.get("SOPClassUID", "")) in MR_IMAGE_CLASSES[1:]
        per_frame = dataset.get("PerFrameFunctionalGroupsSequence") or []
        shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
        # Not every frame listed need be there (headers cut down by others): the shorter of both counts.
        count = min(len(per_frame), int(_finite(dataset.get("NumberOfFrames"), len(per_frame))))
        if not enhanced or count < 1:
            return [_frame(dataset, path, None, facts, [])]
        return [
            _frame(dataset, path, n, facts | _group_facts(per_frame[n]), [per_frame[n], *shared]) for n in range(count)
        ]


def _frame(dataset, path: Path, index, facts: dict, groups: list) -> Frame:
    if groups:
        position = _from_groups(groups, "PlanePositionSequence", "ImagePositionPatient")
        orientation = _from_groups(groups, "PlaneOrientationSequence", "ImageOrientationPatient")
        spacing = _from_groups(groups, "PixelMeasuresSequence", "PixelSpacing")
        slope = _from_groups(groups, "PixelValueTransformationSequence", "RescaleSlope")
        intercept = _from_groups(groups, "PixelValueTransformationSequence", "RescaleIntercept")
    else:
        position, orientation = dataset.get("ImagePositionPatient"), dataset.get("ImageOrientationPatient")
        spacing = dataset.get("PixelSpacing")
        slope, intercept = dataset.get("RescaleSlope"), dataset.get("RescaleIntercept")
    rows, columns = _finite(dataset.get("Rows"), 0), _finite(dataset.get("Columns"), 0)
    return Frame(
        path, index, str(dataset.get("SOPInstanceUID", "")), int(_finite(dataset.get("InstanceNumber"), 0)), facts,
        _vector(position, 3), _vector(orientation, 6), _vector(spacing, 2),
        (int(rows), int(columns)) if rows and columns else None,
        _finite(slope, 1.0) or 1.0, _finite(intercept, 0.0),
        str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1",
    )
