"""Segmentation, contours and uncertainty as DICOM objects."""

import copy
from collections.abc import Iterable

import highdicom
import numpy as np
from highdicom.color import CIELabColor
from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from ..inference.result import NODES_LEFT_OUT, Segment, SegmentationResult, SynthesizedSequence
from ..study.headers import header_facts
from ..study.volume import Grid, Volume
from ..vocabulary import PREDICTED
from .dicom_header import (
    NAME,
    NewSeries,
    Origin,
    code_item,
    copy_patient_and_study,
    equipment,
    frame_anatomy,
    mark_synthetic,
    new_object,
)
from .rtstruct import structure_set


def segmentation_object(segmentation: SegmentationResult, origin: Origin, series: NewSeries) -> Dataset:
    """Segmentation Storage (binary) of every structure, empty ones included, drawn on the reference series."""
    segments = segmentation.segments
    masks = np.stack([segmentation.mask(segment) for segment in segments], axis=-1)
    dataset = highdicom.seg.Segmentation(
        source_images=_reference_images(origin),
        pixel_array=masks,
        segmentation_type="BINARY",
        segment_descriptions=[_description(n, segment, origin) for n, segment in enumerate(segments, 1)],
        series_instance_uid=series.uid, series_number=series.number, sop_instance_uid=generate_uid(),
        instance_number=1, transfer_syntax_uid=ExplicitVRLittleEndian, content_label="SYNTH_STRUCTURES",
        content_description="Proposed by a network, not checked", content_creator_name="",
        **equipment(origin), **_planes(origin),
    )  # fmt: skip
    notes = _notes(origin)
    for item, segment in zip(dataset.SegmentSequence, segments, strict=True):
        if segment.name in notes:
            item.SegmentDescription = notes[segment.name]
        if segment.code.get("modifier"):
            scheme, value, meaning = segment.code["modifier"]
            kind = item.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [code_item(value, scheme, meaning)]
    copy_patient_and_study(dataset, origin.reference.header)
    mark_synthetic(dataset, origin, series, "Segmentation")
    return dataset


def contours_object(
    segmentation: SegmentationResult, grid: Grid, origin: Origin, series: NewSeries
) -> tuple[Dataset, tuple[str, ...]]:
    """(RT Structure Set of every structure that is not empty, drawn on the reference series; names of the empty)."""
    frames = origin.reference.frames
    facts = header_facts(origin.reference.header) | {"SOPInstanceUIDs": [frame.uid for frame in frames]}
    if origin.reference.multiframe:
        facts["FrameNumbers"] = [frame.index + 1 for frame in frames]
    # The contours refer to the images' headers; nothing looks at voxels.
    reference = Volume(np.empty((0, 0, 0)), grid, origin.reference.sequence, facts)
    masks = {segment.name: segmentation.mask(segment) for segment in segmentation.segments}
    notes = _notes(origin)
    contours, empty = structure_set(masks, reference, notes)
    for roi, observation in zip(contours.StructureSetROISequence, contours.RTROIObservationsSequence, strict=True):
        roi.ROIName = observation.ROIObservationLabel = f"{roi.ROIName}{PREDICTED}"
        if observation.RTROIInterpretedType == "GTV":
            observation.RTROIInterpretedType = ""  # or a planning system may take it for a target
    # In explicit VR a contour may hold 64 KiB at most; a long outline on a fine grid may have more.
    dataset = new_object(origin, series, RTStructureSetStorage, "RTSTRUCT", syntax=ImplicitVRLittleEndian)
    for element in contours:
        if element.tag not in dataset:
            dataset.add(element)
    # Said here too, since an empty structure is left out with its description.
    said = [dataset.StructureSetDescription, *notes.values(), *([not_in_contours(empty)] if empty else [])]
    dataset.StructureSetDescription = " ".join(said)[:1024]
    mark_synthetic(dataset, origin, series, "Contours")
    return dataset, empty


def _notes(origin: Origin) -> dict[str, str]:
    """Name of a structure -> what the run warned of it."""
    told = [warning for warning in origin.document.get("warnings", ()) if warning.startswith(NODES_LEFT_OUT)]
    return {"GTVn": told[0]} if told else {}


def not_in_contours(names: Iterable[str]) -> str:
    """What is to be said of structures that an RT Structure Set lacks."""
    return f"Not in the contours, because nothing was found: {', '.join(names)}; they may be there all the same."


