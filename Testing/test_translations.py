"""Every text of the module that a user sees can be translated: a literal inside ``_()``, with ``.format`` outside.

Slicer's lupdate collects such literals from the source. Errors of the library are in English: it knows no Slicer.
"""

import ast
import re
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1] / "NPCSynth"
FILES = sorted(HOME.rglob("*.py"))

#: Attributes, keywords and calls whose texts are shown.
SHOWN_ATTRIBUTES = {
    "acknowledgementText", "detailedText", "helpText", "loadType", "noneDisplay", "placeholderText", "prefix", "suffix",
    "text", "title", "toolTip", "tooltip", "warning", "windowTitle",
}  # fmt: skip
SHOWN_CALLS = {
    "QAction", "QCheckBox", "QGroupBox", "QLabel", "QPushButton", "QRadioButton", "QTableWidgetItem", "QToolButton",
    "addAction", "addItem", "addItems", "addRow", "addTab", "confirm", "confirmOkCancelDisplay",
    "confirmRetryCloseDisplay", "confirmYesNoDisplay", "ctkCollapsibleButton", "errorDisplay",
    "getExistingDirectory", "getOpenFileName",
    "getOpenFileNames", "getSaveFileName", "getText", "infoDisplay", "insertItem", "messageBox",
    "setHorizontalHeaderLabels", "setItemText", "setPlaceholderText", "setStatusTip", "setText", "setTitle",
    "setToolTip", "setVerticalHeaderLabels", "setWindowTitle", "show", "showStatus", "showStatusMessage",
    "warningDisplay",
}  # fmt: skip
#: Names, which are the same in every language.
NAMES = re.compile(r"NPCSynth|DICOM|SYNTH|RTSTRUCT|HD95|Dice|CSV|HTML|PDF|GPU|CPU|mm|OK")


def name_of(call):
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def is_translated(node):
    return isinstance(node, ast.Call) and name_of(node) in ("_", "tr", "translate")


def bare_texts(node):
    """String literals with words in an expression, but for what is inside _() or looked up by."""
    if is_translated(node) or isinstance(node, (ast.Lambda, ast.Subscript, ast.Compare)):
        return
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            words = NAMES.sub("", re.sub(r"<[^>]*>|\{[^}]*\}|%\w|[*\w-]*\.\w{2,4}\b", "", node.value))
            if re.search(r"[^\W\d_]{2}", words):
                yield node.lineno, node.value
        return
    if isinstance(node, ast.Call):
        # The text of "...".format(...) and "...".join(...) is in what is called; keys are no texts.
        inner = [node.func.value] if isinstance(node.func, ast.Attribute) else []
        children = inner + (node.args if name_of(node) == "join" else [])
    else:
        children = ast.iter_child_nodes(node)
    for child in children:
        yield from bare_texts(child)


def shown(tree):
    """Expressions whose value is shown to the user."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Attribute) and target.attr in SHOWN_ATTRIBUTES for target in node.targets
        ):
            yield node.value
        elif isinstance(node, ast.Call):
            if name_of(node) in SHOWN_CALLS:
                yield from node.args
            yield from (k.value for k in node.keywords if k.arg in SHOWN_ATTRIBUTES - {"prefix", "suffix"})
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and name_of(node.exc).endswith("Error"):
            yield from node.exc.args


#: Raised for programmers, not for users.
FOR_PROGRAMMERS = {"declined"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_text_that_is_shown_can_be_translated(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {text for expression in shown(tree) for text in bare_texts(expression) if text[1] not in FOR_PROGRAMMERS}
    assert not found, f"Put these texts of {path.name} into _(): {sorted(found)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_what_is_translated_is_a_literal(path):
    """An f-string or a variable has its words only when the program runs, too late for lupdate."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if is_translated(node):
            text = node.args[-1]
            literal = isinstance(text, ast.Constant) and isinstance(text.value, str)
            assert literal, f"{path.name}, line {node.lineno}: _() needs a plain literal, with .format outside."


@pytest.mark.parametrize("source, bare", [
    ("label.text = 'Ready'", True),
    ("label.text = _('Ready')", False),
    ("label.text = _('{n} s').format(n='one')", False),
    ("label.text = f'{count} nodes'", True),
    ("label.text = names['first']", False),
    ("qt.QLabel('<b>' + title + '</b>')", False),
    ("box.addItem('T' + '1')", False),
    ("form.addRow('Device:', box)", True),
    ("widget.toolTip = a if b else 'Missing.'", True),
    ("messages.show(', '.join([_('Done.'), 'Not done.']))", True),
    ("raise InputError('No image.')", True),
    ("slicer.util.errorDisplay(text, windowTitle='NPCSynth')", False),
    ("qt.QFileDialog.getSaveFileName(None, _('Save'), 'contours.csv', 'CSV (*.csv)')", False),
])
def test_this_test_finds_what_it_should(source, bare):
    found = [text for expression in shown(ast.parse(source)) for text in bare_texts(expression)]
    assert bool(found) == bare
