"""What the interpreter remembers while it runs, and what its parts ask of each other."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from lightning_retrieval_guard.lint.events import Event, Story
from lightning_retrieval_guard.lint.modules import ClassInfo
from lightning_retrieval_guard.lint.values import (
    Arguments,
    Callee,
    Const,
    Items,
    Lead,
    Mapping,
    Metric,
    Text,
    Value,
)

_MOST_STEPS = 10_000
_MOST_STEPS_OF_CLASS = 60_000


class TooLong(Exception):  # noqa: N818 - it is no error
    """The source is longer than what is followed."""


@dataclass(eq=False)
class Instance(Value):
    """The object that methods of a class belong to."""

    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass
class Frame:
    """One call of a function."""

    callee: Callee
    names: dict[str, Value] = field(default_factory=dict)
    returned: list[Value] = field(default_factory=list)


class State:
    """The state of an interpreter, which notes events in a story."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.instance = Instance()
        self.lineage = story.cls.lineage if story.cls else []
        self.hook = ""
        self.is_recording = False
        self.frames: list[Frame] = []
        self.guards: list[str] = []
        self.steps = 0
        self.all_steps = 0
        self.loop_lead: Lead | None = None
        self.bare_call: ast.expr | None = None
        self.called: set[ast.AST] = set()

    @property
    def frame(self) -> Frame:
        """The function that is interpreted now."""
        return self.frames[-1]

    @cached_property
    def _asked_keys(self) -> list[Value]:
        """The strings that the class may ask dictionaries for."""
        nodes = self.story.cls.nodes if self.story.cls else []
        asked = [argument for node in nodes if isinstance(node, ast.Call) for argument in node.args]
        asked += [node.slice for node in nodes if isinstance(node, ast.Subscript)]
        names = {node.value for node in asked if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        return [Const(name) for name in sorted(names) if name.isidentifier()]

    def items_of(self, value: Value) -> list[Value] | None:
        """The items of what is iterated, where they are known one by one."""
        if isinstance(value, Mapping):
            # of keys that are not known, those matter that are asked for
            return [Const(key) for key, _ in value.items] if value.rest is None else [*self._asked_keys, Text()]
        return list(value.items) if isinstance(value, Items) else None

    def step(self) -> None:
        """Counts a statement or expression."""
        self.steps += 1
        self.all_steps += 1
        if self.steps > _MOST_STEPS or self.all_steps > _MOST_STEPS_OF_CLASS:
            raise TooLong

    def note(
        self, kind: str, node: ast.Call, arguments: Arguments, metric: Metric | None = None, name: str = ""
    ) -> None:
        """Notes what happens here."""
        if self.is_recording:
            functions = tuple(frame.callee.function for frame in self.frames)
            module, guards = self.frame.callee.module, frozenset(self.guards)
            self.story.events.append(Event(kind, node, module, self.hook, functions, guards, arguments, metric, name))

    @contextmanager
    def guarded(self, guards: Set[str]) -> Iterator[None]:
        """What tests say, while the code under them runs."""
        count = len(self.guards)
        self.guards += guards
        try:
            yield
        finally:
            del self.guards[count:]

    def method(self, name: str, after: ClassInfo | None = None) -> Callee | None:
        """A method of the object, or of the classes after one."""
        start = next((number + 1 for number, cls in enumerate(self.lineage) if after and cls.node is after.node), 0)
        for cls in self.lineage[start:]:
            if name in cls.methods:
                return Callee(cls.methods[name], cls.module, cls, self.instance)
        return None

    def is_a(self, *names: str) -> bool:
        """Whether the object surely is one of Lightning or torch."""
        return self.story.cls is not None and self.story.cls.derives(*names)

    # --- what the parts that build on each other do -----------------------------------------------------------------

    def eval(self, node: ast.expr) -> Value:
        """What is known of an expression."""
        raise NotImplementedError

    def call_function(self, callee: Callee, arguments: Arguments) -> Value:
        """What a function of the source returns."""
        raise NotImplementedError

    def attribute(self, name: str) -> Value:
        """What ``self.name`` is."""
        raise NotImplementedError

    def assign(self, target: ast.expr, value: Value) -> None:
        """``target = value``."""
        raise NotImplementedError

    def store(self, name: str, value: Value, node: ast.AST | None) -> None:
        """``self.name = value``."""
        raise NotImplementedError

    def replace_value(self, node: ast.expr, value: Value) -> None:
        """The object behind an expression changed."""
        raise NotImplementedError
