"""Text as HTML."""

from __future__ import annotations

import html
import re

_CONTROL = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff"
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # what turns the direction of text around
)


def escape(text: str) -> str:
    """A string of the user's as HTML: markup is text, and what no page may hold is a sign in its place."""
    return html.escape(_CONTROL.sub("\ufffd", text))


def with_code(text: str) -> str:
    """A text of the documentation as HTML, with what stands between backticks as code."""
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
