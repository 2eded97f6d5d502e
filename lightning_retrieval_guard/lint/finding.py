"""A finding, and the change that does away with it."""

from __future__ import annotations

import ast
from dataclasses import dataclass

from lightning_retrieval_guard.lint.events import Event
from lightning_retrieval_guard.lint.modules import Module
from lightning_retrieval_guard.lint.values import Value
from lightning_retrieval_guard.rules.spec import RuleSpec

# What the source alone asks for, where the run can offer more.
_FIXES = {"LRG301": "Pass ids that are unique over the epoch, such as the index in the dataset."}


def fix_of(rule: RuleSpec) -> str:
    """What to type instead."""
    return _FIXES.get(rule.code, rule.fix)


@dataclass(frozen=True)
class Edit:
    """A change of the arguments of one call.

    Attributes:
        call: The call.
        set: Keywords with the code that they are to have.
        drop: Keywords that are to go.
    """

    call: ast.Call
    set: tuple[tuple[str, str], ...] = ()
    drop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Found:
    """One finding.

    Attributes:
        node: What it stands at.
        module: The file.
        advice: Of the rule.
        message: What is wrong.
        fix: What to type instead; by default the rule's.
        edit: The change that does it, where there is one safe form.
        functions: The functions around it.
    """

    node: ast.AST
    module: Module
    advice: RuleSpec
    message: str
    fix: str | None = None
    edit: Edit | None = None
    functions: tuple[ast.AST, ...] = ()

    @property
    def line(self) -> int:
        """From 1."""
        return self.node.lineno  # type: ignore[attr-defined, no-any-return]  # it is an expression or a statement

    @property
    def column(self) -> int:
        """From 0."""
        return self.node.col_offset  # type: ignore[attr-defined, no-any-return]

    @property
    def text(self) -> str:
        """Code, name, what is wrong, and the fix."""
        return f"{self.advice.code} {self.advice.slug}: {self.message} {self.fix or fix_of(self.advice)}"


def at(event: Event, rule: RuleSpec, message: str, fix: str | None = None, edit: Edit | None = None) -> Found:
    """A finding at the call of an event."""
    return Found(event.node, event.module, rule, message, fix, edit, event.context.functions)


def rows_of(event: Event) -> list[Value]:
    """Everything that is passed."""
    return [*event.arguments, *event.keywords.values()]
