"""Text for people: a number with its noun, what a terminal may print, how wide that is, and the one table printer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from itertools import accumulate

_CUT = "…"
_NARROWEST = 9
# They choose between two looks of the character before them, of which one may be wider.
_VARIATION_SELECTORS = dict.fromkeys(range(0xFE00, 0xFE10))


def several(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun, in the plural where it must be."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def printable(text: str) -> str:
    """The text on one line and without control codes, so that a key or file name cannot drive the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text.translate(_VARIATION_SELECTORS))


def columns(text: str) -> int:
    """How many columns a printable text takes: wide East Asian characters two, combining marks none."""
    return sum(map(_columns_of, text))


def _columns_of(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(char) in ("W", "F") else 1


def pad(text: str, width: int, right: bool = False) -> str:
    """The text with spaces up to ``width`` columns, before it where ``right``."""
    spaces = " " * (width - columns(text))
    return f"{spaces}{text}" if right else f"{text}{spaces}"


def cut_middle(text: str, width: int) -> str:
    """Beginning and end of a text that is wider than ``width`` columns."""
    if columns(text) <= width:
        return text
    tail = text[len(text) - _fitting(text[::-1], (width - 1) // 2) :]
    while tail and not _columns_of(tail[0]):  # a mark stays with the character that it marks
        tail = tail[1:]
    return f"{text[: _fitting(text, width - 1 - columns(tail))]}{_CUT}{tail}"


def _fitting(text: str, width: int) -> int:
    """How many characters at the beginning of a text take at most ``width`` columns."""
    return sum(taken <= width for taken in accumulate(map(_columns_of, text)))


def wrap(head: str, text: str, width: int, first: int = 0, indent: str = "  ") -> str:
    """The words of a text in lines of at most ``width`` columns, as far as no word is wider.

    Args:
        head: What comes first and stays in one line; printable.
        text: Printable.
        width: Of the lines.
        first: Columns that are taken in the first line.
        indent: Before each other line.
    """
    # Not textwrap, which counts characters: wide ones take two columns.
    lines, room = [head], width - first
    for word in text.split(" "):
        if columns(lines[-1]) + 1 + columns(word) > room:
            lines, room = [*lines, indent + word], width
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def format_table(
    rows: Sequence[Sequence[str]], width: int, *, indent: str = "", ruled: bool = True, gap: str = "  "
) -> list[str]:
    """Aligned lines of at most ``width`` columns; the first and the last column are text, those between are numbers.

    Args:
        rows: The header, and then what it heads; printable.
        width: Of the lines; the first column is cut in its middle, and then the last one.
        indent: Before each line.
        ruled: Whether a line of dashes follows the header.
        gap: Between two columns.
    """
    widths = [max(map(columns, column)) for column in zip(*rows, strict=True)]
    for index in (0, -1):
        over = columns(indent) + sum(widths) + len(gap) * (len(widths) - 1) - width
        widths[index] -= max(0, min(over, widths[index] - _NARROWEST))
    lines = []
    for row in rows:
        cut = map(cut_middle, row, widths)
        cells = [pad(text, widths[index], right=0 < index < len(row) - 1) for index, text in enumerate(cut)]
        lines.append(indent + gap.join(cells).rstrip())
    if ruled:
        lines.insert(1, indent + gap.join("-" * width for width in widths))
    return lines
