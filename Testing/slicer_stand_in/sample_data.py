"""The registry of the Sample Data module, without its window and without downloads.

Imitates Slicer/Slicer, Modules/Scripted/SampleData/SampleData.py: all lists of a source have one length, a source is
registered once, and a click on the button of a source with a custom downloader calls that with the source.
"""

import slicer


class SampleDataSource:
    """Attributes as in Slicer."""

    def __init__(self, sampleName=None, uris=None, fileNames=None, nodeNames=None, customDownloader=None,
                 thumbnailFileName=None, loadFileType="VolumeFile", loadFiles=None, checksums=None):  # fmt: skip
        if isinstance(uris, str):
            uris, fileNames, nodeNames = [uris], [fileNames], [nodeNames]
        self.sampleName = self.sampleDescription = sampleName
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName
        self.uris, self.fileNames, self.nodeNames = uris, fileNames, nodeNames
        self.loadFiles = [None] * len(uris) if loadFiles is None else loadFiles
        self.checksums = [None] * len(uris) if checksums is None else checksums
        lengths = {len(one) for one in (uris, fileNames, nodeNames, self.loadFiles, self.checksums)}
        if len(lengths) != 1:
            raise ValueError("All fields of sample data source must have the same length")


class SampleDataLogic:
    """The part that modules call when Slicer has started."""

    @staticmethod
    def registerCustomSampleDataSource(category="Custom", **source):
        """Offer a data set."""
        if not hasattr(slicer.modules, "sampleDataSources"):
            slicer.modules.sampleDataSources = {}
        known = slicer.modules.sampleDataSources.setdefault(category, [])
        made = SampleDataSource(**source)
        if all(vars(one) != vars(made) for one in known):
            known.append(made)


def click(source):
    """Do what the button of a data set does."""
    return source.customDownloader(source)
