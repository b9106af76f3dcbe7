"""What was found before a run, as a list. RunSection fills it."""

import ctk
import qt
from slicer.i18n import tr as _

from NPCSynthLib.inference.preflight import AMBER, GREEN, RED, worst

#: Dark enough to be read on white and bright enough on dark gray; the word beside it says the same without color.
COLORS = {GREEN: "#2e8b57", AMBER: "#c77700", RED: "#d03030"}


class PreflightList:
    """One line a finding: a mark and a word for its level, what was looked at, and a sentence.

    Folded while all is well; it opens by itself where something needs a look.
    """

    def __init__(self):
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.collapsed = True
        self.widget.visible = False
        layout = qt.QVBoxLayout(self.widget)
        self.label = qt.QLabel()
        self.label.wordWrap = True
        self.label.setTextInteractionFlags(qt.Qt.TextSelectableByMouse | qt.Qt.TextSelectableByKeyboard)
        layout.addWidget(self.label)

    def show(self, checks):
        """Replace the list by these findings, the worst first; nothing is shown for none."""
        self.widget.visible = bool(checks)
        titles = {
            GREEN: _("Checked before the run: nothing to note"),
            AMBER: _("Checked before the run: please look"),
            RED: _("Checked before the run: it cannot run"),
        }
        words = {GREEN: _("fine"), AMBER: _("look"), RED: _("stop")}
        level = worst(checks)
        self.widget.text = titles[level]
        self.widget.collapsed = level == GREEN
        ordered = sorted(checks, key=lambda check: -[GREEN, AMBER, RED].index(check.level))
        rows = (
            f'<tr><td><span style="color: {COLORS[check.level]}">●</span>&nbsp;<b>{words[check.level]}</b>&nbsp;&nbsp;'
            f"</td><td><b>{_escaped(check.name)}</b><br>{_escaped(check.sentence)}</td></tr>"
            for check in ordered
        )
        self.label.text = f"<table cellspacing=4>{''.join(rows)}</table>" if checks else ""


def sentencesOf(checks, level):
    """The sentences of this level, each after the name of what was looked at."""
    return [f"{check.name}: {check.sentence}" for check in checks if check.level == level]


def _escaped(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
