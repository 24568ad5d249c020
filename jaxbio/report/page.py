"""Self-contained HTML pages for people: one file, no script, no network, from a phone's 360 px to a desktop.

It knows how a page looks, not what stands on it.

    html = page("A run", "What it is about.", section("Curves", figure(svg, "Loss by step")))
    write_page(workdir / "report.html", html)
"""

import html as html_text
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxbio.data.whole_files import whole_file

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5c6675; --line: #d9dee6; --back: #ffffff; --card: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ee; --soft: #9aa5b4; --line: #343c49; --back: #14181f; --card: #1c222b; }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: 0.4rem 0; max-width: 46rem; }
.note, figcaption { color: var(--soft); font-size: 0.9rem; }
.blocks { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: 1rem; }
.blocks > .wide { grid-column: 1 / -1; }
figure { margin: 0; min-width: 0; }
figure svg, figure img { display: block; width: 100%; height: auto; background: #ffffff; border-radius: 6px; }
.scroll { overflow-x: auto; min-width: 0; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: normal; vertical-align: top; }
th { color: var(--soft); font-weight: 600; }
@media (max-width: 40rem) {
  .stack thead { display: none; }
  .stack, .stack tbody, .stack tr { display: block; }
  .stack tr { padding: 0.5rem 0; border-bottom: 1px solid var(--line); }
  .stack td { display: grid; grid-template-columns: 6rem 1fr; gap: 0.75rem; border: 0; padding: 0.1rem 0;
    overflow-wrap: anywhere; }
  .stack td::before { content: attr(data-name); color: var(--soft); }
}
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.75rem; margin: 0.75rem 0; }
dl div { background: var(--card); border-radius: 6px; padding: 0.5rem 0.75rem; min-width: 0; }
dt { color: var(--soft); font-size: 0.8rem; }
dd { margin: 0; font-weight: 600; }
code { font-size: 0.9em; }
"""


def page(title: str, intro: str, *sections: str) -> str:
    """Return a whole HTML document; `title` and `intro` are text, `sections` come from `section`."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n<p>{escape(intro)}</p>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def section(heading: str, *blocks: str, note: str = "") -> str:
    """Return a section; its blocks stand side by side where there is room, below each other on a phone."""
    said = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return (
        f'<section><h2>{escape(heading)}</h2>\n{said}<div class="blocks">\n' + "\n".join(blocks) + "\n</div></section>"
    )


def figure(svg: str, caption: str, *, wide: bool = False) -> str:
    """Return a figure with its caption; a wide one takes the whole width of the page."""
    kind = ' class="wide"' if wide else ""
    return f"<figure{kind}>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Return a table of text; on a phone the cells of a row of more than three stand below each other, each named."""
    kind = ' class="stack"' if len(header) > 3 else ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join(
        "<tr>"
        + "".join(f'<td data-name="{escape(name)}">{escape(str(cell))}</td>' for name, cell in zip(header, row))
        + "</tr>\n"
        for row in rows
    )
    return f'<div class="scroll wide"><table{kind}><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def facts(values: Mapping[str, object]) -> str:
    """Return names with their values as a row of small cards."""
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd></div>" for name, value in values.items()
    )
    return f'<dl class="wide">{cards}</dl>'


def paragraph(text: str) -> str:
    """Return a paragraph of text over the whole width."""
    return f'<p class="wide">{escape(text)}</p>'


def escape(text: str) -> str:
    """Return `text` so that a browser shows it as it is."""
    return html_text.escape(text, quote=True)


def write_page(path: os.PathLike | str, html: str) -> Path:
    """Write `html` to `path` in one move, so that a reader never sees half a page; return the path."""
    path = Path(path)
    with whole_file(path) as unfinished:
        unfinished.write_text(html, encoding="utf-8")
    return path
