"""What the interpreter remembers while it runs, and what its parts ask of each other."""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lightning_retrieval_guard.lint.events import Context, Event, Story
from lightning_retrieval_guard.lint.modules import ClassInfo, Module
from lightning_retrieval_guard.lint.values import Callee, Lead, Value

_MOST_STEPS = 10_000
_MOST_STEPS_OF_CLASS = 60_000


class TooLong(Exception):  # noqa: N818 - it is no error
    """The source is longer than what is followed."""


@dataclass(eq=False)
class Instance(Value):
    """The object that methods of a class belong to."""

    cls: ClassInfo | None
    attributes: dict[str, Value] = field(default_factory=dict)


@dataclass
class Frame:
    """One call of a function."""

    module: Module
    function: ast.AST
    names: dict[str, Value]
    cls: ClassInfo | None = None
    returned: list[Value] = field(default_factory=list)


class State(ABC):
    """The state of an interpreter.

    Args:
        story: Where events are noted.
    """

    def __init__(self, story: Story) -> None:
        self.story = story
        self.instance = Instance(story.cls)
        self.hook = ""
        self.is_recording = False
        self.frames: list[Frame] = []
        self.guards: list[str] = []
        self.steps = 0
        self.all_steps = 0
        self.loop_lead: Lead | None = None
        self.bare_call: ast.expr | None = None
        self.called: set[ast.AST] = set()

    @cached_property
    def asked_keys(self) -> list[str]:
        """The strings that the class may ask dictionaries for."""
        nodes = [
            node for cls in (self.instance.cls.lineage if self.instance.cls else []) for node in ast.walk(cls.node)
        ]
        asked = [own for node in nodes if isinstance(node, ast.Call) for own in node.args]
        asked += [node.slice for node in nodes if isinstance(node, ast.Subscript)]
        names = (own.value for own in asked if isinstance(own, ast.Constant) and isinstance(own.value, str))
        return sorted({name for name in names if name.isidentifier()})

    @property
    def frame(self) -> Frame:
        """The function that is interpreted now."""
        return self.frames[-1]

    def step(self) -> None:
        """Counts a statement or expression."""
        self.steps += 1
        self.all_steps += 1
        if self.steps > _MOST_STEPS or self.all_steps > _MOST_STEPS_OF_CLASS:
            raise TooLong

    def note(self, kind: str, node: ast.Call, **parts: Any) -> None:
        """Notes what happens here."""
        if self.is_recording:
            functions = tuple(own.function for own in self.frames)
            context = Context(self.hook, functions, frozenset(self.guards))
            self.story.events.append(Event(kind, node, self.frame.module, context, **parts))

    @contextmanager
    def guarded(self, guards: set[str]) -> Iterator[None]:
        """What tests say, while the code under them runs."""
        count = len(self.guards)
        self.guards += guards
        try:
            yield
        finally:
            del self.guards[count:]

    def method(self, name: str, after: ClassInfo | None = None) -> Callee | None:
        """A method of the object, or of the classes after one."""
        lineage = self.instance.cls.lineage if self.instance.cls else []
        start = next((number + 1 for number, own in enumerate(lineage) if after and own.node is after.node), 0)
        for cls in lineage[start:]:
            if name in cls.methods:
                return Callee(cls.methods[name], cls.module, cls, self.instance)
        return None

    def is_a(self, *names: str) -> bool:
        """Whether the object surely is one of Lightning or torch."""
        return self.instance.cls is not None and self.instance.cls.derives(*names)

    @abstractmethod
    def eval(self, node: ast.expr) -> Value:
        """What is known of an expression."""

    @abstractmethod
    def call_function(self, callee: Callee, arguments: Sequence[Value], keywords: dict[str, Value]) -> Value:
        """What a function of the source returns."""

    @abstractmethod
    def attribute(self, name: str) -> Value:
        """What ``self.name`` is."""

    @abstractmethod
    def store(self, name: str, value: Value, node: ast.AST | None) -> None:
        """``self.name = value``."""

    @abstractmethod
    def replace_value(self, node: ast.expr, value: Value) -> None:
        """The object behind an expression changed."""

    @abstractmethod
    def assign(self, target: ast.expr, value: Value) -> None:
        """``target = value``."""