def uncertainty_object(
    synthetic: SynthesizedSequence, output: dict, images: list[Dataset], origin: Origin, series: NewSeries
) -> Dataset:
    """Parametric Map of the predicted mean absolute error of a synthetic sequence.

    Args:
        images: the synthetic series that it belongs to, as written: classic images in slice order or one enhanced.
    """
    top = int(max(synthetic.uncertainty.max(), 1))
    mapping = highdicom.pm.RealWorldValueMapping(
        lut_label="UNCERTAINTY", lut_explanation="Predicted mean absolute error, in stored values of the image",
        unit=codes.UCUM.NoUnits, value_range=(0.0, 32767.0), slope=1.0, intercept=0.0,
        quantity_definition=CodedConcept("MAE", "99NPCSYNTH", "Predicted mean absolute error"),
    )  # fmt: skip
    dataset = highdicom.pm.ParametricMap(
        # dcmqi, which 3D Slicer reads parametric maps with, ends in a crash on maps of integers.
        source_images=images, pixel_array=synthetic.uncertainty.astype(np.float32),
        series_instance_uid=series.uid, series_number=series.number, sop_instance_uid=generate_uid(),
        instance_number=1, contains_recognizable_visual_features=True, real_world_value_mappings=[mapping],
        # Deprecated, but the only way to give the window to the highdicom that comes with 3D Slicer 5.12.
        window_center=top / 2, window_width=top,
        content_label="UNCERTAINTY", content_creator_name="", transfer_syntax_uid=ExplicitVRLittleEndian,
        content_description=f"Uncertainty of {synthetic.sequence}, as the network estimates it", **equipment(origin),
    )  # fmt: skip
    _arrange_frames(dataset, synthetic.uncertainty.shape, origin)
    # Optional, but dcmqi reads it unasked.
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = frame_anatomy()
    copy_patient_and_study(dataset, origin.reference.header)
    mark_synthetic(dataset, origin, series, f"Uncertainty of the {synthetic.sequence} image", output)
    return dataset


def _arrange_frames(dataset: Dataset, shape: tuple, origin: Origin) -> None:
    """Put the frames in order along the normal: dcmqi takes them to be, whatever positions they state, and would show
    the map of a patient upside down otherwise. They lie evenly (``SourceSeries.even_positions``)."""
    first = origin.reference.frames[0].orientation
    normal = np.cross(first[:3], first[3:])
    groups = dataset.PerFrameFunctionalGroupsSequence
    places = [np.array(g.PlanePositionSequence[0].ImagePositionPatient, float) @ normal for g in groups]
    order = np.argsort(places)
    dataset.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]
    even = sorted(origin.reference.even_positions, key=lambda position: float(position @ normal))
    for index, (group, position) in enumerate(zip(dataset.PerFrameFunctionalGroupsSequence, even, strict=True), 1):
        group.FrameContentSequence[0].DimensionIndexValues = [index]
        group.PlanePositionSequence[0].ImagePositionPatient = [format_number_as_ds(float(p)) for p in position]
    voxels = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(shape)
    dataset.FloatPixelData = voxels[order].tobytes()


def _planes(origin: Origin) -> dict:
    """Where each frame lies, given outright: highdicom then asks for no agreement to the last digit between slices."""
    frames = origin.reference.frames
    first = frames[0]
    return {
        "plane_positions": [
            highdicom.PlanePositionSequence("PATIENT", tuple(map(float, position)))
            for position in origin.reference.even_positions
        ],
        "plane_orientation": highdicom.PlaneOrientationSequence("PATIENT", tuple(map(float, first.orientation))),
        "pixel_measures": highdicom.PixelMeasuresSequence(
            tuple(map(float, first.pixel_spacing)),
            slice_thickness=origin.reference.thickness, spacing_between_slices=origin.reference.spacing,
        ),
    }


def _reference_images(origin: Origin) -> list[Dataset]:
    """Headers of the reference's slices for highdicom, with one orientation for all of them."""
    header, frames = origin.reference.header, origin.reference.frames
    orientation = [format_number_as_ds(float(value)) for value in frames[0].orientation]
    spacing = [format_number_as_ds(float(value)) for value in frames[0].pixel_spacing]
    if origin.reference.multiframe:
        # Orientation and spacing may stand with each frame; highdicom looks for them in the shared groups alone.
        image = copy.deepcopy(header)
        image.SOPInstanceUID = frames[0].uid
        plane, measures = Dataset(), Dataset()
        plane.ImageOrientationPatient, measures.PixelSpacing = orientation, spacing
        measures.SliceThickness = format_number_as_ds(origin.reference.thickness)
        shared = image.SharedFunctionalGroupsSequence[0]
        shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [plane], [measures]
        return [image]
    images = []
    for frame in frames:
        image = Dataset()
        image.update({element.tag: element for element in header})  # shares the elements, which are not changed
        image.add_new("SOPInstanceUID", "UI", frame.uid)
        image.add_new("ImagePositionPatient", "DS", [format_number_as_ds(float(value)) for value in frame.position])
        image.add_new("ImageOrientationPatient", "DS", orientation)
        image.add_new("PixelSpacing", "DS", spacing)
        images.append(image)
    return images


def _description(number: int, segment: Segment, origin: Origin) -> highdicom.seg.SegmentDescription:
    weights = origin.document["weights"]
    category, kind = (CodedConcept(c[1], c[0], c[2]) for c in (segment.code["category"], segment.code["type"]))
    description = highdicom.seg.SegmentDescription(
        segment_number=number, segment_label=f"{segment.name}{PREDICTED}", segmented_property_category=category,
        segmented_property_type=kind, algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=NAME, family=codes.DCM.ArtificialIntelligence, version=str(weights["version"]), source=NAME,
            parameters={"weights": str(weights["name"]), "sha256": weights["sha256"]},
        ),
        tracking_uid=generate_uid(), tracking_id=segment.name,
    )  # fmt: skip
    color = CIELabColor.from_rgb(*(round(255 * part) for part in segment.color))
    description.RecommendedDisplayCIELabValue = list(color.value)
    return description
