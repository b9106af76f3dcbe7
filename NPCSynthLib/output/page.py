"""HTML pages that need no other file: how they look on the screen and on paper, and what they are put together from."""

import html
from collections.abc import Iterable, Sequence

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c;
  background: #fff; }
h1 { margin: 0; } h2 { margin-top: 2.2rem; }
.mark { color: #8a3b00; font-weight: bold; letter-spacing: .04em; margin: 0; }
.small { font-size: .85em; font-weight: normal; color: #444; }
.limits { border: 2px solid #b45309; background: #fffbeb; padding: 0 1rem .4rem; border-radius: 6px; margin-top: 1rem; }
.limits h2 { margin-top: .6rem; }
.alarm { border-left: 4px solid #b91c1c; }
table { border-collapse: collapse; margin: .6rem 0; min-width: 30rem; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid #ccc; text-align: left; vertical-align: top; }
tbody th { font-weight: 600; }
table.wide th, table.wide td { padding: .25rem .45rem; font-size: .9em; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
table.fill { width: 100%; } td.tick { width: 4rem; text-align: center; }
table.fill tbody th { width: 45%; }
input[type=checkbox] { width: 1.3em; height: 1.3em; }
input.remark { width: 97%; } input.initials { width: 5em; }
.line { display: inline-block; width: 18em; border-bottom: 1px solid #555; } .line.short { width: 8em; }
img { width: 100%; height: auto; border-radius: 4px; }
figure { margin: 1rem 0; } figcaption { font-weight: 600; }
@page { size: A4; margin: 16mm 14mm;
  @top-center { content: "SYNTHETIC \\2013 research use only \\2013 not a medical device"; font: 9pt sans-serif;
    color: #8a3b00; }
  @bottom-right { content: counter(page) " / " counter(pages); font: 9pt sans-serif; } }
@media print {
  body { font-size: 10pt; max-width: none; margin: 0; padding: 0; } table { min-width: 110mm; }
  h2 { margin-top: 1rem; } figure { margin: .4rem 0; }
  section.pictures, section.checklist { break-before: page; }
  h2, caption { break-after: avoid; } figure, tr, .limits { break-inside: avoid; }
  figure img { max-height: 108mm; width: auto; max-width: 100%; display: block; }
  thead { display: table-header-group; }
  table.wide th, table.wide td { padding: .15rem .25rem; font-size: 7.5pt; }
  .limits, .mark, img { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  input[type=text] { border: 0; border-bottom: 1px solid #555; min-height: 7mm; }
}
"""


def page(title: str, content: str) -> str:
    """The whole page around its content, both HTML; ``title`` is plain text."""
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{text(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{content}\n</main>\n</body>\n</html>\n"
    )


def section(title: str, content: str, kind: str = "") -> str:
    """A part with a heading; ``kind`` is its class in the style."""
    identifier = "".join(c if c.isalnum() else "-" for c in title.lower())
    return (f"<section class='{kind}' aria-labelledby='{identifier}'><h2 id='{identifier}'>{text(title)}</h2>"
            f"{content}</section>")  # fmt: skip


def facts(rows: Iterable[tuple]) -> str:
    """Name and value, one below the other."""
    lines = "".join(f"<tr><th scope='row'>{text(name)}</th><td>{text(value)}</td></tr>" for name, value in rows)
    return f"<table><tbody>{lines}</tbody></table>"


def table(head: Sequence[str], rows: Iterable[Sequence], caption: str = "", kind: str = "") -> str:
    """Rows of plain values, the first of each heads its row; None is an empty cell. ``Markup`` is taken as it is."""
    cells = "".join(f"<th scope='col'>{text(name)}</th>" for name in head)
    lines = []
    for first, *others in rows:
        values = "".join(f"<td{_number(cell)}>{text('' if cell is None else cell)}</td>" for cell in others)
        lines.append(f"<tr><th scope='row'>{text(first)}</th>{values}</tr>")
    described = f"<caption>{text(caption)}</caption>" if caption else ""
    return (f"<table class='{kind}'>{described}<thead><tr>{cells}</tr></thead><tbody>"
            + "\n".join(lines) + "</tbody></table>")  # fmt: skip


def bullets(sentences: Iterable[str], kind: str = "") -> str:
    """Plain sentences as a list."""
    return f"<ul class='{kind}'>" + "".join(f"<li>{text(sentence)}</li>" for sentence in sentences) + "</ul>"


class Markup(str):
    """Text that is HTML already."""


def text(value) -> str:
    """A plain value for a page."""
    return str(value) if isinstance(value, Markup) else html.escape(str(value))


def _number(cell) -> str:
    return ' class="number"' if str(cell).lstrip("-")[:1].isdigit() and len(str(cell)) < 10 else ""
