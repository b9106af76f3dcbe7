"""Section: several patients, from folders to folders, one after the other."""

import threading
from pathlib import Path

import ctk
import qt
from slicer.i18n import tr as _

from NPCSynthLib.errors import NPCSynthError, UsageError
from NPCSynthLib.model.store import weights_folder

from .parameters import DEVICES


class BatchSection:
    """A list of patients and what came of each. It does not touch the scene; results are files."""

    def __init__(self, logic, runner, messages):
        self.logic, self.runner, self.messages = logic, runner, messages
        self._parameterNode = None
        self._updating = False
        self._opened = None
        self._ours = False
        self._paused = threading.Event()
        self._shown = None
        self.cohort = None
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.text = _("Several patients")
        self.widget.collapsed = True
        layout = qt.QVBoxLayout(self.widget)
        folderRow = qt.QHBoxLayout()
        layout.addLayout(folderRow)
        self.folderButton = qt.QPushButton(_("&Results folder…"))
        self.folderButton.toolTip = _(
            "A new folder for the results of all patients, or that of an earlier list: it remembers how far it is, and "
            "goes on there."
        )
        self.folderButton.connect("clicked(bool)", lambda *_checked: self.chooseFolder())
        folderRow.addWidget(self.folderButton)
        self.folderLabel = qt.QLabel()
        self.folderLabel.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Preferred)
        folderRow.addWidget(self.folderLabel, 1)
        self.numberedCheckBox = qt.QCheckBox(_("Call patients by n&umbers"))
        self.numberedCheckBox.toolTip = _(
            "patient-001, patient-002 ... instead of the names of their folders. batch.json in the results folder is "
            "the key to the numbers. Fixed once patients are on the list."
        )
        self.reportCheckBox = qt.QCheckBox(_("A re&port for each patient"))
        self.reportCheckBox.checked = True
        self.reportCheckBox.toolTip = _(
            "report.html beside the results: pictures, figures, warnings and a checklist; it names nobody. Fixed once "
            "patients are on the list."
        )
        self.contoursLabel = qt.QLabel()
        self.contoursLabel.wordWrap = True
        for widget in (self.numberedCheckBox, self.reportCheckBox, self.contoursLabel):
            layout.addWidget(widget)
        self.addButton = self._button(_("Add p&atient…"), self.addPatient, _(
            "Add a folder that holds the images of one patient."))
        self.addAllButton = self._button(_("Add &all in a folder…"), self.addAll, _(
            "Add every folder in a folder, each of them a patient."))
        self.removeButton = self._button(_("Remo&ve"), self.removePatient, _(
            "Take the chosen patient off the list. Results that were written stay."))
        self._addRow(layout, self.addButton, self.addAllButton, self.removeButton)
        self.table = qt.QTableWidget()
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.table.setMinimumHeight(160)
        self.table.verticalHeader().setVisible(False)
        self.table.toolTip = _("Double-click on a patient, or press Enter, to open the report or the results.")
        self.table.connect("cellActivated(int,int)", lambda row, column: self.openPatient(row))
        self.table.connect("itemSelectionChanged()", self._refreshButtons)
        layout.addWidget(self.table)
        self.runButton = self._button(_("Run &list"), self.run, "")
        self.pauseButton = self._button(_("Pa&use"), self.pause, _(
            "Stop after the patient at hand. “Cancel” above stops at once; that patient then waits again."))
        self.retryButton = self._button(_("Retry &failed"), self.retry, _(
            "Do the patients again that failed, and those that still wait."))
        self.summaryButton = self._button(_("Open su&mmary"), self.openSummary, _(
            "The table of all patients, to print. summary.csv beside it is for a spreadsheet."))
        self._addRow(layout, self.runButton, self.pauseButton, self.retryButton, self.summaryButton)
        self._timer = qt.QTimer()
        self._timer.setInterval(500)
        self._timer.connect("timeout()", self._onTimer)
        self.refresh()

    def _button(self, text, slot, toolTip):
        button = qt.QPushButton(text)
        button.toolTip = toolTip
        button.connect("clicked(bool)", lambda *_checked: slot())
        return button

    def _addRow(self, layout, *buttons):
        row = qt.QHBoxLayout()
        layout.addLayout(row)
        for button in buttons:
            row.addWidget(button)

    def setParameterNode(self, node):
        """Show this node's batch."""
        self._parameterNode = node
        self.refresh()

    def setRunning(self, running):
        """One thing at a time."""
        if not running:
            self._ours = False
        self.refresh()

    def cleanup(self):
        """Stop looking; what runs is ended by the panel."""
        self._timer.stop()
        self._parameterNode = None

    def refresh(self):
        """Show the list as it is now."""
        if self._updating:
            return
        self._updating = True
        try:
            self._open()
            self._fill()
            self._refreshButtons()
        finally:
            self._updating = False

    def _open(self):
        """The batch that the parameter node names, if it is another one than before. A scene that names none, as
        after closing one, leaves the list: it has nothing to do with the scene."""
        wanted = self._parameterNode.batchFolder if self._parameterNode is not None else ""
        if wanted in ("", self._opened) or self.runner.running:
            return
        self._opened, self.cohort = wanted, None
        from NPCSynthLib.batch import Cohort

        try:
            self.cohort = Cohort(wanted)
        except NPCSynthError:
            return  # it was moved or is of something else now: the user chooses anew
        if self.cohort.patients:
            self.numberedCheckBox.checked = self.cohort.settings.numbered
            self.reportCheckBox.checked = self.cohort.settings.report

    def _refreshButtons(self):
        patients = self.cohort.patients if self.cohort is not None else ()
        idle = not self.runner.running
        ready = self.cohort is not None and self._parameterNode is not None and idle
        self.folderLabel.text = str(self.cohort.out) if self.cohort is not None else _("choose where the results go")
        self.folderLabel.toolTip = self.folderLabel.text
        self.folderButton.enabled = idle and self._parameterNode is not None
        for box in (self.numberedCheckBox, self.reportCheckBox):
            box.enabled = idle and not patients
        self.contoursLabel.visible = bool(patients)
        if patients:
            self.contoursLabel.text = _("With contours of tumor and organs, as set when the list was begun.") \
                if self.cohort.settings.segment else _("Without contours, as set when the list was begun.")
        self.addButton.enabled = self.addAllButton.enabled = ready
        self.removeButton.enabled = ready and 0 <= self.table.currentRow() < len(patients)
        waiting = sum(not patient.finished and patient.outcome != "failed" for patient in patients)
        self.runButton.enabled = ready and waiting > 0
        self.runButton.toolTip = _("Waiting patients: {count}. One that fails never stops the rest.").format(
            count=waiting) if waiting else _("Add patients who are still to be done.")
        self.retryButton.enabled = ready and any(patient.outcome == "failed" for patient in patients)
        self.pauseButton.enabled = self._ours and not self._paused.is_set()
        self.summaryButton.enabled = self.cohort is not None and (self.cohort.out / "summary.html").is_file()

    def _fill(self):
        patients = self.cohort.patients if self.cohort is not None else ()
        shown = (self.cohort, patients, self._ours)
        if shown == self._shown:
            return
        self._shown = shown
        titles = (_("Patient"), _("Outcome"), _("Acquired"), _("Synthetic"), _("Mean uncertainty"), _("Seconds"),
                  _("Remarks"))
        row = self.table.currentRow()
        self.table.clear()
        self.table.setColumnCount(len(titles))
        self.table.setRowCount(len(patients))
        self.table.setHorizontalHeaderLabels(titles)
        for number, patient in enumerate(patients):
            for column, text in enumerate(self._texts(patient)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(text)
                self.table.setItem(number, column, item)
        if 0 <= row < len(patients):
            self.table.setCurrentCell(row, 0)

    def _texts(self, patient):
        outcomes = {
            "waiting": _("waiting"), "running": _("running") if self._ours else _("interrupted"), "done": _("✓ done"),
            "nothing missing": _("✓ nothing was missing"), "failed": _("✗ failed"),
        }
        uncertainty = patient.mean_uncertainty or {}
        remarks = [patient.error, *(_("Unusual: {text}").format(text=text) for text in patient.unusual),
                   *patient.warnings]
        outcome = _("⚠ done, unusual") if patient.unusual else outcomes[patient.outcome]
        return (
            patient.name, outcome, ", ".join(patient.sources), ", ".join(patient.made),
            ", ".join(f"{sequence} {value / 10:.1f} %" for sequence, value in uncertainty.items()),
            f"{patient.seconds:.0f}" if patient.seconds else "", "\n".join(text for text in remarks if text),
        )

    # The list

    def chooseFolder(self):
        """Take a folder for the results, new or of a batch that is to go on."""
        from NPCSynthLib.batch import Cohort

        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the results of all patients"))
        if not folder:
            return
        try:
            Cohort(folder)
        except NPCSynthError as error:
            self.messages.showError(error)
            return
        self._opened = None  # read anew, also when it is the same
        self._parameterNode.batchFolder = str(folder)
        self.refresh()

    def addPatient(self):
        """Add one patient's folder."""
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder of one patient"))
        if folder:
            self._add([Path(folder)])

    def addAll(self):
        """Add every folder in a folder."""
        from NPCSynthLib.batch import patient_folders

        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder that holds one folder for each patient"))
        if not folder:
            return
        try:
            folders = patient_folders(folder, self.cohort.out)
        except NPCSynthError as error:
            self.messages.showError(error)
            return
        self._add(folders)

    def _add(self, folders):
        from NPCSynthLib.batch import Cohort, Settings

        try:
            if not self.cohort.patients and not (self.cohort.out / "batch.json").exists():
                self.cohort = Cohort(self.cohort.out, Settings(
                    segment=self._parameterNode.segment, report=self.reportCheckBox.checked,
                    numbered=self.numberedCheckBox.checked,
                ))
            self.cohort.add(folders)
        except NPCSynthError as error:
            self.messages.showError(error)
        self.refresh()

    def removePatient(self):
        """Take the chosen patient off the list."""
        row = self.table.currentRow()
        if 0 <= row < len(self.cohort.patients):
            try:
                self.cohort.remove(self.cohort.patients[row].name)
            except NPCSynthError as error:
                self.messages.showError(error)
            self.refresh()

    # Running

    def run(self):
        """Do what is left, in the background."""
        from NPCSynthLib.batch import run_cohort

        try:
            self.logic.ensureDependencies()
            settings = {
                "device": DEVICES[self._parameterNode.device], "weights": weights_folder(self._parameterNode.weights),
            }
        except Exception as error:
            self.messages.showError(error)
            return
        cohort, computer, paused = self.cohort, self.logic.computer, self._paused
        paused.clear()
        self._ours = True

        def compute(onProgress, cancel):
            # No scene.mrb: while it is written, it takes the place of the scene that is open.
            run_cohort(
                cohort, computer, scene=False, on_progress=onProgress, cancel=cancel, pause=paused.is_set, **settings
            )

        self.runner.start(compute, lambda outcome, seconds: self._finish(seconds), needsScene=False)
        self._timer.start()

    def pause(self):
        """Stop after the patient at hand."""
        self._paused.set()
        self._refreshButtons()
        self.messages.show(_("The list is paused after the patient at hand."))

    def retry(self):
        """Let the failed ones wait again, and run."""
        try:
            self.cohort.retry_failed()
        except NPCSynthError as error:
            self.messages.showError(error)
            return
        self.run()

    def _finish(self, seconds):
        from NPCSynthLib.batch.summary import counts

        names = {"done": _("done"), "nothing missing": _("nothing missing"), "failed": _("failed"),
                 "waiting": _("waiting")}
        told = ", ".join(
            f"{count} {names[outcome]}" for outcome, count in counts(self.cohort.patients).items() if outcome in names)
        self.messages.show(_("Several patients: {told} ({seconds:.0f} s).").format(told=told, seconds=seconds))

    def _onTimer(self):
        """The list grows while it runs, and once more after a run that was canceled has died down."""
        running = self.cohort is not None and any(p.outcome == "running" for p in self.cohort.patients)
        self.refresh()
        if not self.runner.running and not running:
            self._timer.stop()

    # Results

    def openPatient(self, row):
        """Open a patient's report, or the folder of results."""
        if self.cohort is None or not 0 <= row < len(self.cohort.patients):
            return
        patient = self.cohort.patients[row]
        folder = self.cohort.results(patient)  # in that of somebody who failed may lie what an earlier run left
        paths = (folder / "report.html", folder) if patient.outcome == "done" else ()
        path = next((path for path in paths if path.exists()), None)
        if path is None:
            self.messages.showError(UsageError(_("There are no results of this patient.")))
            return
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(path)))

    def openSummary(self):
        """Open the table of all patients in the browser."""
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.cohort.out / "summary.html")))
