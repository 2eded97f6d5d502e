"""Text on a terminal: what may be printed, how many columns it takes, and how it is cut."""

from __future__ import annotations

import unicodedata

_CUT = "…"
# They choose between two looks of the character before them, of which one may be wider.
_VARIATION_SELECTORS = {chr(code): None for code in range(0xFE00, 0xFE10)}
_TO_NOTHING = str.maketrans(_VARIATION_SELECTORS)


def printable(text: str) -> str:
    """The text on one line and without control codes, so that a key or file name cannot drive the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text.translate(_TO_NOTHING))


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


def cut_front(text: str, width: int) -> str:
    """The end of a text that is wider than ``width`` columns."""
    return text if columns(text) <= width else f"{_CUT}{_tail(text, width - 1)}"


def cut_middle(text: str, width: int) -> str:
    """Beginning and end of a text that is wider than ``width`` columns."""
    if columns(text) <= width:
        return text
    tail = _tail(text, (width - 1) // 2)
    return f"{_head(text, width - 1 - columns(tail))}{_CUT}{tail}"


def _head(text: str, width: int) -> str:
    taken = 0
    for place, char in enumerate(text):
        taken += _columns_of(char)
        if taken > width:
            return text[:place]
    return text


def _tail(text: str, width: int) -> str:
    taken, start = 0, len(text)
    for place in range(len(text) - 1, -1, -1):
        size = _columns_of(text[place])
        taken += size
        if taken > width:
            break
        if size:  # a mark stays with the character that it marks
            start = place
    return text[start:]
