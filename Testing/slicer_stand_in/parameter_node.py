"""slicer.parameterNodeWrapper for bool, str and list[str], kept in the real vtkMRMLScriptedModuleNode."""

import json
import typing

import vtk


class Choice:
    """Annotation: the values that a parameter may have."""

    def __init__(self, choices):
        self.choices = choices


def parameterNodeWrapper(wrapped):
    """Class decorator: annotated members become properties stored in the parameter node as JSON."""
    hints = typing.get_type_hints(wrapped, include_extras=True)
    for name in hints:
        default = getattr(wrapped, name)

        def read(self, name=name, default=default):
            text = self.parameterNode.GetParameter(name)
            return json.loads(text) if text else json.loads(json.dumps(default))

        def write(self, value, name=name):
            choices = _choices(hints[name])
            if choices is not None and value not in choices:
                raise ValueError(f"{name}: {value} is not one of {choices}")
            self.parameterNode.SetParameter(name, json.dumps(value))

        setattr(wrapped, name, property(read, write))
    wrapped.__init__ = _init
    wrapped.connectParametersToGui = lambda self, mapping: _connect(self, mapping, hints)
    wrapped.disconnectGui = _disconnect
    return wrapped


def _init(self, parameter_node):
    self.parameterNode = parameter_node
    self._connections = {}


def _choices(hint):
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, Choice):
            return note.choices
    return None


def _connect(self, mapping, hints):
    """Bind widgets to the parameters that the mapping names; returns a tag to disconnect by."""
    unknown = set(mapping) - set(hints)
    if unknown:
        raise ValueError(f"Cannot find a param with the given name: {unknown}")
    tag = len(self._connections)
    self._connections[tag] = mapping

    def to_widgets(caller=None, event=None):
        if self._connections.get(tag) is not mapping:
            return
        for name, widget in mapping.items():
            if _choices(hints[name]):
                widget.currentIndex = _choices(hints[name]).index(getattr(self, name))
            else:
                widget.checked = getattr(self, name)

    def from_widget(name, value):
        if self._connections.get(tag) is mapping:
            setattr(self, name, value)

    for name, widget in mapping.items():
        if _choices(hints[name]):
            widget.clear()
            widget.addItems([str(choice) for choice in _choices(hints[name])])
    to_widgets()
    for name, widget in mapping.items():
        if _choices(hints[name]):
            widget.connect(
                "currentIndexChanged(int)",
                lambda index, name=name: from_widget(name, _choices(hints[name])[index]),
            )
        else:
            widget.connect("toggled(bool)", lambda on, name=name: from_widget(name, on))
    self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, to_widgets)
    return tag


def _disconnect(self, tag):
    self._connections[tag] = None
