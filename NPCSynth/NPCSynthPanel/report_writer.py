"""Writes a report on the latest results of the scene. Knows no widgets."""

from dataclasses import replace
from pathlib import Path

import slicer


class ReportWriter:
    """A page about the latest run, with or without contours::

        logic.reports.prepare(logic.getParameterNode())(lambda fraction, stage: None, lambda: False)

    :param contours: the ContourComparison whose latest table can be part of it.
    """

    def __init__(self, contours):
        self.contours = contours

    def prepare(self, parameterNode, drawn=None, withTable=True, identify=False):
        """Copy what the report shows out of the scene; main thread only.

        :param drawn: vtkMRMLSegmentationNode to draw into the pictures, or None for NPCSynth's own contours alone.
        :param withTable: the latest comparison of contours too, where it still shows what is in the scene.
        :param identify: the patient's name and ID, the day and the series' names too.
        :return: a function of (onProgress, cancel) for any thread, whose outcome is the page as HTML.
        :raises NPCSynthError: there is nothing to report on. The function raises it too.
        """
        from NPCSynthLib.scene.review import copy_review

        review = copy_review(slicer.mrmlScene, parameterNode.assigned(), drawn)
        agreements, notes, caption = (), (), ""
        if withTable and self.contours.isCurrent():
            agreements, notes, caption = self._table(review.reference_id)

        def compute(onProgress, cancel):
            return review.report(agreements, notes, identify, caption, onProgress, cancel)

        return compute

    def _table(self, reference):
        """Agreements, sentences and caption of the latest comparison; no agreements where it is another patient's."""
        from NPCSynthLib.scene.review import compared_contours

        table = self.contours.table
        about = compared_contours(slicer.mrmlScene, *map(slicer.mrmlScene.GetNodeByID, table.nodes))
        if about.refusal:
            return (), (about.refusal,), ""
        agreements = table.agreements
        if table.nodes[2] != reference:
            # Its slices are those of another image.
            agreements = tuple(replace(one, worst_slice=None) for one in agreements)
        return agreements, (*about.notes, *table.notes), about.caption

    def write(self, page, path):
        """Write the page, all of it or nothing; a file of that name is replaced.

        :return: the path, which ends in .html.
        :raises OutputError: it could not be written.
        """
        from NPCSynthLib.output.folder import write_whole

        path = Path(path)
        if path.suffix.lower() not in (".html", ".htm"):
            path = path.with_name(path.name + ".html")
        write_whole(path, page)
        return path
