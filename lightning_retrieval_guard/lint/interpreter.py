"""A small abstract interpreter: follows values through one function and what it calls, and notes what happens.

``expressions`` says what each kind of expression is, and ``calls`` what calls return.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

from lightning_retrieval_guard.lint import expressions, values
from lightning_retrieval_guard.lint.calls import SYMBOLS
from lightning_retrieval_guard.lint.events import RANK_ZERO, Event, Story
from lightning_retrieval_guard.lint.source import ClassInfo, Function
from lightning_retrieval_guard.lint.tensors import subscript
from lightning_retrieval_guard.lint.values import NONE, SELF, UNKNOWN, Arguments, Const, Data, Listing, Mapping, Value

# Bounds on the work for one class: source may be generated, or written so that following it never ends.
_MOST_ITEMS = 60
_MOST_CALLS = 6
_MOST_STEPS = 10_000
_MOST_STEPS_OF_CLASS = 60_000
_DEEPEST = 40

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
        self.lineage = story.cls.lineage
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
        self._step()
        if self._depth > _DEEPEST:
            return UNKNOWN
        self._depth += 1
        try:
            return expressions.evaluate(self, node)
        finally:
            self._depth -= 1

    def _step(self) -> None:
        self._steps += 1
        self.all_steps += 1
        if self._steps > _MOST_STEPS or self.all_steps > _MOST_STEPS_OF_CLASS:
            raise TooLong

    def note(
        self, kind: str, node: ast.Call, arguments: Arguments, metric: values.Metric | None = None, name: str = ""
    ) -> None:
        """Notes what happens here."""
        if self.is_recording:
            functions = tuple(frame.function for frame in self.frames)
            self.story.events.append(
                Event(kind, node, self.hook, functions, frozenset(self.guards), arguments, metric, name)
            )

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
        try:
            self.call(function, Arguments(given, {}))
        except TooLong:
            self.frames.clear()

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
                self._block(function.node.body)
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
        others = {name: value for name, value in keywords.items() if name not in names}
        names |= {name: value for name, value in keywords.items() if name in names}
        names |= dict(zip(positional, given, strict=False))
        if parameters.vararg:
            names[parameters.vararg.arg] = Listing(tuple(given[len(positional) :]))
        if parameters.kwarg:
            names[parameters.kwarg.arg] = Mapping(dict(others), None if is_called else UNKNOWN)

    def method(self, name: str, after: ClassInfo | None = None) -> Function | None:
        """A method of the object, or of the classes after one."""
        start = next((number + 1 for number, cls in enumerate(self.lineage) if after and cls.node is after.node), 0)
        return next((cls.methods[name] for cls in self.lineage[start:] if name in cls.methods), None)

    # --- statements -------------------------------------------------------------------------------------------------

    def _block(self, body: Sequence[ast.stmt]) -> bool:
        """Runs statements in order; whether the block is surely left before its end."""
        for number, statement in enumerate(body):
            self._step()
            if isinstance(statement, ast.If):
                # where one branch leaves, the rest is run as a part of the other one
                one_leaves = _leaves(statement.body) != _leaves(statement.orelse)
                if self._if(statement, body[number + 1 :] if one_leaves else []):
                    return True
                if one_leaves:
                    return False
            elif self._statement(statement):
                return True
        return False

    def _if(self, statement: ast.If, rest: Sequence[ast.stmt]) -> bool:
        branches = []
        for outcome, guards in expressions.outcomes_of(self, statement.test):
            body = statement.body if outcome else statement.orelse
            branches.append((body if _leaves(body) else [*body, *rest], guards))
        return self._branches(branches)

    def _branches(self, branches: Sequence[tuple[Sequence[ast.stmt], set[str]]]) -> bool:
        """Runs blocks of which one is chosen, each with what holds in it; whether all are surely left."""
        before, after = self.frame.names, []
        for body, guards in branches:
            self.frame.names = dict(before)
            with self.guarded(guards):
                if not self._block(body):
                    after.append(self.frame.names)
        self.frame.names = _join_names(*after) if after else before
        return bool(branches) and not after

    def _statement(self, node: ast.stmt) -> bool:
        """Runs a statement; whether it surely leaves the block."""
        match node:
            case ast.Assign():
                value = self.eval(node.value)
                for target in node.targets:
                    self.assign(target, value)
            case ast.AnnAssign(value=ast.expr() as assigned):
                self.assign(node.target, self.eval(assigned))
            case ast.AugAssign():
                self._augment(node)
            case ast.Expr():
                self.bare_call = node.value
                self.eval(node.value)
            case ast.For() | ast.AsyncFor():
                self._loop(node)
            case ast.While():
                self.eval(node.test)
                self._repeat(node.body, None, UNKNOWN)
            case ast.With() | ast.AsyncWith():
                for item in node.items:
                    value = self.eval(item.context_expr)
                    if item.optional_vars is not None:
                        self.assign(item.optional_vars, value)
                return self._block(node.body)
            case ast.Try():
                bodies = [[*node.body, *node.orelse], *(handler.body for handler in node.handlers)]
                self._branches([(body, set()) for body in bodies])
                self._block(node.finalbody)
            case ast.Match():
                self._branches([(case.body, set()) for case in node.cases])
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                self.frame.names[node.name] = UNKNOWN
            case ast.Return():
                self.frame.returned.append(NONE if node.value is None else self.eval(node.value))
        return _leaves([node])

    def _loop(self, node: ast.For | ast.AsyncFor) -> None:
        iterable = self.eval(node.iter)
        items = self.turns_of(iterable)
        for item in items or ():
            self.assign(node.target, item)
            self._block(node.body)
        if items is None:
            outer, self.loop_rows = self.loop_rows, iterable.rows
            self._repeat(node.body, node.target, values.item_of(iterable))
            self.loop_rows = outer
        self._block(node.orelse)

    def _repeat(self, body: Sequence[ast.stmt], target: ast.expr | None, item: Value) -> None:
        """Runs the body of a loop twice, so that its second turn knows the names of the first."""
        was_recording = self.is_recording
        for is_last in (False, True):
            self.is_recording = was_recording and is_last
            before = dict(self.frame.names)
            if target is not None:
                self.assign(target, item)
            self._block(body)
            self.frame.names = _join_names(before, self.frame.names)

    def _augment(self, node: ast.AugAssign) -> None:
        target = node.target
        read = ast.copy_location(ast.parse(ast.unparse(target), mode="eval").body, target)
        value, more = self.eval(read), self.eval(node.value)
        added = values.contents(more)
        if isinstance(value, Listing) and isinstance(node.op, ast.Add) and added is not None:
            self.assign(target, self.extended(target, value, added))
            return
        value = self.eval(ast.copy_location(ast.BinOp(read, node.op, node.value), node))
        is_held = isinstance(target, ast.Attribute) and self.eval(target.value) == SELF
        if is_held and (isinstance(more, Const) or more.size):
            value = Data(ids="rank", line=node.lineno)  # a counter, which starts anew on every rank
        self.assign(target, value)

    # --- names and attributes ---------------------------------------------------------------------------------------

    def assign(self, target: ast.expr, value: Value) -> None:
        """``target = value``."""
        match target:
            case ast.Name():
                self.frame.names[target.id] = value
            case ast.Attribute():
                if self.eval(target.value) == SELF:
                    self.store(target.attr, value, target)
            case ast.Starred():
                self.assign(target.value, UNKNOWN)
            case ast.Tuple() | ast.List():
                for part, item in zip(target.elts, self._unpacked(value, target.elts), strict=True):
                    self.assign(part, item)
            case ast.Subscript():
                self._put(target, value)

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

    def _put(self, target: ast.Subscript, value: Value) -> None:
        """``holder[key] = value``."""
        holder, key = self.eval(target.value), self.eval(target.slice)
        if isinstance(holder, Mapping):
            self.replace_value(target.value, holder.with_item(key, value))
        elif isinstance(holder, (Data, Listing)):
            self.replace_value(target.value, values.made_of(holder, value) if isinstance(holder, Data) else UNKNOWN)

    def replace_value(self, node: ast.expr, value: Value) -> None:
        """The object behind an expression changed."""
        if isinstance(node, ast.Name):
            self.frame.names[node.id] = value
        elif isinstance(node, ast.Attribute) and self.eval(node.value) == SELF:
            self.store(node.attr, value, None)
        elif isinstance(node, ast.Subscript):
            self._put(node, value)

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
        # what other objects write, no method of the class shows
        if any(name in cls.source.foreign_stores for cls in self.lineage):
            return UNKNOWN
        unknown = values.Reference(f"self.{name}")
        if name in self.attributes:
            return unknown if self.attributes[name] == UNKNOWN else self.attributes[name]
        if method := self.method(name):
            is_property = any("property" in decorator for decorator in method.decorators)
            return self.call(method, Arguments([], {})) if is_property else method
        for node in (node for cls in self.lineage for node in cls.node.body if isinstance(node, ast.Assign)):
            if any(getattr(target, "id", "") == name for target in node.targets):
                return self.eval(node.value) if isinstance(node.value, ast.Constant) else Data()
        return SYMBOLS.get(name, Data() if name in ("device", "dtype") else unknown)

    # --- items ------------------------------------------------------------------------------------------------------

    def items_of(self, value: Value) -> list[Value] | None:
        """The items of what is iterated, where they are known one by one."""
        if isinstance(value, Mapping):
            # of keys that are not known, those matter that are asked for
            return [Const(key) for key in value.items] if value.rest is None else [*self._asked_keys, values.Text()]
        return list(value.items) if isinstance(value, Listing) and value.is_exact else None

    def turns_of(self, iterable: Value) -> list[Value] | None:
        """The items that a loop is run for one by one."""
        items = self.items_of(iterable)
        return items if items is not None and len(items) <= _MOST_ITEMS else None

    @cached_property
    def _asked_keys(self) -> list[Value]:
        """The strings that the class may ask dictionaries for."""
        nodes = self.story.cls.nodes
        asked = [argument for node in nodes if isinstance(node, ast.Call) for argument in node.args]
        asked += [node.slice for node in nodes if isinstance(node, ast.Subscript)]
        names = {node.value for node in asked if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        return [Const(name) for name in sorted(names) if name.isidentifier()]


def _leaves(body: Sequence[ast.stmt]) -> bool:
    """Whether a block surely ends the function or the turn of the loop."""
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))


def _join_names(first: dict[str, Value], *others: dict[str, Value]) -> dict[str, Value]:
    """The names after branches; one that only some of them bind is not known."""
    for other in others:
        first = {
            name: values.join(first[name], other[name]) if name in first and name in other else UNKNOWN
            for name in (*first, *other)
        }
    return first
