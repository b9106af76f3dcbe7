"""A whole phantom patient: anatomy, sequences, and the DICOM study with contours that a hospital would send."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RTStructureSetStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from ..errors import OutputError, UsageError
from ..study.headers import header_facts
from ..study.study import DIGITAL_PATIENT
from ..study.volume import Grid, Volume
from ..vocabulary import get_sequence
from .acquire import _sample, acquire
from .anatomy import Anatomy, make_anatomy
from .signal import Protocol, random_protocol

# The anatomy's grid: shape (k, j, i) and spacing in mm.
_SIZES = {"small": ((48, 64, 56), 4.0), "full": ((236, 256, 208), 1.0)}
_DATE, _TIME = "20250102", "093000"


@dataclass(frozen=True)
class Patient:
    """A phantom patient.

    Attributes:
        anatomy: the truth.
        volumes: sequence id -> the acquired volume on its own grid, uint16.
        protocols: sequence id -> how it was acquired.
    """

    anatomy: Anatomy
    volumes: dict[str, Volume]
    protocols: dict[str, Protocol]

    @property
    def structures(self) -> dict:
        """TG-263 name -> (k, j, i) bool mask on ``anatomy.grid``."""
        return self.anatomy.structures


def make_patient(seed: int, sequences=("T1", "T2", "T2FS", "T1C", "T1CFS"), size: str = "full") -> Patient:
    """Make the patient of that seed and acquire the sequences, all on one scanner.

    Args:
        sequences: ids of the vocabulary. Raises UsageError for an unknown one.
        size: "small" (4 mm anatomy, a second or so for each sequence) or "full" (1 mm, about a minute in all).
    """
    if size not in _SIZES:
        raise UsageError(f'"{size}" is not a size of the phantom. Choose one of: {", ".join(_SIZES)}.')
    ids = [get_sequence(name).id for name in sequences]
    shape, spacing = _SIZES[size]
    anatomy = make_anatomy(seed, shape, (spacing,) * 3)
    field = float(np.random.default_rng([seed, 200]).choice([1.5, 3.0]))
    volumes, protocols = {}, {}
    for sequence_id in ids:
        # The draws of a sequence depend on its name only, not on what else was acquired.
        rng = np.random.default_rng([seed, 201, *sequence_id.encode()])
        protocols[sequence_id] = random_protocol(sequence_id, rng, field)
        volumes[sequence_id] = acquire(
            anatomy, protocols[sequence_id], rng, noise=rng.uniform(0.008, 0.025), bias=rng.uniform(0.05, 0.2),
            motion=rng.choice([0.0, 0.0, 0.3, 0.6]),
        )
    return Patient(anatomy, volumes, protocols)


def structures_on(anatomy: Anatomy, grid: Grid) -> dict:
    """TG-263 name -> (k, j, i) float32 share of each voxel of ``grid`` that the structure fills, 0..1.

    Above 0.5 a voxel belongs to the structure.
    """
    return {
        name: _sample(mask.astype(np.float32), anatomy.grid, grid) for name, mask in anatomy.structures.items()
    }


def write_dicom(patient: Patient, folder, sequences=None) -> list[Path]:
    """Write a DICOM study: a folder of MR images for each sequence, and an RTSTRUCT with the true structures.

    The contours refer to the first sequence. Identity says plainly that this is a phantom.

    Args:
        folder: made when it does not exist.
        sequences: which of the patient's sequences; default all.

    Returns:
        the series folders in order, then the RTSTRUCT file.

    Raises:
        OutputError: when the folder cannot be written.
        UsageError: for a sequence that the patient does not have.
    """
    ids = list(patient.volumes) if sequences is None else [get_sequence(name).id for name in sequences]
    missing = [name for name in ids if name not in patient.volumes]
    if missing or not ids:
        raise UsageError(
            f"This phantom has no {', '.join(missing) or 'sequence to write'}. It has: {', '.join(patient.volumes)}."
        )
    folder = Path(folder)
    written, reference = [], None
    try:
        for number, sequence_id in enumerate(ids, start=1):
            volume = patient.volumes[sequence_id]
            series_folder = folder / f"{number:02d}_{volume.metadata['SeriesDescription']}"
            series_folder.mkdir(parents=True, exist_ok=True)
            slices = _mr_slices(patient.anatomy.seed, sequence_id, number, volume)
            for index, dataset in enumerate(slices, start=1):
                dataset.save_as(series_folder / f"IM{index:04d}.dcm", enforce_file_format=True)
            reference = reference or (volume.grid, slices)
            written.append(series_folder)
        path = folder / "RTSTRUCT.dcm"
        _structure_set(patient.anatomy, *reference).save_as(path, enforce_file_format=True)
    except OSError as error:
        raise OutputError(
            f"The phantom's DICOM files could not be written to {folder}: {error.strerror or error}. "
            "Choose a folder that you may write to, on a disk with free space."
        ) from error
    return [*written, path]


def _uid(seed, *what):
    return generate_uid(entropy_srcs=["NPCSynth phantom", str(seed), *map(str, what)])


def _dataset(seed, sop_class, *what, syntax=ExplicitVRLittleEndian) -> FileDataset:
    """Patient, study, equipment and SOP common modules."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = _uid(seed, *what)
    meta.TransferSyntaxUID = syntax
    ds = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    ds.InstanceCreationDate, ds.InstanceCreationTime = _DATE, _TIME
    ds.PatientName, ds.PatientID = "Phantom^NPCSynth", f"NPCSYNTH-PHANTOM-{seed}"
    ds.PatientBirthDate, ds.PatientSex = "", "O"
    ds.PatientComments = "Digital phantom, not a patient"
    ds.StudyInstanceUID = _uid(seed, "study")
    ds.StudyDate, ds.StudyTime, ds.StudyID = _DATE, _TIME, "1"
    ds.StudyDescription, ds.AccessionNumber = "MR head and neck (digital phantom)", ""
    ds.ReferringPhysicianName = ""
    ds.FrameOfReferenceUID, ds.PositionReferenceIndicator = _uid(seed, "frame"), ""
    for keyword, value in DIGITAL_PATIENT.items():
        setattr(ds, keyword, value)
    ds.DeviceSerialNumber, ds.SoftwareVersions = "1", "1"
    return ds


