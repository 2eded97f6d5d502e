"""A finding, and the change that does away with it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from lightning_retrieval_guard.lint.events import Event
from lightning_retrieval_guard.lint.modules import Module
from lightning_retrieval_guard.rules.spec import RuleSpec

# What the source alone asks for, where the run can offer more.
_FIXES = {"LRG301": "Pass ids that are unique over the epoch, such as the index in the dataset."}


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

    node: ast.AST  # what it stands at
    module: Module
    rule: RuleSpec
    problem: str
    fix: str | None = None  # what to type instead; by default the rule's
    edit: Edit | None = None  # the change that does it, where there is one safe form
    functions: tuple[ast.AST, ...] = ()  # those around it

    @property
    def line(self) -> int:
        """From 1."""
        return self.node.lineno  # type: ignore[attr-defined, no-any-return]  # it is an expression or a statement

    @property
    def column(self) -> int:
        """From 0."""
        return self.node.col_offset  # type: ignore[attr-defined, no-any-return]

    @property
    def message(self) -> str:
        """What is wrong, and the fix."""
        return f"{self.problem} {self.fix or fix_of(self.rule)}"

    @property
    def text(self) -> str:
        """Code, name, what is wrong, and the fix."""
        return f"{self.rule.code} {self.rule.slug}: {self.message}"


def at(event: Event, rule: RuleSpec, problem: str, fix: str | None = None, edit: Edit | None = None) -> LintFinding:
    """A finding at the call of an event."""
    return LintFinding(event.node, event.module, rule, problem, fix, edit, event.functions)
