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
    # As in Slicer, connectGui returns no tag, so that nothing is ever disconnected.
    wrapped.connectGui = lambda self, ui: _connect_gui(self, ui, hints)
    wrapped.disconnectGui = lambda self, tag: None
    return wrapped


def _init(self, parameter_node):
    self.parameterNode = parameter_node


def _choices(hint):
    for note in getattr(hint, "__metadata__", ()):
        if isinstance(note, Choice):
            return note.choices
    return None


def _connect_gui(self, ui, hints):
    """Bind widgets whose SlicerParameterName says so."""
    live = {w.property("SlicerParameterName"): w for w in vars(ui).values() if w.property("SlicerParameterName")}
    unknown = set(live) - set(hints)
    if unknown:
        raise ValueError(f"Cannot find a parameter named {unknown}")

    def to_widgets(caller=None, event=None):
        for name, widget in live.items():
            if _choices(hints[name]):
                widget.currentIndex = _choices(hints[name]).index(getattr(self, name))
            else:
                widget.checked = getattr(self, name)

    for name, widget in live.items():
        if _choices(hints[name]):
            widget.clear()
            widget.addItems([str(choice) for choice in _choices(hints[name])])
    to_widgets()
    for name, widget in live.items():
        if _choices(hints[name]):
            widget.connect(
                "currentIndexChanged(int)",
                lambda index, name=name: setattr(self, name, _choices(hints[name])[index]),
            )
        else:
            widget.connect("toggled(bool)", lambda on, name=name: setattr(self, name, on))
    self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, to_widgets)
