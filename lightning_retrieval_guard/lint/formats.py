"""What the lint found as text or JSON, for GitHub Actions and for code scanning."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.lint.finding import STATIC, fix_of
from lightning_retrieval_guard.report.annotations import Annotation, RuleEntry, as_github, as_sarif


@dataclass(frozen=True)
class Record(Annotation):
    """One line of the result: a finding, or with a code of flake8 a file that cannot be read."""

    cell: int = 0  # of a notebook, from 1; 0 in other files. Lines are those of the cell
    is_fixable: bool = False

    @property
    def is_finding(self) -> bool:
        """Whether it is one of a rule, and not a file that cannot be read."""
        return self.code in STATIC


def _as_text(records: Sequence[Record]) -> str:
    """A line each, as flake8 writes them."""
    return "\n".join(
        f"{record.path}{f':cell {record.cell}' if record.cell else ''}:{record.line}:{record.column}:"
        f" {record.code} {record.slug}: {record.message}"
        for record in records
    )


def _as_json(records: Sequence[Record]) -> str:
    """One object with the findings and the files that could not be read."""
    findings, unread = [], []
    for record in records:
        names = ("path", *(["cell"] if record.cell else []), "line", "column", "message")
        entry = {name: getattr(record, name) for name in names}
        if record.is_finding:
            findings.append({"code": record.code, "rule": record.slug, "severity": record.level, **entry})
        else:
            unread.append(entry)
    return json.dumps({"version": 1, "findings": findings, "unread": unread}, indent=2)


def _as_sarif(records: Sequence[Record]) -> str:
    rules = {
        code: RuleEntry(spec.slug, f"{fix_of(spec)} See `lightning-retrieval-guard explain {code}`.", spec.severity)
        for code, spec in STATIC.items()
    }
    unread = [record for record in records if not record.is_finding]
    return as_sarif([record for record in records if record.is_finding], rules, unread)


FORMATS: dict[str, Callable[[Sequence[Record]], str]] = {
    "text": _as_text,
    "json": _as_json,
    "sarif": _as_sarif,
    "github": as_github,
}
