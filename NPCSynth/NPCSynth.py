"""Slicer module that fills in the MR sequences a patient lacks. The panel and its wiring; NPCSynthLib computes."""

import importlib.metadata
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Annotated, NamedTuple

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Installed, the library lies beside this file; in a source checkout it lies one folder up, which is not on the path.
for _home in (Path(__file__).resolve().parent, Path(__file__).resolve().parents[1]):
    if (_home / "NPCSynthLib").is_dir():
        if str(_home) not in sys.path:
            sys.path.insert(0, str(_home))  # first: this module's own library, not another version of it elsewhere
        break

from NPCSynthLib.errors import Cancelled, InputError, NPCSynthError, UsageError, WorkerError  # noqa: E402
from NPCSynthLib.inference.process import WorkerProcess  # noqa: E402
from NPCSynthLib.resources import resource_path  # noqa: E402
from NPCSynthLib.vocabulary import get_sequence, load_sequences  # noqa: E402

#: What the user can choose -> NPCSynthLib.inference.device.choose_device's name for it.
DEVICES = {"Automatic": None, "GPU": "gpu", "CPU": "cpu"}
#: Longest wait in seconds for a canceled run when the module is closed or reloaded.
CLOSING_PATIENCE = 5
#: PyTorch that NPCSynthLib.inference runs on.
TORCH_REQUIREMENT = ">=2.6"
#: What pip must never replace inside Slicer, whatever another package asks for.
PINNED = ("numpy", "SimpleITK", "pydicom", "highdicom", "vtk", "scipy", "torch", "torchvision")


#
# NPCSynth
#


class NPCSynth(ScriptedLoadableModule):
    """Name, category and help of the module."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = "NPCSynth"
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Radiotherapy")]
        self.parent.dependencies = []
        self.parent.contributors = ["The NPCSynth authors"]
        self.parent.helpText = _("""
<p><b>Research use only. Not a medical device.</b> Synthetic images are estimates: never use them for diagnosis or for
dose calculation, and check every contour on acquired images.</p>
<p>NPCSynth takes the MR sequences of a patient with nasopharyngeal carcinoma that are loaded, synthesizes the missing
ones with one model on the patient's own grid, shows how sure it is of each, and proposes a segmentation of the tumor
and of organs at risk.</p>
<p>See the <a href="https://github.com/NPCSynth/SlicerNPCSynth">documentation</a>.</p>
""")
        self.parent.acknowledgementText = _("""
The method follows "Any-to-All MRI Synthesis: A Unified Foundation Model for Nasopharyngeal Carcinoma and Its
Downstream Applications" (arXiv:2602.08822). The training data and their licenses are listed in the model card.
""")
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData():
    """Offer a simulated patient in the Sample Data module; it is made on this computer, nothing is downloaded."""
    import SampleData

    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="NPCSynth",
        sampleName="NPCSynthPhantom",
        thumbnailFileName=os.path.join(os.path.dirname(__file__), "Resources", "Icons", "NPCSynth.png"),
        uris=[],
        fileNames=[],
        nodeNames=[],
        customDownloader=downloadPhantomPatient,
    )


def downloadPhantomPatient(source):
    """What the button in the Sample Data module does."""
    with slicer.util.WaitCursor():
        return list(NPCSynthLogic().loadPhantomPatient().values())


def pythonExecutable():
    """Slicer's Python, since ``sys.executable`` is Slicer itself there; outside Slicer this Python."""
    return shutil.which("PythonSlicer") or sys.executable


#
# NPCSynthParameterNode
#


@parameterNodeWrapper
class NPCSynthParameterNode:
    """What the user chose, saved with the scene. The volumes are node references "Source.<sequence>" beside these.

    segment - Whether to segment tumor and organs at risk too.
    device - Where to compute.
    reference - Sequence whose grid the results get; empty for automatic.
    skipped - Missing sequences that are not wanted.
    """

    segment: bool = True
    device: Annotated[str, Choice(list(DEVICES))] = "Automatic"
    reference: str = ""
    skipped: list[str] = []


#
# NPCSynthWidget
#


class SequenceRow(NamedTuple):
    """Widgets of one sequence."""

    label: object
    selector: object
    target: object


class NPCSynthWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: which volume is which sequence, what to synthesize, run, cancel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)  # needed for parameter node observation
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._rows = {}
        self._updatingRows = False
        self._run = None
        self._fading = []
        self._added = []
        self._pollTimer = qt.QTimer()
        self._pollTimer.setInterval(10)
        # A volume is added before its image is: look at it a little later, once for all that are loaded together.
        self._detectTimer = qt.QTimer()
        self._detectTimer.setInterval(500)
        self._detectTimer.setSingleShot(True)
        self._refreshTimer = qt.QTimer()
        self._refreshTimer.setInterval(0)
        self._refreshTimer.setSingleShot(True)

    def setup(self):
        """Called when the user opens the module the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/NPCSynth.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        self._addRows(self.ui.sequencesGrid)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.logic = NPCSynthLogic()

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.onNodeRemoved)

        self.ui.detectButton.connect("clicked(bool)", self.onDetectButton)
        self.ui.referenceComboBox.connect("currentIndexChanged(int)", self.onReferenceChanged)
        self.ui.runButton.connect("clicked(bool)", self.onRunButton)
        self.ui.cancelButton.connect("clicked(bool)", self.onCancelButton)
        self.ui.exportButton.connect("clicked(bool)", self.onExportButton)
        self.ui.removeButton.connect("clicked(bool)", self.onRemoveButton)

        self._pollTimer.connect("timeout()", self.onPoll)
        self._detectTimer.connect("timeout()", self.onDetectTimer)
        self._refreshTimer.connect("timeout()", self.updateRows)

        self.initializeParameterNode()

    def cleanup(self):
        """Called when the application closes or reloads the module; Qt may have deleted the widgets by then."""
        for timer in (self._pollTimer, self._detectTimer, self._refreshTimer):
            timer.stop()
        self.removeObservers()
        runs = [run for run in (self._run, *self._fading) if run is not None]
        self._run, self._fading = None, []
        for run in runs:
            run.cancel()
        # A thread that computes while Python shuts down can take Slicer down with it.
        for run in runs:
            run.thread.join(CLOSING_PATIENCE)
        if self.logic is not None:
            self.logic.computer.close()
        if self._parameterNode is not None:
            try:
                self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            except ValueError:
                logging.debug("NPCSynth: the widgets were deleted before they could be disconnected.")
            self._parameterNode = None

    def enter(self):
        """Called each time the user opens this module."""
        self.initializeParameterNode()

    def onSceneStartClose(self, caller, event):
        """Called just before the scene is closed: what is running has no place to go to any more."""
        if self.cancelRun():
            self._showStatus(_("Canceled, because the scene was closed."))
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        """Called just after the scene is closed."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        """A scene was loaded: only now are the volumes there that its parameter node refers to."""
        self.updateRows()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, caller, event, calldata):
        """A volume was loaded; offer it where the user has not chosen any yet."""
        if calldata is not None and calldata.IsA("vtkMRMLScalarVolumeNode"):
            self._added.append(calldata.GetID())
            self._detectTimer.start()

    def onNodeRemoved(self, caller, event):
        """Selectors jump to a neighbor when their node goes: set them right once they have."""
        self._refreshTimer.start()

    # Parameter node

    def initializeParameterNode(self):
        """Make sure that the parameter node exists, and propose volumes when none is chosen."""
        if self._parameterNode is None:
            self.setParameterNode(self.logic.getParameterNode())
        if not self.sourceNodes():
            self.detect()

    def setParameterNode(self, inputParameterNode):
        """Show and observe a parameter node."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified
            )
        self._parameterNode = inputParameterNode
        if self._parameterNode is not None:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified
            )
        self.updateRows()

    def onParameterNodeModified(self, caller=None, event=None):
        """Something else changed the choices, or we did."""
        self.updateRows()

    def sourceNodes(self):
        """Sequence id -> volume node, as chosen."""
        if self._parameterNode is None:
            return {}
        node = self._parameterNode.parameterNode
        found = {sequence: node.GetNodeReference(f"Source.{sequence}") for sequence in load_sequences()}
        return {sequence: volume for sequence, volume in found.items() if volume is not None}

    def targets(self):
        """Sequence ids to synthesize: the missing ones that the user has not unchecked."""
        if self._parameterNode is None:
            return []
        sources, skipped = self.sourceNodes(), self._parameterNode.skipped
        return [s for s in load_sequences() if s not in sources and s not in skipped]

    # Rows

    def _addRows(self, grid):
        layout = grid.layout()
        for number, sequence in enumerate(load_sequences().values(), start=1):
            label = qt.QLabel(sequence.id)
            label.toolTip = sequence.name
            selector = slicer.qMRMLNodeComboBox()
            selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
            selector.showChildNodeTypes = False
            selector.noneEnabled = True
            selector.noneDisplay = _("missing")
            selector.addEnabled = False
            selector.removeEnabled = False
            selector.renameEnabled = False
            selector.setMRMLScene(slicer.mrmlScene)
            target = qt.QCheckBox()
            layout.addWidget(label, number, 0)
            layout.addWidget(selector, number, 1)
            layout.addWidget(target, number, 2, qt.Qt.AlignHCenter)
            # Not currentNodeChanged: that is also sent when the node was deleted and Qt moved on to its neighbor.
            selector.connect("nodeActivated(vtkMRMLNode*)", lambda node, s=sequence.id: self.onSourceChanged(s, node))
            target.connect("toggled(bool)", lambda checked, s=sequence.id: self.onTargetToggled(s, checked))
            self._rows[sequence.id] = SequenceRow(label, selector, target)

    def updateRows(self):
        """Show what the parameter node says."""
        if self._updatingRows:
            return
        self._updatingRows = True
        try:
            sources, targets = self.sourceNodes(), self.targets()
            for sequence, row in self._rows.items():
                name, node = get_sequence(sequence).name, sources.get(sequence)
                if row.selector.currentNode() is not node:
                    row.selector.setCurrentNode(node)
                row.target.checked = sequence in targets
                row.target.enabled = node is None and self._run is None
                row.selector.enabled = self._run is None
                if node is None:
                    row.selector.toolTip = _("Choose the {name} volume, if there is one.").format(name=name)
                    row.target.toolTip = _("Synthesize {name}.").format(name=name)
                else:
                    row.selector.toolTip = self.logic.reasonFor(sequence, node)
                    row.target.toolTip = _(
                        'There is a volume for {name}. To synthesize it all the same, set its volume to "missing".'
                    ).format(name=name)
            self._updateReferences(list(sources))
        finally:
            self._updatingRows = False
        self.updateButtons()

    def _updateReferences(self, sources):
        combo = self.ui.referenceComboBox
        combo.clear()
        for text in (_("Automatic"), *sources):
            combo.addItem(text)
        chosen = self._parameterNode.reference if self._parameterNode is not None else ""
        combo.currentIndex = sources.index(chosen) + 1 if chosen in sources else 0

    def updateButtons(self):
        """Run is possible with a source and a target, Cancel while running."""
        running = self._run is not None
        if running:
            reason = _("Running.")
        elif not self.sourceNodes():
            reason = _("Load an MR volume and choose it above.")
        elif not self.targets():
            reason = _("Check at least one missing sequence.")
        else:
            reason = ""
        self.ui.runButton.enabled = not reason
        self.ui.runButton.toolTip = reason or _("Synthesize the checked sequences.")
        self.ui.cancelButton.enabled = running
        self.ui.progressBar.visible = running
        results = not running and self.logic is not None and self.logic.hasResults()
        self.ui.exportButton.enabled = results
        self.ui.removeButton.enabled = results
        for widget in (
            self.ui.detectButton, self.ui.referenceComboBox, self.ui.deviceComboBox, self.ui.segmentCheckBox
        ):
            widget.enabled = not running

    def onSourceChanged(self, sequence, node):
        """The user chose a volume for a sequence."""
        if self._updatingRows or self._parameterNode is None:
            return
        parameters = self._parameterNode.parameterNode
        with slicer.util.NodeModify(parameters):
            for other, volume in self.sourceNodes().items():
                # A volume is one sequence: choosing it here takes it from there.
                if other != sequence and node is not None and volume is node:
                    parameters.SetNodeReferenceID(f"Source.{other}", None)
            parameters.SetNodeReferenceID(f"Source.{sequence}", node.GetID() if node is not None else None)
        self.updateRows()

    def onTargetToggled(self, sequence, checked):
        """The user wants or does not want a missing sequence."""
        if self._updatingRows or self._parameterNode is None:
            return
        skipped = [s for s in self._parameterNode.skipped if s != sequence]
        self._parameterNode.skipped = skipped if checked else [*skipped, sequence]
        self.updateButtons()

    def onReferenceChanged(self, index):
        """The user chose the grid."""
        if self._updatingRows or self._parameterNode is None:
            return
        sources = list(self.sourceNodes())
        self._parameterNode.reference = sources[index - 1] if 0 < index <= len(sources) else ""

    # Detection

    def onDetectTimer(self):
        """Volumes have been loaded: propose them where nothing is chosen yet."""
        if self._run is not None:
            self._detectTimer.start()
            return
        added, self._added = self._added, []
        if not self.sourceNodes():
            self.detect()
            return
        taken = list(self.sourceNodes().values())
        nodes = [node for node in self.logic.candidateNodes() if node.GetID() in added and node not in taken]
        if nodes:
            self.detect(nodes)

    def onDetectButton(self):
        """Propose again, over what was chosen."""
        self.detect()

    def detect(self, nodes=None):
        """Propose a sequence for each volume and say what needs a look.

        :param nodes: only these, and only where nothing is chosen yet; by default all in the scene, over what was
          chosen.
        """
        if self._parameterNode is None:
            return
        proposals, notes = self.logic.proposeAssignment(nodes)
        if nodes is not None:
            sources = self.sourceNodes()
            notes += [
                _("“{name}” looks like {sequence} too; the volume chosen before was kept.").format(
                    name=proposals[sequence].GetName(), sequence=sequence
                )
                for sequence in proposals if sequence in sources
            ]
            proposals = {**proposals, **sources}
        parameters = self._parameterNode.parameterNode
        with slicer.util.NodeModify(parameters):
            for sequence in load_sequences():
                node = proposals.get(sequence)
                parameters.SetNodeReferenceID(f"Source.{sequence}", node.GetID() if node is not None else None)
        self.updateRows()
        if not proposals and not notes:
            notes = [_("No MR volume is loaded yet.")]
        self.ui.assignmentLabel.text = "\n".join(notes)
        self.ui.assignmentLabel.visible = bool(notes)

    # Run

    def onRunButton(self):
        """Check, then compute in the background."""
        try:
            sources, targets = self.sourceNodes(), self.targets()
            settings = {
                "reference": self._parameterNode.reference if self._parameterNode.reference in sources else None,
                "segment": self._parameterNode.segment,
                "device": DEVICES[self._parameterNode.device],
            }
            with slicer.util.WaitCursor():
                volumes = self.logic.prepare(sources, targets)
            self.logic.ensureDependencies()
        except Exception as error:
            self._showError(error)
            return
        self._start(
            lambda onProgress, cancel: self.logic.computer.compute(
                volumes, targets, on_progress=onProgress, cancel=cancel, **settings
            ),
            lambda outcome, seconds: self._addResult(*outcome, sources, seconds),
        )

    def _start(self, compute, finish):
        """Run ``compute(onProgress, cancel)`` in the background, then ``finish(outcome, seconds)`` here."""
        # A canceled run may still finish its slice; two at once would need twice the memory.
        self._run = BackgroundRun(compute, finish, wait_for=[run.thread for run in self._fading])
        self._showStatus(_("Starting."))
        self.ui.progressBar.value = 0
        self.updateRows()
        self._run.start()
        self._pollTimer.start()

    def onCancelButton(self):
        """Stop showing the run at once; its thread ends at its next look at the flag."""
        if self.cancelRun():
            self._showStatus(str(Cancelled()))

    def cancelRun(self):
        """Give up the run that is going on. Returns whether there was one."""
        run, self._run = self._run, None
        if run is None:
            return False
        run.cancel()
        self._fading.append(run)
        self.updateRows()
        return True

    def onPoll(self):
        """Show progress, or take over the result; called by a timer on the main thread while something runs."""
        running = ([self._run] if self._run is not None else []) + self._fading
        for run in running:
            # Slicer's event loop holds Python's global lock, so other threads only work while we wait here.
            run.thread.join(0.03)
        self._fading = [run for run in self._fading if run.thread.is_alive()]
        run = self._run
        if run is None:
            if not self._fading:
                self._pollTimer.stop()
            return
        if run.thread.is_alive():
            self.ui.progressBar.value = round(100 * run.fraction)
            self._showStatus(" · ".join(part for part in (run.stage, run.timeLeft()) if part))
            return
        self._run = None
        try:
            if run.error is not None:
                raise run.error
            run.finish(run.outcome, run.seconds())
        except Cancelled as error:
            self._showStatus(str(error))
        except WorkerError as error:
            self._offerCPU(error)
        except Exception as error:
            self._showError(error)
        self.updateRows()

    def _offerCPU(self, error):
        """The computation broke down, often because of the GPU: run again without it, if the user agrees."""
        if error.details:
            logging.error(error.details)
        question = _("{error}\n\nRun again on the CPU now? It is slower.").format(error=error)
        may_help = error.cpu_may_help and self._parameterNode.device != "CPU"
        if not may_help or not slicer.util.confirmYesNoDisplay(question, windowTitle="NPCSynth"):
            self._showError(error)
            return
        self._parameterNode.device = "CPU"
        self.onRunButton()

    def _addResult(self, study, result, sourceNodes, seconds):
        nodes = self.logic.addToScene(result, study, sourceNodes)
        sentences = [
            _(
                "Done in {seconds:.0f} s on {device}. The new nodes end in “(synthetic)”; the views still show the "
                "acquired image: fade the first synthetic one in with a view's foreground opacity."
            ).format(seconds=seconds, device=result.device),
            *dict.fromkeys((*study.warnings, *result.warnings)),
        ]
        self._showStatus("\n".join(sentences))
        if nodes.volumes:
            # The acquired image stays in view: nobody may take a synthetic one for it, and contours are checked on it.
            slicer.util.setSliceViewerLayers(
                background=sourceNodes[study.reference], foreground=next(iter(nodes.volumes.values())),
                foregroundOpacity=0.0,
            )

    # Results

    def onExportButton(self):
        """Write the latest results as DICOM, after the user has chosen a folder."""
        agreed = slicer.util.confirmOkCancelDisplay(
            _("The exported images are synthetic, for research only, and bear the patient's own name so that they file "
              "with the acquired ones. Do not send them to a clinical archive or planning system."),
            windowTitle="NPCSynth",
        )
        if not agreed:
            return
        folder = qt.QFileDialog.getExistingDirectory(None, _("Folder for the DICOM export"))
        if not folder:
            return
        try:
            self.logic.ensurePackages()
            export, changed = self.logic.prepareExport(folder)
        except Exception as error:
            self._showError(error)
            return
        self._start(export, lambda outcome, seconds: self._showExport(*outcome, changed))

    def _showExport(self, folder, series, changed):
        sentences = [_("Wrote {count} DICOM series to {folder}.").format(count=len(series), folder=folder)]
        if self.logic.addToDatabase(folder, series):
            sentences.append(_("They are in Slicer's DICOM database too."))
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
        self._showStatus("\n".join(sentences))

    def onRemoveButton(self):
        """Delete the latest results."""
        names, edited = self.logic.latestResultNames()
        question = _("Remove these nodes from the scene?\n{names}").format(names="\n".join(names))
        if edited:
            question += _("\n\nThese were edited by hand, and the edits would be lost:\n{names}").format(
                names="\n".join(edited)
            )
        if slicer.util.confirmOkCancelDisplay(question, windowTitle="NPCSynth"):
            self.logic.removeLatestResult()
            self._showStatus(_("Removed: {names}.").format(names=", ".join(names)))
            self.updateRows()

    def _showStatus(self, text):
        self.ui.statusLabel.text = text

    def _showError(self, error):
        """In the panel and as a message, in plain words; the details only where something unforeseen happened."""
        if isinstance(error, NPCSynthError):
            text, details = str(error), {}
        else:
            text = _("Something went wrong and nothing was added to the scene: {error}").format(
                error=str(error) or type(error).__name__
            )
            details = {"detailedText": "".join(traceback.format_exception(error))}
        self._showStatus(text)
        slicer.util.errorDisplay(text, windowTitle="NPCSynth", **details)


