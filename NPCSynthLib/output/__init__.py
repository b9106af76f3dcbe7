"""Files out: NIfTI, segmentation NRRD, DICOM, provenance, scene, picture, report. Folders are whole or not there.

Nothing is imported here: some modules need packages that Slicer does not have.
"""
