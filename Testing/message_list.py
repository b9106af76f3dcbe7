"""The list of all error messages in Resources/Docs/troubleshooting.md, made from the sources.

``python Testing/message_list.py`` writes it anew.
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "Resources" / "Docs" / "troubleshooting.md"
START, END = "<!-- messages -->", "<!-- /messages -->"
ERRORS = {"NPCSynthError", "UsageError", "InputError", "WeightsError", "OutputError", "WorkerError"}
#: Where messages come from -> heading. Those of training and evaluation are for who trains.
ROOMS = {
    "NPCSynthPanel": "In the panel", "scene": "About the scene", "study": "About images and contours that are read",
    "vocabulary": "About names of sequences", "inference": "About the computation", "model": "About weights",
    "qa": "About comparing contours", "output": "About results that are written",
    "phantom": "About the digital patient",
    "batch": "About many patients", "cli": "On the command line",
}  # fmt: skip


def text_of(node):
    """The text of an expression, with … for what is filled in; None when it is put together elsewhere."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return (text_of(node.left) or "…") + (text_of(node.right) or "…")
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            return text_of(node.func.value)
        if isinstance(node.func, ast.Name) and node.func.id == "_":
            return text_of(node.args[0])
    return None


def messages():
    """Room -> its messages, sorted, with … for what is filled in."""
    found = {room: set() for room in ROOMS}
    for path in (*(ROOT / "NPCSynth").rglob("*.py"), *(ROOT / "NPCSynthLib").rglob("*.py")):
        room = next((part for part in path.relative_to(ROOT).parts if part in ROOMS), None)
        if room is None:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ERRORS and node.args:
                text = text_of(node.args[0])
                if text:
                    found[room].add(re.sub(r"\{[^}]*\}", "…", " ".join(text.split())))
    return {room: sorted(texts, key=lambda text: text.strip('…"“ ').lower()) for room, texts in found.items()}


def beginning(text):
    """The part of a message by which one looks for it: its first words that are always the same."""
    return max(text.split("…")[:2], key=len).strip(' "“”.:')[:60]


def as_markdown():
    """The list as it stands on the page."""
    lines = [START, ""]
    for room, texts in messages().items():
        lines += [f"### {ROOMS[room]}", "", *(f"- {text}" for text in texts), ""]
    return "\n".join([*lines, END])


def write():
    """Put the list between its marks on the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    PAGE.write_text(before + as_markdown() + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    write()
