"""slicer.ScriptedLoadableModule, and the two C++ classes behind a scripted module.

Imitates Slicer/Slicer, Base/Python/slicer/ScriptedLoadableModule.py, without the developer's section of buttons: what
its Reload button does is ``slicer.util.reloadScriptedModule``, which is the real one here and works on these classes.
"""

import importlib
import os
import sys
import unittest

import qt
import slicer
from PySide6 import QtWidgets

from .qt_manners import Manners
from .widgets import qMRMLWidget


class qSlicerScriptedLoadableModule:
    """What a module gets as ``parent``. Imitates Base/QTGUI/qSlicerScriptedLoadableModule.h: no other attributes."""

    __slots__ = (
        "acknowledgementText", "associatedNodeTypes", "categories", "contributors", "dependencies", "extensions",
        "helpText", "hidden", "icon", "index", "name", "path", "title", "_widget",
    )  # fmt: skip

    def __init__(self, path=""):
        self.path, self.name = str(path), os.path.splitext(os.path.basename(path))[0]
        self.hidden, self._widget = False, None

    def widgetRepresentation(self):
        """The module's panel, made when it is asked for the first time."""
        if self._widget is None:
            self._widget = qSlicerScriptedLoadableModuleWidget()
            self._widget._class_name = f"{self.name}Widget"
            self._widget.reload()
        return self._widget


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget, Manners):
    """What a panel gets as ``parent``. Imitates Base/QTGUI/qSlicerScriptedLoadableModuleWidget.cxx.

    ``reload`` makes the panel anew and sets it up, without entering it again.
    """

    isEntered = property(lambda self: self._entered)

    def __init__(self):
        super().__init__()
        self._entered, self._class_name, self._self = False, "", None
        self.setLayout(QtWidgets.QVBoxLayout())

    def self(self):
        """The Python object."""
        return self._self

    def reload(self):
        """Make the panel from the module's file as it was last read."""
        kind = getattr(sys.modules[self._class_name.removesuffix("Widget")], self._class_name)
        self.instantiate(kind)

    def instantiate(self, kind):
        """Make the panel of this class, make it known as slicer.modules.<class name>, set it up."""
        self._class_name = kind.__name__
        self._self = kind(self)
        setattr(slicer.modules, self._class_name, self._self)
        self._self.setup()

    def enter(self):
        """The user opens the module."""
        self._entered = True
        self._self.enter()

    def exit(self):
        """The user goes to another module."""
        self._entered = False
        getattr(self._self, "exit", lambda: None)()


class ScriptedLoadableModule:
    """Base of the module class."""

    def __init__(self, parent):
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = parent.helpText = parent.acknowledgementText = ""
        parent.categories, parent.dependencies, parent.contributors = [], [], []
        icon = os.path.join(os.path.dirname(parent.path), "Resources", "Icons", f"{self.moduleName}.png")
        if os.path.isfile(icon):
            parent.icon = qt.QIcon(icon)
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def resourcePath(self, filename):
        """Path in the module's Resources folder."""
        return os.path.join(os.path.dirname(self.parent.path), "Resources", filename)

    def runTest(self, msec=100, **kwargs):
        """Run the module's test class."""
        test = getattr(importlib.import_module(self.__module__), f"{self.moduleName}Test")()
        test.messageDelay = msec
        test.runTest(**kwargs)


class ScriptedLoadableModuleWidget:
    """Base of the panel."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def resourcePath(self, filename):
        """Path in the module's Resources folder."""
        return os.path.join(os.path.dirname(slicer.util.modulePath(self.moduleName)), "Resources", filename)

    def cleanup(self):
        """Overridden by modules."""

    def _onModuleAboutToBeUnloaded(self, moduleName):
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded)

    def setup(self):
        """Overridden by modules."""


class ScriptedLoadableModuleLogic:
    """Base of the logic."""

    def __init__(self, parent=None):
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self):
        """The one parameter node of the module, made when there is none."""
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            return slicer.mrmlScene.AddNode(self.createParameterNode())
        if node.GetAttribute("ModuleName") != self.moduleName:
            node.SetAttribute("ModuleName", self.moduleName)
        return node

    def createParameterNode(self):
        """A new parameter node, not yet in the scene."""
        node = slicer.vtkMRMLScriptedModuleNode()
        node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """Base of the self-test."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)

    def delayDisplay(self, message, requestedDelay=None, msec=None):
        """The real ``slicer.util.delayDisplay``, which only logs when the delay is short."""
        slicer.util.delayDisplay(message, getattr(self, "messageDelay", msec or requestedDelay or 100))

    def runTest(self):
        """Overridden by modules."""
