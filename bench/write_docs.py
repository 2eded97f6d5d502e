"""Puts measured numbers into the documentation, between the marks that stand there for each part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench import figure
from bench.marks import put
from bench.registry import BENCHES
from bench.table import HEAD, markdown, number, rows

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
FIGURE = DOCS / "performance-rows.svg"

Entries = Mapping[str, Any]


def refresh(entries: Entries) -> None:
    """Rewrite the parts of the page that hold numbers; one whose bench was not run stays as it is.

    Args:
        entries: The benches of a document, by name.
    """
    page = PAGE.read_text()
    for mark, part in PARTS.items():
        text = part(entries)
        if text is not None:
            page = put(page, mark, text)
    PAGE.write_text(page)
    points = entries.get("growth", {}).get("data", {}).get("points")
    if points:
        figure.draw(points, FIGURE)


def measured(entries: Entries) -> str | None:
    """The whole table, in the order of the benches."""
    ordered = [entries[name] for name in BENCHES if name in entries]
    return markdown(HEAD, rows(ordered)) if ordered else None


def surroundings(entries: Entries) -> str | None:
    """What the numbers were measured on."""
    found = [entry["on"] for entry in entries.values()]
    if not found:
        return None
    packages = ", ".join(f"{name} {version}" for name, version in found[-1]["packages"].items())
    quick = " A short run (`--quick`)." if any(entry["quick"] for entry in entries.values()) else ""
    return f"Python {found[-1]['python']}, {packages}; {found[-1]['cores']} cores, {found[-1]['machine']}.{quick}"


def curves(entries: Entries) -> str | None:
    """The points of the figure as a table."""
    points = entries.get("growth", {}).get("data", {}).get("points")
    if not points:
        return None
    sizes = [int(point[0]) for point in points["floor"]]
    names = [name for name in figure.LABELS if name in points]
    seconds = {name: dict(map(tuple, points[name])) for name in names}
    body = [[_power(size), *(_seconds(seconds[name].get(size)) for name in names)] for size in sizes]
    return markdown(["rows", *(figure.LABELS[name] for name in names)], body)


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if seconds >= 3600:
        return f"{number(seconds / 3600)} h"
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(seconds * 1000)} ms"


def _power(count: float) -> str:
    """A count in the form 1.2e6."""
    mantissa, exponent = f"{count:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


PARTS: dict[str, Callable[[Entries], str | None]] = {
    "measured": measured,
    "surroundings": surroundings,
    "curves": curves,
}
