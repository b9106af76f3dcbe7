"""As much of Slicer's application as the NPCSynth module needs, around the real MRML scene of slicer-core.

Real here: the scene and its nodes, ``slicer.util`` (loadUI, childWidgetVariables, VTKObservationMixin, NodeModify,
updateVolumeFromArray ...), and Qt itself, through PySide6 without a display.

Imitated, and only so far: PythonQt's manners (properties are attributes, ``connect("clicked(bool)", f)``),
qMRMLNodeComboBox, the base classes of scripted modules, the parameter node wrapper for bool, str and list[str],
``slicer.i18n`` (English), ``slicer.packaging.pip_ensure`` (records what it was asked for), the base class of DICOM
plugins, and an application in testing mode, so that message boxes are logged instead of shown.

Slice views are drawn off screen, by Slicer's own classes, where a test asks for them (``slice_views``).

Not imitated: PythonQt's memory management and its grip on Python's global lock, the subject hierarchy's plugins,
layouts' widgets, the DICOM database, the Extensions Manager, translations. What depends on these is to be tried
in Slicer.
"""

import importlib.util
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path


def install():
    """Make ``import qt``, ``import ctk`` and the missing parts of ``slicer`` work. Returns the slicer module.

    Raises ImportError when slicer-core or PySide6 (or a system library that it needs) is missing.
    """
    import slicer

    if getattr(slicer, "app", None) is not None:
        return slicer
    from . import application, dicom, module_bases, packaging, parameter_node, qt_manners, widgets

    sys.modules["DICOMLib"] = dicom

    sys.modules["qt"] = qt_manners.make_qt_module()
    ctk = types.ModuleType("ctk")
    ctk.ctkCollapsibleButton = widgets.ctkCollapsibleButton
    sys.modules["ctk"] = ctk
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    for name, module in {
        "i18n": i18n,
        "parameterNodeWrapper": parameter_node,
        "ScriptedLoadableModule": module_bases,
        "packaging": packaging,
    }.items():
        module.__spec__ = ModuleSpec(f"slicer.{name}", None)
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    slicer.qMRMLNodeComboBox = widgets.qMRMLNodeComboBox
    slicer.qMRMLWidget = widgets.qMRMLWidget
    slicer.modules = types.SimpleNamespace()
    slicer.app = application.Application()
    return slicer


def new_scene():
    """An empty scene with the application's color tables and logic, in the place of ``slicer.mrmlScene``."""
    import slicer
    import vtk

    scene = slicer.vtkMRMLScene()
    slicer.mrmlScene = scene
    scene.stand_in_application_logic = slicer.vtkSlicerApplicationLogic()
    scene.stand_in_application_logic.SetMRMLScene(scene)
    # qSlicerAppMainWindow gives it those of its layout manager
    scene.stand_in_application_logic.SetSliceLogics(vtk.vtkCollection())
    scene.stand_in_application_logic.SetViewLogics(vtk.vtkCollection())
    scene.stand_in_logics = [slicer.vtkMRMLColorLogic(), slicer.vtkSlicerSegmentationsModuleLogic()]
    for logic in scene.stand_in_logics:
        logic.SetMRMLScene(scene)
    return scene


def load_module(path):
    """Import a scripted module's file as Slicer does: once, under its own name, with only its folder on the path."""
    path = Path(path)
    if path.stem in sys.modules:
        return sys.modules[path.stem]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def open_panel(widget_class):
    """The module's panel as the module selector opens it: made, set up, entered."""
    from . import widgets

    parent = widgets.qMRMLWidget()
    parent.setLayout(widgets.QtWidgets.QVBoxLayout())
    parent.isEntered = True
    panel = widget_class(parent)
    panel.setup()
    panel.enter()
    return panel
