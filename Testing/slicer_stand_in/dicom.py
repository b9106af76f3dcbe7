"""DICOMLib: the base class of DICOM plugins and what they offer. The database itself is given by the test.

Imitates Slicer/Slicer, Modules/Scripted/DICOMLib/DICOMPlugin.py and DICOMUtils.py. Not imitated: exporting, names from
the database, and the subject hierarchy, of which it is only remembered that a node was to be filed.
"""

import hashlib


class DICOMUtils:
    """Imports into the database; here it is only remembered."""

    imported: list = []

    @classmethod
    def importDicom(cls, dicomDataDir, dicomDatabase=None, copyFiles=False):
        """Indexes the files below a folder; they stay where they are unless copies are asked for."""
        cls.imported.append((dicomDataDir, copyFiles))
        return True


class DICOMLoadable:
    """Something that can be loaded; attributes as in Slicer."""

    def __init__(self):
        self.files, self.name, self.tooltip, self.warning = [], "Unknown", "", ""
        self.selected, self.confidence = False, 0.5


class DICOMPlugin:
    """Base of DICOM plugins."""

    def __init__(self):
        self.loadType = "Generic DICOM"
        self.loadableCache = {}
        self.tags = {"seriesDescription": "0008,103E", "seriesNumber": "0020,0011"}

    def _key(self, files):
        return hashlib.md5("".join(files).encode()).digest()

    def getCachedLoadables(self, files):
        """What was found for these files before, or None."""
        return self.loadableCache.get(self._key(files))

    def cacheLoadables(self, files, loadables):
        """Remember."""
        self.loadableCache[self._key(files)] = loadables

    def addSeriesInSubjectHierarchy(self, loadable, dataNode):
        """Slicer files the node under patient and study; here it is only remembered that it was asked to."""
        dataNode.SetAttribute("StandIn.Filed", "yes")
