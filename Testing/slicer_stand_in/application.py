"""slicer.app, in testing mode, and its module manager.

Imitates Slicer/Slicer, Base/QTCore/qSlicerCoreApplication.h and Base/QTCore/qSlicerModuleManager.h, as far as scripted
modules and ``slicer.util`` call them.
"""

import slicer
from PySide6 import QtCore, QtWidgets


class ModuleManager:
    """Tells widgets when their module is about to be unloaded, which happens when Slicer closes."""

    def __init__(self):
        self._slots = []

    def module(self, name):
        """The module of this name, or None."""
        return getattr(slicer.modules, name.lower(), None)

    def connect(self, signature, slot):
        """Only moduleAboutToBeUnloaded(QString)."""
        if signature != "moduleAboutToBeUnloaded(QString)":
            raise ValueError(f"qSlicerModuleManager has no signal {signature} here")
        self._slots.append(slot)
        return True

    def disconnect(self, signature, slot):
        """What was connected before."""
        found = slot in self._slots
        if found:
            self._slots.remove(slot)
        return found

    def unload(self, module_name):
        """Do what Slicer does when it closes."""
        for slot in list(self._slots):
            slot(module_name)


class Application:
    """The calls that modules and ``slicer.util`` make on the application."""

    applicationName = "Slicer stand-in"

    def __init__(self):
        self._manager = ModuleManager()
        self._slots = {"startupCompleted()": [], "aboutToQuit()": []}

    def testingEnabled(self):
        """Message boxes are logged, not shown."""
        return True

    def moduleManager(self):
        """The one of the application."""
        return self._manager

    def connect(self, signature, slot):
        """Nothing comes by itself: a test that plays Slicer's start or end calls ``standInEmit``."""
        if signature not in self._slots:
            raise ValueError(f"qSlicerApplication has no signal {signature} here")
        self._slots[signature].append(slot)
        return True

    def standInEmit(self, signature):
        """Send startupCompleted() or aboutToQuit()."""
        for slot in self._slots[signature]:
            slot()

    def applicationLogic(self):
        """The real one, of the present scene."""
        return slicer.mrmlScene.stand_in_application_logic

    def layoutManager(self):
        """None, as when Slicer runs without a main window."""
        return None

    def processEvents(self):
        """Let Qt work."""
        QtWidgets.QApplication.processEvents()

    def setOverrideCursor(self, cursor):
        """Of the whole application."""
        QtWidgets.QApplication.setOverrideCursor(QtCore.Qt.CursorShape(cursor))

    def restoreOverrideCursor(self):
        """Of the whole application."""
        QtWidgets.QApplication.restoreOverrideCursor()
