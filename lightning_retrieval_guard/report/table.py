"""The table that closes a stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from lightning_retrieval_guard.findings import Finding, show_number

_WIDTH = 100
_HEADER = ("key", "code", "severity", "logged", "reference", "where")
_NUMBERS = (3, 4)


def render_table(stage: str, findings: Sequence[Finding]) -> str:
    """Findings as aligned text, at most 100 columns wide: key, code, severity, both numbers, file and line."""
    rows = [_HEADER, *(_row(finding) for finding in findings)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    over = max(0, sum(widths) + 2 * (len(widths) - 1) - _WIDTH)
    widths[5] -= min(over, max(0, widths[5] - 12))
    over = max(0, sum(widths) + 2 * (len(widths) - 1) - _WIDTH)
    widths[0] -= min(over, max(0, widths[0] - 8))
    lines = ["  ".join(_cell(row, column, widths[column]) for column in range(len(row))).rstrip() for row in rows]
    rule = "-" * max(len(line) for line in lines)
    return "\n".join([f"RetrievalGuard: findings of {stage}", rule, lines[0], rule, *lines[1:], rule])


def _row(finding: Finding) -> tuple[str, ...]:
    effect = finding.effect
    severity = f"{finding.severity.value}, corrected" if finding.corrected else finding.severity.value
    numbers = ("", "") if effect is None else (show_number(effect.logged), show_number(effect.reference))
    where = f"{PurePath(finding.path).name}:{finding.line}"
    return (printable(finding.key), finding.code, severity, *numbers, printable(where))


def _cell(row: Sequence[str], column: int, width: int) -> str:
    text = row[column] if len(row[column]) <= width else f"{row[column][: width - 1]}…"
    return text.rjust(width) if column in _NUMBERS else text.ljust(width)


def printable(text: str) -> str:
    """The text without control codes, so that a key or file name cannot drive the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
