"""The rules' documentation: read from the docstrings of their modules, its single source."""

from __future__ import annotations

import re
import sys
import textwrap

from lightning_retrieval_guard.rules.base import Rule

HEADINGS = ("What it flags", "Why it is wrong", "Example", "Use instead", "What correct mode does")
CODE_BLOCK = re.compile(r"(?:^    .*\n(?:\n(?=    ))?)+", re.MULTILINE)


def documentation(rule: Rule) -> str:
    """The documentation of a rule: the docstring of its module.

    Raises:
        ValueError: There is none, as with ``python -OO``.
    """
    text = sys.modules[type(rule).__module__].__doc__
    if text is None:
        raise ValueError(f"{rule.code} has no documentation. Run Python without -OO.")
    return text


def sections(rule: Rule) -> dict[str, str]:
    """The documentation of a rule by heading, in order."""
    _, *parts = re.split(r"^## ", documentation(rule), flags=re.MULTILINE)
    return {heading: body.strip("\n") for heading, _, body in (part.partition("\n") for part in parts)}


def reason(rule: Rule) -> str | None:
    """Why what a rule flags is wrong; ``None`` where Python runs without docstrings."""
    return sections(rule)[HEADINGS[1]] if sys.modules[type(rule).__module__].__doc__ is not None else None


def first_sentence(rule: Rule) -> str:
    """What a rule flags, in one sentence."""
    return re.split(r"(?<=\.)\s", " ".join(sections(rule)[HEADINGS[0]].split()), maxsplit=1)[0]


def code_blocks(text: str) -> list[str]:
    """The indented blocks of a text, without their indentation."""
    return [textwrap.dedent(block).strip("\n") for block in CODE_BLOCK.findall(f"{text}\n")]
