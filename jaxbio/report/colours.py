"""Colours of pages and figures, one for light and one for dark surroundings, under one name.

A page declares them as CSS variables, and its figures refer to the variables: they follow the reader's mode together.

    css_variables(dark=True)                  # "--ink: #e6e9ee; ..."
    refer('<path style="stroke: #0b6fb8"/>')  # '<path style="stroke: var(--series-0, #0b6fb8)"/>'
"""

import re
from typing import NamedTuple


class Colour(NamedTuple):
    """What it is in light surroundings and in dark ones, each as #rrggbb in small letters."""

    light: str
    dark: str


INK = "#1c2330"
GRID = "#e3e7ed"
# Each has a contrast of at least 3 against its background (WCAG 1.4.11).
SERIES = (
    Colour("#0b6fb8", "#5aaee8"),
    Colour("#d1495b", "#f0808e"),
    Colour("#2e8b57", "#58c48a"),
    Colour("#a87400", "#e0ad3d"),
    Colour("#6a4c93", "#b296dd"),
    Colour("#4a5568", "#a3b0c2"),
    Colour("#00798c", "#3fbfd3"),
    Colour("#c05621", "#f09a63"),
)
COLOURS: dict[str, Colour] = {
    "ink": Colour(INK, "#e6e9ee"),
    "soft": Colour("#5c6675", "#9aa5b4"),
    "line": Colour("#d9dee6", "#343c49"),
    "grid": Colour(GRID, "#2b323e"),
    "back": Colour("#ffffff", "#14181f"),
    "card": Colour("#f6f8fa", "#1c222b"),
    **{f"series-{number}": colour for number, colour in enumerate(SERIES)},
}
_NAME_OF = {colour.light: name for name, colour in COLOURS.items() if name not in ("back", "card")}
_TAG = re.compile(r"<[^<>]*>")
_KNOWN = re.compile("|".join(_NAME_OF))


def css_variables(*, dark: bool) -> str:
    """Return the declarations of all colours, for a rule on :root."""
    return " ".join(f"--{name}: {colour.dark if dark else colour.light};" for name, colour in COLOURS.items())


def refer(svg: str) -> str:
    """Return `svg` with each of the light colours in its tags as a reference to its variable; its texts stay."""
    return _TAG.sub(lambda tag: _KNOWN.sub(lambda found: f"var(--{_NAME_OF[found[0]]}, {found[0]})", tag[0]), svg)
