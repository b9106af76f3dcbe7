"""Slice views without a window: Slicer's own slice logic and displayable managers, drawn off screen. Empty 3D views.

Imitates Slicer/Slicer, Libs/MRML/Widgets (qMRMLLayoutSliceViewFactory, qMRMLSliceWidget, qMRMLSliceView) and
trame-slicer's SliceView in putting together: one vtkMRMLSliceLogic a view, the managers of
vtkMRMLSliceViewDisplayableManagerFactory on its renderer, and its image through a vtkImageMapper whose window is
0 to 255 (CTK's vtkLightBoxRendererManager).
trame-slicer itself cannot be asked for beside this slicer-core: it needs slicer-layer-dm, which is pinned to 5.11.0.

Not imitated: controllers, mouse and keyboard, DataProbe's corner annotations, more than one image in a view.
"""

import contextlib

import numpy as np
import slicer
import vtk
from PySide6 import QtCore, QtWidgets
from vtk.util.numpy_support import vtk_to_numpy

# PyTorch loads triton. Where Mesa draws (no GPU), both bring an LLVM, and triton's crashes when Mesa's came first.
with contextlib.suppress(ImportError):
    import triton._C.libtriton  # noqa: F401

#: qMRMLSliceView::initDisplayableManagers, and those that the Segmentations and Colors modules add.
_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager", "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager", "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager", "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D", "vtkMRMLColorLegendDisplayableManager",
)  # fmt: skip


def can_render() -> bool:
    """Whether this machine can draw without a display (EGL or OSMesa)."""
    window = vtk.vtkRenderWindow()
    window.SetOffScreenRendering(1)
    return bool(window.SupportsOpenGL())


class SliceView:
    """One slice view.

    Attributes:
        node, composite: its vtkMRMLSliceNode and vtkMRMLSliceCompositeNode.
        logic, window, renderer: its vtkMRMLSliceLogic, vtkRenderWindow and vtkRenderer.
    """

    def __init__(self, application_logic, scene, name, size):
        self.renderer = vtk.vtkRenderer()
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        self.window = vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)  # ctkVTKSliceView: no smoothing, pixels are what the logic made
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self._interactor = vtk.vtkGenericRenderWindowInteractor()
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self._interactor.SetRenderWindow(self.window)

        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        application_logic.GetSliceLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(scene)
        node = scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if node is None:
            node = self.logic.AddSliceNode(name)
        else:
            self.logic.SetSliceNode(node)
        self.node = node
        if node.GetInteractionNode() is None:
            node.SetInteractionNode(application_logic.GetInteractionNode())
        self.composite = self.logic.GetSliceCompositeNode()

        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application_logic)
        for manager in _MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(factory, self.renderer)
        self._group.SetMRMLDisplayableNode(self.node)
        self.logic.SetDisplayableManagerGroup(self._group)  # qMRMLLayoutSliceViewFactory does this last

        self._image = vtk.vtkActor2D()
        mapper = vtk.vtkImageMapper()
        mapper.SetColorWindow(255)
        mapper.SetColorLevel(127.5)
        self._image.SetMapper(mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self._image)

    def render(self) -> np.ndarray:
        """What is seen: (row, column, 3) uint8, the first row on top."""
        connection = self.logic.GetImageDataConnection()
        self._image.GetMapper().SetInputConnection(connection)
        self._image.SetVisibility(connection is not None)
        self.window.Render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.ShouldRerenderOff()
        grab.Update()
        image = grab.GetOutput()
        columns, rows, _one = image.GetDimensions()
        return vtk_to_numpy(image.GetPointData().GetScalars()).reshape(rows, columns, 3)[::-1].copy()

    def pixel(self, ras) -> tuple[int, int]:
        """(row, column) in ``render()`` of a point in the scene (RAS mm); it must lie in the slice."""
        to_xy = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), to_xy)
        x, y, z, _one = to_xy.MultiplyPoint([*ras, 1.0])
        assert abs(z) < 1, f"{z} slices away"
        return self.window.GetSize()[1] - 1 - round(y), round(x)


class ThreeDView:
    """One 3D view, in which Slicer's managers draw nothing: for what is put into its renderer.

    Imitates Slicer/Slicer, Libs/MRML/Widgets (qMRMLThreeDWidget, qMRMLLayoutThreeDViewFactory): one vtkMRMLViewLogic a
    view, which joins the application's view logics when its node is set.

    Args:
        leads_to_window: whether the logic knows the displayable managers; older ones do not.

    Attributes:
        node, logic, window, renderer: its vtkMRMLViewNode, vtkMRMLViewLogic, vtkRenderWindow and vtkRenderer.
    """

    def __init__(self, application_logic, scene, name="1", size=(320, 300), leads_to_window=True):
        self.renderer, self.window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetSize(*size)
        self.window.AddRenderer(self.renderer)
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(application_logic)
        if scene.GetSingletonNode(name, "vtkMRMLViewNode") is None:  # vtkMRMLLayoutLogic makes it
            node = slicer.vtkMRMLViewNode()
            node.SetSingletonTag(name)
            node.SetLayoutName(name)
            scene.AddNode(node)
        self.logic.SetName(name)  # by which it finds its node
        self.logic.SetMRMLScene(scene)
        self.node = self.logic.GetViewNode()
        application_logic.GetViewLogics().AddItem(self.logic)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.Initialize(slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), self.renderer)
        self._group.SetMRMLDisplayableNode(self.node)
        if leads_to_window:
            self.logic.SetDisplayableManagerGroup(self._group)
        self.node.SetMappedInLayout(False)
        self.node.SetMappedInLayout(True)  # qMRMLLayoutViewFactory, when it shows the view


class SliceViews:
    """The slice views of a scene: Red, Yellow and Green, and those that a layout asks for."""

    def __init__(self, scene, application_logic, size=(320, 300)):
        self._scene, self._logic, self._size = scene, application_logic, size
        self._views = {}
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        self.layout = slicer.vtkMRMLLayoutLogic()  # adds the layout node, and the slice nodes of a layout when chosen
        self.layout.SetMRMLScene(scene)
        for name, orientation in {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}.items():
            self[name].node.SetOrientation(orientation)
        QtWidgets.QApplication.processEvents()
        scene.AddObserver(scene.NodeAddedEvent, self._on_node_added)
        self.layout.GetLayoutNode().AddObserver(vtk.vtkCommand.ModifiedEvent, self._on_layout_modified)
        self.layout.GetLayoutNode().SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def __getitem__(self, name) -> SliceView:
        """The view of this name, made when there is none."""
        if name not in self._views:
            view = self._views[name] = SliceView(self._logic, self._scene, name, self._size)
            # Not before Qt lays the new widgets out: until then a slice node has 256 x 256 pixels.
            QtCore.QTimer.singleShot(0, lambda: view.logic.ResizeSliceNode(*self._size))
        return self._views[name]

    def __iter__(self):
        return iter(self._views.values())

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_added(self, caller, event, node):
        # qMRMLLayoutViewFactory::onNodeAdded
        if node is not None and node.IsA("vtkMRMLSliceNode"):
            self[node.GetLayoutName()]

    def _on_layout_modified(self, caller, event):
        # ctkLayoutViewFactory shows the views of the layout, and qMRMLLayoutViewFactory notes it in their nodes
        shown = self.layout.GetViewNodes()
        shown = [shown.GetItemAsObject(number) for number in range(shown.GetNumberOfItems())]
        for view in self:
            view.node.SetMappedInLayout(any(view.node is node for node in shown))
