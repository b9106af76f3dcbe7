"""Sections as files: Markdown, CSV, JSON and pictures of each, and one HTML page of all that the folder holds."""

import base64
import csv
import html
import json
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from .. import __version__
from ..errors import OutputError
from ..output.folder import write_whole
from ..output.provenance import LIMITS
from .section import SECTIONS, Context, Section, Table

PAGE = "index.html"
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; } nav a { margin-right: 1rem; }
.limits { border: 2px solid #b45309; background: #fffbeb; padding: .6rem 1rem; border-radius: 6px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; margin: .6rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
p.note { color: #555; font-size: 13px; } img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
"""


def write_section(name: str, section: Section, context: Context) -> list[Path]:
    """Write one section and the page anew: ``<name>.md``, ``.json``, ``<name>-<n>.csv``, ``<name>-<plot>.png`` and
    ``.svg``, ``index.html``.

    Raises OutputError when the folder cannot be written.
    """
    out = context.out
    try:
        out.mkdir(parents=True, exist_ok=True)
        paths = [out / f"{name}.md", out / f"{name}.json"]
        plots = []
        for plot in section.plots:
            for kind in ("png", "svg"):
                paths.append(out / f"{name}-{plot.name}.{kind}")
                plot.figure.savefig(paths[-1], dpi=110)
            plots.append({"title": plot.title, "file": f"{name}-{plot.name}.png"})
        for number, table in enumerate(section.tables, 1):
            paths.append(out / f"{name}-{number}.csv")
            with paths[-1].open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([table.columns, *table.rows])
        document = {
            "section": name, "title": section.title, "text": section.text,
            "tables": [{"title": t.title, "columns": t.columns, "rows": t.rows, "note": t.note}
                       for t in section.tables],
            "plots": plots, "weights": context.synthesizer.loaded.identity, "extent": extent(context),
            "device": context.synthesizer.device.label, "software": __version__,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }  # fmt: skip
        write_whole(paths[0], markdown(section, plots, _made_with(document)))
        write_whole(paths[1], json.dumps(document, indent=1))
        paths.append(out / PAGE)
        write_whole(paths[-1], page(out))
    except OSError as error:
        raise OutputError(
            f'The report could not be written to "{out.name}" ({error.strerror}). Choose another folder.') from error
    return paths


def extent(context: Context) -> str:
    """In a word, how much was measured."""
    return "quick" if context.quick else "full" if context.full else "standard"


def markdown(section: Section, plots: list[dict], made_with: str) -> str:
    """The section as Markdown."""
    parts = [f"# {section.title}", section.text, made_with]
    for table in section.tables:
        parts += [f"## {table.title}", *([table.note] if table.note else []), _markdown_table(table)]
    parts += [f"![{plot['title']}]({plot['file']})" for plot in plots]
    return "\n\n".join(parts) + "\n"


def page(out: Path) -> str:
    """HTML that needs no other file, of every section in the folder that is whole."""
    documents = []
    for name in SECTIONS:
        with suppress(FileNotFoundError, ValueError):  # a section that was cut off is measured anew when asked for
            documents.append(json.loads((out / f"{name}.json").read_text(encoding="utf-8")))
    links = "".join(f'<a href="#{_text(d["section"])}">{_text(d["title"])}</a>' for d in documents)
    parts = ["<h1>NPCSynth evaluation</h1>", f"<nav>{links}</nav>",
             f'<div class="limits"><ul>{"".join(f"<li>{_text(limit)}</li>" for limit in LIMITS)}</ul></div>']
    if len({(d["weights"]["sha256"], d["weights"].get("text_sha256")) for d in documents}) > 1:
        parts.append('<p class="limits"><strong>The sections are of different weights.</strong> Evaluate into a new '
                     "folder.</p>")
    for document in documents:
        parts.append(f'<h2 id="{_text(document["section"])}">{_text(document["title"])}</h2>')
        parts += [f"<p>{_text(paragraph)}</p>" for paragraph in document["text"].split("\n\n")]
        parts.append(f'<p class="note">{_text(_made_with(document))}</p>')
        for plot in document["plots"]:
            if (out / plot["file"]).exists():
                picture = base64.b64encode((out / plot["file"]).read_bytes()).decode("ascii")
                parts.append(f'<figure><img alt="{_text(plot["title"])}" src="data:image/png;base64,{picture}">'
                             f"<figcaption>{_text(plot['title'])}</figcaption></figure>")
        parts += [_html_table(table) for table in document["tables"]]
    body = "\n".join(parts)
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>NPCSynth evaluation</title>'
            f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n")


def shown(value) -> str:
    """A cell as people read it: three significant digits, a dash for nothing."""
    if value is None or value != value:
        return "–"
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 0.001 <= abs(value) < 1000:
        return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:.3g}"


def _made_with(document: dict) -> str:
    weights = document["weights"]
    return (f"{weights['name']} {weights['version']} (sha256 {weights['sha256'][:12]}), extent {document['extent']}, "
            f"{document['device']}, NPCSynth {document['software']}.")


def _markdown_table(table: Table) -> str:
    lines = [table.columns, ["---"] * len(table.columns), *([shown(cell) for cell in row] for row in table.rows)]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def _html_table(table: dict) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in table["columns"])
    note = f'<p class="note">{_text(table["note"])}</p>' if table["note"] else ""
    lines = [f"<h3>{_text(table['title'])}</h3>", note, f'<div class="scroll"><table><tr>{head}</tr>']
    for row in table["rows"]:
        cells = ((' class="number"' if isinstance(c, (int, float)) else "", _text(shown(c))) for c in row)
        lines.append("<tr>" + "".join(f"<td{kind}>{text}</td>" for kind, text in cells) + "</tr>")
    return "\n".join([*lines, "</table></div>"])


def _text(value) -> str:
    return html.escape(str(value))
