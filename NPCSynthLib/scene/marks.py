"""The words that stand in every slice view and 3D view while it shows a synthetic image or predicted contours.

Slicer's DataProbe writes the views' corner annotations anew whenever something changes, and takes away what others
wrote there. So the mark is a text of its own. Whether it is needed is decided anew each time a view is drawn, from
what the view then shows: no event can be missed, and there is nothing to remember when a scene is loaded or closed.
"""

import logging

import slicer
import vtk

from .origins import Origins
from .segmentations import SURFACE

MARK = "SYNTHETIC - research use"
PREDICTED_MARK = "PREDICTED CONTOURS - research use"
UNKNOWN_MARK = "ORIGIN UNKNOWN - may be synthetic"
_FONT_SIZE, _SMALLEST_FONT_SIZE = 16, 7
#: Width of a character of bold Arial over its height, rounded up.
_CHARACTER_WIDTH = 0.72
_POINTS_PER_INCH = 72


class SyntheticMarks:
    """Keeps the slice views and 3D views of an application marked. Views that come later are marked too.

    Args:
        application_logic: vtkMRMLApplicationLogic, which knows the logics of all views (Slicer 5.10 or newer: those of
            slice views lead to the render windows).
        window_of: gives the vtkRenderWindow of a 3D view's vtkMRMLViewNode, or None, where its logic does not lead
            there.
    """

    def __init__(self, application_logic, window_of=lambda view_node: None):
        known = Origins()
        self._groups = [_Views(application_logic.GetSliceLogics(), lambda logic: _SliceView(logic, known))]
        if application_logic.GetViewLogics() is not None:
            self._groups.append(_Views(
                application_logic.GetViewLogics(),
                lambda logic: _ThreeDView(logic, known, application_logic.GetSliceLogics(), window_of)))

    def stop(self):
        """Take the marks away and look at nothing any more."""
        for group in self._groups:
            group.stop()
        self._groups = []


class _Views:
    """The views of one kind, as they come and go.

    Args:
        logics: vtkCollection of their logics.
        make: gives the marked view of a logic.
    """

    def __init__(self, logics, make):
        self._logics, self._make, self._views = logics, make, []
        self._tag = logics.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_views_changed)
        self._on_views_changed()

    def stop(self):
        self._logics.RemoveObserver(self._tag)
        for view in self._views:
            view.stop()
        self._views = []

    def _on_views_changed(self, caller=None, event=None):
        logics = _items(self._logics)
        for view in [view for view in self._views if not any(view.logic is logic for logic in logics)]:
            view.stop()
            self._views.remove(view)
        for logic in logics:
            if not any(view.logic is logic for view in self._views):
                self._views.append(self._make(logic))


def _items(collection) -> list:
    return [collection.GetItemAsObject(number) for number in range(collection.GetNumberOfItems())]


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


def _shows_contours(node, view_node, known) -> bool:
    """Whether a view shows predicted contours of a segmentation node, as far as its display nodes have a say."""
    three_d = view_node.IsA("vtkMRMLViewNode")
    segmentation = node.GetSegmentation()
    if segmentation is None or three_d and not segmentation.ContainsRepresentation(SURFACE):
        return False
    if not slicer.vtkMRMLFolderDisplayNode.GetHierarchyVisibility(node):
        return False
    for number in range(node.GetNumberOfDisplayNodes()):
        display = node.GetNthDisplayNode(number)
        if display is None or not display.IsA("vtkMRMLSegmentationDisplayNode"):
            continue
        if not (display.GetVisibility() and display.IsDisplayableInView(view_node.GetID())):
            continue
        if three_d:
            shown, looks = display.GetVisibility3D(), [display.GetSegmentVisibility3D]
        else:
            fill, outline = display.GetVisibility2DFill(), display.GetVisibility2DOutline()
            shown = display.GetVisibility2D() and (fill or outline)
            looks = [display.GetSegmentVisibility2DFill] * fill + [display.GetSegmentVisibility2DOutline] * outline
        if not shown:
            continue
        for segment_id in known.predicted_segments(node):
            if display.GetSegmentVisibility(segment_id) and any(look(segment_id) for look in looks):
                return True
    return False


def _shown_models(view_node) -> list:
    """The model nodes that a view shows, or whose cut by its slice it shows."""
    three_d = view_node.IsA("vtkMRMLViewNode")
    return [
        node for node in slicer.util.getNodesByClass("vtkMRMLModelNode", view_node.GetScene())
        if slicer.vtkMRMLFolderDisplayNode.GetHierarchyVisibility(node) and any(
            display is not None and display.GetVisibility() and display.IsDisplayableInView(view_node.GetID())
            and (display.GetVisibility3D() if three_d else display.GetVisibility2D())
            for display in map(node.GetNthDisplayNode, range(node.GetNumberOfDisplayNodes())))
    ]  # fmt: skip


