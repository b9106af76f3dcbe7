"""SNOMED CT codes of a structure in the way Slicer stores them with a segment."""

import slicer

#: Slicer's own context: it offers the structure in the terminology dialog when it is known there.
_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGION_CONTEXT = "Anatomic codes - DICOM master list"


def terminology_entry(code: dict) -> str:
    """Slicer's text form of {"category", "type", "modifier"}, each [scheme, value, meaning] or None."""
    parts = []
    for key in ("category", "type", "modifier"):
        scheme, value, meaning = code.get(key) or ("", "", "")
        parts += [value, scheme, meaning]
    return slicer.vtkSlicerTerminologiesModuleLogic.SerializeTerminologyEntry(
        _CONTEXT, *parts, _REGION_CONTEXT, "", "", "", "", "", ""
    )
