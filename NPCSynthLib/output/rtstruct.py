"""Masks as the contours of a DICOM RT Structure Set, on the slices of the series that they were drawn on.

Holes are keyholes: one closed contour that runs around the outside, along a channel without width to the hole, around
it and back. That is what DICOM asks of CLOSED_PLANAR (PS3.3 C.8.8.6.3), and readers that fill by the even-odd rule get
the same area from it as those that unite contours; separate inner contours are filled by some planning systems, and
CLOSEDPLANAR_XOR (2022) is not known to older ones.
"""

from collections.abc import Mapping
from datetime import datetime

import numpy as np
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from .. import __version__
from ..errors import UsageError
from ..study.volume import Grid, Volume
from ..vocabulary import Structure, load_structures

_DETACHED_STUDY = "1.2.840.10008.3.1.2.3.1"
#: Said of External, whose type is left empty: of the type EXTERNAL planning systems compute dose in it.
_NO_BODY_FOR_DOSE = "Outline of the body on MR images, for orientation. Not a body for dose calculation."
_OTHER_COLOR = (0.8, 0.8, 0.8)


def structure_set(
    structures: Mapping[str, np.ndarray], reference: Volume, notes: Mapping[str, str] | None = None
) -> tuple[Dataset, tuple[str, ...]]:
    """What makes a DICOM object an RT Structure Set: contours, frame and images referred to, observations, approval.

    Patient, study, series identity and equipment are added by who writes the object; write it in implicit VR, since in
    explicit VR a contour may hold 64 KiB at most, and a long outline on a fine grid may have more.

    Each contour passes half-way between voxels inside and outside, so that a voxel's center lies in the contour exactly
    when the voxel is in the mask; corners are cut, which takes half the area of a single voxel and hardly any of a
    structure. Coordinates are rounded to 0.0001 mm.

    Args:
        structures: TG-263 name -> (k, j, i) mask on ``reference.grid``: bool, or float share of each voxel that the
            structure fills (0..1), whose contour at one half runs between the voxels as the shares say.
        reference: the series that the structures belong to: its grid, and metadata as ``study.read`` gives it (study,
            frame of reference, SOP instances of the slices in k order); its array is not looked at.
        notes: TG-263 name -> what is to be said of the structure, in ASCII, 1024 characters at most.

    Returns:
        (dataset, names of structures left out because they are empty: planning systems refuse empty ones).

    Raises:
        UsageError: the reference is not from DICOM, or every structure is empty.
        ValueError: a mask does not have the grid's shape.
    """
    for name, mask in structures.items():
        if mask.shape != tuple(reference.grid.shape):
            raise ValueError(f"{name} has the shape {mask.shape}, its grid {tuple(reference.grid.shape)}")
    images = _image_references(reference)
    known = {structure.name: structure for structure in load_structures()}
    notes = {"External": _NO_BODY_FOR_DOSE, **(notes or {})}
    rois, contours, observations, empty = [], [], [], []
    for name, mask in structures.items():
        items = _contours(mask, reference.grid, images)
        if not items:
            empty.append(name)
            continue
        number = len(rois) + 1
        rois.append(_roi(number, name, reference.metadata["FrameOfReferenceUID"], notes.get(name, "")))
        observations.append(_observation(number, name, known.get(name)))
        contour = Dataset()
        contour.ReferencedROINumber = number
        color = known[name].color if name in known else _OTHER_COLOR
        contour.ROIDisplayColor = [round(255 * c) for c in color]
        contour.ContourSequence = items
        contours.append(contour)
    if not rois:
        raise UsageError("Every structure is empty: there is no contour to write.")
    dataset, now = Dataset(), datetime.now()
    dataset.FrameOfReferenceUID = reference.metadata["FrameOfReferenceUID"]
    dataset.PositionReferenceIndicator = reference.metadata.get("PositionReferenceIndicator", "")
    dataset.OperatorsName = ""
    dataset.StructureSetLabel, dataset.StructureSetName = "NPCSYNTH", "NPCSynth, research use only"
    dataset.StructureSetDescription = "Proposed by software for research use only; not reviewed. Check every contour."
    dataset.StructureSetDate, dataset.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.ReferencedFrameOfReferenceSequence = [_frame_of_reference(reference, images)]
    dataset.StructureSetROISequence = rois
    dataset.ROIContourSequence = contours
    dataset.RTROIObservationsSequence = observations
    dataset.ApprovalStatus = "UNAPPROVED"
    return dataset, tuple(empty)


