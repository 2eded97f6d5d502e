"""The rules that source alone can show, a finding of one, and the change that does away with it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from lightning_retrieval_guard.lint.events import Event
from lightning_retrieval_guard.lint.source import Function, SourceFile, column_of, lines_of
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.base import RuleSpec

STATIC: dict[str, RuleSpec] = {code: rule.spec for code, rule in REGISTRY.items() if rule.spec.static}
"""The rules that the lint finds too, by code."""

LRG101, LRG201, LRG202, LRG203, LRG204, LRG207, LRG301, LRG302, LRG306, LRG405 = STATIC.values()

# What the source alone asks for, where the run can offer more.
_FIXES = {LRG301.code: "Pass ids that are unique over the epoch, such as the index in the dataset."}


def fix_of(rule: RuleSpec) -> str:
    """What to type instead."""
    return _FIXES.get(rule.code, rule.fix)


@dataclass(frozen=True)
class Edit:
    """A change of the arguments of one call."""

    call: ast.Call
    set: tuple[tuple[str, str], ...] = ()  # keywords with the code that they are to have
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class LintFinding:
    """One finding."""

    node: ast.expr  # what it stands at
    source: SourceFile
    rule: RuleSpec
    message: str  # what is wrong, and the fix
    edit: Edit | None = None  # the change that does it, where there is one safe form
    functions: tuple[Function, ...] = ()  # those around it

    @property
    def line(self) -> int:
        """From 1."""
        return self.node.lineno

    @property
    def column(self) -> int:
        """From 0, in characters."""
        return column_of(lines_of(self.source.text)[self.line - 1], self.node.col_offset)


def at(event: Event, rule: RuleSpec, problem: str, fix: str = "", edit: Edit | None = None) -> LintFinding:
    """A finding at the call of an event."""
    if edit is not None and edit.call is event.node:
        written = {keyword.arg for keyword in edit.call.keywords}
        changed = {name for name, _ in edit.set}.union(edit.drop)
        # what ** or a position passes cannot be written a second time
        if None in written or (event.arguments.keywords.keys() & changed) - written:
            edit = None
    return LintFinding(event.node, event.source, rule, f"{problem} {fix or fix_of(rule)}", edit, event.functions)
