"""Files out: NIfTI, segmentation NRRD, provenance, scene, picture, report. A folder is written whole or not at all."""

from .folder import new_folder
from .provenance import provenance
from .segmentation import write_segmentation
from .write import write_result

__all__ = ["new_folder", "provenance", "write_result", "write_segmentation"]
