"""One section of the proof: what every module that measures something takes and gives back.

A section is a module of this room with a line in ``SECTIONS`` and a function ``run(context) -> Section``. It computes
and returns plain tables and figures; ``report`` writes them as Markdown, CSV, JSON, pictures and HTML, and the command
line runs it alone (``npcsynth evaluate --only any-to-all``) or with all the others. What takes long is kept as it comes
in a file of ``context.kept(name)``, so that a run that was stopped goes on.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError, OutputError, UsageError
from ..resources import resource_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..inference.synthesizer import Synthesizer

#: Name on the command line and of the files -> module of this room, in the order of the report.
SECTIONS: dict[str, str] = {
    "any-to-all": "any_to_all",
    "text": "text",
    "recognition": "recognition",
    "representation": "representation",
    "robustness": "robustness",
    "uncertainty": "uncertainty",
    "out-of-distribution": "out_of_distribution",
    "cost": "cost",
}


#: Rooms of the library on which figures depend, and folders of the data.
_JUDGING = ("evaluation", "inference", "model", "phantom", "qa", "study", "training", "vocabulary")
_TABLES = ("sequences.json", "structures.json")
_READ = ("cohorts", "dicom", "heads", "npc_t2")


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        title: one line above it.
        columns: headings.
        rows: cells, one for each column: str, int, float or None (nothing to say). CSV and JSON keep floats as they
            are; people read three significant digits.
        note: what has to be known to read it: units, what an interval is over, how much was measured.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple, ...]
    note: str = ""


@dataclass(frozen=True)
class Plot:
    """A picture of a report: ``name`` of its file, ``title`` in words, and the matplotlib ``figure``."""

    name: str
    title: str
    figure: "Figure"


@dataclass(frozen=True)
class Section:
    """What a section found.

    Attributes:
        title: heading.
        text: paragraphs with blank lines between them, no other markup: what was asked and how, then the answer.
        tables, plots: in the order in which they are shown.
    """

    title: str
    text: str
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()


def _silent(fraction: float, stage: str) -> None:
    """Tells nobody."""


@dataclass(frozen=True)
class Context:
    """What a section works with.

    Attributes:
        synthesizer: the weights that are judged.
        data: folder with cohorts/, heads/, labelmaps/, npc_t2/, as training takes it.
        out: folder of the report; sections write there through :meth:`kept` alone.
        quick: a first look in minutes instead of the figures to be cited.
        full: everything, whatever it takes; neither of the two is what reports cite.
        baselines: name in tables -> weights folder of a comparison network (``npcsynth train comparison/…``).
        on_progress: called with a fraction 0..1 of this section and the stage in words.
    """

    synthesizer: "Synthesizer"
    data: Path
    out: Path
    quick: bool = False
    full: bool = False
    baselines: Mapping[str, Path] = field(default_factory=dict)
    on_progress: Callable[[float, str], None] = _silent

    def kept(self, name: str) -> "Kept":
        """Rows that outlive a stopped run, in ``<out>/kept/<name>.jsonl``."""
        common = {"code": code_digest(), "data": data_digest(self.data), "device": self.synthesizer.device.label}
        return Kept(self.out / "kept" / f"{name}.jsonl", common)


class Kept:
    """Rows in a file, one JSON object a line, written as they come and found again by their key.

    ``key`` holds everything that the answer depends on, the weights' hash included; ``common``, what all rows depend
    on (the code, the patients' files and the device), is added to it. A row under another key is another question,
    never a stale answer: after a change to one of them, all is asked again.
    """

    def __init__(self, path: Path, common: dict):
        self.path, self._common = path, common
        self._rows: dict[str, dict] = {}
        for key, row in _lines(path):
            self._rows[_text(key)] = row

    def get(self, key: dict, compute: Callable[[], dict]) -> dict:
        """The row of ``key``: from the file, or computed and added to it. Raises OutputError."""
        key = {**key, **self._common}
        text = _text(key)
        if text not in self._rows:
            row = compute()
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    # the line break comes first: a line that a kill cut off must not swallow this one
                    file.write("\n" + json.dumps({"key": key, "row": row}))
            except OSError as error:
                raise OutputError(
                    f'"{self.path.name}" could not be written ({error.strerror}). Make room, or choose another folder '
                    "for --out; the same command goes on from what is there.") from error
            self._rows[text] = row
        return self._rows[text]


@cache
def code_digest() -> str:
    """Changes with the sources of the rooms that make or judge an image, and the tables that they read; the version
    alone would hide that."""
    library = Path(__file__).parents[1]
    sources = [path for room in _JUDGING for path in sorted((library / room).glob("*.py"))]
    tables = [resource_path("Resources", name) for name in _TABLES]
    return _digest((f"{path.parent.name}/{path.name}", path.read_bytes().hex()) for path in (*sources, *tables))


def data_digest(data: Path) -> str:
    """Changes with the names, sizes and times of the files in ``data`` that sections read."""
    files = [path for room in _READ for path in sorted((data / room).rglob("*")) if path.is_file()]
    stats = [path.stat() for path in files]
    return _digest((path.relative_to(data).as_posix(), one.st_size, one.st_mtime_ns)
                   for path, one in zip(files, stats, strict=True))


def _digest(entries: Iterable[tuple]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(repr(entry).encode())
    return digest.hexdigest()[:16]


def _lines(path: Path) -> Iterator[tuple[dict, dict]]:
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
            yield entry["key"], entry["row"]
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was killed while writing: asked again


def _text(key: dict) -> str:
    return json.dumps(key, sort_keys=True)


def section_names(text: str | None) -> list[str]:
    """Those of ``SECTIONS`` that a text names, with commas between them; all for None. Raises UsageError."""
    names = [name.strip() for name in text.split(",")] if text else list(SECTIONS)
    for name in names:
        if name not in SECTIONS:
            raise UsageError(f'"{name}" is no section of the evaluation. Choose among {", ".join(SECTIONS)}.')
    return names


def run_section(name: str, context: Context) -> Section:
    """Run one section by its name in ``SECTIONS``. Raises InputError without data, and what the section raises."""
    if not context.data.is_dir():
        raise InputError(f'There is no folder "{context.data.name}". Give the one that holds cohorts/ with --data.')
    return import_module(f".{SECTIONS[name]}", __package__).run(context)
