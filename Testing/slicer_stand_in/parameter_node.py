"""slicer.parameterNodeWrapper for bool, int, float, str, list and dict, over the real vtkMRMLScriptedModuleNode.

Imitates Slicer/Slicer, Base/Python/slicer/parameterNodeWrapper: wrapper.py (defaults are written when the wrapper is
made, so that they are saved; reserved names; how widgets and parameters follow each other), serializers.py (the text
that is kept, so that scenes can be exchanged; wrong types are refused), validators.py (Choice) and guiConnectors.py
(which widget goes with which type).

Not imitated: nodes, paths, tuples, unions and packs as parameters, other validators, caching, lists and dictionaries
that write themselves when they are changed in place (here they do not, so that a test sees who relies on it), and
connectGui.
"""

import collections.abc
import typing

import qt
import shiboken6
import slicer
import vtk

_RESERVED = (
    "allParameters", "default", "isCached", "dataType", "getValue", "setValue", "connectGui",
    "connectParametersToGui", "disconnectGui", "StartModify", "EndModify", "AddObserver", "RemoveObserver", "Modified",
)  # fmt: skip


class Choice:
    """Annotation: the values that a parameter may have."""

    def __init__(self, choices):
        self.choices = choices

    def validate(self, value):
        """Refuse any other."""
        if value not in self.choices:
            raise ValueError(f"Value {value} is not in choices {self.choices}")


class _Plain:
    """A bool, number or text, kept as one text."""

    def __init__(self, kind):
        self.kind = kind

    def isIn(self, node, name):
        return node.HasParameter(name)

    def check(self, value):
        if not isinstance(value, (int, float) if self.kind is float else self.kind):
            raise TypeError(f"Value '{value}' is not of type {self.kind.__name__}")

    def write(self, node, name, value):
        self.check(value)
        node.SetParameter(name, str(value))

    def read(self, node, name):
        text = node.GetParameter(name)
        return text == "True" if self.kind is bool else self.kind(text)

    def remove(self, node, name):
        node.UnsetParameter(name)


class _Tuple:
    """Several values under name_0, name_1 ..."""

    def __init__(self, parts):
        self.parts = parts

    def check(self, values):
        for part, value in zip(self.parts, values, strict=True):
            part.check(value)

    def write(self, node, name, values):
        for number, (part, value) in enumerate(zip(self.parts, values, strict=True)):
            part.write(node, f"{name}_{number}", value)

    def read(self, node, name):
        return tuple(part.read(node, f"{name}_{number}") for number, part in enumerate(self.parts))

    def remove(self, node, name):
        for number, part in enumerate(self.parts):
            part.remove(node, f"{name}_{number}")


class _List:
    """As many values as name_len says."""

    def __init__(self, part):
        self.part = part

    def isIn(self, node, name):
        return node.HasParameter(f"{name}_len")

    def check(self, values):
        for value in values:
            self.part.check(value)

    def write(self, node, name, values):
        self.check(values)
        with slicer.util.NodeModify(node):
            before = int(node.GetParameter(f"{name}_len") or 0)
            for number, value in enumerate(values):
                self.part.write(node, f"{name}_{number}", value)
            node.SetParameter(f"{name}_len", str(len(values)))
            for number in range(len(values), before):
                self.part.remove(node, f"{name}_{number}")

    def read(self, node, name):
        return [self.part.read(node, f"{name}_{number}") for number in range(int(node.GetParameter(f"{name}_len")))]

    def remove(self, node, name):
        for number in range(int(node.GetParameter(f"{name}_len") or 0)):
            self.part.remove(node, f"{name}_{number}")
        node.UnsetParameter(f"{name}_len")


class _Dict(_List):
    """A list of pairs."""

    def write(self, node, name, values):
        super().write(node, name, list(values.items()))

    def read(self, node, name):
        return _Dictionary(super().read(node, name))


class _Dictionary(collections.abc.MutableMapping):
    """What a dictionary parameter is read as: no dict, and its ``get`` and ``pop`` take no default."""

    def __init__(self, pairs):
        self._pairs = dict(pairs)

    def __getitem__(self, key):
        return self._pairs[key]

    def __setitem__(self, key, value):
        self._pairs[key] = value

    def __delitem__(self, key):
        del self._pairs[key]

    def __iter__(self):
        return iter(self._pairs)

    def __len__(self):
        return len(self._pairs)

    def get(self, key):
        return self._pairs.get(key)

    def pop(self, key):
        return self._pairs.pop(key)


def _serializer(kind):
    origin, parts = typing.get_origin(kind), [_serializer(part) for part in typing.get_args(kind)]
    if kind in (bool, int, float, str):
        return _Plain(kind)
    if origin is list:
        return _List(*parts)
    if origin is dict:
        return _Dict(_Tuple(parts))
    raise TypeError(f"Unable to create serializer for type: {kind}")


