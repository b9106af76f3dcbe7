"""The stand-in for Slicer refuses what Slicer lacks, and behaves as Slicer's sources say.

Each part names what it is held against; otherwise a panel could pass here and fail in Slicer.
"""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest

pytest.importorskip("slicer", reason="slicer-core or a system library that it needs is missing", exc_type=ImportError)
pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of it is missing", exc_type=ImportError)

import slicer_stand_in
from slicer_stand_in import install, new_scene

from NPCSynthLib.study.volume import Grid, Volume

slicer = install()

import ctk  # noqa: E402
import qt  # noqa: E402
from slicer.parameterNodeWrapper import Choice, parameterNodeWrapper  # noqa: E402

from NPCSynthLib.scene import add_volume  # noqa: E402

TABLE = qt.QTableWidget(1, 1)


@pytest.fixture
def scene():
    return new_scene()


def volume(scene, name):
    grid = Grid.from_parts((2, 3, 4), (1, 2, 3), (0, 0, 0), np.eye(3))
    return add_volume(scene, Volume(np.zeros(grid.shape, np.int16), grid), name)


def test_every_imitation_names_its_source():
    for path in Path(slicer_stand_in.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        if path.name != "__init__.py":
            assert "Imitates" in text and any(owner in text for owner in ("Slicer/Slicer", "commontk/")), path.name


# ---- commontk/PythonQt, src/PythonQtInstanceWrapper.cpp --------------------------------------------------------


@pytest.mark.parametrize("make", [
    lambda: qt.QLabel(), lambda: qt.QVBoxLayout(), lambda: qt.QTimer(), lambda: qt.QTableWidget(1, 1),
    lambda: TABLE.horizontalHeader(), lambda: ctk.ctkCollapsibleButton(),
    lambda: slicer.qMRMLNodeComboBox(), lambda: slicer.qMRMLWidget(),
])  # fmt: skip
def test_an_attribute_that_qt_does_not_know_is_refused(make):
    with pytest.raises(AttributeError, match="creating new attributes on C\\+\\+ objects is not allowed"):
        make().tooltip = "a typing error"


def test_a_class_of_ones_own_may_have_attributes():
    class Mine(qt.QWidget):
        pass

    widget = Mine()
    widget.rows = 3
    assert widget.rows == 3


def test_a_property_hides_the_method_of_its_name():
    label = qt.QLabel("T1")
    assert label.text == "T1"
    with pytest.raises(TypeError, match="not callable"):
        label.text()


def test_a_property_does_not_take_any_value():
    with pytest.raises(AttributeError, match="does not accept"):
        qt.QProgressBar().value = object()


def test_name_is_the_object_name():
    button = qt.QPushButton()
    button.name = "run"
    assert button.objectName == "run" and button.name == "run"


def test_signals_of_ones_own_do_not_exist():
    """They crash Slicer."""
    assert not hasattr(qt, "Signal") and not hasattr(qt, "Slot")


# ---- commontk/PythonQt, src/PythonQtStdDecorators.cpp and PythonQtSignalReceiver.cpp ----------------------------


@pytest.mark.parametrize("signature", ["pressedTwice()", "clicked(int)", "toggled()", "clicked"])
def test_a_signal_that_is_not_there_is_refused(signature):
    with pytest.raises(ValueError, match="no signal"):
        qt.QPushButton().connect(signature, lambda: None)


def test_a_slot_gets_the_arguments_that_the_signature_names_and_that_it_takes():
    button, got = qt.QPushButton(), []
    button.checkable = True
    button.connect("clicked(bool)", lambda on: got.append(on))
    button.connect("clicked(bool)", lambda: got.append("none"))
    button.connect("clicked()", lambda *arguments: got.append(arguments))
    button.connect("clicked( bool )", lambda *arguments: got.append(arguments))
    button.click()
    assert got == [True, "none", (), (True,)]


def test_the_argument_of_a_signal_takes_the_place_of_a_default_value():
    """A well-known trap: the value that a loop wanted to keep is lost."""
    button, got = qt.QPushButton(), []
    button.connect("clicked(bool)", lambda row="T1": got.append(row))
    button.click()
    assert got == [False]


def test_signals_of_objects_that_qt_made_and_signals_with_many_arguments():
    table, got = qt.QTableWidget(2, 3), []
    table.horizontalHeader().connect("sectionClicked(int)", got.append)
    table.connect("currentCellChanged(int,int,int,int)", lambda row, column: got.append((row, column)))
    table.horizontalHeader().sectionClicked.emit(2)
    table.setCurrentCell(1, 2)
    assert got == [2, (1, 2)]


def test_a_slot_can_be_disconnected():
    box, got = qt.QComboBox(), []
    slot = got.append
    box.connect("currentIndexChanged(int)", slot)
    box.addItems(["a", "b"])
    assert box.disconnect("currentIndexChanged(int)", slot) and not box.disconnect("currentIndexChanged(int)", slot)
    box.currentIndex = 1
    assert got == [0]


def test_what_a_slot_raises_is_not_lost():
    from slicer_stand_in import qt_manners

    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    button.click()
    assert isinstance(qt_manners.slot_errors.pop(), ZeroDivisionError)


# ---- Slicer/Slicer, Libs/MRML/Widgets/qMRMLNodeComboBox.h and .cxx ----------------------------------------------


def test_a_node_selector_is_no_combo_box_and_off_until_it_has_a_scene(scene):
    selector = slicer.qMRMLNodeComboBox()
    assert not selector.enabled and not isinstance(selector, qt.QComboBox)
    assert not hasattr(selector, "currentText") and not hasattr(selector, "addItem")
    selector.setMRMLScene(scene)
    assert selector.enabled


def test_a_node_selector_shows_what_it_was_asked_to(scene):
    image, label = volume(scene, "T1"), scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "label")
    marked, hidden = volume(scene, "synthetic"), volume(scene, "hidden")
    marked.SetAttribute("NPCSynth.Synthetic", "YES")
    hidden.SetHideFromEditors(True)
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(scene)
    assert selector.nodeCount() == 3 and selector.currentNode() is image, "without None the first one is chosen"
    selector.showChildNodeTypes = False
    selector.setCurrentNode(label)
    assert selector.nodeCount() == 2 and selector.currentNode() is None
    selector.addAttribute("vtkMRMLScalarVolumeNode", "NPCSynth.Synthetic", "YES")
    selector.noneEnabled = True
    selector.currentNodeID = marked.GetID()
    assert selector.nodeCount() == 1 and selector.currentNode() is marked


