"""What the panel tells the user."""

import traceback

import qt
import slicer
from slicer.i18n import tr as _

from NPCSynthLib.errors import NPCSynthError


class Messages:
    """A status text, shown wherever ``show`` says, and errors as a message box too.

    :param show: called with the text.
    """

    def __init__(self, show):
        self.show = show

    def showError(self, error, unforeseen=None):
        """In the panel and as a message, in plain words; the details only where something unforeseen happened.

        :param unforeseen: what to say then, with {error} in it.
        """
        if isinstance(error, NPCSynthError):
            text, details = str(error), {}
        else:
            text = (unforeseen or _("Something went wrong: {error}")).format(error=str(error) or type(error).__name__)
            details = {"detailedText": "".join(traceback.format_exception(error))}
        self.show(text)
        if details or slicer.app.testingEnabled():
            slicer.util.errorDisplay(text, windowTitle="NPCSynth", **details)
        elif slicer.util.mainWindow() is not None:
            # errorDisplay would write the text to the application's log, and nodes may be called as patients are.
            slicer.util.messageBox(text, windowTitle="NPCSynth", icon=qt.QMessageBox.Critical)