def _image_references(reference: Volume) -> list[Dataset]:
    """One item for each slice, in k order. Raises UsageError when the volume is not a DICOM series."""
    facts = reference.metadata
    uids = facts.get("SOPInstanceUIDs", ())
    needed = ("SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
    if len(uids) != reference.grid.shape[0] or not all(facts.get(keyword) for keyword in needed):
        raise UsageError(
            f"{reference.name or 'The reference image'} is not a complete DICOM series, to which an RTSTRUCT could "
            "refer. Start from the DICOM images."
        )
    items = []
    for k, uid in enumerate(uids):
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = facts["SOPClassUID"], uid
        if "FrameNumbers" in facts:
            item.ReferencedFrameNumber = int(facts["FrameNumbers"][k])
        items.append(item)
    return items


def _frame_of_reference(reference: Volume, images: list[Dataset]) -> Dataset:
    facts = reference.metadata
    series = Dataset()
    series.SeriesInstanceUID = facts["SeriesInstanceUID"]
    if "FrameNumbers" in facts:
        whole = Dataset()
        whole.ReferencedSOPClassUID = images[0].ReferencedSOPClassUID
        whole.ReferencedSOPInstanceUID = images[0].ReferencedSOPInstanceUID
        images = [whole]
    series.ContourImageSequence = images
    study = Dataset()
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _DETACHED_STUDY, facts["StudyInstanceUID"]
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = facts["FrameOfReferenceUID"]
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi(number: int, name: str, frame_of_reference: str, note: str) -> Dataset:
    roi = Dataset()
    roi.ROINumber, roi.ROIName = number, name
    roi.ReferencedFrameOfReferenceUID = frame_of_reference
    if note:
        roi.ROIDescription = note
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    roi.ROIGenerationDescription = f"NPCSynth {__version__}, research use only"
    return roi


def _observation(number: int, name: str, structure: Structure | None) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.ROIObservationLabel = name[:16]
    targets = [kind for kind in ("GTV", "CTV", "PTV") if name.upper().startswith(kind)]
    observation.RTROIInterpretedType = "" if name == "External" else targets[0] if targets else "ORGAN"
    observation.ROIInterpreter = ""
    if structure:
        code = Dataset()
        code.CodingSchemeDesignator, code.CodeValue, code.CodeMeaning = structure.code["type"]
        observation.RTROIIdentificationCodeSequence = [code]
    return observation


def _contours(mask: np.ndarray, grid: Grid, images: list[Dataset]) -> list[Dataset]:
    items = []
    for k in np.flatnonzero((mask > 0.5).any(axis=(1, 2))):
        for outline in outlines(mask[k]):
            index = np.column_stack([outline, np.full(len(outline), k), np.ones(len(outline))])
            positions = (grid.ijk_to_lps @ index.T)[:3].T
            item = Dataset()
            item.ContourImageSequence = [images[k]]
            item.ContourGeometricType = "CLOSED_PLANAR"
            item.NumberOfContourPoints = len(positions)
            item.ContourNumber = len(items) + 1
            # Written as the bytes they become: pydicom's objects for a million numbers take a minute.
            data = "\\".join(f"{value:.4f}" for value in positions.ravel()).encode()
            data += b" " * (len(data) % 2)
            tag = Tag("ContourData")
            item[tag] = RawDataElement(tag, "DS", len(data), data, 0, True, True)
            items.append(item)
    return items


def outlines(plane: np.ndarray) -> list[np.ndarray]:
    """Closed outlines at one half of one slice, one for each connected part, holes joined to it as keyholes.

    Args:
        plane: (j, i) bool or float share 0..1.

    Returns (n, 2) float arrays of (i, j) voxel coordinates, centers of voxels at whole numbers; the last point is not
    the first one again.
    """
    import contourpy  # Slicer's Python lacks it, and in there images alone may be wanted

    # A rim of zeros closes what reaches the edge of the image.
    share = np.pad(np.asarray(plane, np.float64), 1)
    # The upper level is above every share: what is filled is everything from one half upwards.
    generator = contourpy.contour_generator(z=share, fill_type=contourpy.FillType.OuterOffset)
    found = []
    for points, offsets in zip(*generator.filled(0.5, 2.0)):
        rings = [_simplified(points[a : b - 1] - 1) for a, b in zip(offsets[:-1], offsets[1:])]
        rings = [ring for ring in rings if len(ring) >= 3]
        if rings:
            found.append(_keyhole(rings[0], rings[1:]))
    return found


def _simplified(ring: np.ndarray) -> np.ndarray:
    """The ring without points that repeat the one before or lie straight between their neighbors."""
    ring = ring[np.abs(ring - np.roll(ring, 1, axis=0)).max(axis=1) > 1e-9]
    before, after = ring - np.roll(ring, 1, axis=0), np.roll(ring, -1, axis=0) - ring
    return ring[np.abs(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) > 1e-9]


def _keyhole(outer: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """One ring; each hole is joined where it comes nearest to what has been joined before."""
    from scipy.spatial import cKDTree

    while holes:
        tree = cKDTree(outer)
        distances, nearest = zip(*(tree.query(hole) for hole in holes))
        which = int(np.argmin([d.min() for d in distances]))
        start = int(np.argmin(distances[which]))
        end = int(nearest[which][start])
        hole = np.roll(holes.pop(which), -start, axis=0)
        outer = np.concatenate([outer[: end + 1], hole, hole[:1], outer[end:]])
    return outer
