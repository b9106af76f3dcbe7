"""PySide6 with the manners of PythonQt: properties are attributes, signals are connected by signature."""

import os
import types

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets


class Manners:
    """Mixin for Qt classes."""

    def _has_property(self, name):
        return QtCore.QObject.metaObject(self).indexOfProperty(name) >= 0

    def __getattribute__(self, name):
        if name == "name":
            return QtCore.QObject.objectName(self)
        if name == "connect":
            # PySide's own lookup would find QObject.connect first.
            return types.MethodType(type(self).connect, self)
        if not name.startswith("_") and QtCore.QObject.metaObject(self).indexOfProperty(name) >= 0:
            return QtCore.QObject.property(self, name)
        return super().__getattribute__(name)

    def __setattr__(self, name, value):
        if not name.startswith("_") and self._has_property(name):
            if not QtCore.QObject.setProperty(self, name, value):
                raise TypeError(f"{type(self).__name__}.{name} does not take {value!r}")
        else:
            super().__setattr__(name, value)

    def connect(self, signature, slot):
        """Connect by signature, e.g. ``connect("clicked(bool)", f)``; an unknown signal raises."""
        name = signature.split("(")[0]
        known = QtCore.QObject.metaObject(self)
        names = {bytes(known.method(i).name()).decode() for i in range(known.methodCount())}
        if name not in names:
            raise ValueError(f"{type(self).__name__} has no signal {signature}")
        super().__getattribute__(name).connect(slot)


def with_manners(qt_class):
    """Subclass of a Qt class that has the manners."""
    return type(qt_class.__name__, (Manners, qt_class), {})


QLabel = with_manners(QtWidgets.QLabel)
QCheckBox = with_manners(QtWidgets.QCheckBox)
QPushButton = with_manners(QtWidgets.QPushButton)
QComboBox = with_manners(QtWidgets.QComboBox)
QProgressBar = with_manners(QtWidgets.QProgressBar)
QWidget = with_manners(QtWidgets.QWidget)
QTimer = with_manners(QtCore.QTimer)
QHeaderView = with_manners(QtWidgets.QHeaderView)


class QTableWidget(Manners, QtWidgets.QTableWidget):
    """Its horizontal header has the manners too. PythonQt wraps whatever object a method returns."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        header = QHeaderView(QtCore.Qt.Horizontal, self)
        header.setSectionsClickable(True)  # as in Qt's own table (QTableViewPrivate::init)
        header.setHighlightSections(True)
        self.setHorizontalHeader(header)


class UiLoader(QtUiTools.QUiLoader):
    """Makes widgets with manners, and the Slicer widgets that a .ui file names."""

    def createWidget(self, class_name, parent=None, name=""):
        from . import widgets

        known = {"ctkCollapsibleButton": widgets.ctkCollapsibleButton, "qMRMLWidget": widgets.qMRMLWidget}
        known |= {c.__name__: c for c in (QLabel, QCheckBox, QPushButton, QComboBox, QProgressBar, QWidget)}
        widget = known[class_name](parent)
        widget.setObjectName(name)
        self.__dict__.setdefault("_kept", []).append(widget)
        return widget

    def load(self, *arguments):
        """The widget, which keeps its Python halves alive as PythonQt does."""
        widget = super().load(*arguments)
        widget._kept = self.__dict__.get("_kept", [])
        return widget


def make_qt_module():
    """What ``import qt`` gives in Slicer, as far as it is needed. Makes the application when there is none."""
    if QtWidgets.QApplication.instance() is None:
        make_qt_module.application = QtWidgets.QApplication([])
    qt = types.ModuleType("qt")
    for namespace in (QtCore, QtGui, QtWidgets):
        for name in dir(namespace):
            if name.startswith("Q"):
                setattr(qt, name, getattr(namespace, name))
    for own in (QLabel, QCheckBox, QPushButton, QComboBox, QProgressBar, QWidget, QTimer, QHeaderView, QTableWidget):
        setattr(qt, own.__name__, own)
    qt.QUiLoader = UiLoader
    return qt
