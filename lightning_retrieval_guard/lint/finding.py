"""What a check of the source finds, and what all checks share."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from lightning_retrieval_guard.lint.classes import Classes
from lightning_retrieval_guard.lint.metrics import Metrics
from lightning_retrieval_guard.lint.source import Source
from lightning_retrieval_guard.rules.spec import RuleSpec

STEPS = ("training_step", "validation_step", "test_step", "predict_step")


@dataclass(frozen=True)
class Found:
    """One finding.

    Attributes:
        node: What it stands at.
        advice: Of the rule.
        message: What is wrong.
        fix: What to type instead; by default the rule's.
    """

    node: ast.expr
    advice: RuleSpec
    message: str
    fix: str | None = None

    @property
    def text(self) -> str:
        """Code, name, what is wrong, and the fix."""
        return f"{self.advice.code} {self.advice.slug}: {self.message} {self.fix or self.advice.fix}"


class File:
    """One file as the checks see it."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.classes = Classes(source)
        self.metrics = Metrics(source, self.classes)

    @cached_property
    def calls(self) -> list[ast.Call]:
        """Every call, outer ones first."""
        return [node for node in self.source.nodes if isinstance(node, ast.Call)]

    def method_calls(self, *names: str) -> Iterator[tuple[ast.Call, ast.expr]]:
        """Calls of methods by name, each with the expression that has the method."""
        for call in self.calls:
            if isinstance(call.func, ast.Attribute) and call.func.attr in names:
                yield call, call.func.value

    def calls_torch(self, call: ast.Call, *names: str) -> bool:
        """Whether a call is one of torch's functions by its last name, such as ``get_rank``."""
        dotted = self.source.dotted(call.func)
        return dotted.startswith("torch.") and dotted.rpartition(".")[2] in names

    def is_in_step(self, node: ast.AST) -> bool:
        """Whether a node stands in a step of a LightningModule, and not in a function within it."""
        method = self.source.method_of(node)
        if method is None or self.source.function_of(node) is not method[0]:
            return False
        return method[0].name in STEPS and self.classes.derives(method[1], "LightningModule")

    def same(self, one: ast.expr, other: ast.expr) -> bool:
        """Whether two expressions surely are the same object, by what builds it."""
        return self.classes.resolve(one) is self.classes.resolve(other)

    def is_true(self, node: ast.expr | None) -> bool:
        """Whether an expression is the constant ``True``."""
        value = None if node is None else self.classes.resolve(node)
        return isinstance(value, ast.Constant) and value.value is True


def keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The argument that is passed by name."""
    return next((own.value for own in call.keywords if own.arg == name), None)
