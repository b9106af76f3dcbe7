"""slicer.app, in testing mode."""

import slicer
from PySide6 import QtCore, QtWidgets


class Application:
    """The calls that modules and ``slicer.util`` make on the application."""

    applicationName = "Slicer stand-in"

    def __init__(self):
        self._slots = {}

    def testingEnabled(self):
        """Message boxes are logged, not shown."""
        return True

    def connect(self, signature, slot):
        """Nothing comes by itself: a test that plays Slicer's start or end calls ``standInEmit``."""
        self._slots.setdefault(signature, []).append(slot)

    def standInEmit(self, signature):
        """Send startupCompleted() or aboutToQuit()."""
        for slot in self._slots.get(signature, ()):
            slot()

    def applicationLogic(self):
        """The real one, of the present scene."""
        return slicer.mrmlScene.stand_in_application_logic

    def processEvents(self):
        """Let Qt work."""
        QtWidgets.QApplication.processEvents()

    def setOverrideCursor(self, cursor):
        """Of the whole application."""
        QtWidgets.QApplication.setOverrideCursor(QtCore.Qt.CursorShape(cursor))

    def restoreOverrideCursor(self):
        """Of the whole application."""
        QtWidgets.QApplication.restoreOverrideCursor()