def test_the_neighbor_of_a_node_that_goes_becomes_the_current_one(scene):
    nodes = [volume(scene, name) for name in ("T1", "T2", "FLAIR")]
    selector, changed, activated = slicer.qMRMLNodeComboBox(), [], []
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.noneEnabled = True
    selector.setMRMLScene(scene)
    selector.connect("currentNodeChanged(vtkMRMLNode*)", changed.append)
    selector.connect("nodeActivated(vtkMRMLNode*)", activated.append)
    selector.choose(nodes[1])
    scene.RemoveNode(nodes[1])
    assert changed == [nodes[1], nodes[2]] and activated == [nodes[1]]
    with pytest.raises(ValueError, match="no signal"):
        selector.connect("nodeActivated(vtkMRMLVolumeNode*)", changed.append)


# ---- commontk/CTK, Libs/Widgets/ctkCollapsibleButton.cpp -------------------------------------------------------


def test_what_was_hidden_in_a_section_stays_hidden_when_it_is_opened_again():
    section = ctk.ctkCollapsibleButton()
    layout = qt.QVBoxLayout(section)
    shown, hidden = qt.QLabel("shown"), qt.QLabel("hidden")
    for label in (shown, hidden):
        layout.addWidget(label)
    hidden.visible = False
    section.collapsed = True
    assert shown.isHidden() and not section.checked
    section.collapsed = False
    assert not shown.isHidden() and hidden.isHidden()


# ---- Slicer/Slicer, Base/Python/slicer/parameterNodeWrapper -----------------------------------------------------