def _numbers(values):
    return [format_number_as_ds(float(value)) for value in np.ravel(values)]


def _mr_slices(seed, sequence_id, number, volume) -> list[FileDataset]:
    """One MR Image Storage dataset for each slice."""
    grid, facts = volume.grid, volume.metadata
    low, high = np.percentile(volume.array, [1, 99.5])
    slices = []
    for k, pixels in enumerate(volume.array):
        ds = _dataset(seed, MRImageStorage, sequence_id, "image", k)
        ds.SeriesInstanceUID, ds.SeriesNumber = _uid(seed, sequence_id, "series"), number
        ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = _DATE
        hour, minute = divmod(9 * 60 + 30 + 4 * number, 60)
        ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = f"{hour:02d}{minute:02d}00"
        for keyword, value in facts.items():
            setattr(ds, keyword, value or None if isinstance(value, list) else value)
        ds.InstanceNumber, ds.AcquisitionNumber = k + 1, 1
        ds.NumberOfAverages, ds.ImagedNucleus = 1, "1H"
        ds.BurnedInAnnotation, ds.ImageComments = "NO", "Digital phantom, not a patient"
        position = grid.ijk_to_lps @ (0, 0, k, 1)
        ds.ImagePositionPatient = _numbers(position[:3])
        ds.ImageOrientationPatient = _numbers(grid.direction[:, :2].T)
        ds.PixelSpacing = _numbers(grid.spacing[[1, 0]])
        ds.SliceLocation = format_number_as_ds(float(position[:3] @ grid.direction[:, 2]))
        ds.Rows, ds.Columns = pixels.shape
        ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 0
        ds.WindowCenter, ds.WindowWidth = int((low + high) / 2), max(int(high - low), 1)
        ds.PixelData = np.ascontiguousarray(pixels, "<u2").tobytes()
        slices.append(ds)
    return slices


def _structure_set(anatomy: Anatomy, grid: Grid, slices) -> FileDataset:
    """RT Structure Set on the slices of one series; the same for the same seed."""
    # The output room needs packages that Slicer's Python lacks, and there only volumes and masks are wanted.
    from ..output.rtstruct import structure_set

    seed, image_series = anatomy.seed, slices[0].SeriesInstanceUID
    facts = header_facts(slices[0]) | {"SOPInstanceUIDs": [image.SOPInstanceUID for image in slices]}
    contours, _ = structure_set(structures_on(anatomy, grid), Volume(None, grid, "phantom", facts))
    ds = _dataset(seed, RTStructureSetStorage, "structures", image_series, syntax=ImplicitVRLittleEndian)
    ds.update(contours)
    ds.Modality, ds.SeriesInstanceUID = "RTSTRUCT", _uid(seed, "structure series", image_series)
    ds.SeriesNumber, ds.InstanceNumber, ds.StructureSetLabel = 100, 1, "PHANTOM"
    ds.SeriesDescription = ds.StructureSetName = ds.StructureSetDescription = "True structures of the phantom"
    ds.StructureSetDate, ds.StructureSetTime = _DATE, _TIME
    for roi in ds.StructureSetROISequence:
        roi.ROIGenerationDescription = ds.StructureSetDescription
    return ds
