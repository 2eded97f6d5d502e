"""The rules' documentation: read from the docstrings of their modules, its single source, and shown on a terminal."""

from __future__ import annotations

import difflib
import re
import sys
import textwrap
from collections.abc import Mapping

from lightning_retrieval_guard.rules.base import Rule

HEADINGS = ("What it flags", "Why it is wrong", "Example", "Use instead", "What correct mode does")
CODE_BLOCK = re.compile(r"(?:^    .*\n(?:\n(?=    ))?)+", re.MULTILINE)
# Narrower than this, the list's last column would be a word a line.
_NARROWEST = 24
_MOST_NEAR = 5


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


# --- on a terminal ----------------------------------------------------------------------------------------------


class UnknownRuleError(LookupError):
    """No rule has that code or slug."""


def find_rule(name: str, rules: Mapping[str, Rule]) -> Rule:
    """The rule with that code or slug, in upper or lower case.

    Raises:
        UnknownRuleError: There is none; the message names those that are spelled alike.
    """
    by_spelling = {spelling.lower(): rule for rule in rules.values() for spelling in (rule.code, rule.slug)}
    wanted = name.strip().lower()
    if wanted not in by_spelling:
        near = ", ".join(f"{rule.code} {rule.slug}" for rule in _near(wanted, by_spelling))
        hint = f"near: {near}" if near else "'explain' without an argument lists all"
        raise UnknownRuleError(f"{name!r} is no code or name of a rule; {hint}")
    return by_spelling[wanted]


def _near(wanted: str, by_spelling: Mapping[str, Rule]) -> list[Rule]:
    """The rules that are spelled alike, and then those whose spelling contains it."""
    spellings = difflib.get_close_matches(wanted, by_spelling)
    if wanted:
        spellings += [spelling for spelling in by_spelling if wanted in spelling]
    return list({by_spelling[spelling].code: by_spelling[spelling] for spelling in spellings}.values())[:_MOST_NEAR]


def render_rule(rule: Rule, width: int) -> str:
    """The whole documentation of a rule.

    Args:
        rule: The rule.
        width: Of the lines of prose, in columns; code is not wrapped.
    """
    static = ", also by lint" if rule.spec.static else ""
    parts = [f"{rule.code} {rule.slug} ({rule.severity.value}{static})"]
    for heading, body in sections(rule).items():
        parts += [heading, *_blocks(body, width)]
    return "\n\n".join(parts)


def _blocks(text: str, width: int) -> list[str]:
    """Paragraphs, filled, and blocks of code, in order and indented."""
    parts = re.split(rf"({CODE_BLOCK.pattern})", f"{text}\n", flags=re.MULTILINE)
    blocks = []
    for number, part in enumerate(parts):
        if number % 2:
            blocks.append(part.rstrip("\n"))
        else:
            paragraphs = filter(str.strip, re.split(r"\n{2,}", part))
            blocks += [_fill(paragraph, width, "  ", "  ") for paragraph in paragraphs]
    return blocks


def render_list(rules: Mapping[str, Rule], width: int) -> str:
    """All rules in order of their codes: code, slug, severity and what each flags, in one sentence.

    Args:
        rules: The rules by code.
        width: Of the lines, in columns.
    """
    ordered = [rule for _, rule in sorted(rules.items())]
    slug = max(len(rule.slug) for rule in ordered)
    severity = max(len(rule.severity.value) for rule in ordered)
    heads = [f"{rule.code}  {rule.slug:{slug}}  {rule.severity.value:{severity}}  " for rule in ordered]
    if width - len(heads[0]) < _NARROWEST:
        return "\n".join(
            f"{head.rstrip()}\n{_fill(first_sentence(rule), width, '    ', '    ')}"
            for head, rule in zip(heads, ordered, strict=True)
        )
    return "\n".join(
        _fill(first_sentence(rule), width, head, " " * len(head)) for head, rule in zip(heads, ordered, strict=True)
    )


def _fill(text: str, width: int, first: str, other: str) -> str:
    return textwrap.fill(
        " ".join(text.split()),
        width,
        initial_indent=first,
        subsequent_indent=other,
        break_long_words=False,
        break_on_hyphens=False,
    )
