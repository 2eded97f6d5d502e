"""The lines of a document as a table, for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

HEAD = ("measure", "measured", "target", "ok?")


def rows(entries: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The cells of the table."""
    lines = [line for entry in entries for line in entry["lines"].values()]
    return [(line["text"], _value(line), line["target"] or "", _verdict(line)) for line in lines]


def _value(line: dict[str, Any]) -> str:
    if line["value"] is None:
        return "not measured"
    return f"{number(line['value'])} {line['unit']}".rstrip()


def _verdict(line: dict[str, Any]) -> str:
    if line["value"] is None:
        return line["note"] or ""
    return {None: "", True: "yes", False: "NO"}[line["ok"]]


def number(value: float) -> str:
    """Three digits that count; whole numbers as they are."""
    if float(value).is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def aligned(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Columns for a terminal."""
    widths = [max(len(row[column]) for row in [head, *body]) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *body]]
    return "\n".join(line.rstrip() for line in lines)


def markdown(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    marks = ["---"] * len(head)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, marks, *body])
