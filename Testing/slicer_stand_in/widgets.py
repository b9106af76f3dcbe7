"""The Slicer and CTK widgets that the panel uses."""

from PySide6 import QtCore, QtWidgets

from .qt_manners import Manners, QComboBox


class qMRMLWidget(Manners, QtWidgets.QWidget):
    """A widget that knows the scene."""

    def setMRMLScene(self, scene):
        """Nothing in it listens: the module sets the scene of its selectors itself."""
        self._scene = scene


class ctkCollapsibleButton(Manners, QtWidgets.QGroupBox):
    """A titled group that hides what is in it while ``collapsed``, but looks the same."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self._collapsed = False

    def _setCollapsed(self, collapsed):
        self._collapsed = collapsed
        for child in self.findChildren(QtWidgets.QWidget, options=QtCore.Qt.FindDirectChildrenOnly):
            child.setVisible(not collapsed)

    text = QtCore.Property(
        str, lambda self: QtWidgets.QGroupBox.title(self), lambda self, text: QtWidgets.QGroupBox.setTitle(self, text)
    )
    collapsed = QtCore.Property(bool, lambda self: self._collapsed, _setCollapsed)


class qMRMLNodeComboBox(QComboBox):
    """Lists the scene's nodes of ``nodeTypes`` exactly, with "None" first, and follows the scene.

    As in Slicer, the neighbor of a node that is removed becomes the current one, and currentNodeChanged tells of every
    change, nodeActivated of the user's choices alone (made here by ``choose``).
    """

    def __init__(self, parent=None):
        super().__init__(parent)
        self.nodeTypes = []
        self.showChildNodeTypes = True
        self.noneEnabled = self.addEnabled = self.removeEnabled = self.renameEnabled = False
        self.noneDisplay = "None"
        self._scene = None
        self._nodes = [None]
        self._slots = {"currentNodeChanged(vtkMRMLNode*)": [], "nodeActivated(vtkMRMLNode*)": []}
        self._busy = False
        super().connect("currentIndexChanged(int)", self._on_index)

    def connect(self, signature, slot):
        """Also the two signals that carry a node."""
        if signature in self._slots:
            self._slots[signature].append(slot)
        else:
            super().connect(signature, slot)

    def setMRMLScene(self, scene):
        """Follow a scene."""
        if scene is self._scene:
            return
        self._scene = scene
        for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndCloseEvent):
            scene.AddObserver(event, lambda caller, name: self._fill())
        self._fill()

    def currentNode(self):
        """The node chosen, or None."""
        index = self.currentIndex
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def setCurrentNode(self, node):
        """Choose a node; tells the listeners when that changes anything."""
        ids = [n.GetID() if n is not None else None for n in self._nodes]
        wanted = node.GetID() if node is not None else None
        self.currentIndex = ids.index(wanted) if wanted in ids else 0

    def choose(self, node):
        """Do what a user does: open the list and click on a node."""
        self.setCurrentNode(node)
        self._tell("nodeActivated(vtkMRMLNode*)")

    def _fill(self):
        chosen, row = self.currentNode(), self.currentIndex
        scene = self._scene
        nodes = [scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())]
        self._busy = True
        self.clear()
        self._nodes = [None] + [
            node for node in nodes if node.GetClassName() in self.nodeTypes and not node.GetHideFromEditors()
        ]
        self.addItems([self.noneDisplay] + [node.GetName() for node in self._nodes[1:]])
        present = chosen is not None and any(node is chosen for node in self._nodes)
        self.setCurrentNode(chosen if present else self._nodes[max(0, min(row, len(self._nodes) - 1))])
        self._busy = False
        if self.currentNode() is not chosen:
            self._tell("currentNodeChanged(vtkMRMLNode*)")

    def _on_index(self, index):
        if not self._busy:
            self._tell("currentNodeChanged(vtkMRMLNode*)")

    def _tell(self, signature):
        for slot in self._slots[signature]:
            slot(self.currentNode())


