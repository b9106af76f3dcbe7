"""Section: which volume is which sequence, and what to do with each sequence."""

from typing import NamedTuple

import ctk
import qt
from slicer.i18n import tr as _

from NPCSynthLib.study.build import DOUBTFUL
from NPCSynthLib.vocabulary import load_sequences

from .parameters import LEAVE, SYNTHESIZE, USE
from .selectors import makeNodeSelector


class SequenceRow(NamedTuple):
    """Widgets of one sequence."""

    label: object
    selector: object
    confidence: object
    action: object
    reason: object


class StudySection:
    """One row for each sequence of the vocabulary: its volume, how sure that is, and what to do."""

    def __init__(self, logic):
        self.logic = logic
        self._parameterNode = None
        self._running = False
        self._updating = False
        self._added = []
        self._studies = []
        self.rows = {}
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.text = _("Study")
        layout = qt.QVBoxLayout(self.widget)

        self.studyRow = qt.QWidget()
        studyLayout = qt.QHBoxLayout(self.studyRow)
        studyLayout.setContentsMargins(0, 0, 0, 0)
        studyLabel = qt.QLabel(_("Pa&tient and study:"))
        self.studyComboBox = qt.QComboBox()
        self.studyComboBox.toolTip = _("Fill the table below from the images of this study only.")
        self.studyComboBox.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)
        self.studyComboBox.connect("activated(int)", self._onStudyChosen)
        studyLabel.setBuddy(self.studyComboBox)
        studyLayout.addWidget(studyLabel)
        studyLayout.addWidget(self.studyComboBox, 1)
        layout.addWidget(self.studyRow)

        grid = qt.QGridLayout()
        grid.setColumnStretch(1, 1)
        layout.addLayout(grid)
        for column, title in enumerate((_("Sequence"), _("Acquired volume"), _("Certainty"), _("What to do"))):
            grid.addWidget(qt.QLabel("<b>" + title + "</b>"), 0, column)
        for number, sequence in enumerate(load_sequences().values()):
            self.rows[sequence.id] = self._makeRow(sequence, grid, 2 * number + 1)

        self.notesLabel = qt.QLabel()
        self.notesLabel.wordWrap = True
        self.notesLabel.visible = False
        layout.addWidget(self.notesLabel)
        self.detectButton = qt.QPushButton(_("&Detect again"))
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
        """Widgets in line ``number`` of the grid, and below them why the sequence cannot be made, if so."""
        label = qt.QLabel(sequence.id)
        label.toolTip = sequence.name
        selector = makeNodeSelector(
            "vtkMRMLScalarVolumeNode", _("missing"), lambda node, s=sequence.id: self._onVolumeChosen(s, node)
        )
        label.setBuddy(selector)
        confidence = qt.QLabel()
        action = qt.QComboBox()
        for column, widget in enumerate((label, selector, confidence, action)):
            grid.addWidget(widget, number, column)
        action.connect("currentIndexChanged(int)", lambda index, s=sequence.id: self._onActionChosen(s, index))
        reason = qt.QLabel()
        reason.wordWrap = True
        reason.visible = False
        grid.addWidget(reason, number + 1, 1, 1, 3)
        return SequenceRow(label, selector, confidence, action, reason)

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
            self._refreshStudies()
            assigned = self._parameterNode.assigned() if self._parameterNode is not None else {}
            for sequence, row in self.rows.items():
                self._refreshRow(sequence, row, assigned.get(sequence))
            self.detectButton.enabled = not self._running
            self.studyComboBox.enabled = not self._running
        finally:
            self._updating = False

    def _refreshStudies(self):
        self._studies = self.logic.studies()
        self.studyRow.visible = bool(self._studies)  # plain files are filed nowhere: nothing to choose
        self.studyComboBox.clear()
        for text in (_("all loaded volumes"), *(study.name for study in self._studies)):
            self.studyComboBox.addItem(text)
        keys = ["", *(study.key for study in self._studies)]
        chosen = self._parameterNode.study if self._parameterNode is not None else ""
        self.studyComboBox.currentIndex = keys.index(chosen) if chosen in keys else 0

    def _refreshRow(self, sequence, row, node):
        name = load_sequences()[sequence].name
        if row.selector.currentNode() is not node:
            row.selector.setCurrentNode(node)
        row.selector.enabled = not self._running
        row.action.enabled = not self._running and self._parameterNode is not None
        row.action.clear()
        row.reason.text = "" if self._parameterNode is None or self._parameterNode.canSynthesize(sequence) else _(
            "{sequence} cannot be synthesized: the weights chosen under “Settings” have not learned it."
        ).format(sequence=sequence)
        row.reason.visible = bool(row.reason.text)
        if self._parameterNode is None:
            return
        if node is None:
            row.confidence.text = ""
            row.selector.toolTip = _("Choose the {name} volume, if there is one.").format(name=name)
        else:
            confidence, reason = self.logic.confidence(sequence, node)
            row.selector.toolTip = reason
            row.confidence.text = (
                _("your choice") if confidence is None else _("{percent:.0f} %").format(percent=100 * confidence)
            )
            doubtful = confidence is not None and confidence < DOUBTFUL
            row.confidence.styleSheet = "color: #b35900; font-weight: bold;" if doubtful else ""
        row.confidence.toolTip = row.selector.toolTip
        texts = {USE: _("use"), SYNTHESIZE: _("synthesize"), LEAVE: _("leave")}
        possible, action = self._parameterNode.possibleActions(sequence), self._parameterNode.action(sequence)
        for one in possible:
            row.action.addItem(texts[one])
        row.action.currentIndex = possible.index(action)
        if action == USE:
            text = _("The synthetic images are made from this {name} volume, among others.")
        elif action == LEAVE and node is not None:
            text = _("This {name} volume is left out.")
        elif action == LEAVE:
            text = _("No {name} image is made.")
        elif node is not None:
            text = _(
                "{name} is made from the other volumes although it was acquired, so that you can compare the two. The "
                "acquired volume is not used."
            )
        else:
            text = _("A synthetic {name} image is made.")
        row.action.toolTip = text.format(name=name)

    def _onVolumeChosen(self, sequence, node):
        if not self._updating and self._parameterNode is not None:
            self._parameterNode.assign({sequence: node})

    def _onActionChosen(self, sequence, index):
        if not self._updating and self._parameterNode is not None:
            self._parameterNode.setAction(sequence, self._parameterNode.possibleActions(sequence)[index])

    def _onStudyChosen(self, index):
        if not self._updating and self._parameterNode is not None:
            self._parameterNode.study = self._studies[index - 1].key if index else ""
            self.detect()

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
        if self._parameterNode is None:
            return
        assigned = self._parameterNode.assigned()
        if not assigned:
            self.detect()
            return
        self._keepToStudyOf(assigned)
        taken = list(assigned.values())
        candidates = self.logic.candidateNodes(self._parameterNode.study)
        nodes = [node for node in candidates if node.GetID() in added and node not in taken]
        if nodes:
            self.detect(nodes)
            return
        others = [node for study in self.logic.studies() if study.key != self._parameterNode.study
                  for node in study.volumes]
        if self._parameterNode.study and any(node.GetID() in added for node in others):
            self._showNotes([_("Images of another study were loaded; the table still shows the first. Choose the other "
                               "under “Patient and study”.")])
        self.refresh()

    def detect(self, nodes=None):
        """Propose a sequence for each volume and say what needs a look.

        :param nodes: only these, and only where nothing is chosen yet; by default all of the study, over what was
          chosen.
        """
        if self._parameterNode is None:
            return
        notes = []
        assigned = self._parameterNode.assigned()
        if nodes is None:
            if not assigned and not self._parameterNode.study:
                notes += self._chooseStudy()
            nodes, assigned = self.logic.candidateNodes(self._parameterNode.study), {}
        proposals, remarks = self.logic.proposeAssignment(nodes)
        notes += remarks
        notes += [
            _("“{name}” looks like {sequence} too; the volume chosen before was kept.").format(
                name=proposals[sequence].GetName(), sequence=sequence
            )
            for sequence in proposals if sequence in assigned
        ]
        proposals = {**proposals, **assigned}
        self._parameterNode.assign({sequence: proposals.get(sequence) for sequence in load_sequences()})
        if not proposals and not notes:
            notes = [_("No MR volume is loaded yet.")]
        self._showNotes(notes)
        self.refresh()

    def _showNotes(self, notes):
        self.notesLabel.text = "\n".join(notes)
        self.notesLabel.visible = bool(notes)

    def _keepToStudyOf(self, assigned):
        """Another patient was loaded: the table stays with the one that it shows."""
        found = self.logic.studies()
        if self._parameterNode.study or len(found) < 2:
            return
        for study in found:
            if all(any(node is volume for volume in study.volumes) for node in assigned.values()):
                self._parameterNode.study = study.key

    def _chooseStudy(self):
        """Images of two patients, or of two dates, are not mixed unless the user wants it."""
        found = self.logic.studies()
        if len(found) < 2:
            return []
        self._parameterNode.study = max(found, key=lambda study: len(study.volumes)).key
        return [
            _("{count} studies are loaded; the table shows one of them. Choose another one above.").format(
                count=len(found)
            )
        ]
