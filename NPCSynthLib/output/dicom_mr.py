"""A synthetic sequence as a DICOM series: classic MR images, one for each slice, or one enhanced multi-frame image."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from ..inference.result import INTENSITY_HIGH, INTENSITY_LOW, SynthesizedSequence
from ..study.headers import Frame
from .dicom_header import (
    DERIVATION,
    NewSeries,
    Origin,
    code_item,
    concept,
    copy_elements,
    frame_anatomy,
    mark_synthetic,
    new_object,
)
from .dicom_source import contributing_frames


def classic_mr(synthetic: SynthesizedSequence, output: dict, origin: Origin, series: NewSeries) -> list[Dataset]:
    """One MR Image Storage object for each slice, in the order of the result's slices.

    Positions, orientation and spacing are the source's own; instances are numbered in the source's order. The stored
    values are those of ``synthetic.array``, 0 and 1000 being the body's 0.5 and 99.5 percentiles. What was not
    acquired has no acquisition parameters: echo time and the like are empty, and no contrast agent is named.
    """
    sources, first = _sources_by_slice(origin), origin.reference.frames[0]
    datasets = []
    for k, (frame, number) in enumerate(zip(origin.reference.frames, _numbers(origin), strict=True)):
        dataset = new_object(origin, series, MRImageStorage, "MR", number)
        dataset.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
        dataset.ScanningSequence, dataset.SequenceVariant = "RM", "NONE"  # research mode: the closest to "none at all"
        for keyword in ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength",
                        "AcquisitionNumber"):
            setattr(dataset, keyword, None)
        dataset.ImagePositionPatient = _decimal(frame.position)
        # One for all slices: the source's may differ in the last digits, of which some readers make several volumes.
        dataset.ImageOrientationPatient = _decimal(first.orientation)
        dataset.PixelSpacing = _decimal(first.pixel_spacing)
        dataset.SliceThickness, dataset.SpacingBetweenSlices = _decimal(
            (origin.reference.thickness, origin.reference.spacing)
        )
        dataset.DerivationCodeSequence = [code_item(*DERIVATION)]
        dataset.SourceImageSequence = sources[k]
        _add_pixels(dataset, synthetic.array[k], origin)
        _add_window(dataset)
        mark_synthetic(dataset, origin, series, f"{synthetic.sequence} image", output)
        datasets.append(dataset)
    return datasets


def enhanced_mr(synthetic: SynthesizedSequence, output: dict, origin: Origin, series: NewSeries) -> Dataset:
    """One Enhanced MR Image Storage object; everything else as in ``classic_mr``."""
    dataset = new_object(origin, series, EnhancedMRImageStorage, "MR")
    kinds = {
        "PixelPresentation": "MONOCHROME", "VolumetricProperties": "VOLUME", "VolumeBasedCalculationTechnique": "NONE",
        "ComplexImageComponent": "MAGNITUDE", "AcquisitionContrast": "UNKNOWN",
    }  # fmt: skip
    for keyword, value in kinds.items():
        setattr(dataset, keyword, value)
    # In enhanced objects the second value is PRIMARY for all but what repeats acquired pixels.
    dataset.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "NONE"]
    dataset.PresentationLUTShape = "IDENTITY"
    # Nothing was acquired, but dciodvfy asks for the agency of derived images too, and the standard allows it.
    dataset.ApplicableSafetyStandardAgency = origin.reference.header.get("ApplicableSafetyStandardAgency") or "IEC"
    dataset.AcquisitionContextSequence = []
    dataset.SourceImageEvidenceSequence = _evidence(origin)
    _add_pixels(dataset, synthetic.array, origin)
    dataset.NumberOfFrames = len(synthetic.array)
    _add_dimensions(dataset)
    dataset.SharedFunctionalGroupsSequence = [_shared_groups(origin, kinds)]
    numbers = _numbers(origin)
    dataset.PerFrameFunctionalGroupsSequence = [
        _frame_groups(position, number, items, origin)
        for position, number, items in zip(
            origin.reference.even_positions, numbers, _sources_by_slice(origin), strict=True
        )
    ]
    mark_synthetic(dataset, origin, series, f"{synthetic.sequence} image", output)
    return dataset


def _numbers(origin: Origin) -> list[int]:
    """Instance numbers 1..n that run the way the source's do, so that viewers page through both alike."""
    frames = origin.reference.frames
    order = np.argsort([frame.instance if frame.index is None else frame.index for frame in frames], kind="stable")
    numbers = np.empty(len(frames), int)
    numbers[order] = np.arange(1, len(frames) + 1)
    return numbers.tolist()


def _decimal(values) -> list[str]:
    return [format_number_as_ds(float(value)) for value in values]


