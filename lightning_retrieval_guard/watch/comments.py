"""The comments in a source that keep rules quiet, such as ``# lrg: ignore[LRG203]``."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass

# every code starts with it
EVERY_RULE = "LRG"
_COMMENT = re.compile(r"#\s*lrg:\s*ignore(?:\[(?P<codes>[^\]]*)\]?|(?![\w\[-]))")


@dataclass(frozen=True)
class Comment:
    """One comment.

    Attributes:
        line: Where it stands, from 1.
        text: What the user wrote.
        patterns: Rule codes or prefixes that stay silent.
    """

    line: int
    text: str
    patterns: tuple[str, ...]


def comments_in(lines: Sequence[str]) -> list[Comment]:
    """The comments that keep rules quiet, in order; none where the source is no Python.

    Args:
        lines: The source, with line ends.
    """
    text = "".join(lines)
    if not _COMMENT.search(text):
        return []
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (SyntaxError, tokenize.TokenError):  # a notebook cell with magics, or a file that has changed
        return []
    comments = [token for token in tokens if token.type == tokenize.COMMENT]
    matches = [(token.start[0], match) for token in comments for match in [_COMMENT.search(token.string)] if match]
    return [Comment(line, match[0], _patterns(match)) for line, match in matches]


def _patterns(match: re.Match[str]) -> tuple[str, ...]:
    """The codes and prefixes of a comment; brackets with nothing in them hold one that no code starts with."""
    if match["codes"] is None:
        return (EVERY_RULE,)
    return tuple(filter(None, map(str.strip, match["codes"].split(",")))) or ("[]",)
