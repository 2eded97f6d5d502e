"""What the lint found as text, JSON, SARIF 2.1.0, or commands for GitHub Actions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lightning_retrieval_guard import __version__
from lightning_retrieval_guard.rules.static import STATIC

_SARIF = "2.1.0"
_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
_ROOT = "%SRCROOT%"


@dataclass(frozen=True, order=True)
class Record:
    """One line that flake8 reports.

    Attributes:
        path: The file, as it was given or found.
        line: From 1.
        column: From 1.
        code: Of a rule, or of flake8 where the file cannot be read.
        text: What is said: name of the rule, what is wrong, and the fix.
    """

    path: str
    line: int
    column: int
    code: str
    text: str

    @property
    def is_finding(self) -> bool:
        """Whether it is one of a rule, and not a file that cannot be read."""
        return self.code in STATIC

    @property
    def severity(self) -> str:
        """That of the rule."""
        return STATIC[self.code].severity if self.is_finding else "error"

    @property
    def title(self) -> str:
        """Code and name of the rule."""
        return f"{self.code} {STATIC[self.code].slug}" if self.is_finding else f"{self.code} not-read"

    @property
    def message(self) -> str:
        """What is said, without the name of the rule."""
        return self.text.removeprefix(f"{STATIC[self.code].slug}: ") if self.is_finding else self.text


def as_text(records: Sequence[Record]) -> str:
    """A line each, as flake8 writes them."""
    return "\n".join(f"{own.path}:{own.line}:{own.column}: {own.title}: {own.message}" for own in records)


def as_json(records: Sequence[Record]) -> str:
    """One object with the findings and the files that could not be read."""
    places = [{"path": own.path, "line": own.line, "column": own.column, "message": own.message} for own in records]
    both = list(zip(records, places, strict=True))
    found = [
        {"code": own.code, "rule": STATIC[own.code].slug, "severity": own.severity, **place}
        for own, place in both
        if own.is_finding
    ]
    unread = [place for own, place in both if not own.is_finding]
    return json.dumps({"version": 1, "findings": found, "unread": unread}, indent=2)


def as_github(records: Sequence[Record]) -> str:
    """Workflow commands, which GitHub shows at the lines of a pull request."""
    return "\n".join(map(_command, records))


def _command(record: Record) -> str:
    properties = {
        "file": _relative(record.path) or record.path,
        "line": record.line,
        "col": record.column,
        "title": record.title,
    }
    written = ",".join(f"{name}={_escaped_property(str(value))}" for name, value in properties.items())
    kind = "notice" if record.severity == "note" else "warning"
    return f"::{kind} {written}::{_escaped(record.message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _relative(path: str) -> str | None:
    """The path from the working directory with forward slashes, or ``None`` for one elsewhere."""
    full, here = Path(path).absolute(), Path.cwd()
    return full.relative_to(here).as_posix() if full.is_relative_to(here) else None


# --- SARIF ------------------------------------------------------------------------------------------------------


def as_sarif(records: Sequence[Record]) -> str:
    """SARIF 2.1.0, as code scanning of GitHub and others read it."""
    driver = {"name": "lightning-retrieval-guard", "version": __version__, "rules": list(map(_rule, STATIC))}
    unread = [
        {"level": "error", "message": {"text": own.message}, "locations": [_location(own)]}
        for own in records
        if not own.is_finding
    ]
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": unread}],
        "results": [_result(own) for own in records if own.is_finding],
    }
    return json.dumps({"$schema": _SCHEMA, "version": _SARIF, "runs": [run]}, indent=2)


def _rule(code: str) -> dict[str, Any]:
    own = STATIC[code]
    return {
        "id": code,
        "name": own.slug,
        "shortDescription": {"text": own.slug.replace("-", " ").capitalize()},
        "help": {"text": f"{own.fix} See `lightning-retrieval-guard explain {code}`."},
        "defaultConfiguration": {"level": own.severity},
    }


def _result(record: Record) -> dict[str, Any]:
    return {
        "ruleId": record.code,
        "ruleIndex": list(STATIC).index(record.code),
        "level": record.severity,
        "message": {"text": record.message},
        "locations": [_location(record)],
    }


def _location(record: Record) -> dict[str, Any]:
    relative = _relative(record.path)
    artifact = {"uri": Path(record.path).absolute().as_uri()}
    if relative is not None:
        artifact = {"uri": quote(relative), "uriBaseId": _ROOT}
    region = {"startLine": record.line, "startColumn": record.column}
    return {"physicalLocation": {"artifactLocation": artifact, "region": region}}


FORMATS: dict[str, Callable[[Sequence[Record]], str]] = {
    "text": as_text,
    "json": as_json,
    "sarif": as_sarif,
    "github": as_github,
}
