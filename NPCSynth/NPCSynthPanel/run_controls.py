"""Section: run, cancel, progress and what came of it."""

import logging

import qt
import slicer
from slicer.i18n import tr as _

from NPCSynthLib.errors import Cancelled, UsageError, WorkerError
from NPCSynthLib.inference.preflight import AMBER, GREEN, RED, worst
from NPCSynthLib.inference.request import SynthesisRequest
from NPCSynthLib.model.store import weights_folder

from .parameters import DEVICES
from .preflight import PreflightList, sentencesOf

#: So many findings fit into a question.
_MOST_DOUBTS = 6


class RunSection:
    """The button that the rest is for. Has no title: it is never folded away.

    :param messages: Messages, which show in ``showStatus``.
    :param onFound: called with what was found before a run, for whoever marks it where it was chosen.
    """

    def __init__(self, logic, runner, messages, onFound):
        self.onFound = onFound
        self.logic, self.runner, self.messages = logic, runner, messages
        self._parameterNode = None
        self._findings = None
        self._shown = ()
        self.widget = qt.QWidget()
        layout = qt.QVBoxLayout(self.widget)
        layout.setContentsMargins(0, 0, 0, 0)
        buttons = qt.QHBoxLayout()
        layout.addLayout(buttons)
        self.runButton = qt.QPushButton(_("Run"))
        self.runButton.connect("clicked(bool)", lambda *_checked: self.run())
        self.checkButton = qt.QPushButton(_("Check"))
        self.checkButton.connect("clicked(bool)", lambda *_checked: self.check())
        self.cancelButton = qt.QPushButton(_("Cancel"))
        self.cancelButton.toolTip = _("Stop. Nothing is added to the scene.")
        self.cancelButton.connect("clicked(bool)", lambda *_checked: self.cancel(str(Cancelled())))
        for button in (self.runButton, self.checkButton, self.cancelButton):
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
        self.preflight = PreflightList()
        layout.addWidget(self.preflight.widget)

    def setParameterNode(self, node):
        """Run this node's choices."""
        self._parameterNode = node
        self._forgetFound()
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
        self.checkButton.enabled = not reason
        self.checkButton.toolTip = reason or _(
            "Look whether the run would work and whether the images fit together, without running. Run does so too."
        )
        self.cancelButton.enabled = self.runner.running
        if self._shown and not self.runner.running and self._choice() != self._findings.choice:
            self._forgetFound()

    def cleanup(self):
        """Nothing of its own goes on."""

    def showStatus(self, text):
        """Below the buttons."""
        self.statusLabel.text = text

    def showProgress(self, run):
        """How far a BackgroundRun is."""
        if self._findings is not None and self._shown is not self._findings.checks:
            self._showFound(self._findings.checks)
        percent = round(100 * run.fraction)
        self.progressBar.value = percent
        parts = (run.stage, _("{percent} %").format(percent=percent), run.timeLeft())
        self.showStatus(" · ".join(part for part in parts if part))

    def check(self):
        """Look in the background whether a run would work, and say so."""
        job = self._prepare()
        if job is not None:
            self.runner.start(job.check, lambda checks, seconds: self._showChecked(checks), onError=self._fail)

    def run(self):
        """Check; where there is nothing to note, compute in the background, else ask."""
        job = self._prepare()
        if job is None:
            return

        def work(onProgress, cancel):
            return job.compute(onProgress, cancel) if worst(job.check(onProgress, cancel)) == GREEN else None

        self.runner.start(work, lambda outcome, seconds: self._finish(job, outcome, seconds), onError=self._fail)

    def _prepare(self):
        """What is to be run, copied out of the scene; None when it cannot be, which the user has been told."""
        self._forgetFound()
        try:
            choice = self._choice()
            sources, targets = self._parameterNode.sources(), self._parameterNode.targets()
            request = SynthesisRequest(
                tuple(targets),
                reference=self._parameterNode.reference if self._parameterNode.reference in sources else None,
                segment=self._parameterNode.segment,
                device=DEVICES[self._parameterNode.device],
                prompts=self._parameterNode.promptsOf(targets),
                weights=weights_folder(self._parameterNode.weights),
            )
            with slicer.util.WaitCursor():
                volumes = self.logic.prepare(sources, targets)
            self.logic.ensureDependencies(prompts=bool(request.prompts))
            if self._parameterNode is None or self._choice() != choice:  # the panel works on while pip does
                raise UsageError(_("Not run, because the scene or the choice has changed meanwhile. Press Run again."))
        except Exception as error:
            self.messages.showError(error)
            return None
        if self.runner.running:  # by a second click
            return None
        self._findings = _Findings(choice)
        return _Job(self.logic.computer, self._findings, sources, volumes, request)

    def _choice(self):
        """What a run would work on now, to be compared with what was checked."""
        node = self._parameterNode
        sources = {sequence: volume.GetID() for sequence, volume in node.sources().items()}
        targets = node.targets()
        return (
            sources, targets, node.reference, node.segment, node.device, node.promptsOf(targets), node.weights,
        )  # fmt: skip

    def _finish(self, job, outcome, seconds):
        """The run is done, or it waits for the user's word."""
        found = job.findings.checks
        self._showFound(found)
        if outcome is not None:
            self._addResult(*outcome, job.sources, seconds)
        elif worst(found) == RED:
            self.messages.showError(UsageError("\n".join(sentencesOf(found, RED))))
        elif not self._agreed(sentencesOf(found, AMBER)):
            self.showStatus(_("Not run. Nothing was changed."))
        elif self._findings is not job.findings:  # a script has worked on while the question was open
            self.showStatus(_("Not run, because the scene or the choice has changed meanwhile. Press Run again."))
        else:
            self.runner.start(
                job.compute, lambda result, took: self._addResult(*result, job.sources, took), onError=self._fail
            )

    def _agreed(self, doubts):
        if len(doubts) > _MOST_DOUBTS:  # a message box that is taller than the screen has no buttons
            more = _("{count} more are listed below the buttons.").format(count=len(doubts) - _MOST_DOUBTS)
            doubts = [*doubts[:_MOST_DOUBTS], more]
        question = _("{doubts}\n\nRun all the same?").format(doubts="\n\n".join(doubts))
        return self.messages.confirm(question)

    def _showChecked(self, checks):
        self._showFound(checks)
        answers = {
            GREEN: _("Checked: nothing to note. Press Run."),
            AMBER: _("Checked: it can run. Please look at what was found below first."),
            RED: _("Checked: it cannot run like this, for the reasons below."),
        }
        self.showStatus(answers[worst(checks)])

    def _forgetFound(self):
        self._findings = None
        self._showFound(())

    def _showFound(self, checks):
        self._shown = checks
        self.preflight.show(checks)
        self.onFound(checks)

    def cancel(self, reason):
        """Stop what runs, if anything does, and say why."""
        if self.runner.cancel():
            self.showStatus(reason)

    def _fail(self, error):
        if isinstance(error, Cancelled):
            self.showStatus(str(error))
        elif isinstance(error, WorkerError):
            self.offerCPU(error)
        else:
            self.messages.showError(error, _("Something went wrong and nothing was added to the scene: {error}"))

    def offerCPU(self, error):
        """The computation broke down, often because of the GPU: run again without it, if the user agrees."""
        if error.details:
            logging.error(error.details)
        question = _("{error}\n\nRun again on the CPU now? It is slower.").format(error=error)
        mayHelp = error.cpu_may_help and self._parameterNode.device != "CPU"
        if not mayHelp or not self.messages.confirm(question):
            self.messages.showError(error)
            return
        self._parameterNode.device = "CPU"
        self.run()

    def _addResult(self, study, result, sourceNodes, seconds):
        nodes = self.logic.addToScene(result, study, sourceNodes)
        sentences = [
            _(
                "Done in {seconds:.0f} s on {device}. The new nodes end in “(synthetic)”; the views still show the "
                "acquired image. Compare them under “Results”."
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


class _Findings:
    """What was found before a run of this choice; outlives the run, whose images are too heavy to keep."""

    def __init__(self, choice):
        self.choice, self.checks = choice, ()


class _Job:
    """What one run works on, away from the scene; methods are for any thread."""

    def __init__(self, computer, findings, sources, volumes, request):
        self.findings, self.sources = findings, sources
        self._computer, self._volumes, self._request = computer, volumes, request

    def check(self, onProgress, cancel):
        """Findings before the run."""
        self.findings.checks = self._computer.preflight(
            self._volumes, self._request, on_progress=onProgress, cancel=cancel
        )
        return self.findings.checks

    def compute(self, onProgress, cancel):
        """Study and result."""
        return self._computer.compute(self._volumes, self._request, on_progress=onProgress, cancel=cancel)
