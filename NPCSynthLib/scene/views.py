"""Looking at a result in the slice views: beside what was acquired, in turns with it, mixed with it, or under a map.

All of it works on MRML nodes: the layout node, the slice views' composite nodes and the volumes' display nodes. What
was there before is kept, and ``back`` restores it.
"""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import slicer
import vtk

from ..errors import NPCSynthError, UsageError
from ..inference.result import INTENSITY_HIGH, INTENSITY_LOW
from .layouts import LAYOUTS, PANES, add_layouts
from .matrices import to_numpy
from .mixed import add_checkerboard, add_difference, add_error_map, display_range
from .results import UNCERTAINTY_DISPLAY_MAX
from .volumes import is_synthetic

OVERLAY_OPACITY = 0.5
#: Errors below this (of the 1000 between the body's black and white) stay transparent: elsewhere the image is seen.
SHOWN_FROM = 50
_KEPT = (
    "BackgroundVolumeID", "ForegroundVolumeID", "LabelVolumeID", "ForegroundOpacity", "LabelOpacity", "Compositing",
    "LinkedControl", "HotLinkedControl", "DoPropagateVolumeSelection",
)  # fmt: skip


@dataclass(frozen=True)
class _Before:
    """How the views were: layout and whether scenes are saved with it, composite nodes' settings by ID, and of display
    nodes (automatic, window, level)."""

    arrangement: int | None
    layout_is_saved: bool
    composites: dict
    displays: dict


