"""The few pieces of HTML that the page is made of; everything that comes from a run is escaped here.

A cell is a plain string, which is escaped, or Markup, which was made here and is not.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """HTML that was made by this module and needs no escaping."""

    __slots__ = ()


def text(words: str) -> Markup:
    """Return the words as HTML; what is Markup already stays as it is."""
    return words if isinstance(words, Markup) else Markup(html.escape(words))


def join(parts: Iterable[str]) -> Markup:
    """Return the parts one after another."""
    return Markup("\n".join(text(part) for part in parts))


def element(name: str, *parts: str, css: str = "", title: str = "") -> Markup:
    """Return an element around the parts."""
    attributes = "".join(f' {key}="{html.escape(value)}"' for key, value in (("class", css), ("title", title)) if value)
    return Markup(f"<{name}{attributes}>{''.join(text(part) for part in parts)}</{name}>")


def section(title: str, *parts: str) -> Markup:
    """Return a titled part of the page."""
    return element("section", element("h2", title), *parts)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, none: str) -> Markup:
    """Return a table that scrolls sideways on a narrow screen, or a sentence where there are no rows."""
    body = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    if not body:
        return element("p", none, css="quiet")
    head = element("thead", element("tr", *(element("th", cell) for cell in header))) if header else Markup("")
    return element("div", element("table", head, element("tbody", *body)), css="scroll")


def short_hash(value: str) -> Markup:
    """Return the first 10 digits of a hash, the whole of it on hover."""
    return element("code", value[:10] or "none", title=value)


def picture(light_png: bytes, dark_png: bytes, words: str, caption: str) -> Markup:
    """Return an inlined picture that follows the reader's light or dark mode."""
    return element(
        "figure",
        Markup(
            f'<picture><source media="(prefers-color-scheme: dark)" srcset="{_data(dark_png, "png")}">'
            f'<img src="{_data(light_png, "png")}" alt="{html.escape(words)}"></picture>'
        ),
        element("figcaption", caption),
    )


def photograph(jpeg: bytes, words: str) -> Markup:
    """Return an inlined camera frame with a caption."""
    image = Markup(f'<img src="{_data(jpeg, "jpeg")}" alt="{html.escape(words)}">')
    return element("figure", image, element("figcaption", words), css="frame")


def _data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1f2933; --quiet: #66717d; --edge: #dfe3e8; --mark: #12805c; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #14181d; --ink: #e3e8ee; --quiet: #97a1ac; --edge: #2f3740; --mark: #4fc79a; }
}
body { margin: 0 auto; max-width: 66rem; padding: 1.2rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: .5rem 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
.headline { font-size: 1.2rem; border-left: 4px solid var(--mark); padding-left: .8rem; }
.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
figure { margin: .6rem 0; } figure img { max-width: 100%; height: auto; }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); gap: .5rem; } .frame { margin: 0; }
.frame img { border-radius: 4px; width: 100%; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .92rem; min-width: 60%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--edge); }
th { color: var(--quiet); font-weight: 600; } td { font-variant-numeric: tabular-nums; }
.accept { color: var(--mark); font-weight: 600; } code { font-size: .88em; }
"""


def page(title: str, *parts: str) -> str:
    """Return the whole document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{CSS}</style></head>\n<body>\n{join(parts)}\n</body></html>\n"
    )
