"""RT Structure Sets and images as others write them, for the tests of reference contours."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

from NPCSynthLib.study.volume import Grid, Volume

FRAME, SERIES, STUDY = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2", "1.2.826.0.1.3680043.8.498.3"
GRID = Grid.from_parts((20, 64, 60), (0.8, 0.9, 2.5), (-24.0, -28.0, -23.0), np.eye(3))


def image_on(grid: Grid = GRID, **facts) -> Volume:
    """An MR image with what its header says; a fact given as None is left out."""
    header = {
        "SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": FRAME, "SOPInstanceUIDs": [f"{SERIES}.{k + 1}" for k in range(grid.shape[0])], **facts,
    }
    header = {keyword: value for keyword, value in header.items() if value is not None}
    return Volume(np.zeros(grid.shape, np.float32), grid, "t1_tra", header)


def disc(radius: float, z: float, center=(0.0, 0.0), count: int = 200) -> np.ndarray:
    """(count, 3) points of an axial circle, LPS mm."""
    angle = (np.arange(count) + 0.5) * 2 * np.pi / count
    return np.column_stack([center[0] + radius * np.cos(angle), center[1] + radius * np.sin(angle), np.full(count, z)])


def ball(radius: float, center=(0.0, 0.0, 0.0), grid: Grid = GRID) -> list[np.ndarray]:
    """Contours of a sphere on the slices of an axial grid."""
    levels = grid.origin[2] + grid.spacing[2] * np.arange(grid.shape[0])
    return [
        disc(np.sqrt(radius**2 - (z - center[2]) ** 2), z, center[:2]) for z in levels if abs(z - center[2]) < radius
    ]


def write_structures(
    path: Path, structures: dict, frame: str | None = FRAME, series: str | None = SERIES, kinds: dict | None = None
) -> Path:
    """An RTSTRUCT as planning systems write it; nothing of the code under test is used.

    Args:
        structures: ROI name -> list of (n, 3) points in LPS mm, or of strings for ContourData as it stands; None for an
            ROI without an item of contours.
        kinds: ROI name -> Contour Geometric Type, CLOSED_PLANAR where not given.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = RTStructureSetStorage, generate_uid()
    meta.TransferSyntaxUID = ImplicitVRLittleEndian
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = RTStructureSetStorage, meta.MediaStorageSOPInstanceUID, "RTSTRUCT"
    ds.PatientName, ds.PatientID = "Doe^Jane", "4711"
    if frame:
        item, study, image_series = Dataset(), Dataset(), Dataset()
        item.FrameOfReferenceUID = frame
        if series:
            image_series.SeriesInstanceUID = series
            study.ReferencedSOPInstanceUID = STUDY
            study.RTReferencedSeriesSequence = [image_series]
            item.RTReferencedStudySequence = [study]
        ds.ReferencedFrameOfReferenceSequence = [item]
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), 1):
        roi = Dataset()
        roi.ROINumber, roi.ROIName = number, name
        if frame:
            roi.ReferencedFrameOfReferenceUID = frame
        ds.StructureSetROISequence.append(roi)
        if contours is None:
            continue
        drawn = Dataset()
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            contour = Dataset()
            contour.ContourGeometricType = (kinds or {}).get(name, "CLOSED_PLANAR")
            text = points if isinstance(points, str) else "\\".join(f"{value:.3f}" for value in np.ravel(points))
            contour.add_new("ContourData", "LT", text)
            drawn.ContourSequence.append(contour)
        ds.ROIContourSequence.append(drawn)
    ds.save_as(path, enforce_file_format=True)
    return path
