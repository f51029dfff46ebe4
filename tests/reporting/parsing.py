"""A strict reader of our own HTML: every element is closed, every attribute unique."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Attributes = dict[str, str | None]

VOID = {"br", "col", "img", "link", "meta"}
# What HTML's own parser closes by itself does not appear in our pages.
LOADING = {"src", "href", "srcset", "data", "poster", "action", "background", "formaction"}


class Document(HTMLParser):
    """Elements in order, with the text of all of them."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, Attributes]] = []
        self.open: list[str] = []
        self.text = ""
        self.title = ""
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.cells: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute is given twice: {tag} {names}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.cells.append([])
        if tag in {"td", "th"}:
            self.cells[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert "svg" in self.open, f"<{tag}/> outside SVG"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside in {"script", "style"}:
            (self.scripts if inside == "script" else self.styles).append(data)
            return
        self.text += data
        if inside == "title" and "svg" not in self.open:
            self.title += data
        if "td" in self.open or "th" in self.open:
            self.cells[-1][-1] += data

    def attributes(self, name: str) -> list[str]:
        """Return every value of an attribute."""
        return [str(attrs[name]) for _, attrs in self.elements if name in attrs]

    def outside_references(self) -> list[str]:
        """Return whatever a browser could load from outside the document."""
        references = [
            value
            for name in LOADING
            for value in self.attributes(name)
            if not value.startswith(("#", "data:"))
        ]
        styles = [*self.styles, *self.attributes("style")]
        for style in styles:
            references += [url for url in re.findall(r"url\(([^)]*)\)", style) if url[0] != "#"]
            references += re.findall(r"@import.*", style)
        return references

    def images(self) -> list[tuple[Attributes, NDArray[np.uint8]]]:
        """Return the attributes and the decoded pixels of each image."""
        result = []
        for tag, attributes in self.elements:
            if tag == "img":
                content = base64.b64decode(str(attributes["src"]).split(",")[1])
                result.append((attributes, np.asarray(Image.open(io.BytesIO(content)))))
        return result


def parse(html: str) -> Document:
    document = Document()
    # A plain string: what is cut out of a Markup is escaped again.
    document.feed(str(html))
    document.close()
    assert document.open == []
    return document
