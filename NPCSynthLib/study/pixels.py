"""Pixels of DICOM slices in scanner units."""

import warnings
from pathlib import Path

import numpy as np

from ..errors import InputError
from .headers import Frame


class SlicePixels:
    """Reads slices as (rows, columns) float32 in scanner units: rescale applied, MONOCHROME1 turned bright side up.

    Keeps the file read last, so that the frames of one enhanced file are decoded once.
    """

    def __init__(self):
        self._path: Path | None = None
        self._stored: np.ndarray | None = None
        self._top = 0
        self._scaled = False

    def __call__(self, frame: Frame) -> np.ndarray:
        """Raises InputError naming the file when its pixels are missing, cut short or cannot be decoded."""
        if frame.path != self._path:
            self._path = None
            self._load(frame.path)
            self._path = frame.path
        stored = self._stored
        if stored.ndim == 3:
            number = frame.index or 0
            if number >= len(stored):
                raise InputError(f"file {frame.path.name} holds fewer frames than its header says; export it again")
            stored = stored[number]
        if stored.shape != frame.size:
            raise InputError(f"file {frame.path.name} does not hold an image of the size that its header says; "
                             "export it again")
        values = stored.astype(np.float32)
        if self._scaled:
            return values
        if frame.inverted:
            values = self._top - values
        return values * np.float32(frame.slope) + np.float32(frame.intercept)

    def _load(self, path: Path) -> None:
        import pydicom

        with warnings.catch_warnings():
            # pydicom's warnings quote header values, which may identify the patient.
            warnings.simplefilter("ignore")
            try:
                dataset = pydicom.dcmread(path, force=True)
                syntax = getattr(dataset.file_meta, "TransferSyntaxUID", None)
                if syntax is None:
                    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
                compressed = syntax is not None and syntax.is_compressed
                bits = int(dataset.get("BitsStored", 16))
                self._top = -1 if int(dataset.get("PixelRepresentation", 0)) else 2**bits - 1
            except Exception as error:
                raise InputError(f"file {path.name} is damaged; export it again") from error
            if not any(k in dataset for k in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
                raise InputError(f"file {path.name} has no pixels (cut short, or a header only); export it again")
            try:
                self._stored, self._scaled = dataset.pixel_array, False
            except Exception as error:
                if not compressed:
                    raise InputError(f"file {path.name} is cut short or damaged; export it again") from error
                self._stored, self._scaled = decode_with_sitk(path), True


def decode_with_sitk(path: Path) -> np.ndarray:
    """(frames, rows, columns) in scanner units through SimpleITK, whose GDCM decodes every common compression.

    It applies one rescale to all frames, so that files with a rescale for each frame are refused.
    """
    import pydicom
    import SimpleITK as sitk

    dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
    rescales = set()
    for group in dataset.get("PerFrameFunctionalGroupsSequence") or []:
        for item in group.get("PixelValueTransformationSequence") or []:
            rescales.add((float(item.get("RescaleSlope", 1)), float(item.get("RescaleIntercept", 0))))
    if len(rescales) > 1 or str(dataset.get("PhotometricInterpretation")) == "MONOCHROME1":
        raise InputError(f"the compression of file {path.name} cannot be decoded here; export it uncompressed")
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path), sitk.sitkFloat32))
    except RuntimeError as error:
        raise InputError(f"file {path.name} is damaged or its compression cannot be decoded; export it again, "
                         "uncompressed") from error
