"""Choosing a node of the scene, alike everywhere in the panel."""

import qt
import slicer


def makeNodeSelector(nodeType, noneText, onChosen):
    """A qMRMLNodeComboBox that only chooses: it adds, removes and renames nothing.

    :param nodeType: class of the nodes to choose from.
    :param noneText: shown for no node.
    :param onChosen: called with the node, or None, that the user chose.
    """
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = [nodeType]
    selector.showChildNodeTypes = False
    selector.noneEnabled = True
    selector.noneDisplay = noneText
    selector.addEnabled = False
    selector.removeEnabled = False
    selector.renameEnabled = False
    selector.setMRMLScene(slicer.mrmlScene)
    # Names of series can be long: they must not make the whole panel as wide.
    selector.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
    # Not currentNodeChanged: that is also sent when the node was deleted and Qt moved on to its neighbor.
    selector.connect("nodeActivated(vtkMRMLNode*)", onChosen)
    return selector
