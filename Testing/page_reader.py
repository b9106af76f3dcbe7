"""Reads an HTML page strictly enough to say what a screen reader would meet."""

from html.parser import HTMLParser

_VOID = {"meta", "img", "br", "input", "link", "hr"}


class Page(HTMLParser):
    """What is on a page.

    Attributes:
        text: all that a person reads, pictures and styles left out.
        elements: (tag, attributes) in order.
        tables: each a list of rows, each a list of texts of its cells.
    """

    def __init__(self, html: str):
        super().__init__()
        self.text, self.elements, self.tables = "", [], []
        self._open = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def every(self, tag: str) -> list[dict]:
        """Attributes of each element of that tag."""
        return [attributes for name, attributes in self.elements if name == tag]

    def handle_starttag(self, tag, attrs):
        """Called by HTMLParser."""
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, tag):
        """Called by HTMLParser."""
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        """Called by HTMLParser."""
        if "style" in self._open:
            return
        self.text += data
        if {"td", "th"} & set(self._open):
            self.tables[-1][-1][-1] += data
