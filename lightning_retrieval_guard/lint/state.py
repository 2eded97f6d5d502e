"""What the interpreter remembers while it runs: names, attributes, guards and what happened."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from lightning_retrieval_guard.lint.events import Event, Story
from lightning_retrieval_guard.lint.modules import ClassInfo
from lightning_retrieval_guard.lint.tensors import subscript
from lightning_retrieval_guard.lint.values import (
    UNKNOWN,
    Arguments,
    Callee,
    Const,
    Data,
    Items,
    Lead,
    Many,
    Mapping,
    Metric,
    Shape,
    Symbol,
    Text,
    Unknown,
    Value,
    contents,
    item_of,
    join,
    mapped,
    unsure,
)

_MOST_STEPS = 10_000
_MOST_STEPS_OF_CLASS = 60_000

_DEVICES = Data(symbol=Symbol.DEVICES)
_GLOBAL_RANK = Data(UNKNOWN.origin, symbol=Symbol.GLOBAL_RANK)
DISTRIBUTED = {"get_world_size": _DEVICES, "device_count": _DEVICES, "get_rank": _GLOBAL_RANK}
SYMBOLS = {
    **dict.fromkeys(("world_size", "num_devices"), _DEVICES),
    **dict.fromkeys(("global_rank", "local_rank"), _GLOBAL_RANK),
    "is_global_zero": Data(UNKNOWN.origin, symbol=Symbol.IS_ZERO),
}
PARAMETERS = dict.fromkeys(("world_size", "num_devices", "n_devices", "num_gpus", "n_gpus"), _DEVICES)
BATCH_COUNTS = ("num_graphs", "batch_size")


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

    def eval(self, node: ast.expr) -> Value:
        """What is known of an expression."""
        raise NotImplementedError

    def call_function(self, callee: Callee, arguments: Arguments) -> Value:
        """What a function of the source returns."""
        raise NotImplementedError

    # --- assignments ------------------------------------------------------------------------------------------------

    def assign(self, target: ast.expr, value: Value) -> None:
        """``target = value``."""
        if isinstance(target, ast.Name):
            self.frame.names[target.id] = value
        elif isinstance(target, ast.Attribute):
            if isinstance(self.eval(target.value), Instance):
                self.store(target.attr, value, target)
        elif isinstance(target, ast.Starred):
            self.assign(target.value, UNKNOWN)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for part, item in zip(target.elts, self._unpacked(value, target.elts), strict=True):
                self.assign(part, item)
        elif isinstance(target, ast.Subscript):
            self._put(target, value)

    def _unpacked(self, value: Value, targets: Sequence[ast.expr]) -> list[Value]:
        if any(isinstance(target, ast.Starred) for target in targets):
            return [UNKNOWN] * len(targets)
        if isinstance(value, Shape):
            return [subscript(value, Const(number)) for number in range(len(targets))]
        items = self.items_of(value)
        if items is not None and len(items) == len(targets):
            return items
        item = item_of(value) if contents(value) is not None else value
        if isinstance(item, Data) and not isinstance(item, Unknown):
            item = replace(item, ndim=None, ids=None, scores=item.scores if len(item.scores) == 1 else ())
        return [item if isinstance(item, (Data, Metric, Mapping)) else UNKNOWN] * len(targets)

    def _put(self, target: ast.Subscript, value: Value) -> None:
        """``holder[key] = value``."""
        holder, key = self.eval(target.value), self.eval(target.slice)
        if isinstance(holder, Mapping):
            self.replace_value(target.value, holder.with_item(key, value))
        elif isinstance(holder, (Data, Items, Many)):
            self.replace_value(target.value, unsure(holder, value) if isinstance(holder, Data) else UNKNOWN)

    def replace_value(self, node: ast.expr, value: Value) -> None:
        """The object behind an expression changed."""
        if isinstance(node, ast.Name):
            self.frame.names[node.id] = value
        elif isinstance(node, ast.Attribute) and isinstance(self.eval(node.value), Instance):
            self.store(node.attr, value, None)
        elif isinstance(node, ast.Subscript):
            self._put(node, value)

    def store(self, name: str, value: Value, node: ast.AST | None) -> None:
        """``self.name = value``; an attribute is whatever any method makes of it."""
        if node is not None and self.is_recording:
            self.story.stores.setdefault(name, []).append((node, self.frame.callee.module, value))
        value = mapped(value, lambda item: _held(item, name))
        attributes = self.instance.attributes
        attributes[name] = value if name not in attributes else join(attributes[name], value)


def _held(value: Value, name: str) -> Value:
    return replace(value, name=value.name or f"self.{name}", identity=name) if isinstance(value, Metric) else value
