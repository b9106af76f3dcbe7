"""Section: which volume is which sequence, and what to synthesize."""

from typing import NamedTuple

import ctk
import qt
import slicer
from slicer.i18n import tr as _

from NPCSynthLib.vocabulary import load_sequences


class SequenceRow(NamedTuple):
    """Widgets of one sequence."""

    label: object
    selector: object
    target: object


class StudySection:
    """One row for each sequence of the vocabulary: the volume, and whether to synthesize it."""

    def __init__(self, logic):
        self.logic = logic
        self._parameterNode = None
        self._running = False
        self._updating = False
        self._added = []
        self.rows = {}
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.text = _("Sequences")
        layout = qt.QVBoxLayout(self.widget)
        grid = qt.QGridLayout()
        grid.setColumnStretch(1, 1)
        layout.addLayout(grid)
        for column, title in enumerate((_("Sequence"), _("Acquired volume"), _("Synthesize"))):
            grid.addWidget(qt.QLabel(title), 0, column)
        for number, sequence in enumerate(load_sequences().values(), start=1):
            self.rows[sequence.id] = self._makeRow(sequence, grid, number)
        self.notesLabel = qt.QLabel()
        self.notesLabel.wordWrap = True
        self.notesLabel.visible = False
        layout.addWidget(self.notesLabel)
        self.detectButton = qt.QPushButton(_("Detect again"))
        self.detectButton.toolTip = _(
            "Tell the sequences of the loaded volumes from their DICOM headers or names. Replaces the choice above."
        )
        self.detectButton.connect("clicked(bool)", lambda *_checked: self.detect())
        layout.addWidget(self.detectButton)
        # A volume is added before its image is: look at it a little later, once for all that are loaded together.
        self._detectTimer = qt.QTimer()
        self._detectTimer.setInterval(500)
        self._detectTimer.setSingleShot(True)
        self._detectTimer.connect("timeout()", self._onDetectTimer)

    def _makeRow(self, sequence, grid, number):
        label = qt.QLabel(sequence.id)
        label.toolTip = sequence.name
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
        selector.showChildNodeTypes = False
        selector.noneEnabled = True
        selector.noneDisplay = _("missing")
        selector.addEnabled = False
        selector.removeEnabled = False
        selector.renameEnabled = False
        selector.setMRMLScene(slicer.mrmlScene)
        target = qt.QCheckBox()
        grid.addWidget(label, number, 0)
        grid.addWidget(selector, number, 1)
        grid.addWidget(target, number, 2, qt.Qt.AlignHCenter)
        # Not currentNodeChanged: that is also sent when the node was deleted and Qt moved on to its neighbor.
        selector.connect("nodeActivated(vtkMRMLNode*)", lambda node, s=sequence.id: self._onSourceChanged(s, node))
        target.connect("toggled(bool)", lambda checked, s=sequence.id: self._onTargetToggled(s, checked))
        return SequenceRow(label, selector, target)

    def setParameterNode(self, node):
        """Show this node's choices."""
        self._parameterNode = node
        self.refresh()

    def setRunning(self, running):
        """The choice is fixed during a run."""
        self._running = running
        self.refresh()

    def cleanup(self):
        """Stop waiting for volumes."""
        self._detectTimer.stop()

    def refresh(self):
        """Show what the parameter node says."""
        if self._updating:
            return
        self._updating = True
        try:
            sources = self.logic.sourceNodes(self._parameterNode)
            targets = self.logic.targets(self._parameterNode)
            for sequence, row in self.rows.items():
                name, node = load_sequences()[sequence].name, sources.get(sequence)
                if row.selector.currentNode() is not node:
                    row.selector.setCurrentNode(node)
                row.target.checked = sequence in targets
                row.target.enabled = node is None and not self._running
                row.selector.enabled = not self._running
                if node is None:
                    row.selector.toolTip = _("Choose the {name} volume, if there is one.").format(name=name)
                    row.target.toolTip = _("Synthesize {name}.").format(name=name)
                else:
                    row.selector.toolTip = self.logic.reasonFor(sequence, node)
                    row.target.toolTip = _(
                        'There is a volume for {name}. To synthesize it all the same, set its volume to "missing".'
                    ).format(name=name)
            self.detectButton.enabled = not self._running
        finally:
            self._updating = False

    def _onSourceChanged(self, sequence, node):
        if self._updating or self._parameterNode is None:
            return
        parameters = self._parameterNode.parameterNode
        with slicer.util.NodeModify(parameters):
            for other, volume in self.logic.sourceNodes(self._parameterNode).items():
                # A volume is one sequence: choosing it here takes it from there.
                if other != sequence and node is not None and volume is node:
                    parameters.SetNodeReferenceID(f"Source.{other}", None)
            parameters.SetNodeReferenceID(f"Source.{sequence}", node.GetID() if node is not None else None)

    def _onTargetToggled(self, sequence, checked):
        if self._updating or self._parameterNode is None:
            return
        skipped = [s for s in self._parameterNode.skipped if s != sequence]
        self._parameterNode.skipped = skipped if checked else [*skipped, sequence]

    # Detection

    def onVolumeAdded(self, node):
        """A volume was loaded; it is offered, a little later, where the user has not chosen any yet."""
        self._added.append(node.GetID())
        self._detectTimer.start()

    def _onDetectTimer(self):
        if self._running:
            self._detectTimer.start()
            return
        added, self._added = self._added, []
        sources = self.logic.sourceNodes(self._parameterNode)
        if not sources:
            self.detect()
            return
        taken = list(sources.values())
        nodes = [node for node in self.logic.candidateNodes() if node.GetID() in added and node not in taken]
        if nodes:
            self.detect(nodes)

    def detect(self, nodes=None):
        """Propose a sequence for each volume and say what needs a look.

        :param nodes: only these, and only where nothing is chosen yet; by default all in the scene, over what was
          chosen.
        """
        if self._parameterNode is None:
            return
        proposals, notes = self.logic.proposeAssignment(nodes)
        if nodes is not None:
            sources = self.logic.sourceNodes(self._parameterNode)
            notes += [
                _("“{name}” looks like {sequence} too; the volume chosen before was kept.").format(
                    name=proposals[sequence].GetName(), sequence=sequence
                )
                for sequence in proposals if sequence in sources
            ]
            proposals = {**proposals, **sources}
        parameters = self._parameterNode.parameterNode
        with slicer.util.NodeModify(parameters):
            for sequence in load_sequences():
                node = proposals.get(sequence)
                parameters.SetNodeReferenceID(f"Source.{sequence}", node.GetID() if node is not None else None)
        if not proposals and not notes:
            notes = [_("No MR volume is loaded yet.")]
        self.notesLabel.text = "\n".join(notes)
        self.notesLabel.visible = bool(notes)
        self.refresh()
