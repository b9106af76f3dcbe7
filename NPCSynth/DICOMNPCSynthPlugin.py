"""DICOM plugin: what NPCSynth exported comes back from the DICOM database named, colored and marked as synthetic.

Without it Slicer would load a synthetic series as if it had been acquired.
"""

import importlib.util
import logging
import sys
from pathlib import Path

import slicer
from DICOMLib import DICOMLoadable, DICOMPlugin
from slicer.i18n import tr as _

# Installed, the library lies beside this file; in a source checkout it lies one folder up, which is not on the path.
for _home in (Path(__file__).resolve().parent, Path(__file__).resolve().parents[1]):
    if (_home / "NPCSynthLib").is_dir():
        if str(_home) not in sys.path:
            sys.path.insert(0, str(_home))
        break


MAKER = "NPCSynth"
#: MR, enhanced MR, segmentation and parametric map; contours (RTSTRUCT) are left to SlicerRT.
CLASSES = {
    "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1",
    "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.30",
}  # fmt: skip


class DICOMNPCSynthPluginClass(DICOMPlugin):
    """Offers NPCSynth's synthetic MR series, uncertainty maps and segmentations, before any other plugin does."""

    def __init__(self):
        super().__init__()
        self.loadType = _("NPCSynth, synthetic")
        self.tags["syntheticData"] = "0008,001c"
        self.tags["manufacturer"] = "0008,0070"
        self.tags["classUID"] = "0008,0016"
        self.tags["instanceUID"] = "0008,0018"

    def examineForImport(self, fileLists):
        """Called with one list of files for each series; returns what can be loaded."""
        loadables = []
        for files in fileLists:
            found = self.getCachedLoadables(files)
            if found is None:
                found = self.examineFiles(files)
                self.cacheLoadables(files, found)
            loadables += found
        return loadables

    def examineFiles(self, files):
        """One loadable when the series is NPCSynth's, else none. Only the first header is asked."""
        def value(tag):
            return slicer.dicomDatabase.fileValue(files[0], self.tags[tag])

        if (
            value("syntheticData") != "YES"
            or value("manufacturer") != MAKER
            or value("classUID") not in CLASSES
        ):
            return []
        from NPCSynthLib.study.headers import read_header, source_instances  # not for series of others

        loadable = DICOMLoadable()
        loadable.files = list(files)
        loadable.name = _("{description} (synthetic, research use)").format(description=value("seriesDescription"))
        loadable.tooltip = _("Made by NPCSynth from other sequences, not acquired. For research only.")
        loadable.selected = True
        loadable.confidence = 0.98  # more than any plugin that would take it for an acquired image
        header = read_header(Path(files[0]))
        # The DICOM module offers to load the image that contours were made on, too.
        loadable.referencedInstanceUIDs = source_instances(header) if header is not None else []
        return [loadable]

    def load(self, loadable):
        """Returns the node, or False (and says why in the log) when the series is damaged."""
        from NPCSynthLib.errors import NPCSynthError
        from NPCSynthLib.scene.dicom import load_exported

        try:
            node = load_exported(loadable.files)
        except NPCSynthError as error:
            logging.error(str(error))
            return False
        uids = [slicer.dicomDatabase.fileValue(file, self.tags["instanceUID"]) for file in loadable.files]
        node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
        self.addSeriesInSubjectHierarchy(loadable, node)
        return node

    def examineForExport(self, subjectHierarchyItemID):
        """Called for what is to be exported by Slicer's own dialog. What is synthetic is offered first, for ``export``
        to refuse: other plugins write no mark."""
        from NPCSynthLib.scene import is_predicted, is_synthetic

        tree = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        node = tree.GetItemDataNode(subjectHierarchyItemID)
        image = node is not None and node.IsA("vtkMRMLScalarVolumeNode") and is_synthetic(node)
        if not image and not (node is not None and node.IsA("vtkMRMLSegmentationNode") and is_predicted(node)):
            return []
        exportable = slicer.qSlicerDICOMExportable()
        exportable.name = self.loadType
        exportable.tooltip = _("Refused here: the module NPCSynth exports it, marked as synthetic.")
        exportable.subjectHierarchyItemID = subjectHierarchyItemID
        exportable.pluginClass = self.__module__
        # The dialog chooses the highest one, and of equal ones not this: others give segmentations 1.
        exportable.confidence = 1.001
        return [exportable]

    def export(self, exportables):
        """Returns why nothing is written."""
        return _("This is synthetic. Export it with the button of the module NPCSynth: this dialog would write it as "
                 "if it had been acquired, or drawn by a person. Predicted contours that were edited, or lie among "
                 "your own, cannot be exported at all: draw your own in a new segmentation.")


class DICOMNPCSynthPlugin:
    """Makes the plugin known to the DICOM module; has no panel of its own."""

    def __init__(self, parent):
        parent.title = _("NPCSynth DICOM plugin")
        parent.categories = ["Developer Tools.DICOM Plugins"]
        parent.contributors = ["The NPCSynth authors"]
        parent.helpText = _("Loads what NPCSynth exported. It works inside the DICOM module.")
        parent.acknowledgementText = ""
        parent.hidden = True
        if importlib.util.find_spec("highdicom") is None:
            return  # a Slicer before 5.12, where it could load nothing and would keep other plugins from doing so
        # This module may be found before the DICOM module is.
        if not hasattr(slicer.modules, "dicomPlugins"):
            slicer.modules.dicomPlugins = {}
        slicer.modules.dicomPlugins["DICOMNPCSynthPlugin"] = DICOMNPCSynthPluginClass
