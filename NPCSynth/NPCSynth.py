"""Slicer module that fills in the MR sequences a patient lacks. NPCSynthPanel holds its parts; NPCSynthLib computes."""

import logging
import os
import sys
import unittest

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Slicer's Reload button runs this file again: the parts are to be read again too. The panel that is still open keeps
# its own until it is cleaned up.
for _name in [name for name in sys.modules if name.split(".")[0] == "NPCSynthPanel"]:
    del sys.modules[_name]

import NPCSynthPanel  # noqa: E402, F401 - finds NPCSynthLib
from NPCSynthLib.errors import Cancelled, UsageError  # noqa: E402
from NPCSynthPanel.batch import BatchSection  # noqa: E402
from NPCSynthPanel.contour_qa import ContourSection  # noqa: E402
from NPCSynthPanel.dependencies import missingPackages  # noqa: E402
from NPCSynthPanel.export import ExportSection  # noqa: E402
from NPCSynthPanel.logic import NPCSynthLogic  # noqa: E402
from NPCSynthPanel.marking import startMarking, stopMarking  # noqa: E402
from NPCSynthPanel.messages import Messages  # noqa: E402
from NPCSynthPanel.parameters import DEVICES, NPCSynthParameterNode  # noqa: E402, F401
from NPCSynthPanel.prompts import PromptSection  # noqa: E402
from NPCSynthPanel.report import ReportSection  # noqa: E402
from NPCSynthPanel.results import ResultsSection  # noqa: E402
from NPCSynthPanel.run_controls import RunSection  # noqa: E402
from NPCSynthPanel.runner import Runner  # noqa: E402
from NPCSynthPanel.settings import SettingsSection  # noqa: E402
from NPCSynthPanel.study_table import StudySection  # noqa: E402

#: Longest wait in seconds for a canceled run when the module is closed or reloaded.
CLOSING_PATIENCE = 5


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
        slicer.app.connect("startupCompleted()", startMarking)
        slicer.app.connect("startupCompleted()", registerLayouts)
        slicer.app.connect("aboutToQuit()", stopMarking)


def registerLayouts():
    """Nobody is to meet our side-by-side layouts with empty views: neither where Slicer was closed in one of them, nor
    in a scene that was saved in one, whether or not the panel is ever opened."""
    from NPCSynthLib.scene.layouts import add_layouts, leave_layouts

    leave_layouts(slicer.mrmlScene)
    add_layouts(slicer.mrmlScene)
    slicer.mrmlScene.AddObserver(slicer.mrmlScene.EndImportEvent, lambda scene, _event: leave_layouts(scene))


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
        nodes = list(NPCSynthLogic().loadPhantomPatient().values())
    slicer.util.setSliceViewerLayers(background=nodes[0], fit=True)
    return nodes


#
# NPCSynthWidget
#


class NPCSynthWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: its sections one below the other, told what happens in the scene."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)  # needed for parameter node observation
        self.logic = None
        self.runner = None
        self.sections = []
        self._parameterNode = None
        self._refreshTimer = qt.QTimer()
        self._refreshTimer.setInterval(0)
        self._refreshTimer.setSingleShot(True)

    def setup(self):
        """Called when the user opens the module the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/NPCSynth.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)

        startMarking()
        self.logic = NPCSynthLogic()
        self.messages = Messages(lambda text: self.run.showStatus(text))
        self.runner = Runner(self.onRunChanged, lambda run: self.run.showProgress(run), self.onRunError)

        self.study = StudySection(self.logic)
        self.prompts = PromptSection()
        self.run = RunSection(self.logic, self.runner, self.messages, onFound=self.prompts.mark)
        self.sections = [
            self.study,
            SettingsSection(self.messages),
            self.prompts,
            self.run,
            ResultsSection(self.logic, self.runner, self.messages),
            ExportSection(self.logic, self.runner, self.messages),
            ContourSection(self.logic, self.runner, self.messages),
            ReportSection(self.logic, self.runner, self.messages),
            BatchSection(self.logic, self.runner, self.messages),
        ]
        for section in self.sections:
            self.ui.sections.layout().addWidget(section.widget)
        uiWidget.setMRMLScene(slicer.mrmlScene)

        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self.onNodeAdded)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeRemovedEvent, self.onNodeRemoved)
        self._refreshTimer.connect("timeout()", self.refresh)

        self.initializeParameterNode()

    def section(self, kind):
        """The section of this class."""
        return next(section for section in self.sections if isinstance(section, kind))

    def cleanup(self):
        """Called when the application closes or reloads the module; Qt may have deleted the widgets by then."""
        self._refreshTimer.stop()
        self.removeObservers()
        if self.runner is not None:
            self.runner.close(CLOSING_PATIENCE)
        if self.logic is not None:
            self.logic.computer.close()
        for section in self.sections:
            section.cleanup()
        self.sections = []
        self._parameterNode = None

    def enter(self):
        """Called each time the user opens this module: in another one, contours may have been edited meanwhile."""
        self.initializeParameterNode()
        self.refresh()

    def onSceneStartClose(self, caller, event):
        """Called just before the scene is closed: what its results were to go into is no more."""
        if self.runner.running and self.runner.current.needsScene:
            self.run.cancel(_("Canceled, because the scene was closed."))
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event):
        """Called just after the scene is closed."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        """A scene was loaded: only now are the volumes there that its parameter node refers to. Its layout counts."""
        self.section(ResultsSection).back()
        self.refresh()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, caller, event, calldata):
        """A volume was loaded; offer it where the user has not chosen any yet."""
        if calldata is not None and calldata.IsA("vtkMRMLScalarVolumeNode"):
            self.study.onVolumeAdded(calldata)
        if calldata is not None and calldata.IsA("vtkMRMLDisplayableNode"):
            self._refreshTimer.start()

    def onNodeRemoved(self, caller, event):
        """Selectors jump to a neighbor when their node goes: set them right once they have."""
        self._refreshTimer.start()

    # Parameter node

    def initializeParameterNode(self):
        """Make sure that the parameter node exists, and propose volumes when none is chosen."""
        if self._parameterNode is None:
            self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.assigned():
            self.study.detect()

    def setParameterNode(self, inputParameterNode):
        """Show and observe a parameter node."""
        if self._parameterNode is not None:
            self.removeObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified
            )
        self._parameterNode = inputParameterNode
        for section in self.sections:
            section.setParameterNode(inputParameterNode)
        if self._parameterNode is not None:
            self.addObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self.onParameterNodeModified
            )

    def onParameterNodeModified(self, caller=None, event=None):
        """The user chose something, or a script did."""
        self.refresh()

    def refresh(self):
        """Show the scene and the choices as they are now."""
        for section in self.sections:
            section.refresh()

    # Runs

    def onRunChanged(self):
        """A computation has begun or ended."""
        for section in self.sections:
            section.setRunning(self.runner.running)

    def onRunError(self, error):
        """A computation has failed that is not a run."""
        if isinstance(error, Cancelled):
            self.messages.show(str(error))
        else:
            self.messages.showError(error)


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
        try:
            for test in (self.test_proposal, self.test_bad_request, self.test_cancel, self.test_synthesis):
                try:
                    test()
                except unittest.SkipTest as reason:
                    logging.warning(f"NPCSynth: {test.__name__} was skipped. {reason}")
        finally:
            self.tearDown()

    def tearDown(self):
        """The worker process would keep PyTorch in memory."""
        self.logic.computer.close()

    def skipWithoutPackages(self):
        """Tests install nothing: synthesis is tested where all that it needs is there already."""
        missing = missingPackages()
        if missing:
            self.skipTest(f"{', '.join(missing)} not installed.")

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
        self.skipWithoutPackages()
        with self.assertRaises(Cancelled):
            self.logic.process(self.nodes, ["T1C"], cancel=lambda: True)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), self.before)

    def test_synthesis(self):
        """Results appear on the grid of a source."""
        self.skipWithoutPackages()
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