def _add_pixels(dataset: Dataset, array: np.ndarray, origin: Origin) -> None:
    dataset.Rows, dataset.Columns = array.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.BurnedInAnnotation = "NO"
    dataset.RecognizableVisualFeatures = "YES"  # a face can be rendered from a head's images, synthetic or not
    lossy = [source.header for source in origin.sources if source.header.get("LossyImageCompression") == "01"]
    dataset.LossyImageCompression = "01" if lossy else "00"  # what was lost in one source is lost in the result
    if lossy:
        copy_elements(dataset, lossy[0], ("LossyImageCompressionRatio", "LossyImageCompressionMethod"))
    copy_elements(dataset, origin.reference.header, ("PatientPosition",))  # true of the result: the grid is the same
    dataset.PixelData = np.ascontiguousarray(array, "<u2").tobytes()


def _add_window(dataset: Dataset) -> None:
    dataset.WindowCenter = (INTENSITY_LOW + INTENSITY_HIGH) // 2
    dataset.WindowWidth = INTENSITY_HIGH - INTENSITY_LOW


def _sources_by_slice(origin: Origin) -> list[list[Dataset]]:
    """Source Image Sequence of each slice: the reference's own slice and its neighbors, then what others show there.

    Of an isotropic volume that is not axial the network cuts axial slices, and each of the reference's depends on all
    of the series: to name them all would take as much room as the pixels. The provenance names the series.
    """
    reference = origin.reference
    items = [[_image_reference(frame, "YES")] for frame in reference.frames]
    for source in origin.sources:
        # Shared by the slices: of a displaced series each of them names every frame.
        references = {(frame.uid, frame.index): _image_reference(frame, None) for frame in source.frames}
        for k, frames in enumerate(contributing_frames(source, reference)):
            items[k] += [references[frame.uid, frame.index] for frame in frames if frame is not reference.frames[k]]
    return items


def _image(frame: Frame) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = frame.facts["SOPClassUID"], frame.uid
    return item


def _image_reference(frame: Frame, same_place: str | None) -> Dataset:
    item = _image(frame)
    if frame.index is not None:
        item.ReferencedFrameNumber = frame.index + 1
    if same_place:
        item.SpatialLocationsPreserved = same_place
    item.PurposeOfReferenceCodeSequence = [concept(codes.DCM.SourceImageForImageProcessingOperation)]
    return item


# --- enhanced --------------------------------------------------------------------------------------------------------

_STACK, _IN_STACK, _CONTENT = 0x00209056, 0x00209057, 0x00209111


def _add_dimensions(dataset: Dataset) -> None:
    uid = generate_uid()
    organization = Dataset()
    organization.DimensionOrganizationUID = uid
    dataset.DimensionOrganizationSequence = [organization]
    dataset.DimensionOrganizationType = "3D"
    dataset.DimensionIndexSequence = []
    for pointer, label in ((_STACK, "Stack"), (_IN_STACK, "Slice")):
        index = Dataset()
        index.DimensionOrganizationUID, index.DimensionIndexPointer = uid, pointer
        index.FunctionalGroupPointer, index.DimensionDescriptionLabel = _CONTENT, label
        dataset.DimensionIndexSequence.append(index)


def _evidence(origin: Origin) -> list[Dataset]:
    """Every source image by study and series, which the references in the functional groups leave out."""
    studies = {}
    for source in origin.sources:
        images = [_image(frame) for frame in {frame.uid: frame for frame in source.frames}.values()]
        series = _group(SeriesInstanceUID=source.header.SeriesInstanceUID, ReferencedSOPSequence=images)
        studies.setdefault(source.header.StudyInstanceUID, []).extend(series)
    return [item for uid, series in studies.items()
            for item in _group(StudyInstanceUID=uid, ReferencedSeriesSequence=series)]


def _group(**attributes) -> list[Dataset]:
    item = Dataset()
    for keyword, value in attributes.items():
        setattr(item, keyword, value)
    return [item]


def _shared_groups(origin: Origin, kinds: dict) -> Dataset:
    first = origin.reference.frames[0]
    thickness, spacing = _decimal((origin.reference.thickness, origin.reference.spacing))
    groups = Dataset()
    groups.PixelMeasuresSequence = _group(
        PixelSpacing=_decimal(first.pixel_spacing), SliceThickness=thickness, SpacingBetweenSlices=spacing
    )
    groups.PlaneOrientationSequence = _group(ImageOrientationPatient=_decimal(first.orientation))
    groups.FrameAnatomySequence = frame_anatomy()
    groups.PixelValueTransformationSequence = _group(RescaleIntercept="0", RescaleSlope="1", RescaleType="US")
    groups.FrameVOILUTSequence = _group()
    _add_window(groups.FrameVOILUTSequence[0])
    groups.MRImageFrameTypeSequence = _group(FrameType=["DERIVED", "PRIMARY", "VOLUME", "NONE"], **kinds)
    return groups


def _frame_groups(position: np.ndarray, number: int, sources: list[Dataset], origin: Origin) -> Dataset:
    groups = Dataset()
    groups.FrameContentSequence = _group(StackID="1", InStackPositionNumber=number, DimensionIndexValues=[1, number])
    groups.PlanePositionSequence = _group(ImagePositionPatient=_decimal(position))
    groups.DerivationImageSequence = _group(
        DerivationCodeSequence=[code_item(*DERIVATION)], SourceImageSequence=sources
    )
    return groups
