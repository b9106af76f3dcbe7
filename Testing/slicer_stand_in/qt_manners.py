"""PySide6 with the manners of PythonQt, which is how Slicer's Python sees Qt.

Imitates commontk/PythonQt, src/PythonQtInstanceWrapper.cpp (properties are attributes and hide the methods of the same
name; ``name`` is objectName; an object that was made in C++ takes no attribute that Qt does not know),
src/PythonQtStdDecorators.cpp and PythonQtSignalReceiver.cpp (``connect("clicked(bool)", f)`` by the exact signature; a
function gets no more arguments than it takes).

The manners are put on PySide6's own classes, so that objects which Qt makes itself, such as the header of a table,
have them too. Stricter than PythonQt in two ways: connecting to a signal that is not there raises, where PythonQt only
prints a warning; and what a slot raises is kept in ``slot_errors``, where PythonQt only prints it.

Not imitated: PythonQt's memory management, its conversions (it takes any sequence for a QStringList, and gives enums as
numbers), keyword arguments of constructors, methods that PySide6 has and PythonQt's wrappers lack.
"""

import logging
import os
import types

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets

#: What slots raised since somebody emptied the list. The tests' conftest.py fails a test that leaves something here.
slot_errors: list[BaseException] = []

_plain_get = QtCore.QObject.__getattribute__
_read, _write, _meta_object = QtCore.QObject.property, QtCore.QObject.setProperty, QtCore.QObject.metaObject


class Manners:
    """Marks a class of the stand-in that stands for a class of Slicer or CTK, which is C++ there.

    ``node_signals`` are signals that carry a MRML node, which PySide6 cannot; ``tell`` sends them.
    """

    node_signals: tuple[str, ...] = ()

    def tell(self, signature, *arguments):
        """Emit one of the ``node_signals``."""
        for slot in list(self.__dict__.get("_slots", {}).get(signature, ())):
            _call(slot, arguments)


def _is_cpp(kind):
    return kind.__module__.startswith(("PySide6", "Shiboken")) or Manners in kind.__bases__


def _has_property(obj, name):
    return _meta_object(obj).indexOfProperty(name) >= 0


def _get(self, name):
    if name.startswith("_"):
        return _plain_get(self, name)
    if name in ("connect", "disconnect"):
        return types.MethodType(_connect if name == "connect" else _disconnect, self)
    for kind in type(self).__mro__:
        if kind.__module__.startswith("PySide6"):
            break
        if name in kind.__dict__:  # what Python derives goes before what Qt has
            return _plain_get(self, name)
    if _has_property(self, name):
        return _read(self, name)
    return _read(self, "objectName") if name == "name" else _plain_get(self, name)


def _accepts(self, name, value):
    """PySide6 would take anything for a number."""
    meta = _meta_object(self)
    index = meta.indexOfProperty(name)
    number = index >= 0 and meta.property(index).typeName() in ("bool", "int", "double")
    return not number or isinstance(value, (int, float))


def _set(self, name, value):
    if _has_property(self, name) or name == "name":
        if not _accepts(self, name, value) or not _write(self, "objectName" if name == "name" else name, value):
            raise AttributeError(f"Property '{name}' of {type(self).__name__} does not accept {value!r}")
    elif isinstance(value, QtCore.QObject) and _read(value, "objectName") == name:
        self.__dict__[name] = value  # QUiLoader does so: children are attributes in PythonQt too
    elif isinstance(value, QtCore.SignalInstance):
        self.__dict__[name] = value  # PySide6 does so, with the signals of objects that Qt itself made
    elif _is_cpp(type(self)) and not name.startswith("_"):  # the stand-in's own state begins with an underscore
        raise AttributeError(
            f"'{name}' does not exist on {type(self).__name__} and creating new attributes on C++ objects is not "
            "allowed"
        )
    else:
        self.__dict__[name] = value


def _signal(obj, signature):
    """The signal of exactly this signature, and how many arguments it has."""
    normal = bytes(QtCore.QMetaObject.normalizedSignature(signature).data()).decode()
    if _meta_object(obj).indexOfSignal(normal) < 0:
        raise ValueError(f"{type(obj).__name__} has no signal {signature}")
    name, _, arguments = normal.rstrip(")").partition("(")
    return _plain_get(obj, name), arguments.count(",") + 1 if arguments else 0


def _connect(self, signature, slot):
    if signature in getattr(type(self), "node_signals", ()):
        self.__dict__.setdefault("_slots", {}).setdefault(signature, []).append(slot)
        return True
    signal, count = _signal(self, signature)

    # PySide6 leaves out arguments that have a default in C++, unless the function wants them.
    receive = (
        lambda: _call(slot, ()), lambda one: _call(slot, (one,)), lambda one, two: _call(slot, (one, two)),
        lambda one, two, three: _call(slot, (one, two, three)),
        lambda one, two, three, four: _call(slot, (one, two, three, four)),
    )[count]  # fmt: skip
    signal.connect(receive)
    self.__dict__.setdefault("_receivers", []).append((signature, slot, receive))
    return True


def _disconnect(self, signature, slot):
    slots = self.__dict__.get("_slots", {}).get(signature, [])
    if slot in slots:
        slots.remove(slot)
        return True
    receivers = self.__dict__.get("_receivers", [])
    for entry in receivers:
        if entry[:2] == (signature, slot):
            _signal(self, signature)[0].disconnect(entry[2])
            receivers.remove(entry)
            return True
    return False


def _call(slot, arguments):
    function = getattr(slot, "__func__", slot)
    if isinstance(function, types.FunctionType) and not function.__code__.co_flags & 0x04:  # no *arguments
        arguments = arguments[:function.__code__.co_argcount - (function is not slot)]
    try:
        slot(*arguments)
    except Exception as error:
        logging.exception("A slot raised; Slicer would print this and go on.")
        slot_errors.append(error)


class UiLoader(QtUiTools.QUiLoader):
    """Knows the Slicer and CTK widgets that a .ui file names. Imitates Base/QTCore/qSlicerUiLoader.cxx."""

    def createWidget(self, class_name, parent=None, name=""):
        from . import widgets

        known = {kind.__name__: kind for kind in (widgets.ctkCollapsibleButton, widgets.qMRMLWidget)}
        if class_name not in known:
            return super().createWidget(class_name, parent, name)
        widget = known[class_name](parent)
        widget.setObjectName(name)
        self.__dict__.setdefault("_kept", []).append(widget)
        return widget

    def load(self, *arguments):
        """The widget, which keeps its Python halves alive as PythonQt does."""
        widget = super().load(*arguments)
        widget.__dict__["_kept"] = self.__dict__.get("_kept", [])
        return widget


def make_qt_module():
    """What ``import qt`` gives in Slicer: every class of Qt in one module. Makes the application when there is none.

    As in PythonQt there is no ``qt.Signal``: a signal of one's own crashes Slicer.
    """
    qt = types.ModuleType("qt")
    for namespace in (QtCore, QtGui, QtWidgets):
        for name in dir(namespace):
            if not name.startswith("Q"):
                continue
            kind = getattr(namespace, name)
            setattr(qt, name, kind)
            if isinstance(kind, type) and issubclass(kind, QtCore.QObject):
                kind.__setattr__ = _set
    QtCore.QObject.__getattribute__ = _get
    if QtWidgets.QApplication.instance() is None:
        make_qt_module.application = QtWidgets.QApplication([])
    qt.QUiLoader = UiLoader
    return qt
