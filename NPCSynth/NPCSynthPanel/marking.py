"""Every slice view says so while it shows a synthetic image, whether or not the panel was ever opened."""

import slicer


def startMarking():
    """Mark the slice views from now on. Called at Slicer's start; once more when the module is loaded later or anew."""
    from NPCSynthLib.scene.marks import SyntheticMarks

    stopMarking()
    logic = slicer.app.applicationLogic()
    if logic is not None and logic.GetSliceLogics() is not None:  # None without a main window
        # With Slicer, not with this file: after a reload it must be found, or there would be two marks.
        slicer.modules.npcsynthMarks = SyntheticMarks(logic)


def stopMarking():
    """Before the views go."""
    marks = getattr(slicer.modules, "npcsynthMarks", None)
    if marks is not None:
        marks.stop()
        slicer.modules.npcsynthMarks = None
