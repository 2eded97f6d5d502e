"""Keeps findings, and says each of them once."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, get_args

from lightning_retrieval_guard.findings import Finding, GuardWarning, Severity
from lightning_retrieval_guard.report.table import render_table
from lightning_retrieval_guard.report.text import printable

_Action = Literal["default", "always", "ignore", "module", "once", "error"]
_ACTIONS: tuple[_Action, ...] = get_args(_Action)
_versions_told: set[str] = set()
_CATEGORY = f"{__name__.partition('.')[0]}.{GuardWarning.__name__}"


class FindingLog:
    """The findings of a run, one for each rule, key and line."""

    def __init__(self) -> None:
        self._findings: dict[tuple[str, str, str, int], Finding] = {}
        self._said: set[tuple[str, str, str, int]] = set()
        self._tabled: set[tuple[str, str, str, int]] = set()
        self._unwritten = False

    @property
    def findings(self) -> list[Finding]:
        """All findings, in the order in which they were found."""
        return list(self._findings.values())

    def add(self, findings: Iterable[Finding], say: bool) -> None:
        """Take in findings, and warn of those that are new and more than a note.

        Args:
            findings: Of one stage.
            say: Whether this process is the one that speaks.

        Raises:
            GuardWarning: The user turned the category into an error.
        """
        fresh = [self._merge(finding) for finding in findings]
        for finding in fresh:
            if say and finding.severity is not Severity.NOTE and finding.identity not in self._said:
                self._said.add(finding.identity)
                warn_at(finding)

    def _merge(self, finding: Finding) -> Finding:
        known = self._findings.get(finding.identity)
        if known is not None:
            ranks = tuple(sorted({*known.ranks, *finding.ranks}))
            effect = finding.effect if finding.effect is not None else known.effect
            merged = replace(finding, count=known.count + 1, ranks=ranks).with_effect(effect)
            # what was wrong once stays wrong, even if a later epoch shows no effect
            severity = known.severity if finding.severity is Severity.NOTE else finding.severity
            finding = replace(merged, severity=severity, corrected=known.corrected or finding.corrected)
        self._findings[finding.identity] = finding
        return finding

    def tell_unwritten(self, error: OSError, path: str, line: int) -> None:
        """Warn, once, that the report cannot be written; everything else goes on.

        Args:
            error: Why.
            path: The user's file.
            line: The line in it.
        """
        if not self._unwritten:
            self._unwritten = True
            _warn(f"RetrievalGuard: the report could not be written ({error}). The run goes on.", path, line)

    def print_table(self, stage: str) -> None:
        """Close a stage with a table of the findings that no table has shown yet."""
        new = [finding for finding in self.findings if finding.identity not in self._tabled]
        self._tabled.update(finding.identity for finding in new)
        if new:
            print(render_table(stage, new), file=sys.stderr)


def warn_at(finding: Finding) -> None:
    """Emit a finding as a warning at the user's line."""
    _warn(finding.text(), finding.path, finding.line)


def warn_of_versions(unchecked: Iterable[str], path: str, line: int) -> None:
    """Warn of packages whose version the guard was not checked with, of each once in a process.

    Args:
        unchecked: A clause for each.
        path: The user's file.
        line: The line in it.
    """
    for told in unchecked:
        if told not in _versions_told:
            _versions_told.add(told)
            _warn(
                f"RetrievalGuard: {told}. It goes on, and steps aside where it fails, but may judge or correct numbers"
                " wrongly. Install a version of that range, or a newer lightning-retrieval-guard.",
                path,
                line,
            )


def _warn(text: str, path: str, line: int) -> None:
    _heed_options(sys.warnoptions)
    text, shown = printable(text), printable(path)
    # a registry of its own: the interpreter's would swallow a second run's warnings
    warnings.warn_explicit(text, GuardWarning, shown, line, _module_at(path), registry={})


def _module_at(path: str) -> str:
    """The name of the user's module, by which filters choose; else the path without its suffix, as Python has it."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and os.path.abspath(file) == os.path.abspath(path):
            return name
    return path.removesuffix(".py")


def _heed_options(options: Iterable[str]) -> None:
    """Filter as ``python -W action:message:category:module:line`` says of the guard's category.

    Python reads these options before it can import the package, and drops them as invalid.
    """
    for option in options:
        action, message, category, module, line = [*map(str.strip, option.split(":")), "", "", "", "", ""][:5]
        chosen = next((known for known in _ACTIONS if action and known.startswith(action)), None)
        if category == _CATEGORY and chosen is not None and (line.isdigit() or not line):
            whole_module = rf"{re.escape(module)}\Z" if module else ""
            warnings.filterwarnings(chosen, re.escape(message), GuardWarning, whole_module, int(line or 0), append=True)
