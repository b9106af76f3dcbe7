"""Section: the latest results leave the scene, as DICOM or for good."""

import qt
from slicer.i18n import tr as _


class ExportSection:
    """Export to DICOM, and remove. Has no title: two buttons."""

    def __init__(self, logic, runner, messages):
        self.logic, self.runner, self.messages = logic, runner, messages
        self.widget = qt.QWidget()
        layout = qt.QHBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        self.exportButton = qt.QPushButton(_("Export to DICOM…"))
        self.exportButton.toolTip = _(
            "Write the latest results as DICOM into a folder and into Slicer's DICOM database: in the study and frame "
            "of reference of the acquired images, marked as synthetic in every header."
        )
        self.exportButton.connect("clicked(bool)", lambda *_checked: self.export())
        self.removeButton = qt.QPushButton(_("Remove results"))
        self.removeButton.toolTip = _("Delete the nodes of the latest results. The acquired images stay.")
        self.removeButton.connect("clicked(bool)", lambda *_checked: self.remove())
        for button in (self.exportButton, self.removeButton):
            button.enabled = False
            layout.addWidget(button)

    def setParameterNode(self, node):
        """Results are found in the scene, not in the parameter node."""
        self.refresh()

    def setRunning(self, running):
        """One thing at a time."""
        self.refresh()

    def refresh(self):
        """Possible where there are results."""
        results = not self.runner.running and self.logic.hasResults()
        self.exportButton.enabled = results
        self.removeButton.enabled = results

    def cleanup(self):
        """Nothing of its own goes on."""

    def export(self):
        """Write the latest results as DICOM, after the user has chosen a folder."""
        names, edited = self.logic.latestResultNames()
        names = [name for name in names if name not in edited]
        question = _("Export the latest results?\n{names}\n\nThey are synthetic, for research only, and bear the "
                     "patient's own name so that they file with the acquired images{study}. Do not send them to a "
                     "clinical archive or planning system.")  # fmt: skip
        study = self.logic.latestResultStudy()
        study = _(" of {study}").format(study=study) if study else ""
        if not self.messages.confirm(question.format(names="\n".join(names), study=study)):
            return
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the DICOM export"))
        if not folder:
            return
        try:
            self.logic.ensurePackages()
            export, changed = self.logic.prepareExport(folder)
        except Exception as error:
            self.messages.showError(error)
            return
        self.runner.start(export, lambda outcome, seconds: self._showExport(*outcome, changed))

    def _showExport(self, folder, series, changed):
        sentences = [_("Wrote {count} DICOM series to {folder}.").format(count=len(series), folder=folder)]
        if self.logic.addToDatabase(folder, series):
            sentences.append(_("They are in Slicer's DICOM database too."))
        else:
            sentences.append(_("They are not in Slicer's DICOM database: import the folder in the module DICOM."))
        empty = [name for one in series for name in one.left_out]
        if empty:
            sentences.append(
                _("Not in the contours, because nothing was found: {names}; they may be there all the same.").format(
                    names=", ".join(empty)
                )
            )
        if changed:
            sentences.append(
                _("Not exported, because they were changed after NPCSynth had made them: {names}.").format(
                    names=", ".join(changed)
                )
            )
        self.messages.show("\n".join(sentences))

    def remove(self):
        """Delete the latest results."""
        names, edited = self.logic.latestResultNames()
        question = _("Remove these nodes from the scene?\n{names}").format(names="\n".join(names))
        if edited:
            question += _("\n\nThese were edited by hand, and the edits would be lost:\n{names}").format(
                names="\n".join(edited)
            )
        if self.messages.confirm(question):
            self.logic.removeLatestResult()
            self.messages.show(_("Removed: {names}.").format(names=", ".join(names)))
