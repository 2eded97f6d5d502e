"""A small abstract interpreter: follows values through one function and what it calls, and notes what happens.

``statements`` and ``expressions`` say what each kind of node does and is, and ``calls`` what calls return.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from lightning_retrieval_guard.lint import expressions, values
from lightning_retrieval_guard.lint.calls import SYMBOLS
from lightning_retrieval_guard.lint.events import HOOKS, RANK_ZERO, Event, Story
from lightning_retrieval_guard.lint.source import ClassInfo, Function
from lightning_retrieval_guard.lint.statements import run_block
from lightning_retrieval_guard.lint.tensors import subscript
from lightning_retrieval_guard.lint.values import NONE, SELF, UNKNOWN, Arguments, Const, Data, Listing, Mapping, Value

# Bounds on the work for one class: source may be generated, or written so that following it never ends.
_MOST_ITEMS = 60
_MOST_CALLS = 6
_MOST_STEPS = 10_000
_MOST_STEPS_OF_CLASS = 60_000
_DEEPEST = 40

_FILLING = ("__init__", "setup", "configure_model")
# An attribute is known when the methods that fill it have run, and those that fill what they fill it with.
_PASSES = 3

# Parameters that stand for the number of devices wherever nothing else is passed.
_PARAMETERS = dict.fromkeys(("world_size", "num_devices", "n_devices", "num_gpus", "n_gpus"), SYMBOLS["world_size"])


class TooLong(Exception):  # noqa: N818 - it is no error
    """The source is longer than what is followed."""


@dataclass
class Frame:
    """One call of a function."""

    function: Function
    names: dict[str, Value] = field(default_factory=dict)
    returned: list[Value] = field(default_factory=list)


class Interpreter:
    """Runs functions on what is known of values, and notes events in a story."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.attributes: dict[str, Value] = {}
        self.called: set[Function] = set()
        self.hook = ""
        self.is_recording = False
        self.frames: list[Frame] = []
        self.guards: list[str] = []  # what the tests around say
        self.loop_rows: values.Count | None = None  # what the turns of the loop around count
        self.bare_call: ast.expr | None = None  # a call whose value goes nowhere
        self._steps = 0
        self.all_steps = 0
        self._depth = 0

    @property
    def frame(self) -> Frame:
        """The function that is interpreted now."""
        return self.frames[-1]

    def eval(self, node: ast.expr) -> Value:
        """What is known of an expression."""
        self.step()
        if self._depth > _DEEPEST:
            return UNKNOWN
        self._depth += 1
        try:
            return expressions.evaluate(self, node)
        finally:
            self._depth -= 1

    def step(self) -> None:
        """Counts a statement or an expression."""
        self._steps += 1
        self.all_steps += 1
        if self._steps > _MOST_STEPS or self.all_steps > _MOST_STEPS_OF_CLASS:
            raise TooLong

    def note(
        self, kind: str, node: ast.Call, arguments: Arguments, metric: values.Metric | None = None, name: str = ""
    ) -> None:
        """Notes what happens here."""
        if self.is_recording:
            functions, guards = tuple(frame.function for frame in self.frames), frozenset(self.guards)
            self.story.events.append(Event(kind, node, self.hook, functions, guards, arguments, metric, name))

    @contextmanager
    def guarded(self, guards: Set[str]) -> Iterator[None]:
        """What tests say, while the code under them runs."""
        count = len(self.guards)
        self.guards += guards
        try:
            yield
        finally:
            del self.guards[count:]

    # --- functions --------------------------------------------------------------------------------------------------

    def run(self, function: Function, hook: str, given: list[Value]) -> None:
        """Interprets a function as Lightning or the user calls it."""
        self.hook = hook
        self._steps = 0
        is_recording = self.is_recording
        try:
            self.call(function, Arguments(given, {}))
        except TooLong:
            # it may have left in the middle of a loop
            self.frames.clear()
            self.is_recording, self.loop_rows = is_recording, None

    def call(self, function: Function, arguments: Arguments) -> Value:
        """What a function of the source returns."""
        if len(self.frames) >= _MOST_CALLS or any(frame.function is function for frame in self.frames):
            return UNKNOWN
        if self.frames:
            self.called.add(function)
        frame = Frame(function)
        self.frames.append(frame)
        try:
            bound = [] if function.cls is None or "staticmethod" in function.decorators else [SELF]
            self._bind(function.node.args, [*bound, *arguments.values], arguments.keywords)
            with self.guarded({RANK_ZERO} if "rank_zero_only" in function.decorators else set()):
                run_block(self, function.node.body)
        finally:
            self.frames.pop()
        if function.is_generator:
            return UNKNOWN
        return values.joined(frame.returned) if frame.returned else NONE

    def _bind(self, parameters: ast.arguments, given: Sequence[Value], keywords: dict[str, Value]) -> None:
        names = self.frame.names
        is_called = len(self.frames) > 1  # by code that is interpreted too, which passes all that it does not leave out
        positional = [parameter.arg for parameter in (*parameters.posonlyargs, *parameters.args)]
        by_name = [parameter.arg for parameter in parameters.kwonlyargs]
        defaults: dict[str, ast.expr | None] = dict(zip(by_name, parameters.kw_defaults, strict=True))
        defaults |= dict(zip(reversed(positional), reversed(parameters.defaults), strict=False))
        for name in [*positional, *by_name]:
            default = defaults.get(name) if is_called else None
            names[name] = self.eval(default) if default else _PARAMETERS.get(name, UNKNOWN)
        others: dict[str, Value] = {}
        for name, value in keywords.items():
            (names if name in names else others)[name] = value
        names |= dict(zip(positional, given, strict=False))
        if parameters.vararg:
            names[parameters.vararg.arg] = Listing(tuple(given[len(positional) :]))
        if parameters.kwarg:
            names[parameters.kwarg.arg] = Mapping(dict(others), None if is_called else UNKNOWN)

    # --- names and attributes ---------------------------------------------------------------------------------------

    def assign(self, target: ast.expr, value: Value) -> None:
        """``target = value``; or, of an expression that is only read, the object behind it has become the value."""
        is_target = isinstance(getattr(target, "ctx", None), ast.Store)
        match target:
            case ast.Name():
                self.frame.names[target.id] = value
            case ast.Attribute():
                if self.eval(target.value) == SELF:
                    self.store(target.attr, value, target if is_target else None)
            case ast.Starred():
                self.assign(target.value, UNKNOWN)
            case ast.Tuple() | ast.List() if is_target:
                for part, item in zip(target.elts, self._unpacked(value, target.elts), strict=True):
                    self.assign(part, item)
            case ast.Subscript():
                holder, key = self.eval(target.value), self.eval(target.slice)
                if isinstance(holder, Mapping):
                    self.assign(target.value, holder.with_item(key, value))
                elif isinstance(holder, (Data, Listing)):
                    self.assign(target.value, values.made_of(holder, value) if isinstance(holder, Data) else UNKNOWN)

    def _unpacked(self, value: Value, targets: Sequence[ast.expr]) -> list[Value]:
        if any(isinstance(target, ast.Starred) for target in targets):
            return [UNKNOWN] * len(targets)
        if isinstance(value, values.Shape):
            return [subscript(value, Const(number)) for number in range(len(targets))]
        items = self.items_of(value)
        if items is not None and len(items) == len(targets):
            return items
        item = value if values.contents(value) is None else values.item_of(value)
        if isinstance(item, Data):
            item = replace(item, ndim=None, ids=None, scores=item.scores if len(item.scores) == 1 else ())
        return [item if isinstance(item, (Data, values.Metric, Mapping)) else UNKNOWN] * len(targets)

    def extended(self, holder: ast.expr, value: Listing, added: list[Value]) -> Listing:
        """A list with more items; one that outlives the step counts what the rank sees in the epoch."""
        in_step = self.hook.endswith(("_step", "_batch_end")) and not isinstance(holder, ast.Name)
        return values.many(*value.items, *added, rows="rank" if in_step else self.loop_rows)

    def store(self, name: str, value: Value, node: ast.expr | None) -> None:
        """``self.name = value``; an attribute is whatever any method makes of it."""
        if node is not None and self.is_recording:
            self.story.stores.setdefault(name, []).append((node, self.frame.function.source, value))

        def held(item: Value) -> Value:
            if isinstance(item, values.Metric):
                return replace(item, name=item.name or f"self.{name}", identity=name)
            return item

        value = values.mapped(value, held)
        self.attributes[name] = values.join(self.attributes[name], value) if name in self.attributes else value

    def attribute(self, name: str) -> Value:
        """What ``self.name`` is."""
        lineage = self.story.cls.lineage
        # what other objects write, no method of the class shows
        if any(name in cls.source.foreign_stores for cls in lineage):
            return UNKNOWN
        unknown = values.Reference(f"self.{name}")
        if name in self.attributes:
            return unknown if self.attributes[name] == UNKNOWN else self.attributes[name]
        if method := self.story.cls.method(name):
            is_property = any("property" in decorator for decorator in method.decorators)
            return self.call(method, Arguments([], {})) if is_property else method
        for node in (node for cls in lineage for node in cls.node.body if isinstance(node, ast.Assign)):
            if any(getattr(target, "id", "") == name for target in node.targets):
                return self.eval(node.value) if isinstance(node.value, ast.Constant) else Data()
        return SYMBOLS.get(name, Data() if name in ("device", "dtype") else unknown)

    # --- items ------------------------------------------------------------------------------------------------------

    def items_of(self, value: Value) -> list[Value] | None:
        """The items of what is iterated, where they are known one by one."""
        if isinstance(value, Mapping):
            if value.rest is None:
                return list(map(Const, value.items))
            return [*map(Const, self.story.cls.asked_keys), values.Text()]  # of other keys, those that are asked for
        return list(value.items) if isinstance(value, Listing) and value.is_exact else None

    def turns_of(self, iterable: Value) -> list[Value] | None:
        """The items that a loop is run for one by one."""
        items = self.items_of(iterable)
        return items if items is not None and len(items) <= _MOST_ITEMS else None


# --- a whole class --------------------------------------------------------------------------------------------------


def story_of(cls: ClassInfo) -> Story:
    """What happens in a class when Lightning or the user calls its methods."""
    interpreter = Interpreter(Story(cls))
    methods = [name for ancestor in reversed(cls.lineage) for name in ancestor.methods]
    first = [name for name in _FILLING if name in methods]
    for number in range(_PASSES):
        interpreter.is_recording = number == _PASSES - 1
        interpreter.all_steps = 0
        for name in dict.fromkeys([*first, *methods]):
            method = cls.method(name)
            # what another method calls ran with what that one passes
            if method and (name in HOOKS or name in first or method not in interpreter.called):
                interpreter.run(method, name, _given(cls, name))
    return interpreter.story


def _given(cls: ClassInfo, name: str) -> list[Value]:
    """What Lightning passes to a hook."""
    given = list(HOOKS.get(name, ()))
    if cls.derives("Callback") and name in HOOKS:
        return [values.Reference("trainer"), values.Reference("pl_module"), *given]
    return given if cls.derives("LightningModule") else [UNKNOWN] * len(given)
