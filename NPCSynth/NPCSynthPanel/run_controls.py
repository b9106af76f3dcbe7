"""Section: run, cancel, progress and what came of it."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from NPCSynthLib.errors import Cancelled

from .parameters import DEVICES


class RunSection:
    """The button that the rest is for. Has no title: it is never folded away.

    :param messages: Messages, which show in ``showStatus``.
    """

    def __init__(self, logic, runner, messages):
        self.logic, self.runner, self.messages = logic, runner, messages
        self._parameterNode = None
        self.widget = qt.QWidget()
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        buttons = qt.QHBoxLayout()
        layout.addLayout(buttons)
        self.runButton = qt.QPushButton(_("Run"))
        self.runButton.connect("clicked(bool)", lambda *_checked: self.run())
        self.cancelButton = qt.QPushButton(_("Cancel"))
        self.cancelButton.toolTip = _("Stop. Nothing is added to the scene.")
        self.cancelButton.connect("clicked(bool)", lambda *_checked: self.cancel(str(Cancelled())))
        for button in (self.runButton, self.cancelButton):
            button.setMinimumHeight(32)
            button.enabled = False
            buttons.addWidget(button)
        self.progressBar = qt.QProgressBar()
        self.progressBar.visible = False
        layout.addWidget(self.progressBar)
        self.statusLabel = qt.QLabel()
        self.statusLabel.wordWrap = True
        self.statusLabel.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        layout.addWidget(self.statusLabel)

    def setParameterNode(self, node):
        """Run this node's choices."""
        self._parameterNode = node
        self.refresh()

    def setRunning(self, running):
        """Run, or Cancel."""
        if running:
            self.showStatus(_("Starting."))
            self.progressBar.value = 0
        self.progressBar.visible = running
        self.refresh()

    def refresh(self):
        """Run is possible with a source and a target, Cancel while running."""
        if self.runner.running:
            reason = _("Running.")
        elif self._parameterNode is None or not self._parameterNode.sources():
            reason = _("Load an MR volume and choose it above.")
        elif not self._parameterNode.targets():
            reason = _("Choose “synthesize” for at least one sequence.")
        else:
            reason = ""
        self.runButton.enabled = not reason
        self.runButton.toolTip = reason or _("Make the sequences that are to be synthesized.")
        self.cancelButton.enabled = self.runner.running

    def cleanup(self):
        """Nothing of its own goes on."""

    def showStatus(self, text):
        """Below the buttons."""
        self.statusLabel.text = text

    def showProgress(self, run):
        """How far a BackgroundRun is."""
        self.progressBar.value = round(100 * run.fraction)
        self.showStatus(" · ".join(part for part in (run.stage, run.timeLeft()) if part))

    def run(self):
        """Check, then compute in the background."""
        try:
            sources, targets = self._parameterNode.sources(), self._parameterNode.targets()
            settings = {
                "reference": self._parameterNode.reference if self._parameterNode.reference in sources else None,
                "segment": self._parameterNode.segment,
                "device": DEVICES[self._parameterNode.device],
            }
            with slicer.util.WaitCursor():
                volumes = self.logic.prepare(sources, targets)
            self.logic.ensureDependencies()
        except Exception as error:
            self.messages.showError(error)
            return
        self.runner.start(
            lambda onProgress, cancel: self.logic.computer.compute(
                volumes, targets, on_progress=onProgress, cancel=cancel, **settings
            ),
            lambda outcome, seconds: self._addResult(*outcome, sources, seconds),
        )

    def cancel(self, reason):
        """Stop what runs, if anything does, and say why."""
        if self.runner.cancel():
            self.showStatus(reason)

    def offerCPU(self, error):
        """The computation broke down, often because of the GPU: run again without it, if the user agrees."""
        if error.details:
            logging.error(error.details)
        question = _("{error}\n\nRun again on the CPU now? It is slower.").format(error=error)
        mayHelp = error.cpu_may_help and self._parameterNode.device != "CPU"
        if not mayHelp or not slicer.util.confirmYesNoDisplay(question, windowTitle="NPCSynth"):
            self.messages.showError(error)
            return
        self._parameterNode.device = "CPU"
        self.run()

    def _addResult(self, study, result, sourceNodes, seconds):
        nodes = self.logic.addToScene(result, study, sourceNodes)
        sentences = [
            _(
                "Done in {seconds:.0f} s on {device}. The new nodes end in “(synthetic)”; the views still show the "
                "acquired image: fade the first synthetic one in with a view's foreground opacity."
            ).format(seconds=seconds, device=result.device),
            *dict.fromkeys((*study.warnings, *result.warnings)),
        ]
        self.showStatus("\n".join(sentences))
        if nodes.volumes:
            # The acquired image stays in view: nobody may take a synthetic one for it, and contours are checked on it.
            slicer.util.setSliceViewerLayers(
                background=sourceNodes[study.reference], foreground=next(iter(nodes.volumes.values())),
                foregroundOpacity=0.0,
            )
