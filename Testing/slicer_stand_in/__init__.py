"""As much of Slicer's application as the NPCSynth module needs, around the real MRML scene of slicer-core.

Real here: the scene and its nodes, ``slicer.util`` (loadUI, childWidgetVariables, VTKObservationMixin, NodeModify,
updateVolumeFromArray, reloadScriptedModule ...), and Qt itself, through PySide6 without a display.

Imitated, each in a file that names the Slicer, CTK or PythonQt source that it imitates, and what of it is left out:

``qt_manners``      PythonQt: properties are attributes, ``connect("clicked(bool)", f)``
``widgets``         qMRMLWidget, qMRMLNodeComboBox, ctkCollapsibleButton
``module_bases``    the base classes of scripted modules, and the C++ classes behind them
``application``     slicer.app in testing mode, so that message boxes are logged instead of shown; the module manager
``parameter_node``  the parameter node wrapper
``packaging``       slicer.packaging, which asks before it installs, and installs nothing
``dicom``           the base class of DICOM plugins
``sample_data``     the registry of the Sample Data module
``slice_views``     slice views, drawn off screen by Slicer's own classes, where a test asks for them
``slicer.i18n``     below: English

Not imitated: PythonQt's memory management and its grip on Python's global lock, the subject hierarchy's plugins,
layouts' widgets, the DICOM database, the Extensions Manager, translations, the developer's section of a panel. What
depends on these is to be tried in Slicer.
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
    from . import application, qt_manners

    sys.modules["qt"] = qt_manners.make_qt_module()
    slicer.modules = types.SimpleNamespace()
    slicer.app = application.Application()
    from . import dicom, module_bases, packaging, parameter_node, sample_data, widgets

    sys.modules["DICOMLib"] = dicom
    sys.modules["SampleData"] = sample_data
    ctk = types.ModuleType("ctk")
    ctk.ctkCollapsibleButton = widgets.ctkCollapsibleButton
    sys.modules["ctk"] = ctk
    for name, module in {
        "i18n": _i18n(),
        "parameterNodeWrapper": parameter_node,
        "ScriptedLoadableModule": module_bases,
        "packaging": packaging,
    }.items():
        module.__spec__ = ModuleSpec(f"slicer.{name}", None)
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
    slicer.qMRMLNodeComboBox = widgets.qMRMLNodeComboBox
    slicer.qMRMLWidget = widgets.qMRMLWidget
    slicer.qSlicerScriptedLoadableModule = module_bases.qSlicerScriptedLoadableModule
    slicer.qSlicerScriptedLoadableModuleWidget = module_bases.qSlicerScriptedLoadableModuleWidget
    return slicer


def _i18n():
    """Base/Python/slicer/i18n.py, where no translation is installed: texts stay as they are."""
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    return i18n


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
    # vtkSlicerColorLogic::RegisterNodes; that logic itself looks for color files in Slicer's folders
    scene.RegisterNodeClass(slicer.vtkMRMLColorLegendDisplayNode())
    return scene


def load_module(path):
    """Import a scripted module's file and make the module, as Slicer does when it starts.

    Once, under its own name, with only its folder on the path. Imitates Base/QTGUI/qSlicerScriptedLoadableModule.cxx.
    """
    import slicer

    path = Path(path)
    if path.stem in sys.modules:
        return sys.modules[path.stem]
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    parent = slicer.qSlicerScriptedLoadableModule(str(path))
    setattr(slicer.modules, path.stem.lower(), parent)
    setattr(slicer.modules, f"{path.stem}Instance", getattr(module, path.stem)(parent))
    return module


def open_panel(widget_class):
    """The module's panel as the module selector opens it: made, set up, entered. Each call makes another one."""
    import slicer

    parent = slicer.qSlicerScriptedLoadableModuleWidget()
    parent.instantiate(widget_class)
    parent.enter()
    return parent.self()
