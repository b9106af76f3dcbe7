"""The words that stand in every slice view while it shows a synthetic image.

Slicer's DataProbe writes the views' corner annotations anew whenever something changes, and takes away what others
wrote there. So the mark is a text of its own. Whether it is needed is decided anew each time a view is drawn, from
what the view then shows: no event can be missed, and there is nothing to remember when a scene is loaded or closed.
"""

import slicer
import vtk

from .volumes import is_synthetic

MARK = "SYNTHETIC - research use"
_FONT_SIZE, _SMALLEST_FONT_SIZE = 16, 7
#: Width of a character of bold Arial over its height, rounded up.
_CHARACTER_WIDTH = 0.72
_POINTS_PER_INCH = 72


class SyntheticMarks:
    """Keeps the slice views of an application marked.

    Args:
        application_logic: vtkMRMLApplicationLogic, which knows the slice logics of all views (Slicer 5.10 or newer:
            they lead to the render windows). Views that come later are marked too.
    """

    def __init__(self, application_logic):
        self._logics = application_logic.GetSliceLogics()
        self._known = _KnownVolumes()
        self._views = []
        self._tag = self._logics.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_views_changed)
        self._on_views_changed()

    def stop(self):
        """Take the marks away and look at nothing any more."""
        self._logics.RemoveObserver(self._tag)
        for view in self._views:
            view.stop()
        self._views = []

    def _on_views_changed(self, caller=None, event=None):
        logics = [self._logics.GetItemAsObject(number) for number in range(self._logics.GetNumberOfItems())]
        for view in [view for view in self._views if not any(view.logic is logic for logic in logics)]:
            view.stop()
            self._views.remove(view)
        for logic in logics:
            if not any(view.logic is logic for view in self._views):
                self._views.append(_View(logic, self._known))


def shown_volumes(composite) -> list:
    """The volume nodes that a slice view shows: background, and each other layer that is not wholly transparent.

    Args:
        composite: vtkMRMLSliceCompositeNode.
    """
    scene = composite.GetScene()
    if scene is None:
        return []
    ids = [composite.GetBackgroundVolumeID()]
    # Added to or subtracted from the background, the foreground shows whatever its opacity.
    if composite.GetForegroundOpacity() > 0 or composite.GetCompositing() != slicer.vtkMRMLSliceCompositeNode.Alpha:
        ids.append(composite.GetForegroundVolumeID())
    if composite.GetLabelOpacity() > 0:
        ids.append(composite.GetLabelVolumeID())
    if hasattr(composite, "GetNumberOfAdditionalLayers"):
        for number in range(composite.GetNumberOfAdditionalLayers()):
            layer = slicer.vtkMRMLSliceCompositeNode.Layer_Last + number
            if composite.GetNthLayerOpacity(layer) > 0:
                ids.append(composite.GetNthLayerVolumeID(layer))
    nodes = [scene.GetNodeByID(node_id) for node_id in ids if node_id]
    return [node for node in nodes if node is not None]


class _KnownVolumes:
    """Which volumes are synthetic. Their files may have to be asked, and views are drawn many times a second."""

    def __init__(self):
        self._answers = {}

    def __call__(self, node) -> bool:
        if node.GetAttribute("NPCSynth.Synthetic") == "YES":
            return True
        storage = node.GetStorageNode()
        key = (
            node.GetID(), node.GetName(), node.GetAttribute("DICOM.instanceUIDs"),
            storage.GetFileName() if storage is not None else None,
        )  # fmt: skip
        if key not in self._answers:
            self._answers[key] = is_synthetic(node)
        return self._answers[key]


class _View:
    """One slice view and its mark."""

    def __init__(self, logic, known: _KnownVolumes):
        self.logic, self._known = logic, known
        self._window = self._window_tag = self._renderer = None
        self._text = _mark()
        # The window comes later than the logic, and can be replaced.
        self._logic_tag = logic.AddObserver(vtk.vtkCommand.ModifiedEvent, self._find_window)
        self._find_window()

    def stop(self):
        self.logic.RemoveObserver(self._logic_tag)
        self._leave_window()

    def _find_window(self, caller=None, event=None):
        group = self.logic.GetDisplayableManagerGroup()
        renderer = group.GetRenderer() if group is not None else None
        window = renderer.GetRenderWindow() if renderer is not None else None
        if window is self._window:
            return
        self._leave_window()
        if window is not None:
            self._window, self._window_tag = window, window.AddObserver(vtk.vtkCommand.StartEvent, self._before_drawing)

    def _leave_window(self):
        if self._renderer is not None:
            self._renderer.RemoveViewProp(self._text)
        if self._window is not None:
            self._window.RemoveObserver(self._window_tag)
        self._window = self._window_tag = self._renderer = None

    def _before_drawing(self, caller, event):
        composite = self.logic.GetSliceCompositeNode()
        needed = composite is not None and any(self._known(node) for node in shown_volumes(composite))
        self._text.SetVisibility(needed)
        if needed:
            self._move_to_renderer()
            self._fit()

    def _move_to_renderer(self):
        """The window's renderers are made anew when its arrangement changes."""
        renderers = self._window.GetRenderers()
        renderers = [renderers.GetItemAsObject(number) for number in range(renderers.GetNumberOfItems())]
        renderer = next((one for one in renderers if one.GetLayer() == 0), None)
        if renderer is self._renderer:
            return
        if self._renderer is not None:
            self._renderer.RemoveViewProp(self._text)
        if renderer is not None:
            renderer.AddViewProp(self._text)
        self._renderer = renderer

    def _fit(self):
        """All of it in small views too."""
        pixels_per_point = max(1, self._window.GetDPI()) / _POINTS_PER_INCH
        fitting = self._window.GetSize()[0] / (len(MARK) * _CHARACTER_WIDTH * pixels_per_point)
        self._text.GetTextProperty().SetFontSize(int(min(_FONT_SIZE, max(_SMALLEST_FONT_SIZE, fitting))))


def _mark():
    """The text, at the top right of whatever it is drawn in."""
    text = vtk.vtkTextActor()
    text.SetInput(MARK)
    text.SetVisibility(False)
    text.PickableOff()
    text.SetLayerNumber(1)  # above other 2D drawings
    text.GetPositionCoordinate().SetCoordinateSystemToNormalizedViewport()
    text.SetPosition(0.985, 0.985)
    style = text.GetTextProperty()
    style.SetFontFamilyToArial()
    style.BoldOn()
    style.SetJustificationToRight()
    style.SetVerticalJustificationToTop()
    style.SetColor(1.0, 0.85, 0.0)
    # Legible on fat as well as on air.
    style.SetBackgroundColor(0.0, 0.0, 0.0)
    style.SetBackgroundOpacity(0.7)
    return text