class _Parameter:
    def __init__(self, hint, default):
        annotated = typing.get_origin(hint) is typing.Annotated
        self.kind = typing.get_args(hint)[0] if annotated else hint
        self.validators = list(getattr(hint, "__metadata__", ()))
        self.serializer = _serializer(self.kind)
        self.default = default

    @property
    def choices(self):
        return next((list(one.choices) for one in self.validators if isinstance(one, Choice)), None)

    def write(self, node, name, value):
        for validator in self.validators:
            validator.validate(value)
        self.serializer.write(node, name, value)


def parameterNodeWrapper(wrapped):
    """Class decorator: annotated members become properties that are kept in the parameter node."""
    taken = [name for name in _RESERVED if hasattr(wrapped, name)]
    if taken:
        raise ValueError(f"Cannot use reserved name '{taken[0]}' in a parameterNodeWrapper")
    parameters = {}
    for name, hint in typing.get_type_hints(wrapped, include_extras=True).items():
        parameter = parameters[name] = _Parameter(hint, getattr(wrapped, name))
        setattr(wrapped, name, property(
            lambda self, name=name, parameter=parameter: parameter.serializer.read(self.parameterNode, name),
            lambda self, value, name=name, parameter=parameter: parameter.write(self.parameterNode, name, value),
        ))
    wrapped.allParameters = parameters
    wrapped.__init__ = _init
    wrapped.connectParametersToGui = _connect
    wrapped.disconnectGui = _disconnect
    wrapped.default = lambda self, name: self.allParameters[name].default
    wrapped.getValue = lambda self, name: getattr(self, name)
    wrapped.setValue = lambda self, name, value: setattr(self, name, value)
    wrapped.StartModify = lambda self: self.parameterNode.StartModify()
    wrapped.EndModify = lambda self, modified: self.parameterNode.EndModify(modified)
    wrapped.AddObserver = lambda self, event, callback, priority=0.0: self.parameterNode.AddObserver(
        event, callback, priority
    )
    wrapped.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    wrapped.Modified = lambda self: self.parameterNode.Modified()
    return wrapped


def _init(self, parameterNode):
    self.parameterNode = parameterNode
    self._connections, self._nextTag, self._updating = {}, 0, False
    for name, parameter in self.allParameters.items():
        if not parameter.serializer.isIn(parameterNode, name):
            parameter.write(parameterNode, name, parameter.default)


#: Type of a parameter, class of a widget -> property with its value, signal that it changed. Exactly these classes.
_CONNECTORS = {
    (bool, "QCheckBox"): ("checked", "stateChanged(int)"), (bool, "QPushButton"): ("checked", "toggled(bool)"),
    (int, "QSpinBox"): ("value", "valueChanged(int)"), (float, "QDoubleSpinBox"): ("value", "valueChanged(double)"),
    (str, "QLineEdit"): ("text", "textChanged(QString)"),
}  # fmt: skip


def _disconnect(self, tag):
    for connector in self._connections.pop(tag, {}).values():
        if not shiboken6.isValid(connector.widget):  # PythonQt's disconnect of a deleted object's signal
            raise SystemError("disconnect returned NULL without setting an exception")


class _Choices:
    """A combo box that shows the choices."""

    def __init__(self, widget, choices):
        if choices is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        self.widget, self.choices, self.signal = widget, choices, "currentIndexChanged(int)"
        widget.clear()
        for choice in choices:
            widget.addItem(str(choice))

    def read(self):
        return self.choices[self.widget.currentIndex]

    def write(self, value):
        self.widget.currentIndex = self.choices.index(value)


class _Value:
    """A widget with one property."""

    def __init__(self, widget, name, signal):
        self.widget, self.name, self.signal = widget, name, signal

    def read(self):
        return getattr(self.widget, self.name)

    def write(self, value):
        setattr(self.widget, self.name, value)


def _connector(widget, parameter):
    if type(widget) is qt.QComboBox and parameter.kind in (int, float, str, bool):
        return _Choices(widget, parameter.choices)
    found = _CONNECTORS.get((parameter.kind, type(widget).__name__))
    if found is None or type(widget) is not getattr(qt, type(widget).__name__):
        raise RuntimeError(f"Unable to create GUI connector from datatype '{parameter.kind}' to '{type(widget)}'")
    return _Value(widget, *found)


def _connect(self, mapping):
    """Bind widgets to the parameters that the mapping names; returns a tag to disconnect by."""
    unknown = set(mapping) - set(self.allParameters)
    if unknown:
        raise ValueError(f"Cannot find a param with the given name: {unknown}")
    connectors = {name: _connector(widget, self.allParameters[name]) for name, widget in mapping.items()}
    tag, self._nextTag = self._nextTag, self._nextTag + 1
    self._connections[tag] = connectors

    def to_widgets(caller=None, event=None):
        if self._updating:
            return
        self._updating = True
        try:
            for connected in self._connections.values():
                for name, connector in connected.items():
                    connector.write(getattr(self, name))
        finally:
            self._updating = False

    def from_widget(name, connector):
        if not self._updating and tag in self._connections:
            setattr(self, name, connector.read())

    for name, connector in connectors.items():
        connector.write(getattr(self, name))
        connector.widget.connect(connector.signal, lambda *_value, n=name, c=connector: from_widget(n, c))
    self.AddObserver(vtk.vtkCommand.ModifiedEvent, to_widgets)
    return tag
