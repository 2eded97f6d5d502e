"""The table that closes a stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from lightning_retrieval_guard.findings import Finding, show_number
from lightning_retrieval_guard.report.text import columns, cut_front, cut_middle, pad, printable

_WIDTH = 100
_GAP = "  "
_HEADER = ("key", "code", "severity", "logged", "reference", "where")
_KEY, _NUMBERS, _WHERE = 0, (3, 4), 5
# The place is cut before the key; a few columns of each stay.
_SHORTEST = {_WHERE: 20, _KEY: 8}


def render_table(stage: str, findings: Sequence[Finding]) -> str:
    """Findings as aligned text, at most 100 columns wide: key, code, severity, both numbers, file and line."""
    rows = [_HEADER, *(_row(finding) for finding in findings)]
    widths = [max(columns(row[column]) for row in rows) for column in range(len(_HEADER))]
    for column, shortest in _SHORTEST.items():
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - _WIDTH
        widths[column] -= max(0, min(over, widths[column] - shortest))
    head, *lines = [
        _GAP.join(_cell(row, column, widths[column]) for column in range(len(row))).rstrip() for row in rows
    ]
    rule = "-" * max(map(columns, [head, *lines]))
    return "\n".join([f"RetrievalGuard: findings of {stage}", rule, head, rule, *lines, rule])


def _row(finding: Finding) -> tuple[str, ...]:
    effect = finding.effect
    severity = f"{finding.severity.value}, corrected" if finding.corrected else finding.severity.value
    numbers = ("", "") if effect is None else (show_number(effect.logged), show_number(effect.reference))
    where = f"{PurePath(finding.path).name}:{finding.line}"
    return (printable(finding.key), finding.code, severity, *numbers, printable(where))


def _cell(row: Sequence[str], column: int, width: int) -> str:
    # the number of the line stands at the end of the place, and what tells keys apart often at the end of the key
    cut = cut_front if column == _WHERE else cut_middle
    return pad(cut(row[column], width), width, right=column in _NUMBERS)
