"""Pixels of DICOM slices in scanner units."""

import tempfile
import warnings
from pathlib import Path

import numpy as np

from ..errors import InputError
from .headers import Frame

#: No MR image is compressed to less than this part of its size; one that claims so is damaged.
_MOST_COMPRESSED = 1000


class SlicePixels:
    """Reads slices as (rows, columns) float32 in scanner units: rescale applied, MONOCHROME1 turned bright side up.

    Keeps the file read last, so that the frames of one enhanced file are decoded once.
    """

    def __init__(self):
        self._path: Path | None = None
        self._stored: np.ndarray | None = None
        self._top = 0

    def __call__(self, frame: Frame) -> np.ndarray:
        """Raises InputError naming the file when its pixels are missing, cut short or cannot be decoded."""
        if frame.path != self._path:
            self._path = None
            self._load(frame.path)
            self._path = frame.path
        stored = self._stored
        if stored.ndim == 3:
            number = frame.index or 0
            if frame.index is None and len(stored) > 1:
                raise InputError(f"file {frame.path.name} holds several frames but says where one of them lies; "
                                 "export it again as enhanced or single-frame MR")
            if number >= len(stored):
                raise InputError(f"file {frame.path.name} holds fewer frames than its header says; export it again")
            stored = stored[number]
        if stored.shape != frame.size:
            raise InputError(f"file {frame.path.name} does not hold an image of the size that its header says; "
                             "export it again")
        values = stored.astype(np.float64)
        if frame.inverted:
            values = self._top - values
        with np.errstate(over="ignore", invalid="ignore"):  # absurd rescales end as values that check_usable refuses
            return (values * frame.slope + frame.intercept).astype(np.float32)

    def _load(self, path: Path) -> None:
        import pydicom

        with warnings.catch_warnings():
            # pydicom's warnings quote header values, which may identify the patient.
            warnings.simplefilter("ignore")
            description = pydicom.Dataset()
            try:
                # From the open file, without what stands around the pixels.
                self._stored = pydicom.pixels.pixel_array(path, ds_out=description)
            except Exception:
                description, self._stored = _decode_whole(path)
            self._top = -1 if description.get("PixelRepresentation") else 2 ** description.BitsStored - 1


def _decode_whole(path: Path):
    """(data set, stored values) of files that are harder to read: without file meta information, deflated, or in a
    compression that pydicom does not decode. Raises InputError naming the file.
    """
    import pydicom

    try:
        dataset = pydicom.dcmread(path, force=True)
        syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
        if syntax is None:
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        leave_to_gdcm = syntax is not None and syntax.is_compressed and not _pydicom_decodes(syntax)
    except Exception as error:
        raise InputError(f"file {path.name} is damaged; export it again") from error
    if not any(k in dataset for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        raise InputError(f"file {path.name} has no pixels (cut short, or a header only); export it again")
    try:
        return dataset, dataset.pixel_array
    except Exception as error:
        if not leave_to_gdcm:
            raise InputError(f"file {path.name} is cut short or damaged; export it again") from error
    return dataset, decode_with_sitk(dataset, path.name)


def _pydicom_decodes(syntax) -> bool:
    from pydicom.pixels import get_decoder

    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def decode_with_sitk(dataset, name: str) -> np.ndarray:
    """(frames, rows, columns) stored values of a compressed data set, through SimpleITK.

    pydicom leaves JPEG lossless and others to plugins that Slicer does not bring; the GDCM within SimpleITK decodes
    every common compression. It gets the bare pixels in a file of their own, so that it neither rescales nor inverts,
    and no patient data leaves the original. Raises InputError naming the file ``name``.
    """
    import pydicom
    import SimpleITK as sitk
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid

    bare = FileDataset(None, {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    bare.file_meta.MediaStorageSOPClassUID = bare.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    bare.file_meta.MediaStorageSOPInstanceUID = bare.SOPInstanceUID = generate_uid()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "pixels.dcm"
        try:
            for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"):
                bare[keyword] = dataset[keyword]
            bare.NumberOfFrames = int(dataset.get("NumberOfFrames") or 1)
            # Taken apart and put together anew: GDCM believes any length or size that damaged data claim, and takes the
            # memory for it.
            frames = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=bare.NumberOfFrames))
            decoded = int(bare.Rows) * int(bare.Columns) * int(bare.BitsAllocated) // 8
            if (len(frames) != bare.NumberOfFrames or bare.BitsAllocated not in (8, 16)
                    or decoded > _MOST_COMPRESSED * min(map(len, frames))):
                raise ValueError("the pixels cannot be what the header says")
            bare.PixelData = pydicom.encaps.encapsulate(frames)
            bare.SamplesPerPixel, bare.PhotometricInterpretation = 1, "MONOCHROME2"
            bare.save_as(path, enforce_file_format=True)
            stored = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        except Exception as error:
            raise InputError(f"file {name} is damaged or its compression cannot be decoded; export it again, "
                             "uncompressed") from error
    return stored[np.newaxis] if stored.ndim == 2 else stored