class _View:
    """One view and its mark."""

    def __init__(self, logic, known: Origins):
        self.logic, self._known = logic, known
        self._window = self._window_tag = self._renderer = self._failed = None
        self._text = _mark()
        # The window comes later than the logic, and can be replaced.
        self._logic_tag = logic.AddObserver(vtk.vtkCommand.ModifiedEvent, self._find_window)
        self._find_window()

    def stop(self):
        self.logic.RemoveObserver(self._logic_tag)
        self._leave_window()

    def _present_window(self):
        group = self.logic.GetDisplayableManagerGroup()
        renderer = group.GetRenderer() if group is not None else None
        return renderer.GetRenderWindow() if renderer is not None else None

    def _find_window(self, caller=None, event=None):
        window = self._present_window()
        if window is self._window:
            return
        self._leave_window()
        if window is not None:
            self._window, self._window_tag = window, window.AddObserver(vtk.vtkCommand.StartEvent, self._before_drawing)

    def _view_node(self):
        raise NotImplementedError

    def _shown_volumes(self) -> list:
        """The volume nodes that are to be seen in the view; it has a view node that is in a scene."""
        raise NotImplementedError

    def _lines(self) -> list[str]:
        """What the mark has to say of what is to be seen."""
        node = self._view_node()
        if node is None or node.GetScene() is None:
            return []
        volumes = self._shown_volumes()
        synthetic = any(self._known.synthetic(volume) for volume in volumes)
        predicted = any(
            _shows_contours(segmentation, node, self._known)
            for segmentation in slicer.util.getNodesByClass("vtkMRMLSegmentationNode", node.GetScene())
        ) or self._known.any_exported([
            *(volume for volume in volumes if volume.IsA("vtkMRMLLabelMapVolumeNode")), *_shown_models(node)])
        return [MARK] * synthetic + [PREDICTED_MARK] * predicted

    def _leave_window(self):
        if self._renderer is not None:
            self._renderer.RemoveViewProp(self._text)
        if self._window is not None:
            self._window.RemoveObserver(self._window_tag)
        self._window = self._window_tag = self._renderer = None

    def _before_drawing(self, caller, event):
        try:
            lines = self._lines()
        except Exception as error:  # such as a header on a drive that is gone; better a mark too many than one too few
            lines = [UNKNOWN_MARK]
            if type(error) is not self._failed:  # a view is drawn often
                self._failed = type(error)
                logging.error(f"NPCSynth: {type(error).__name__} where the origin of an image was asked for")
        self._text.SetVisibility(bool(lines))
        if lines:
            self._text.SetInput("\n".join(lines))
            self._move_to_renderer()
            self._fit(max(map(len, lines)))

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

    def _fit(self, characters: int):
        """All of it in small views too."""
        pixels_per_point = max(1, self._window.GetDPI()) / _POINTS_PER_INCH
        fitting = self._window.GetSize()[0] / (characters * _CHARACTER_WIDTH * pixels_per_point)
        self._text.GetTextProperty().SetFontSize(int(min(_FONT_SIZE, max(_SMALLEST_FONT_SIZE, fitting))))


class _SliceView(_View):
    def _view_node(self):
        return self.logic.GetSliceNode()

    def _shown_volumes(self) -> list:
        composite = self.logic.GetSliceCompositeNode()
        return shown_volumes(composite) if composite is not None else []


class _ThreeDView(_View):
    """Args: ``slice_logics`` of the slices that may be shown in it, ``window_of`` as ``SyntheticMarks`` takes it."""

    def __init__(self, logic, known: Origins, slice_logics, window_of):
        self._slice_logics, self._window_of = slice_logics, window_of
        self._node = self._node_tag = None
        super().__init__(logic, known)

    def stop(self):
        super().stop()
        self._watch(None)

    def _watch(self, node):
        """Nothing else tells that the view has come into the layout, and with it into its window."""
        if node is self._node:
            return
        if self._node is not None:
            self._node.RemoveObserver(self._node_tag)
        self._node = node
        if node is not None:
            self._node_tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._find_window)

    def _present_window(self):
        node = self._view_node()
        self._watch(node)
        return super()._present_window() or (self._window_of(node) if node is not None else None)

    def _view_node(self):
        return self.logic.GetViewNode()

    def _shown_volumes(self) -> list:
        node = self._view_node()
        rendered = [
            display.GetDisplayableNode()
            for display in slicer.util.getNodesByClass("vtkMRMLVolumeRenderingDisplayNode", node.GetScene())
            if display.GetVisibility() and display.IsDisplayableInView(node.GetID())
        ]  # fmt: skip
        for logic in _items(self._slice_logics):
            place, composite = logic.GetSliceNode(), logic.GetSliceCompositeNode()
            if place is not None and composite is not None and place.GetSliceVisible() and \
                    place.IsDisplayableInThreeDView(node.GetID()):
                rendered += shown_volumes(composite)
        return [volume for volume in rendered if volume is not None]


def _mark():
    """The text, at the top right of whatever it is drawn in."""
    text = vtk.vtkTextActor()
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
