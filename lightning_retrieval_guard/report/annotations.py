"""Lines of files with texts, as GitHub Actions and code scanning read them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightning_retrieval_guard import __version__
from lightning_retrieval_guard.findings import Severity


@dataclass(frozen=True)
class Annotation:
    """What is said about a line."""

    code: str  # of the rule
    slug: str  # the rule's name
    level: Severity
    message: str
    path: str
    line: int  # from 1
    column: int = 0  # from 1; 0 where it is not known

    @property
    def relative_path(self) -> str | None:
        """The path from the working directory with forward slashes, or ``None`` for one elsewhere."""
        # code scanning knows a file by its path in the repository, which the command is run in
        full, folder = Path(self.path).absolute(), Path.cwd()
        return full.relative_to(folder).as_posix() if full.is_relative_to(folder) else None


class RuleEntry(NamedTuple):
    """What SARIF says of a rule."""

    slug: str
    help: str  # how to learn more
    level: Severity


def as_github(annotations: Sequence[Annotation]) -> str:
    """Workflow commands, which GitHub shows at the lines of a pull request."""
    return "\n".join(map(_command, annotations))


def _command(annotation: Annotation) -> str:
    properties = {
        "file": annotation.relative_path or annotation.path,
        "line": annotation.line,
        **({"col": annotation.column} if annotation.column else {}),
        "title": f"{annotation.code} {annotation.slug}",
    }
    # in a property a colon or a comma would end the value
    escaped = {name: _escaped(str(value)).replace(":", "%3A").replace(",", "%2C") for name, value in properties.items()}
    written = ",".join(f"{name}={value}" for name, value in escaped.items())
    kind = "notice" if annotation.level is Severity.NOTE else annotation.level.value
    return f"::{kind} {written}::{_escaped(annotation.message)}"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def as_sarif(results: Sequence[Annotation], rules: Mapping[str, RuleEntry], unread: Sequence[Annotation] = ()) -> str:
    """SARIF 2.1.0, as code scanning of GitHub and others read it.

    Args:
        results: What was found.
        rules: By code, those of the results among them.
        unread: Files that could not be read.
    """
    # SARIF refers to a rule by its position too
    codes = list(rules)
    driver = {
        "name": "lightning-retrieval-guard",
        "version": __version__,
        "rules": [
            {
                "id": code,
                "name": rule.slug,
                "shortDescription": {"text": rule.slug.replace("-", " ").capitalize()},
                "help": {"text": rule.help},
                "defaultConfiguration": {"level": rule.level.value},
            }
            for code, rule in rules.items()
        ],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",  # without it columns count as UTF-16 does
        "invocations": [{"executionSuccessful": True, "toolExecutionNotifications": list(map(_notice, unread))}],
        "results": [
            {"ruleId": result.code, "ruleIndex": codes.index(result.code), **_notice(result)} for result in results
        ],
    }
    document = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2)


def _notice(annotation: Annotation) -> dict[str, Any]:
    from urllib.parse import quote  # a seventh of the time that the lint takes to start

    relative = annotation.relative_path
    artifact = (
        {"uri": Path(annotation.path).absolute().as_uri()}
        if relative is None
        else {"uri": quote(os.fsencode(relative)), "uriBaseId": "%SRCROOT%"}
    )
    region = {"startLine": max(1, annotation.line), **({"startColumn": annotation.column} if annotation.column else {})}
    location = {"physicalLocation": {"artifactLocation": artifact, "region": region}}
    return {"level": annotation.level.value, "message": {"text": annotation.message}, "locations": [location]}
