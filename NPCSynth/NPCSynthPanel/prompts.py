"""Section: the user's own words for what is to be made."""

import ctk
import qt
from slicer.i18n import tr as _

from NPCSynthLib.inference.preflight import AMBER, GREEN, words_of
from NPCSynthLib.vocabulary import canonical_prompt, load_sequences

from .preflight import COLORS


class PromptSection:
    """One line of text for each sequence that is to be synthesized; folded away, since few need it."""

    def __init__(self):
        self._parameterNode = None
        self._running = False
        self.rows = {}
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.text = _("In your own words (advanced)")
        self.widget.collapsed = True
        outer = qt.QVBoxLayout(self.widget)
        body = qt.QWidget()  # folded and unfolded as one, so that hidden lines stay hidden
        outer.addWidget(body)
        layout = qt.QVBoxLayout(body)
        layout.setContentsMargins(0, 0, 0, 0)
        hint = qt.QLabel(_(
            "The network follows words. Left blank, it gets the words shown in gray, which it was trained with. Keep "
            "to those where you can: it does not read all other wordings as they are meant. Of numbers it heeds the "
            "echo time (TE) of T2 and T2FS, roughly; leave out others. Words that it does not know are marked before "
            "the run. Never write a diagnosis or a name."
        ))
        hint.wordWrap = True
        layout.addWidget(hint)
        grid = qt.QGridLayout()
        grid.setColumnStretch(1, 1)
        layout.addLayout(grid)
        for number, sequence in enumerate(load_sequences().values()):
            label, edit, mark = qt.QLabel(sequence.id), qt.QLineEdit(), qt.QLabel()
            edit.placeholderText = canonical_prompt(sequence)
            edit.maxLength = 200
            edit.toolTip = _("Your own words for the synthetic {name} image.").format(name=sequence.name)
            label.setBuddy(edit)
            # At every letter: on macOS a line is not left when a button is pressed.
            edit.connect("textEdited(QString)", lambda words, s=sequence.id: self._onEdited(s, words))
            mark.wordWrap = True
            mark.visible = False
            mark.styleSheet = f"color: {COLORS[AMBER]};"
            grid.addWidget(label, 2 * number, 0)
            grid.addWidget(edit, 2 * number, 1)
            grid.addWidget(mark, 2 * number + 1, 1)
            self.rows[sequence.id] = label, edit, mark

    def setParameterNode(self, node):
        """Show and change this node's prompts."""
        self._parameterNode = node
        self.refresh()

    def setRunning(self, running):
        """The words are fixed during a run."""
        self._running = running
        self.refresh()

    def refresh(self):
        """A line for each target."""
        targets = self._parameterNode.targets() if self._parameterNode is not None else []
        prompts = self._parameterNode.prompts if self._parameterNode is not None else {}
        for sequence, (label, edit, _mark) in self.rows.items():
            label.visible = edit.visible = sequence in targets
            edit.enabled = not self._running
            words = prompts.get(sequence) or ""  # a parameter node's dictionaries know no default
            if edit.text.strip() != words:
                edit.text = words  # unlike the user's letters, this is not textEdited

    def mark(self, checks):
        """Say below each line what was found about its words; what was said before is gone."""
        for sequence, (_label, _edit, mark) in self.rows.items():
            found = [check for check in checks if check.name == words_of(sequence) and check.level != GREEN]
            mark.text = "\n".join("▲ " + check.sentence for check in found)
            mark.visible = bool(found)
            if found:
                self.widget.collapsed = False

    def cleanup(self):
        """Nothing of its own goes on."""

    def _onEdited(self, sequence, words):
        if self._parameterNode is not None:
            self._parameterNode.setPrompt(sequence, words)