class BackgroundRun:
    """One computation in a thread of its own, which must not touch the scene or any widget.

    ``outcome`` or ``error`` is set once ``thread`` has ended; ``fraction`` and ``stage`` say how far it is.
    """

    def __init__(self, compute, finish, wait_for=()):
        self.finish = finish
        self.fraction = 0.0
        self.stage = ""
        self.outcome = None
        self.error = None
        self._canceled = threading.Event()
        self._compute = compute
        self._waitFor = list(wait_for)
        self._began = time.monotonic()
        # A daemon: a run must not keep Slicer from closing.
        self.thread = threading.Thread(target=self._work, name="NPCSynth", daemon=True)

    def start(self):
        """Begin."""
        self.thread.start()

    def cancel(self):
        """Ask the computation to stop soon."""
        self._canceled.set()

    def seconds(self):
        """Wall time since the beginning."""
        return time.monotonic() - self._began

    def timeLeft(self):
        """"about 40 s left", or "" while nobody can tell."""
        elapsed = self.seconds()
        if elapsed < 2 or self.fraction < 0.05:
            return ""
        left = elapsed * (1 - self.fraction) / self.fraction
        if left < 90:
            return _("about {seconds} s left").format(seconds=max(1, round(left)))
        return _("about {minutes} min left").format(minutes=round(left / 60))

    def _progress(self, fraction, stage):
        self.fraction, self.stage = fraction, stage

    def _work(self):
        try:
            for thread in self._waitFor:
                thread.join()
            if self._canceled.is_set():
                raise Cancelled()
            self.outcome = self._compute(self._progress, self._canceled.is_set)
        except Exception as error:
            self.error = error