@parameterNodeWrapper
class Choices:
    segment: bool = True
    device: Annotated[str, Choice(["Automatic", "CPU"])] = "Automatic"
    slices: int = 3
    names: list[str] = []
    actions: dict[str, str] = {}


@pytest.fixture
def choices(scene):
    return Choices(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))


def test_parameters_are_kept_as_slicer_keeps_them(choices):
    node = choices.parameterNode
    assert (node.GetParameter("segment"), node.GetParameter("actions_len")) == ("True", "0"), "defaults are saved too"
    choices.names = ["a", "b", "c"]
    choices.names = ["a"]
    choices.actions = {"T2": "leave"}
    assert node.GetParameter("names_len") == "1" and not node.HasParameter("names_1")
    assert (node.GetParameter("actions_0_0"), node.GetParameter("actions_0_1")) == ("T2", "leave")
    again = Choices(node)
    assert again.names == ["a"] and again.actions == {"T2": "leave"} and again.slices == 3


def test_a_dictionary_parameter_knows_no_default(choices):
    """serializers.py: ``ObservedDict.get(self, key)``, and no dict for json."""
    choices.actions = {"T2": "leave"}
    assert choices.actions.get("T2") == "leave" and choices.actions.get("T1") is None
    with pytest.raises(TypeError):
        choices.actions.get("T1", "use")
    with pytest.raises(TypeError):
        json.dumps(choices.actions)


@pytest.mark.parametrize("name, value", [
    ("segment", "yes"), ("segment", None), ("device", None), ("slices", 2.5), ("names", [1]), ("actions", {"T1": 1}),
])  # fmt: skip
def test_a_parameter_takes_its_own_type_only(choices, name, value):
    with pytest.raises((TypeError, ValueError)):
        setattr(choices, name, value)


def test_a_choice_takes_what_is_offered(choices):
    with pytest.raises(ValueError, match="not in choices"):
        choices.device = "TPU"


def test_names_of_the_wrapper_are_reserved():
    with pytest.raises(ValueError, match="reserved name 'Modified'"):

        @parameterNodeWrapper
        class Wrong:
            segment: bool = True

            def Modified(self):
                """Taken."""


def test_types_that_cannot_be_kept_are_refused():
    with pytest.raises(TypeError, match="serializer"):

        @parameterNodeWrapper
        class Wrong:
            grid: object = None


def test_widgets_and_parameters_follow_each_other(choices):
    check, box = qt.QCheckBox(), qt.QComboBox()
    tag = choices.connectParametersToGui({"segment": check, "device": box})
    check.checked = False
    choices.device = "CPU"
    assert choices.segment is False and box.currentText == "CPU"
    choices.disconnectGui(tag)
    check.checked = True
    assert choices.segment is False


@pytest.mark.parametrize("name, make", [
    ("segment", lambda: qt.QLineEdit()), ("device", lambda: qt.QCheckBox()), ("names", lambda: qt.QLineEdit()),
    ("segment", lambda: type("MyBox", (qt.QCheckBox,), {})()),
])  # fmt: skip
def test_a_widget_that_does_not_go_with_the_type_is_refused(choices, name, make):
    with pytest.raises(RuntimeError, match="Unable to create GUI connector"):
        choices.connectParametersToGui({name: make()})


def test_a_parameter_that_is_not_there_is_refused(choices):
    with pytest.raises(ValueError, match="Cannot find a param"):
        choices.connectParametersToGui({"segments": qt.QCheckBox()})


# ---- Slicer/Slicer, Base/QTGUI/qSlicerScriptedLoadableModule.h and qSlicerScriptedLoadableModuleWidget.cxx ----------


def test_a_module_has_the_attributes_that_slicer_knows():
    with pytest.raises(AttributeError):
        slicer.qSlicerScriptedLoadableModule("/x/Y.py").contributor = "singular"


def test_whether_a_panel_is_entered_cannot_be_set():
    with pytest.raises(AttributeError):
        slicer.qSlicerScriptedLoadableModuleWidget().isEntered = True


def test_signals_of_the_application_are_those_that_it_has():
    with pytest.raises(ValueError):
        slicer.app.connect("startupComplete()", lambda: None)
