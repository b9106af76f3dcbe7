"""Every view says so while it shows a synthetic image or predicted contours, whether or not the panel was opened."""

import slicer


def startMarking():
    """Mark the views from now on. Called at Slicer's start; once more when the module is loaded later or anew."""
    from NPCSynthLib.scene.marks import SyntheticMarks

    stopMarking()
    logic = slicer.app.applicationLogic()
    if logic is not None and logic.GetSliceLogics() is not None:  # None without a main window
        # With Slicer, not with this file: after a reload it must be found, or there would be two marks.
        slicer.modules.npcsynthMarks = SyntheticMarks(logic, _windowOf)


def stopMarking():
    """Before the views go."""
    marks = getattr(slicer.modules, "npcsynthMarks", None)
    if marks is not None:
        marks.stop()
        slicer.modules.npcsynthMarks = None


def _windowOf(viewNode):
    """vtkRenderWindow of a 3D view, or None."""
    manager = slicer.app.layoutManager()
    for number in range(manager.threeDViewCount if manager is not None else 0):
        view = manager.threeDWidget(number).threeDView()
        if view.mrmlViewNode() is viewNode:
            return view.renderWindow()
    return None
