"""Contours from DICOM: RT Structure Sets and Segmentations."""

import warnings
from pathlib import Path

import numpy as np

from ..errors import InputError
from .contours_files import onto_image
from .contours_raster import rasterize
from .contours_structures import ReferenceStructure, check_frame
from .volume import Grid, Volume

#: No scanner is larger; such coordinates are damage, not anatomy.
_FARTHEST_MM = 1e5
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


def read_rtstruct(dataset, path: Path, image: Volume) -> tuple[list, str | None, list, list, list]:
    """Structures of a pydicom RTSTRUCT data set; see ``contours.read_contours``.

    A structure that cannot be read whole is left out and named: half a structure would be measured as a bad one.

    Returns (structures, frame of reference UID, UIDs of the referenced series, notes, left out); what was left out is
    not in the notes.
    Raises InputError as ``contours.check_frame`` does.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's warnings quote values
            frame_items = dataset.get("ReferencedFrameOfReferenceSequence") or []
            named = {str(item.FrameOfReferenceUID) for item in frame_items if item.get("FrameOfReferenceUID")}
            rois = {int(roi.ROINumber): roi for roi in dataset.get("StructureSetROISequence") or []}
            drawn = {int(item.ReferencedROINumber): item for item in dataset.get("ROIContourSequence") or []}
            series_uids = [
                str(series.SeriesInstanceUID)
                for item in frame_items
                for study in item.get("RTReferencedStudySequence") or []
                for series in study.get("RTReferencedSeriesSequence") or []
                if series.get("SeriesInstanceUID")
            ]
            names = {number: str(roi.get("ROIName", "") or f"ROI {number}").strip() for number, roi in rois.items()}
            frames = {number: str(roi.get("ReferencedFrameOfReferenceUID", "") or "") for number, roi in rois.items()}
    except Exception as error:  # of many types: whatever pydicom meets in a damaged file
        raise InputError(f"{path.name} is damaged: its list of structures cannot be read. Export it again.") from error
    for number, frame in frames.items():
        if not frame and len(named) == 1:
            frames[number] = next(iter(named))
    notes = check_frame(path, {frame for frame in frames.values() if frame} or named, series_uids, image)
    here = image.metadata.get("FrameOfReferenceUID")
    structures, left_out = [], []
    for number, name in names.items():
        if here and frames[number] and frames[number] != here:
            left_out.append((name, f"{name} was left out: it lies in another frame of reference than the image."))
            continue
        try:
            contours, ignored = _closed_contours(drawn.get(number))
            if ignored and not contours:
                raise ValueError("encloses nothing, being points or open lines")
            mask, told = rasterize(contours, image.grid) if contours else (np.zeros(image.grid.shape, bool), [])
        except ValueError as error:
            left_out.append((name, f"{name} was left out: it {error}."))
            continue
        if ignored:
            told.append("has points or open lines beside its contours, which were ignored")
        if not contours:
            told.append("has no contour; it is empty")
        notes += [f"{name} {phrase}." for phrase in told]
        structures.append(ReferenceStructure.of(name, mask))
    frame = here if here in frames.values() else next(iter(named), None)
    return structures, frame, series_uids, notes, left_out


def _closed_contours(drawn) -> tuple[list[np.ndarray], int]:
    """((n, 3) LPS mm of each closed contour, number of contours that enclose nothing) of an item, which may be None.

    Raises ValueError with a phrase when a contour is damaged.
    """
    contours, ignored = [], 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            items = list((drawn.get("ContourSequence") if drawn is not None else None) or [])
            for item in items:
                points = _points(item)
                if str(item.get("ContourGeometricType", "")).strip() not in _CLOSED or len(points) < 3:
                    ignored += 1
                else:
                    contours.append(points)
    except Exception as error:
        raise ValueError("has a damaged contour") from error
    return contours, ignored


def _points(item) -> np.ndarray:
    """(n, 3) float. Raises ValueError."""
    # The undecoded text: pydicom's objects for a million numbers take a minute.
    element = item.get_item("ContourData")
    value = element.value if element is not None else None
    if isinstance(value, bytes):
        text = value.decode("ascii").strip(" \0")
        value = text.split("\\") if text else []
    numbers = np.array([] if value is None else value, float)
    if numbers.size % 3 or not (np.abs(numbers) < _FARTHEST_MM).all():
        raise ValueError("not points")
    return numbers.reshape(-1, 3)


def read_seg(path: Path, image: Volume) -> tuple[list, str | None, list, list]:
    """Segments of a DICOM Segmentation: binary, label map, or fractional from one half upwards.

    Slices without a frame are empty. Returns (structures, frame of reference UID, UIDs of the referenced series, notes)
    and raises as ``read_rtstruct``; InputError also for a damaged file and for frames that do not make a volume.
    """
    import highdicom

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            seg = highdicom.seg.segread(path)
            frame = str(seg.get("FrameOfReferenceUID", "") or "") or None
            series_uids = [str(item.SeriesInstanceUID) for item in seg.get("ReferencedSeriesSequence") or []]
            labels = {number: str(seg.get_segment_description(number).segment_label) for number in seg.segment_numbers}
    except Exception as error:
        raise InputError(f"{path.name} is a damaged DICOM segmentation. Export it again.") from error
    notes = check_frame(path, {frame} if frame else set(), series_uids, image)
    structures = []
    for number, label in labels.items():
        try:
            volume = seg.get_volume(segment_numbers=[number], skip_overlap_checks=True)
        except Exception as error:
            raise InputError(
                f"The frames of {path.name} do not make a volume: their positions, spacing or sizes do not fit "
                "together. Export it again."
            ) from error
        share = volume.array[..., 0]
        matrix = np.asarray(volume.affine, float)[:, [2, 1, 0, 3]]
        mask, told = onto_image(share >= 0.5, Grid(share.shape, matrix), label, path, image)
        notes += told
        structures.append(ReferenceStructure.of(label, mask))
    return structures, frame, series_uids, notes
