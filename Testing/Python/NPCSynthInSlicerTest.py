"""What only Slicer itself can show: that the module loads, its panel works under PythonQt, and its views are marked.

Not run in Slicer yet: it was written beside Slicer's sources, and runs under the stand-in (``Testing/test_story.py``),
where what needs a main window is skipped. In the extension's build folder: ``ctest``. Without a build::

    Slicer --testing --no-splash --ignore-slicerrc --additional-module-paths NPCSynth \\
        --python-code "import slicer.testing; slicer.testing.runUnitTest(['Testing/Python'], 'NPCSynthInSlicerTest')"

Installs nothing: synthesis is tested where PyTorch and the packages of Resources/requirements.txt are there already.
"""

import os
import tempfile
import time
import unittest
from unittest import mock

import slicer

#: Longest wait in seconds for a run; the first one loads PyTorch.
PATIENCE = 600


def hasMainWindow():
    """Slice views are there with the main window alone."""
    return slicer.app.layoutManager() is not None and slicer.util.mainWindow() is not None


class NPCSynthInSlicerTest(unittest.TestCase):
    """One patient, from the Sample Data module to a saved scene."""

    #: A test elsewhere puts its own computer here.
    computer = None

    def setUp(self):
        """An empty scene, and the panel as the user opens it."""
        slicer.mrmlScene.Clear(0)
        # The checks before a run may ask whether to go on; in testing mode Slicer answers that no question agrees to.
        agreed = mock.patch.object(slicer.util, "confirmYesNoDisplay", lambda *_arguments, **_keywords: True)
        agreed.start()
        self.addCleanup(agreed.stop)
        self.module = slicer.modules.npcsynth
        self.panel = slicer.util.getModuleWidget("NPCSynth")
        if hasMainWindow():
            slicer.util.selectModule("NPCSynth")
        else:
            self.panel.enter()
        if self.computer is not None:
            self.panel.logic.computer = self.computer

    def loadPatient(self):
        """Volumes of a small simulated patient, assigned."""
        nodes = self.panel.logic.loadPhantomPatient(size="small")
        self.waitUntil(lambda: self.panel._parameterNode.sources())
        return nodes

    def skipWithoutPackages(self):
        """Nothing is installed by a test."""
        from NPCSynthPanel.dependencies import missingPackages

        missing = missingPackages()
        if missing:
            self.skipTest(f"{', '.join(missing)} not installed.")

    def waitUntil(self, condition, seconds=30):
        """Let Slicer work."""
        end = time.monotonic() + seconds
        while not condition():
            self.assertLess(time.monotonic(), end, "nothing happened in time")
            slicer.app.processEvents()
            time.sleep(0.01)

    def chooseOnly(self, target):
        """Synthesize this sequence and no other."""
        for sequence in self.panel._parameterNode.targets():
            if sequence != target:
                self.panel._parameterNode.setAction(sequence, "leave")
        self.assertEqual(self.panel._parameterNode.targets(), [target])

    def test_module_is_known(self):
        """Title, category, icon, and files where they were installed."""
        self.assertEqual(self.module.title, "NPCSynth")
        self.assertEqual(list(self.module.categories), ["Radiotherapy"])
        self.assertFalse(self.module.icon.isNull())
        self.assertTrue(os.path.isfile(self.panel.resourcePath("UI/NPCSynth.ui")))
        self.assertIn("NPCSynth", slicer.selfTests)

    def test_dicom_plugin_is_known(self):
        """Otherwise an exported series would be loaded as if it had been acquired."""
        self.assertIn("DICOMNPCSynthPlugin", slicer.modules.dicomPlugins)

    def test_sample_data(self):
        """The button in the Sample Data module."""
        (source,) = slicer.modules.sampleDataSources["NPCSynth"]
        self.assertTrue(os.path.isfile(source.thumbnailFileName))
        self.assertTrue(callable(source.customDownloader))

    def test_panel(self):
        """Every section is there, and the table names every sequence."""
        from NPCSynthLib.vocabulary import load_sequences

        self.assertEqual(list(self.panel.study.rows), list(load_sequences()))
        for section in self.panel.sections:
            self.assertIsNotNone(section.widget)
        self.assertFalse(self.panel.run.runButton.enabled)

    def test_assignment(self):
        """Volumes are recognized, shown, and saved with the scene."""
        nodes = self.loadPatient()
        for sequence, node in nodes.items():
            self.assertEqual(self.panel.study.rows[sequence].selector.currentNodeID, node.GetID())
        self.assertTrue(self.panel.run.runButton.enabled)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "scene.mrb")
            self.assertTrue(slicer.util.saveScene(path))
            slicer.mrmlScene.Clear(0)
            self.assertFalse(self.panel.run.runButton.enabled)
            slicer.util.loadScene(path)
        self.assertEqual(sorted(self.panel._parameterNode.sources()), sorted(nodes))

    def test_reload(self):
        """The Reload button of the developer mode: a new panel with the choices of the old one."""
        self.loadPatient()
        old = self.panel
        slicer.util.reloadScriptedModule("NPCSynth")
        self.panel = slicer.util.getModuleWidget("NPCSynth")
        self.assertIsNot(self.panel, old)
        self.assertEqual(sorted(self.panel._parameterNode.sources()), ["T1", "T2"])

    def test_run(self):
        """Results appear, on the grid of a source, marked as synthetic; the window lives on meanwhile."""
        self.skipWithoutPackages()
        nodes = self.loadPatient()
        self.chooseOnly("T1C")
        self.panel.run.runButton.click()
        self.assertTrue(self.panel.run.cancelButton.enabled)
        self.waitUntil(lambda: not self.panel.runner.running, PATIENCE)
        self.assertIn("Done", self.panel.run.statusLabel.text)
        result = slicer.util.getNode("T1C (synthetic)")
        self.assertEqual(result.GetAttribute("NPCSynth.Synthetic"), "YES")
        self.assertIn(result.GetImageData().GetDimensions(), [n.GetImageData().GetDimensions() for n in nodes.values()])

    def test_cancel(self):
        """The scene stays as it was."""
        self.skipWithoutPackages()
        self.loadPatient()
        before = slicer.mrmlScene.GetNumberOfNodes()
        self.panel.run.runButton.click()
        self.waitUntil(lambda: self.panel.runner.current is not None and self.panel.runner.current.stage, PATIENCE)
        self.panel.run.cancelButton.click()
        self.assertFalse(self.panel.runner.running)
        self.assertEqual(slicer.mrmlScene.GetNumberOfNodes(), before)

    def test_views_are_marked(self):
        """A view that shows a synthetic volume says so, whether or not the panel made it."""
        if not hasMainWindow():
            self.skipTest("There is no main window.")
        nodes = self.loadPatient()
        nodes["T1"].SetAttribute("NPCSynth.Synthetic", "YES")
        slicer.util.setSliceViewerLayers(background=nodes["T1"], fit=True)
        slicer.app.processEvents()
        renderer = slicer.app.layoutManager().sliceWidget("Red").sliceView().renderWindow().GetRenderers()
        texts = [
            prop.GetInput() for prop in renderer.GetFirstRenderer().GetViewProps()
            if prop.IsA("vtkTextActor") and prop.GetVisibility()
        ]
        self.assertTrue(any("SYNTHETIC" in (text or "") for text in texts), texts)