class ResultViews:
    """One way of looking at a time; each ends the one before.

    Args:
        scene: vtkMRMLScene.
        application_logic: vtkMRMLApplicationLogic, for the slice logics of the views.
        settle: lets the window give new views their size; in Slicer its ``processEvents``.
    """

    def __init__(self, scene, application_logic, settle: Callable[[], object]):
        self._scene, self._application, self._settle = scene, application_logic, settle
        self._before = None
        self._added = []
        self._flicker = None
        self._cover_id = self._layout_tag = None

    @property
    def changed(self) -> bool:
        """Whether there is something to go back from."""
        return self._before is not None

    @property
    def map_opacity(self) -> float | None:
        """Of the map of errors over the image, 0 to 1; None while no view shows one."""
        composites = self._covered()
        return composites[0].GetForegroundOpacity() if composites else None

    def set_map_opacity(self, opacity: float) -> None:
        """In every view that shows the map: at 1 its colors are the legend's, else the image's gray is mixed in."""
        for composite in self._covered():
            composite.SetForegroundOpacity(opacity)

    def compare(self, volumes) -> None:
        """Two or three volume nodes side by side, from left to right, at one place and magnification, linked.

        The plane and the position are those of the red view where that lies within the first volume.
        """
        with self._changing():
            layout = self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
            if layout is None:
                raise _no_views()
            add_layouts(self._scene)
            layout.SetViewArrangement(LAYOUTS[len(volumes)])
            layout.SetSaveWithScene(False)  # no event tells of a saving; unknown to a Slicer without NPCSynth
            self._layout_tag = layout.AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_layout_changed)
            logics = [self._application.GetSliceLogicByLayoutName(name) for name in list(PANES)[:len(volumes)]]
            if None in logics:
                raise _no_views()
            for logic, volume in zip(logics, volumes, strict=True):
                self._suit(volume)
                composite = logic.GetSliceCompositeNode()
                _show(composite, volume)
                composite.SetDoPropagateVolumeSelection(False)  # or loading another image would replace these
                composite.SetLinkedControl(True)
                composite.SetHotLinkedControl(True)
            self._settle()  # fitted to the size that they are made with, heads would be cut off at the sides
            self._place(logics, volumes[0])

    def flicker(self, acquired, synthetic) -> None:
        """The acquired image in every view of the layout, and the synthetic one over it at each second ``turn``."""
        with self._changing():
            composites = self._shown_composites()
            self._suit(acquired)
            self._suit(synthetic)
            for composite in composites:
                _show(composite, acquired, synthetic, 0.0)
            self._flicker = (acquired.GetID(), synthetic.GetID(), [composite.GetID() for composite in composites])

    def turn(self) -> bool:
        """From the one image to the other. False when that is over: a volume was deleted, or the views show others."""
        if self._flicker is None:
            return False
        acquired, synthetic, ids = self._flicker
        composites = [
            composite for composite in (self._scene.GetNodeByID(one) for one in ids)
            if composite is not None and composite.GetBackgroundVolumeID() == acquired
            and composite.GetForegroundVolumeID() == synthetic
        ]  # fmt: skip
        if not composites or any(self._scene.GetNodeByID(volume) is None for volume in (acquired, synthetic)):
            self.stop_flicker()
            return False
        opacity = 0.0 if composites[0].GetForegroundOpacity() > 0 else 1.0
        for composite in composites:
            composite.SetForegroundOpacity(opacity)
        return True

    def stop_flicker(self) -> None:
        """Stay with the acquired image."""
        if self._flicker is None:
            return
        _acquired, synthetic, ids = self._flicker
        self._flicker = None
        for composite in (self._scene.GetNodeByID(one) for one in ids):
            if composite is not None and composite.GetForegroundVolumeID() in (synthetic, None):
                composite.SetForegroundOpacity(0.0)

    def checkerboard(self, acquired, synthetic) -> None:
        """Squares of the one and the other. Raises InputError as ``mixed.add_checkerboard`` does."""
        with self._changing():
            composites = self._shown_composites()
            node = self._add(add_checkerboard(self._scene, acquired, synthetic))
            for composite in composites:
                _show(composite, node)

    def difference(self, acquired, synthetic) -> None:
        """The absolute difference over the acquired image. Raises InputError as ``mixed.add_difference`` does."""
        with self._changing():
            composites = self._shown_composites()
            node = self._add(add_difference(self._scene, acquired, synthetic))
            self._cover(composites, acquired, node, "Difference")

    def uncertainty(self, image, uncertainty) -> None:
        """The predicted error over the synthetic image. Raises InputError as ``mixed.add_error_map`` does."""
        with self._changing():
            composites = self._shown_composites()
            node = self._add(add_error_map(self._scene, image, uncertainty))
            self._cover(composites, image, node, "Uncertainty")

    def back(self) -> None:
        """Restore the views as they were, as far as it is still there."""
        self.stop_flicker()
        before, self._before = self._before, None
        if before is None:
            return
        layout = self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        if layout is not None:
            self._release(layout, before)
            # Who has chosen another layout meanwhile keeps it.
            if layout.GetViewArrangement() in LAYOUTS.values():
                layout.SetViewArrangement(before.arrangement)
        for node_id, settings in before.composites.items():
            composite = self._scene.GetNodeByID(node_id)
            if composite is not None:
                self._restore(composite, settings)
        for node_id, (automatic, window, level) in before.displays.items():
            display = self._scene.GetNodeByID(node_id)
            if display is not None:
                display.SetWindowLevel(window, level)
                display.SetAutoWindowLevel(automatic)
        for node in (self._scene.GetNodeByID(node_id) for node_id in reversed(self._added)):
            if node is not None:
                self._scene.RemoveNode(node)
        self._added, self._cover_id = [], None

    # Steps

    def _on_layout_changed(self, layout, _event) -> None:
        """A layout of the user's own is saved as any."""
        if self._before is not None and layout.GetViewArrangement() not in LAYOUTS.values():
            self._release(layout, self._before)

    def _release(self, layout, before: _Before) -> None:
        if self._layout_tag is not None:
            layout.RemoveObserver(self._layout_tag)
            self._layout_tag = None
            layout.SetSaveWithScene(before.layout_is_saved)

    @contextmanager
    def _changing(self):
        """A way of looking begins, all of it or nothing of it."""
        self.back()
        self._remember()
        try:
            yield
        except BaseException:
            self.back()
            raise

    def _remember(self) -> None:
        layout = self._scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
        composites = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", self._scene)
        self._before = _Before(
            layout.GetViewArrangement() if layout is not None else None,
            layout is None or bool(layout.GetSaveWithScene()),
            {node.GetID(): {name: getattr(node, f"Get{name}")() for name in _KEPT} for node in composites},
            {},
        )

    def _restore(self, composite, settings: dict) -> None:
        wasModifying = composite.StartModify()
        for name, value in settings.items():
            if name.endswith("VolumeID") and value is not None and self._scene.GetNodeByID(value) is None:
                value = None
            getattr(composite, f"Set{name}")(value)
        composite.EndModify(wasModifying)

    def _shown_composites(self) -> list:
        composites = []
        logics = self._application.GetSliceLogics()
        for number in range(logics.GetNumberOfItems() if logics is not None else 0):
            logic = logics.GetItemAsObject(number)
            if logic.GetSliceNode() is not None and logic.GetSliceNode().IsMappedInLayout():
                composites.append(logic.GetSliceCompositeNode())
        if not composites:
            raise _no_views()
        return composites

    def _suit(self, volume) -> None:
        """Window and level by the percentiles of the body, the same for the acquired and the synthetic image.

        A synthetic image has that window from the start: its values are those percentiles.
        """
        display = volume.GetDisplayNode()
        if display is None or is_synthetic(volume):
            return
        low, high = display_range(volume)
        settings = (display.GetAutoWindowLevel(), display.GetWindow(), display.GetLevel())
        self._before.displays.setdefault(display.GetID(), settings)
        display.SetAutoWindowLevel(False)
        display.SetWindowLevel(high - low, (high + low) / 2)

    def _place(self, logics, volume) -> None:
        first = logics[0].GetSliceNode()
        red = self._scene.GetSingletonNode("Red", "vtkMRMLSliceNode")
        if red is not None:
            first.GetSliceToRAS().DeepCopy(red.GetSliceToRAS())
            first.UpdateMatrices()
        logics[0].FitSliceToVolume(volume, *first.GetDimensions()[:2])
        if red is not None:
            normal = to_numpy(red.GetSliceToRAS())[:3, 2]
            bounds = np.zeros(6)
            volume.GetRASBounds(bounds)
            low, high = bounds[::2], bounds[1::2]
            there = normal @ to_numpy(red.GetSliceToRAS())[:3, 3]
            reach = np.abs(normal) @ (high - low) / 2
            if abs(there - normal @ (low + high) / 2) <= reach:
                center = to_numpy(first.GetSliceToRAS())[:3, 3]
                center += normal * (there - normal @ center)
                for row in range(3):
                    first.GetSliceToRAS().SetElement(row, 3, center[row])
                first.UpdateMatrices()
        width, height, depth = first.GetFieldOfView()
        for logic in logics[1:]:
            node = logic.GetSliceNode()
            node.GetSliceToRAS().DeepCopy(first.GetSliceToRAS())
            node.UpdateMatrices()
            columns, rows = node.GetDimensions()[:2]
            node.SetFieldOfView(width, width * rows / columns if columns else height, depth)
            node.SetXYZOrigin(*first.GetXYZOrigin())

    def _covered(self) -> list:
        """Composite nodes of the views that show the map of errors."""
        if self._cover_id is None or self._scene.GetNodeByID(self._cover_id) is None:
            return []
        return [
            node for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode", self._scene)
            if node.GetForegroundVolumeID() == self._cover_id
        ]  # fmt: skip

    def _cover(self, composites, image, node, what: str) -> None:
        """An image, and a map of errors half transparent over it, with its legend."""
        self._cover_id = node.GetID()
        self._suit(image)
        display = node.GetDisplayNode()
        display.SetAutoThreshold(False)
        display.SetThreshold(SHOWN_FROM, np.iinfo(np.int16).max)
        display.SetApplyThreshold(True)
        # Colors, and with them the legend, begin where they are to be seen.
        display.SetWindowLevel(UNCERTAINTY_DISPLAY_MAX - SHOWN_FROM, (UNCERTAINTY_DISPLAY_MAX + SHOWN_FROM) / 2)
        for composite in composites:
            _show(composite, image, node, OVERLAY_OPACITY)
        legend = slicer.vtkSlicerColorLogic.AddDefaultColorLegendDisplayNode(node)
        if legend is None:
            return
        self._added.append(legend.GetID())
        legend.SetSaveWithScene(False)
        legend.SetTitleText(
            f"{what}\n{SHOWN_FROM}-{UNCERTAINTY_DISPLAY_MAX} of {INTENSITY_HIGH - INTENSITY_LOW}\n"
            f"below {SHOWN_FROM}: not colored")
        legend.SetLabelFormat("%.0f")
        legend.SetNumberOfLabels(1 + (UNCERTAINTY_DISPLAY_MAX - SHOWN_FROM) // SHOWN_FROM)
        legend.SetSize(0.12, 0.4)
        for style in (legend.GetTitleTextProperty(), legend.GetLabelTextProperty()):
            style.SetFontSize(14)
        legend.SetVisibility3D(False)
        legend.SetVisibility2D(True)
        legend.SetVisibility(True)

    def _add(self, node):
        self._added += [node.GetID(), node.GetDisplayNode().GetID()]
        return node


def _show(composite, background, foreground=None, opacity: float = 0.0) -> None:
    """In one step, so that nothing half done is drawn."""
    wasModifying = composite.StartModify()
    composite.SetBackgroundVolumeID(background.GetID())
    composite.SetForegroundVolumeID(foreground.GetID() if foreground is not None else None)
    composite.SetForegroundOpacity(opacity)
    composite.SetCompositing(slicer.vtkMRMLSliceCompositeNode.Alpha)
    composite.EndModify(wasModifying)


def _no_views() -> NPCSynthError:
    return UsageError("No slice view is shown. Choose a layout with slice views, for example “Four-Up”.")
