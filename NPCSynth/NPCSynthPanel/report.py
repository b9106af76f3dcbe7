"""Section: a page about the latest results, to look at, to print and to sign."""

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from .selectors import makeNodeSelector


class ReportSection:
    """What goes into the report, and the button that writes and opens it."""

    def __init__(self, logic, runner, messages):
        self.logic, self.runner, self.messages = logic, runner, messages
        self._parameterNode = None
        self._updating = False
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.text = _("Report")
        form = qt.QFormLayout(self.widget)
        self.contoursSelector = makeNodeSelector(
            "vtkMRMLSegmentationNode", _("NPCSynth's own only"), self._onContoursChosen
        )
        self.contoursSelector.toolTip = _(
            "Your contours, drawn with dotted lines into the pictures beside those that NPCSynth proposes."
        )
        form.addRow(_("C&ontours in the pictures:"), self.contoursSelector)
        self.tableCheckBox = qt.QCheckBox(_("With the &table of Contour QA"))
        self.tableCheckBox.checked = True
        form.addRow(self.tableCheckBox)
        self.identityCheckBox = qt.QCheckBox(_("With patient's &name and ID"))
        self.identityCheckBox.toolTip = _(
            "Otherwise the report names nobody: no name, ID, dates or series descriptions. A face can still be "
            "recognized in images of a head."
        )
        form.addRow(self.identityCheckBox)
        self.writeButton = qt.QPushButton(_("&Write report…"))
        self.writeButton.connect("clicked(bool)", lambda *_checked: self.write())
        form.addRow(self.writeButton)
        self.refresh()

    def setParameterNode(self, node):
        """Show this node's choice; the patient is named only where it was asked for on the spot."""
        self._parameterNode = node
        self.identityCheckBox.checked = False
        self.refresh()

    def setRunning(self, running):
        """One thing at a time."""
        self.refresh()

    def cleanup(self):
        """Nothing of its own goes on."""
        self._parameterNode = None

    def refresh(self):
        """Possible where there are results."""
        if self._updating:
            return
        self._updating = True
        try:
            chosen = self._parameterNode.reportContours() if self._parameterNode is not None else None
            if self.contoursSelector.currentNode() is not chosen:
                self.contoursSelector.setCurrentNode(chosen)
        finally:
            self._updating = False
        hasTable = self.logic.contours.isCurrent()
        self.tableCheckBox.enabled = hasTable and not self.runner.running
        self.tableCheckBox.toolTip = _(
            "How well two sets of contours agree, structure by structure, as it stands in Contour QA above."
        ) if hasTable else _("Compare contours in Contour QA first; a table that is out of date is left out.")
        for widget in (self.contoursSelector, self.identityCheckBox):
            widget.enabled = not self.runner.running
        if self.runner.running:
            reason = _("Running.")
        elif self._parameterNode is None or not self.logic.hasResults():
            reason = _("Run first: the report is about the latest results.")
        else:
            reason = ""
        self.writeButton.enabled = not reason
        self.writeButton.toolTip = reason or _(
            "One HTML file with pictures, figures, warnings and a checklist. It opens in the browser; print it there, "
            "on paper or as PDF."
        )

    def _onContoursChosen(self, node):
        if not self._updating and self._parameterNode is not None:
            self._parameterNode.setReportContours(node)

    def write(self):
        """Write the report where the user wants it, and open it."""
        path = qt.QFileDialog.getSaveFileName(None, _("Report"), "NPCSynth report.html", "HTML (*.html)")
        if not path:
            return
        try:
            with slicer.util.WaitCursor():
                compute = self.logic.reports.prepare(
                    self._parameterNode, self._parameterNode.reportContours(), self.tableCheckBox.checked,
                    self.identityCheckBox.checked,
                )
            self.logic.ensurePackages()
        except Exception as error:
            self.messages.showError(error)
            return
        self.runner.start(compute, lambda page, seconds: self._finish(page, path))

    def _finish(self, page, path):
        path = self.logic.reports.write(page, path)
        self.messages.show(_("Wrote {path}.").format(path=path))
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))
