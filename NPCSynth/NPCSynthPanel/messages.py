"""What the panel tells the user."""

import logging
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
            # where it happened, and nothing that was at hand there: paths and nodes may be called as patients are
            logging.error(f"NPCSynth: {type(error).__name__}\n{''.join(traceback.format_tb(error.__traceback__))}")
        self.show(text)
        if slicer.app.testingEnabled():
            slicer.util.errorDisplay(text, windowTitle="NPCSynth", **details)
        elif slicer.util.mainWindow() is not None:
            # errorDisplay would write the text to the application's log
            slicer.util.messageBox(text, windowTitle="NPCSynth", icon=qt.QMessageBox.Critical, **details)

    def confirm(self, question):
        """Whether the user says yes."""
        if slicer.app.testingEnabled():
            return slicer.util.confirmYesNoDisplay(question, windowTitle="NPCSynth")
        # confirmYesNoDisplay would write the question to the application's log, and it may name nodes
        box = qt.QMessageBox
        answer = slicer.util.messageBox(question, windowTitle="NPCSynth", icon=box.Question,
                                        standardButtons=box.Yes | box.No)  # fmt: skip
        return answer == box.Yes
