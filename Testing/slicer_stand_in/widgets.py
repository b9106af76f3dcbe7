"""The Slicer and CTK widgets that the panel uses."""

from PySide6 import QtCore, QtWidgets

from .qt_manners import Manners


class qMRMLWidget(Manners, QtWidgets.QWidget):
    """A widget that knows the scene. Imitates Slicer/Slicer, Libs/MRML/Widgets/qMRMLWidget.h."""

    def setMRMLScene(self, scene):
        """Nothing in it listens: the module sets the scene of its selectors itself."""
        self._scene = scene

    def mrmlScene(self):
        """The scene, or None."""
        return self.__dict__.get("_scene")


class ctkCollapsibleButton(Manners, QtWidgets.QGroupBox):
    """A titled group that hides what is in it while ``collapsed``, but looks the same.

    Imitates commontk/CTK, Libs/Widgets/ctkCollapsibleButton.cpp: what was hidden before stays hidden when the button
    is opened again. Real ones are a QAbstractButton; of its properties there are ``text`` and ``checked``.
    """

    contentsCollapsed = QtCore.Signal(bool)

    def __init__(self, parent=None):
        if isinstance(parent, str):
            super().__init__(parent)
        else:
            super().__init__(parent=parent)
        self._collapsed = False
        self._hidden = []

    def _setCollapsed(self, collapsed):
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        children = self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly)
        if collapsed:
            self._hidden = [child for child in children if child.isHidden()]
        for child in children:
            child.setVisible(not collapsed and not any(child is one for one in self._hidden))
        self.contentsCollapsed.emit(collapsed)

    text = QtCore.Property(
        str, lambda self: QtWidgets.QGroupBox.title(self), lambda self, text: QtWidgets.QGroupBox.setTitle(self, text)
    )
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, _setCollapsed)
    checked = QtCore.Property(bool, lambda self: not self._collapsed, lambda self, on: self._setCollapsed(not on))


def _property(kind, name, default):
    """A Qt property that is only kept, and shown by the next ``_fill``."""

    def write(self, value):
        self.__dict__[f"_{name}"] = value
        self._fill()

    return QtCore.Property(kind, lambda self: self.__dict__.get(f"_{name}", default), write)


class qMRMLNodeComboBox(Manners, QtWidgets.QWidget):
    """Lists the scene's nodes of ``nodeTypes`` and follows the scene.

    Imitates Slicer/Slicer, Libs/MRML/Widgets/qMRMLNodeComboBox.h and .cxx: a QWidget around a combo box, which it does
    not show to the outside; disabled until it has a scene; the same properties and defaults; the neighbor of a node
    that is removed becomes the current one; currentNodeChanged tells of every change, nodeActivated of the user's
    choices alone (made here by ``choose``). Not imitated: the entries that add, rename and delete nodes, and
    trees of nodes.
    """

    node_signals = (
        "currentNodeChanged(vtkMRMLNode*)", "currentNodeChanged(bool)", "currentNodeIDChanged(QString)",
        "nodeActivated(vtkMRMLNode*)", "nodeAdded(vtkMRMLNode*)", "nodeAboutToBeRemoved(vtkMRMLNode*)",
    )  # fmt: skip

    nodeTypes = _property("QStringList", "nodeTypes", [])
    showHidden = _property(bool, "showHidden", False)
    showChildNodeTypes = _property(bool, "showChildNodeTypes", True)
    hideChildNodeTypes = _property("QStringList", "hideChildNodeTypes", [])
    baseName = _property(str, "baseName", "")
    noneEnabled = _property(bool, "noneEnabled", False)
    noneDisplay = _property(str, "noneDisplay", "None")
    addEnabled = _property(bool, "addEnabled", True)
    removeEnabled = _property(bool, "removeEnabled", True)
    editEnabled = _property(bool, "editEnabled", False)
    renameEnabled = _property(bool, "renameEnabled", False)
    selectNodeUponCreation = _property(bool, "selectNodeUponCreation", True)
    currentNodeID = QtCore.Property(
        str, lambda self: self.currentNode().GetID() if self.currentNode() is not None else "",
        lambda self, identifier: self.setCurrentNodeID(identifier),
    )  # fmt: skip

    def __init__(self, parent=None):
        super().__init__(parent)
        self._scene, self._nodes, self._attributes = None, [], []
        self._busy = False
        self._box = QtWidgets.QComboBox()
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._box)
        self.setFocusProxy(self._box)
        self._box.currentIndexChanged.connect(self._on_index)
        self._box.activated.connect(lambda _index: self.tell("nodeActivated(vtkMRMLNode*)", self.currentNode()))
        self.setEnabled(False)

    def mrmlScene(self):
        """The scene, or None."""
        return self._scene

    def setMRMLScene(self, scene):
        """Follow a scene."""
        if scene is self._scene:
            return
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            scene.AddObserver(event, lambda caller, name: self._fill())
        self._fill()
        self.setEnabled(True)

    def addAttribute(self, nodeType, attributeName, attributeValue=None):
        """Show only nodes of this type that have the attribute; None for any value."""
        self._attributes = [*self._attributes, (nodeType, attributeName, attributeValue)]
        self._fill()

    def nodeCount(self):
        """How many nodes can be chosen."""
        return sum(node is not None for node in self._nodes)

    def currentNode(self):
        """The node chosen, or None."""
        index = self._box.currentIndex
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def setCurrentNode(self, node):
        """Choose a node; tells the listeners when that changes anything."""
        self.setCurrentNodeID(node.GetID() if node is not None else "")

    def setCurrentNodeID(self, identifier):
        """Choose a node; what is not in the list is no node."""
        ids = [node.GetID() if node is not None else "" for node in self._nodes]
        self._box.currentIndex = ids.index(identifier) if identifier in ids else 0 if self.noneEnabled else -1

    def choose(self, node):
        """Do what a user does: open the list and click on a node."""
        self.setCurrentNode(node)
        self._box.activated.emit(self._box.currentIndex)

    def _shows(self, node):
        kinds = [kind for kind in self.nodeTypes if node.IsA(kind)]
        exact = node.GetClassName() in self.nodeTypes
        if not (exact or (kinds and self.showChildNodeTypes)) or (node.GetHideFromEditors() and not self.showHidden):
            return False
        if not exact and any(node.IsA(kind) for kind in self.hideChildNodeTypes):
            return False
        return all(
            node.GetAttribute(name) is not None and value in (None, node.GetAttribute(name))
            for kind, name, value in self._attributes if node.IsA(kind)
        )

    def _fill(self):
        scene = self._scene
        if scene is None:
            return
        chosen, row = self.currentNode(), self._box.currentIndex
        nodes = [scene.GetNthNode(number) for number in range(scene.GetNumberOfNodes())]
        self._busy = True
        self._box.clear()
        self._nodes = [None] if self.noneEnabled else []
        self._nodes += [node for node in nodes if self._shows(node)]
        self._box.addItems([self.noneDisplay if node is None else node.GetName() or "" for node in self._nodes])
        present = any(node is chosen for node in self._nodes)
        if present:
            self.setCurrentNode(chosen)
        else:
            self._box.currentIndex = min(max(row, 0), len(self._nodes) - 1)
        self._busy = False
        if self.currentNode() is not chosen:
            self._on_index()

    def _on_index(self, _index=0):
        if self._busy:
            return
        node = self.currentNode()
        self.tell("currentNodeChanged(vtkMRMLNode*)", node)
        self.tell("currentNodeChanged(bool)", node is not None)
        self.tell("currentNodeIDChanged(QString)", node.GetID() if node is not None else "")
