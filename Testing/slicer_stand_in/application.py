"""slicer.app, in testing mode."""

from PySide6 import QtCore, QtWidgets


class Application:
    """The calls that modules and ``slicer.util`` make on the application."""

    applicationName = "Slicer stand-in"

    def testingEnabled(self):
        """Message boxes are logged, not shown."""
        return True

    def connect(self, signature, slot):
        """startupCompleted() never comes: there is no startup."""

    def processEvents(self):
        """Let Qt work."""
        QtWidgets.QApplication.processEvents()

    def setOverrideCursor(self, cursor):
        """Of the whole application."""
        QtWidgets.QApplication.setOverrideCursor(QtCore.Qt.CursorShape(cursor))

    def restoreOverrideCursor(self):
        """Of the whole application."""
        QtWidgets.QApplication.restoreOverrideCursor()
