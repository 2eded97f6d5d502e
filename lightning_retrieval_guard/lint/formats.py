"""What the lint found as text or JSON, for GitHub Actions and for code scanning."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.lint.finding import fix_of
from lightning_retrieval_guard.report.annotations import Annotation, RuleEntry, as_github, as_sarif
from lightning_retrieval_guard.rules.static import STATIC


@dataclass(frozen=True)
class Record:
    """One line of the result.

    Attributes:
        path: The file, as it was given or found.
        line: From 1.
        column: From 1.
        code: Of a rule, or as flake8 has it where the file cannot be read.
        text: What is said: name of the rule, what is wrong, and the fix.
        cell: Of a notebook, from 1; 0 in other files. Lines are those of the cell.
        is_fixable: Whether ``--fix`` can do it.
    """

    path: str
    line: int
    column: int
    code: str
    text: str
    cell: int = 0
    is_fixable: bool = False

    @property
    def place(self) -> str:
        """File, cell, line and column."""
        cell = f":cell {self.cell}" if self.cell else ""
        return f"{self.path}{cell}:{self.line}:{self.column}"

    @property
    def is_finding(self) -> bool:
        """Whether it is one of a rule, and not a file that cannot be read."""
        return self.code in STATIC

    @property
    def severity(self) -> Severity:
        """That of the rule."""
        return STATIC[self.code].severity if self.is_finding else Severity.ERROR

    @property
    def slug(self) -> str:
        """The name of the rule."""
        return STATIC[self.code].slug if self.is_finding else "not-read"

    @property
    def message(self) -> str:
        """What is said, without the name of the rule."""
        return self.text.removeprefix(f"{self.slug}: ")

    @property
    def annotation(self) -> Annotation:
        """The record for GitHub and SARIF."""
        return Annotation(self.code, self.slug, self.severity, self.message, self.path, self.line, self.column)


def as_text(records: Sequence[Record]) -> str:
    """A line each, as flake8 writes them."""
    return "\n".join(f"{own.place}: {own.code} {own.slug}: {own.message}" for own in records)


def as_json(records: Sequence[Record]) -> str:
    """One object with the findings and the files that could not be read."""
    places = [
        {
            "path": own.path,
            **({"cell": own.cell} if own.cell else {}),
            "line": own.line,
            "column": own.column,
            "message": own.message,
        }
        for own in records
    ]
    both = list(zip(records, places, strict=True))
    found = [
        {"code": own.code, "rule": own.slug, "severity": own.severity, **place} for own, place in both if own.is_finding
    ]
    unread = [place for own, place in both if not own.is_finding]
    return json.dumps({"version": 1, "findings": found, "unread": unread}, indent=2)


def _as_sarif(records: Sequence[Record]) -> str:
    rules = {
        code: RuleEntry(own.slug, f"{fix_of(own)} See `lightning-retrieval-guard explain {code}`.", own.severity)
        for code, own in STATIC.items()
    }
    found = [own.annotation for own in records if own.is_finding]
    return as_sarif(found, rules, [own.annotation for own in records if not own.is_finding])


FORMATS: dict[str, Callable[[Sequence[Record]], str]] = {
    "text": as_text,
    "json": as_json,
    "sarif": _as_sarif,
    "github": lambda records: as_github([own.annotation for own in records]),
}
