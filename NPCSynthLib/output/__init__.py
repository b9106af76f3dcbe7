"""Files out: NIfTI, segmentation NRRD, DICOM, provenance, scene, picture, report. Folders are whole or not there."""

from .folder import new_folder
from .provenance import provenance
from .segmentation import write_segmentation
from .write import write_result

__all__ = ["new_folder", "provenance", "write_result", "write_segmentation"]
