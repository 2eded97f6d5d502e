"""What the interpreter saw happen, for the rules to judge."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field

from lightning_retrieval_guard.lint.modules import ClassInfo, Module
from lightning_retrieval_guard.lint.values import Metric, Value


@dataclass(frozen=True)
class Context:
    """Where something happens.

    Attributes:
        hook: The hook or function that Lightning or the user calls.
        functions: The functions around it, outermost first.
        guards: What the tests around it say: ``"rank zero"``, ``"batch"``.
    """

    hook: str
    functions: tuple[ast.AST, ...]
    guards: frozenset[str]

    @property
    def is_in_step(self) -> bool:
        """Whether it happens once for each batch."""
        return self.hook.endswith(("_step", "_batch_start", "_batch_end", "_step_end"))

    @property
    def is_at_epoch_end(self) -> bool:
        """Whether it happens once, after all batches."""
        return self.hook.endswith(("_epoch_end", "_validation_end", "_test_end"))

    @property
    def is_between_epochs(self) -> bool:
        """Whether it happens before or after all batches."""
        is_start = self.hook.endswith("_start") and "batch" not in self.hook
        return self.is_at_epoch_end or is_start or self.hook in ("setup", "teardown", "__init__")

    @property
    def is_evaluation(self) -> bool:
        """Whether it belongs to a validation or a test."""
        return "validation" in self.hook or "test" in self.hook


@dataclass(frozen=True)
class Event:
    """One call.

    Attributes:
        kind: ``"feed"``, ``"compute"``, ``"reset"``, ``"log"``, ``"logger"`` or ``"functional"``.
        node: The call.
        module: The file it stands in.
        context: Where it happens.
        metric: The metric, where the kind has one; ``None`` where it is not known.
        arguments: What is passed by position.
        keywords: What is passed by name.
        name: The name of the method or function.
        is_spelled_out: Whether every argument is known.
    """

    kind: str
    node: ast.Call
    module: Module
    context: Context
    metric: Metric | None = None
    arguments: tuple[Value, ...] = ()
    keywords: dict[str, Value] = field(default_factory=dict)
    name: str = ""
    is_spelled_out: bool = True

    def argument(self, position: int, name: str) -> Value | None:
        """What is passed by name or position."""
        return self.keywords.get(name, self.arguments[position] if len(self.arguments) > position else None)


@dataclass
class Story:
    """All that was seen of one class or file.

    Attributes:
        cls: The class; ``None`` for functions.
        events: Every call that matters, in order.
        stores: Where attributes of the object were set, with the value.
    """

    cls: ClassInfo | None = None
    events: list[Event] = field(default_factory=list)
    stores: dict[str, list[tuple[ast.AST, Module, Value]]] = field(default_factory=dict)

    def of(self, *kinds: str) -> Iterator[Event]:
        """The events of some kinds."""
        return (own for own in self.events if own.kind in kinds)
