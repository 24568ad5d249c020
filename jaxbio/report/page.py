"""Self-contained HTML pages for people: one file, no script, no network, from a phone's 360 px to a desktop.

It knows how a page looks, not what stands on it.

    html = page("A run", "What it is about.", section("Curves", figure(svg, "Loss by step")))
    write_page(workdir / "report.html", html)
"""

import html as html_text
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from jaxbio.data.whole_files import whole_file
from jaxbio.report.colours import css_variables
from jaxbio.report.text import printable

_STYLE = (
    f"""
:root {{ color-scheme: light dark; {css_variables(dark=False)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {css_variables(dark=True)} }} }}
"""
    + """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; background: var(--back); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.2; margin: 0.5rem 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p { margin: 0.4rem 0; max-width: 46rem; }
.note, figcaption { color: var(--soft); font-size: 0.9rem; }
.verdict { border-left: 4px solid var(--series-0); padding-left: 0.75rem; font-weight: 500; }
.blocks { display: grid; grid-template-columns: minmax(0, 1fr); gap: 1rem; }
.below { margin-top: 1rem; }
/* What a section says is its first block. Of three columns it takes one where it and the others then fill whole rows,
   and all three where the others do so alone; else the last figure takes two, its caption beside it. */
@media (min-width: 42rem) {
  .blocks { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .said:first-child:nth-last-child(2n+1) { grid-column: 1 / -1; }
}
@media (min-width: 64rem) {
  .blocks { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .below td:not(:last-child) { overflow-wrap: break-word; }
  .said:first-child:nth-last-child(2n+1) { grid-column: auto; }
  .said:first-child:nth-last-child(3n+1) { grid-column: 1 / -1; display: flex; gap: 2rem; }
  .said:first-child:nth-last-child(3n+1) > p { flex: 1 1 0; }
  .blocks > :last-child:nth-child(3n+2) { grid-column: span 2; }
  .blocks > figure:last-child:nth-child(3n+2) { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; }
}
figure { margin: 0; min-width: 0; }
figure svg, figure img { display: block; width: 100%; height: auto; }
figure svg text { fill: var(--ink); }
.scroll { overflow-x: auto; min-width: 0; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.25rem 0.75rem 0.25rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; vertical-align: top; }
td.number { white-space: nowrap; }
.blocks td:first-child { overflow-wrap: normal; }
.blocks th, .blocks td { padding-right: 0.35rem; }
td:first-child { overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 600; overflow-wrap: normal; }
@media (max-width: 42rem) {
  th { overflow-wrap: anywhere; }
  .stack thead { display: none; }
  .stack, .stack tbody, .stack tr { display: block; }
  .stack tr { padding: 0.5rem 0; border-bottom: 1px solid var(--line); }
  .stack td { display: grid; grid-template-columns: 7.5rem minmax(0, 1fr); gap: 0.75rem; border: 0; padding: 0.1rem 0; }
  .stack td::before { content: attr(data-name); color: var(--soft); white-space: normal; }
  .stack td:first-child { display: block; font-weight: 600; }
  .stack td:first-child::before { content: none; }
}
.facts { display: flex; flex-wrap: wrap; gap: 0.75rem; margin: 0.75rem 0; }
.facts div { flex: 1 1 15rem; background: var(--card); border-radius: 6px; padding: 0.5rem 0.75rem; min-width: 0; }
dt { color: var(--soft); font-size: 0.8rem; }
dd { margin: 0; font-weight: 600; }
dd.note { font-weight: 400; font-size: 0.85rem; }
code { font-size: 0.9em; }
"""
)

_NUMBER = re.compile(r"[-+]?[\d.,]+(e[-+]?\d+)?( ?%)?")


def page(title: str, intro: str, *sections: str) -> str:
    """Return a whole HTML document; `title` and `intro` are text, `sections` come from `section`."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n<p>{escape(intro)}</p>\n" + "\n".join(sections) + "\n</body></html>\n"
    )


def section(heading: str, *blocks: str, note: str = "", verdict: str = "", below: Sequence[str] = ()) -> str:
    """Return a section: what it says, figures and narrow tables side by side where there is room, and what is wide.

    `verdict` is what to think of it, in words; `note` what it shows. `below` takes the whole width.
    """
    said = "".join(
        f'<p class="{kind}">{escape(text)}</p>' for kind, text in (("verdict", verdict), ("note", note)) if text
    )
    first = f'<div class="said">{said}</div>\n' if said else ""
    inside = f'<div class="blocks">\n{first}' + "\n".join(blocks) + "\n</div>\n" if first or blocks else ""
    wide = '<div class="below">' + "\n".join(below) + "</div>\n" if below else ""
    return f"<section><h2>{escape(heading)}</h2>\n{inside}{wide}</section>"


def figure(svg: str, caption: str) -> str:
    """Return a figure with its caption."""
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>"


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Return a table of text; on a phone the cells of a row of more than two stand below each other, each named."""
    kind = ' class="stack"' if len(header) > 2 else ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = "".join("<tr>" + "".join(map(_cell, header, row)) + "</tr>\n" for row in rows)
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _cell(name: str, value: object) -> str:
    """Return a cell; a number stays on one line."""
    text = str(value)
    kind = ' class="number"' if _NUMBER.fullmatch(text) else ""
    return f'<td{kind} data-name="{escape(name)}">{escape(text)}</td>'


def facts(values: Mapping[str, object], meanings: Mapping[str, str] = MappingProxyType({})) -> str:
    """Return names with their values as a row of small cards, each with what it means where `meanings` says so."""
    cards = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
        + (f'<dd class="note">{escape(meanings[name])}</dd>' if name in meanings else "")
        + "</div>"
        for name, value in values.items()
    )
    return f'<dl class="facts">{cards}</dl>'


def paragraph(text: str) -> str:
    """Return a paragraph of text."""
    return f"<p>{escape(text)}</p>"


def escape(text: str) -> str:
    """Return `text` so that a browser shows it as it is."""
    return html_text.escape(printable(text), quote=True)


def write_page(path: os.PathLike | str, html: str) -> Path:
    """Write `html` to `path` in one move, so that a reader never sees half a page; return the path."""
    path = Path(path)
    with whole_file(path) as unfinished:
        unfinished.write_text(html, encoding="utf-8")
    return path