#
# NPCSynthLogic
#


class NPCSynthLogic(ScriptedLoadableModuleLogic):
    """Everything that the module does, for scripts too::

        logic = NPCSynthLogic()
        nodes = logic.process({"T1": t1Node, "T2": t2Node}, ["T1C", "FLAIR"])
        nodes.volumes["T1C"]

    :param computer: does the computing; by default a worker process that is started by the first run and kept warm,
      so that the window never freezes and a run can be ended at once. ``NPCSynthLib.inference.job.InProcess()`` does
      the same in this process.
    """

    def __init__(self, computer=None):
        ScriptedLoadableModuleLogic.__init__(self)
        self.computer = WorkerProcess(python=pythonExecutable()) if computer is None else computer
        self._identified = {}
        self._synthetic = {}

    def getParameterNode(self):
        """The choices saved in the scene."""
        return NPCSynthParameterNode(super().getParameterNode())

    # Which volume is which sequence

    def candidateNodes(self):
        """Volumes in the scene that may be sources: scalar, with an image, not made by NPCSynth, not hidden."""
        return [
            node
            for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            if node.GetClassName() == "vtkMRMLScalarVolumeNode" and node.GetImageData() is not None
            and not node.GetHideFromEditors() and not self._isSynthetic(node)
        ]

    def _isSynthetic(self, node):
        """Made by a program, not acquired. The header is on disk, and the panel asks often."""
        from NPCSynthLib.scene import is_synthetic

        key = (node.GetID(), node.GetName(), node.GetAttribute("DICOM.instanceUIDs"))
        if key not in self._synthetic:
            self._synthetic[key] = is_synthetic(node)
        return self._synthetic[key]

    def identify(self, node):
        """What NPCSynthLib.study.identify says about a volume node, from its DICOM header or else its name."""
        from NPCSynthLib.scene import header_from_node
        from NPCSynthLib.study.identify import identify

        # The header is read from disk, and the panel asks often.
        key = (node.GetAttribute("DICOM.instanceUIDs"), node.GetName())
        if key not in self._identified:
            self._identified[key] = identify(header_from_node(node), node.GetName())
        return self._identified[key]

    def proposeAssignment(self, nodes=None):
        """Tell which volume is which sequence, by the rules of NPCSynthLib.study.build.assign.

        :return: sequence id -> volume node, and sentences about the volumes that were left out.
        """
        from NPCSynthLib.scene import volume_from_node
        from NPCSynthLib.study.build import assign

        described, notes = [], []
        for node in self.candidateNodes() if nodes is None else nodes:
            try:
                described.append((volume_from_node(node, copy=False), node))
            except InputError as error:
                notes.append(str(error))
        chosen, warnings, refused = assign([volume for volume, _node in described])
        notes += warnings
        notes += [_("“{name}” is not used: {reason}").format(name=name, reason=reason) for name, reason in refused]
        proposals = {
            sequence: next(node for volume, node in described if volume is taken) for sequence, taken in chosen.items()
        }
        return proposals, notes

    def reasonFor(self, sequence, node):
        """A sentence about how well a chosen volume fits its sequence."""
        identification = self.identify(node)
        if identification.sequence == sequence:
            return _("Looks like {sequence}, {percent:.0f} % sure: {reason}").format(
                sequence=sequence, percent=100 * identification.confidence, reason=identification.reason
            )
        if identification.sequence is None:
            return _("Chosen by you. By itself it was not recognized: {reason}").format(reason=identification.reason)
        return _("Chosen by you. By itself it looks like {sequence}: {reason}").format(
            sequence=identification.sequence, reason=identification.reason
        )

    # The job

    def process(
        self, volumeNodes, targets=None, segment=True, device=None, reference=None, onProgress=None, cancel=None
    ):
        """Synthesize and add the results to the scene; returns when done. Can be used without GUI.

        :param volumeNodes: sequence id -> vtkMRMLScalarVolumeNode.
        :param targets: sequence ids to synthesize; by default all that are missing.
        :param segment: also segment tumor and organs at risk.
        :param device: "GPU", "CPU", or None to let NPCSynth choose.
        :param reference: sequence id of the source whose grid the results get; by default the best one.
        :param onProgress: called with a fraction 0..1 and a stage in words.
        :param cancel: called often; return True to stop.
        :return: NPCSynthLib.scene.SceneNodes.
        :raises NPCSynthError: with a message for the user; Cancelled among them. The scene is then as it was before.
        """
        if targets is None:
            targets = [s for s in load_sequences() if s not in volumeNodes]
        volumes = self.prepare(volumeNodes, targets)
        self.ensureDependencies()
        if device not in (None, *DEVICES):
            raise UsageError(_("“{choice}” is no device. Choose one of: {choices}.").format(
                choice=device, choices=", ".join(DEVICES)
            ))
        study, result = self.computer.compute(
            volumes, targets, reference=reference, segment=segment, device=DEVICES.get(device), on_progress=onProgress,
            cancel=cancel,
        )
        return self.addToScene(result, study, volumeNodes)

    def prepare(self, volumeNodes, targets):
        """Check a request and copy the images out of the scene; main thread only.

        :return: sequence id -> NPCSynthLib Volume.
        """
        from NPCSynthLib.scene import study_volumes

        if not volumeNodes:
            raise UsageError(_("No source was chosen. Choose at least one MR volume."))
        for sequence in (*volumeNodes, *targets):
            if sequence not in load_sequences():
                get_sequence(sequence)  # raises with the nearest known name, or knows it by an alias
                raise UsageError(_("Name sequences by their id: {ids}.").format(ids=", ".join(load_sequences())))
        both = [s for s in targets if s in volumeNodes]
        if both:
            raise UsageError(
                _("{sequence} is both a source and a target. Remove it from one of them.").format(sequence=both[0])
            )
        if not targets:
            raise UsageError(_("Nothing to synthesize was chosen. Choose at least one missing sequence."))
        return study_volumes(volumeNodes)

    def addToScene(self, result, study, volumeNodes):
        """Add a result to the scene as one unit; main thread only."""
        from NPCSynthLib.scene import add_result

        return add_result(result, study, volumeNodes, slicer.mrmlScene)

    # Results

    def hasResults(self):
        """Whether results of NPCSynth lie in the scene."""
        from NPCSynthLib.scene import result_nodes

        return bool(result_nodes(slicer.mrmlScene))

    def latestResultNames(self):
        """Names of the nodes that the latest run added, and of those among them that were changed since."""
        from NPCSynthLib.scene import changed_nodes, latest_nodes

        nodes = latest_nodes(slicer.mrmlScene)
        return [node.GetName() for node in nodes], [node.GetName() for node in changed_nodes(nodes)]

    def removeLatestResult(self):
        """Delete the nodes that the latest run added; one undo brings them back where undo is switched on."""
        from NPCSynthLib.scene import latest_nodes

        slicer.mrmlScene.SaveStateForUndo()
        for node in latest_nodes(slicer.mrmlScene):
            for number in reversed(range(node.GetNumberOfDisplayNodes())):
                slicer.mrmlScene.RemoveNode(node.GetNthDisplayNode(number))
            if node.GetStorageNode() is not None:
                slicer.mrmlScene.RemoveNode(node.GetStorageNode())
            slicer.mrmlScene.RemoveNode(node)

    def prepareExport(self, parentFolder):
        """What is needed to write the latest results as DICOM; main thread only.

        :return: a function of (onProgress, cancel) for any thread, which gives the new folder and the series written,
          and the names of the nodes that are left out because they were changed.
        :raises NPCSynthError: there is nothing to export. The function raises it too, and leaves nothing behind.
        """
        from NPCSynthLib.scene import latest_result

        found = latest_result(slicer.mrmlScene)
        if found is None or not (found.result.sequences or found.result.segmentation):
            raise UsageError(_("There are no unchanged results of NPCSynth in the scene. Run first, then export."))
        series = [source.get("SeriesInstanceUID") for source in found.document["sources"]]
        database = getattr(slicer, "dicomDatabase", None)
        files = [path for uid in series if uid and database is not None for path in database.filesForSeries(uid)]
        folder = Path(parentFolder) / time.strftime("NPCSynth %Y-%m-%d %H.%M.%S")

        def export(onProgress, cancel):
            from NPCSynthLib.output.dicom_export import export_dicom

            written = export_dicom(
                found.result, found.document, files, folder, on_progress=onProgress, cancel=cancel
            )
            return folder, written

        return export, found.left_out

    def addToDatabase(self, folder, series):
        """Copy exported files into Slicer's DICOM database. Returns whether all series are there then."""
        database = getattr(slicer, "dicomDatabase", None)
        if database is None or not database.isOpen:
            return False
        from DICOMLib import DICOMUtils

        DICOMUtils.importDicom(str(folder), copyFiles=True)
        return all(database.filesForSeries(one.uid) for one in series)

    # Dependencies

    def ensureDependencies(self):
        """Install what is missing after asking; main thread only, and only when a run is about to begin.

        :raises NPCSynthError: the user declined, or something could not be installed.
        """
        if importlib.util.find_spec("torch") is None:
            self._installTorch()
        self._checkTorch()
        self.ensurePackages()

    def ensurePackages(self):
        """The part of ``ensureDependencies`` that is not PyTorch."""
        requirements = resource_path("Resources", "requirements.txt")
        constraints = self._writeConstraints()
        try:
            if importlib.util.find_spec("slicer.packaging") is not None:
                import slicer.packaging

                slicer.packaging.pip_ensure(
                    slicer.packaging.load_requirements(requirements), constraints=constraints, requester="NPCSynth"
                )
            else:
                self._pipInstall(requirements, constraints)
        except RuntimeError as error:
            raise NPCSynthError(
                _("NPCSynth needs Python packages that are not installed, so it cannot run. Start again and accept.")
            ) from error
        except subprocess.CalledProcessError as error:
            raise NPCSynthError(_(
                "Python packages that NPCSynth needs could not be installed. Check the internet connection and the "
                "free disk space, then run again; the application log says more."
            )) from error
        finally:
            constraints.unlink()

    @staticmethod
    def _installTorch():
        try:
            import PyTorchUtils
        except ModuleNotFoundError as error:
            raise NPCSynthError(_(
                "NPCSynth needs PyTorch. Install the extension “PyTorch” in the Extensions Manager, restart "
                "Slicer and run again."
            )) from error
        try:
            torch = PyTorchUtils.PyTorchUtilsLogic().installTorch(
                askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT
            )
        except subprocess.CalledProcessError as error:
            raise NPCSynthError(_(
                "PyTorch could not be installed. Check the internet connection and the free disk space, then run "
                "again; the application log says more."
            )) from error
        if torch is None:
            raise NPCSynthError(_("NPCSynth needs PyTorch, and it was not installed. Start again and accept."))
        importlib.invalidate_caches()

    @staticmethod
    def _checkTorch():
        """Another extension may have installed a PyTorch that is too old."""
        from packaging.specifiers import SpecifierSet

        try:
            version = importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            return
        if not SpecifierSet(TORCH_REQUIREMENT).contains(version, prereleases=True):
            raise NPCSynthError(
                _(
                    "NPCSynth needs PyTorch {requirement}, and version {version} is installed. Uninstall it in the "
                    "module “PyTorch Utils”, restart Slicer and run again."
                ).format(requirement=TORCH_REQUIREMENT, version=version)
            )

    @staticmethod
    def _writeConstraints():
        """A pip constraints file that holds Slicer's own packages at the versions it has."""
        lines = []
        for name in PINNED:
            try:
                lines.append(f"{name}=={importlib.metadata.version(name)}\n")
            except importlib.metadata.PackageNotFoundError:
                continue
        handle, path = tempfile.mkstemp(prefix="npcsynth-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(lines)
        return Path(path)

    @staticmethod
    def _pipInstall(requirements, constraints):
        """For Slicer before 5.12, which has no slicer.packaging."""
        from packaging.requirements import Requirement

        missing = []
        for line in requirements.read_text(encoding="utf-8").splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            requirement = Requirement(line)
            try:
                present = importlib.metadata.version(requirement.name) in requirement.specifier
            except importlib.metadata.PackageNotFoundError:
                present = False
            if not present:
                missing.append(str(requirement))
        if not missing:
            return
        question = _("NPCSynth needs to install: {packages}. Continue?").format(packages=", ".join(missing))
        if not slicer.util.confirmOkCancelDisplay(question, windowTitle="NPCSynth"):
            raise RuntimeError("declined")
        slicer.util.pip_install(["--constraint", str(constraints), *missing])

    # Sample data

    def loadPhantomPatient(self, seed=1, sequences=("T1", "T2"), size="full"):
        """Add volumes of a simulated patient to the scene.

        :return: sequence id -> vtkMRMLScalarVolumeNode.
        """
        from NPCSynthLib.phantom.patient import make_patient
        from NPCSynthLib.scene import add_volume

        volumes = make_patient(seed, sequences=tuple(sequences), size=size).volumes
        return {s: add_volume(slicer.mrmlScene, volumes[s], f"Phantom {s}") for s in sequences}


#
# NPCSynthTest
#


class NPCSynthTest(ScriptedLoadableModuleTest):
    """Runs a simulated patient through the logic."""

    def setUp(self):
        """An empty scene with two sequences of a simulated patient."""
        slicer.mrmlScene.Clear()
        self.logic = NPCSynthLogic()
        self.nodes = self.logic.loadPhantomPatient(size="small")
        self.before = slicer.mrmlScene.GetNumberOfNodes()

    def runTest(self):
        """All tests on one patient; each but the last leaves the scene as it was."""
        self.setUp()
        self.test_proposal()
        self.test_bad_request()
        self.test_cancel()
        self.test_synthesis()

    def canSynthesize(self):
        """Tests install nothing: synthesis is tested where all that it needs is there already."""
        missing = [name for name in ("torch", "safetensors", "psutil") if importlib.util.find_spec(name) is None]
        if missing:
            logging.warning(f"NPCSynth: {', '.join(missing)} not installed, so that synthesis is not tested.")
        return not missing

    def test_proposal(self):
        """Volumes are recognized by themselves."""
        proposals, _notes = self.logic.proposeAssignment()
        wanted = {sequence: node.GetID() for sequence, node in self.nodes.items()}
        self.assertEqual({sequence: node.GetID() for sequence, node in proposals.items()}, wanted)

    def test_bad_request(self):
        """A target that is also a source is refused in words, and nothing is added."""
        with self.assertRaisesRegex(UsageError, "T1"):
            self.logic.process(self.nodes, ["T1"])
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), self.before)

    def test_cancel(self):
        """A canceled run leaves the scene as it was."""
        if not self.canSynthesize():
            return
        with self.assertRaises(Cancelled):
            self.logic.process(self.nodes, ["T1C"], cancel=lambda: True)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), self.before)

    def test_synthesis(self):
        """Results appear on the grid of a source."""
        if not self.canSynthesize():
            return
        progress = []
        created = self.logic.process(
            self.nodes, ["T1C"], reference="T1", onProgress=lambda fraction, stage: progress.append(fraction)
        )
        source, output = self.nodes["T1"], created.volumes["T1C"]
        self.assertEqual(output.GetName(), "T1C (synthetic)")
        self.assertEqual(output.GetImageData().GetDimensions(), source.GetImageData().GetDimensions())
        wanted, got = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
        source.GetIJKToRASMatrix(wanted)
        output.GetIJKToRASMatrix(got)
        for row in range(4):
            for column in range(4):
                self.assertAlmostEqual(wanted.GetElement(row, column), got.GetElement(row, column), places=4)
        self.assertGreater(created.segmentation.GetSegmentation().GetNumberOfSegments(), 0)
        self.assertEqual(progress, sorted(progress))
