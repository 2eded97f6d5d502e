"""A small abstract interpreter: follows values through one function and what it calls, and notes what happens."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace

from lightning_retrieval_guard.lint.expressions import MOST_ITEMS, Expressions
from lightning_retrieval_guard.lint.guards import RANK_ZERO, guards_of
from lightning_retrieval_guard.lint.modules import FUNCTIONS
from lightning_retrieval_guard.lint.state import Frame, Instance
from lightning_retrieval_guard.lint.tables import PARAMETERS
from lightning_retrieval_guard.lint.values import (
    UNKNOWN,
    Callee,
    Const,
    Data,
    Items,
    Lead,
    Many,
    Mapping,
    Metric,
    Shape,
    Unknown,
    Value,
    contents,
    join,
    joined,
    mapped,
    unsure,
)

_MOST_CALLS = 6


class Interpreter(Expressions):
    """Runs functions on what is known of values."""

    # --- functions ------------------------------------------------------------------------------------------------

    def run(self, callee: Callee, hook: str, arguments: Sequence[Value]) -> None:
        """Interprets a function as Lightning or the user calls it."""
        self.hook = hook
        self.call_function(callee, arguments, {})

    def call_function(self, callee: Callee, arguments: Sequence[Value], keywords: dict[str, Value]) -> Value:
        """What a function of the source returns."""
        function = callee.function
        if len(self.frames) >= _MOST_CALLS or any(own.function is function for own in self.frames):
            return UNKNOWN
        if self.frames:
            self.called.add(function)
        frame = Frame(callee.module, function, {}, callee.cls)
        self.frames.append(frame)
        try:
            decorators = {getattr(own, "id", getattr(own, "attr", "")) for own in function.decorator_list}
            bound = () if callee.instance is None or "staticmethod" in decorators else (callee.instance,)
            self._bind(function.args, (*bound, *arguments), keywords)
            with self.guarded({RANK_ZERO} if "rank_zero_only" in decorators else set()):
                self._block(function.body)
        finally:
            self.frames.pop()
        if callee.module.is_generator(function):
            return UNKNOWN
        return joined(frame.returned) if frame.returned else Const(None)

    def _bind(self, parameters: ast.arguments, given: Sequence[Value], keywords: dict[str, Value]) -> None:
        names = self.frame.names
        positional = [own.arg for own in (*parameters.posonlyargs, *parameters.args)]
        defaults = dict(zip(reversed(positional), reversed(parameters.defaults), strict=False))
        defaults |= {
            own.arg: value
            for own, value in zip(parameters.kwonlyargs, parameters.kw_defaults, strict=True)
            if value is not None
        }
        for name in [*positional, *(own.arg for own in parameters.kwonlyargs)]:
            if name in keywords:
                names[name] = keywords[name]
            elif name in defaults and len(self.frames) > 1:
                names[name] = self.eval(defaults[name])
            else:
                symbol = PARAMETERS.get(name)
                names[name] = self.symbol(symbol) if symbol else UNKNOWN
        names |= dict(zip(positional, given, strict=False))
        if parameters.vararg:
            names[parameters.vararg.arg] = Items(tuple(given[len(positional) :]))
        if parameters.kwarg:
            others = tuple((name, value) for name, value in keywords.items() if name not in names)
            names[parameters.kwarg.arg] = Mapping(others, None if len(self.frames) > 1 else UNKNOWN)

    # --- statements -----------------------------------------------------------------------------------------------

    def _block(self, body: Sequence[ast.stmt]) -> bool:
        """Runs statements in order; whether the block is surely left before its end."""
        for number, statement in enumerate(body):
            self.step()
            if isinstance(statement, ast.If):
                if self._if(statement, body[number + 1 :]):
                    return True
                if _leaves(statement.body) != _leaves(statement.orelse):
                    return False  # the rest ran as the other branch
            elif self._statement(statement):
                return True
        return False

    def _if(self, statement: ast.If, rest: Sequence[ast.stmt]) -> bool:
        test = self.eval(statement.test)
        before = dict(self.frame.names)
        ends, after = [], []
        left = _leaves(statement.body), _leaves(statement.orelse)
        for outcome, body in ((True, statement.body), (False, statement.orelse)):
            if isinstance(test, Const) and bool(test.value) is not outcome:
                continue
            self.frame.names = dict(before)
            with self.guarded(guards_of(self, statement.test, outcome)):
                end = self._block(body)
                if not end and left[0] != left[1]:
                    end = self._block(rest)
            ends.append(end)
            if not end:
                after.append(self.frame.names)
        self.frame.names = _join_names(after) if after else before
        return bool(ends) and all(ends)

    def _statement(self, node: ast.stmt) -> bool:
        if isinstance(node, ast.Assign):
            value = self.eval(node.value)
            for target in node.targets:
                self.assign(target, value)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self.assign(node.target, self.eval(node.value))
        elif isinstance(node, ast.AugAssign):
            self._augment(node)
        elif isinstance(node, ast.Expr):
            self.bare_call = node.value
            self.eval(node.value)
        elif isinstance(node, (ast.For, ast.AsyncFor)):
            self._loop(node)
        elif isinstance(node, ast.While):
            self.eval(node.test)
            self._repeat(node.body, None, None)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                value = self.eval(item.context_expr)
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, UNKNOWN if isinstance(value, Metric) else value)
            return self._block(node.body)
        elif isinstance(node, ast.Try):
            self._try(node)
        elif isinstance(node, ast.Match):
            self._branches([case.body for case in node.cases])
        elif isinstance(node, FUNCTIONS):
            self.frame.names[node.name] = UNKNOWN
        elif isinstance(node, ast.Return):
            self.frame.returned.append(Const(None) if node.value is None else self.eval(node.value))
        return isinstance(node, (ast.Return, ast.Raise, ast.Continue, ast.Break))

    def _try(self, node: ast.Try) -> None:
        self._branches([[*node.body, *node.orelse], *(own.body for own in node.handlers)])
        self._block(node.finalbody)

    def _branches(self, bodies: Sequence[Sequence[ast.stmt]]) -> None:
        before, after = dict(self.frame.names), []
        for body in bodies:
            self.frame.names = dict(before)
            if not self._block(body):
                after.append(self.frame.names)
        self.frame.names = _join_names(after) if after else before

    def _loop(self, node: ast.For | ast.AsyncFor) -> None:
        iterable = self.eval(node.iter)
        items = self.items_of(iterable)
        if items is not None and len(items) <= MOST_ITEMS:
            for item in items:
                self.assign(node.target, item)
                self._block(node.body)
        else:
            outer, self.loop_lead = self.loop_lead, iterable.lead if isinstance(iterable, (Many, Data)) else None
            self._repeat(node.body, node.target, self.item_of(iterable))
            self.loop_lead = outer
        self._block(node.orelse)

    def _repeat(self, body: Sequence[ast.stmt], target: ast.expr | None, item: Value | None) -> None:
        before, was_recording = dict(self.frame.names), self.is_recording
        self.is_recording = False
        for last in (False, True):
            self.is_recording = was_recording and last
            if target is not None and item is not None:
                self.assign(target, item)
            self._block(body)
            self.frame.names = _join_names([before, self.frame.names])
            before = self.frame.names if last else dict(self.frame.names)

    def _augment(self, node: ast.AugAssign) -> None:
        target = node.target
        known, more = self.eval(_loaded(target)), self.eval(node.value)
        added_items = contents(more)
        if isinstance(known, (Items, Many)) and isinstance(node.op, ast.Add) and added_items is not None:
            self.assign(target, self.extended(target, known, added_items))
            return
        value = self.eval(ast.copy_location(ast.BinOp(_loaded(target), node.op, node.value), node))
        is_held = isinstance(target, ast.Attribute) and isinstance(self.eval(target.value), Instance)
        if is_held and (isinstance(more, Const) or (isinstance(more, Data) and more.size)):
            value = Data(ids=Lead.RANK, line=node.lineno)  # a counter, which starts anew on every rank
        self.assign(target, value)

    def assign(self, target: ast.expr, value: Value) -> None:
        """``target = value``."""
        if isinstance(target, ast.Name):
            self.frame.names[target.id] = value
        elif isinstance(target, ast.Attribute):
            owner = self.eval(target.value)
            if isinstance(owner, Instance):
                self.store(target.attr, value, target)
        elif isinstance(target, ast.Starred):
            self.assign(target.value, UNKNOWN)
        elif isinstance(target, (ast.Tuple, ast.List)):
            for own, item in zip(target.elts, self._unpacked(value, target.elts), strict=True):
                self.assign(own, item)
        elif isinstance(target, ast.Subscript):
            self._put(target.value, self.eval(target.slice), value)

    def _unpacked(self, value: Value, targets: Sequence[ast.expr]) -> list[Value]:
        if any(isinstance(own, ast.Starred) for own in targets):
            return [UNKNOWN] * len(targets)
        if isinstance(value, Shape):
            return [self.subscript(value, Const(number)) for number in range(len(targets))]
        items = self.items_of(value)
        if items is not None and len(items) == len(targets):
            return items
        item = self.item_of(value) if contents(value) is not None else value
        if isinstance(item, Data) and not isinstance(item, Unknown):
            item = replace(item, ndim=None, ids=None, scores=item.scores if len(item.scores) == 1 else ())
        return [item if isinstance(item, (Data, Metric, Mapping)) else UNKNOWN] * len(targets)

    def _put(self, holder: ast.expr, key: Value, value: Value) -> None:
        """``holder[key] = value``."""
        known = self.eval(holder)
        if isinstance(known, Mapping):
            changed = Mapping(((key.value, value),)) if isinstance(key, Const) else Mapping(rest=value)
            self.replace_value(holder, known.merged(changed))
        elif isinstance(known, (Data, Items, Many)):
            self.replace_value(holder, unsure(known, value) if isinstance(known, Data) else UNKNOWN)

    def replace_value(self, node: ast.expr, value: Value) -> None:
        """The object behind an expression changed."""
        if isinstance(node, ast.Name):
            self.frame.names[node.id] = value
        elif isinstance(node, ast.Attribute) and isinstance(self.eval(node.value), Instance):
            self.store(node.attr, value, None)
        elif isinstance(node, ast.Subscript):
            self._put(node.value, self.eval(node.slice), value)

    def store(self, name: str, value: Value, node: ast.AST | None) -> None:
        """``self.name = value``; an attribute is whatever any method makes of it."""
        if node is not None and self.is_recording:
            self.story.stores.setdefault(name, []).append((node, self.frame.module, value))
        value = mapped(value, lambda own: _held(own, name))
        known = self.instance.attributes
        known[name] = value if name not in known else join(known[name], value)


def _leaves(body: Sequence[ast.stmt]) -> bool:
    """Whether a block surely ends the function or the turn of the loop."""
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))


def _join_names(options: Sequence[dict[str, Value]]) -> dict[str, Value]:
    """The names after branches; one that only some of them bind is not known."""
    first, *others = options
    for other in others:
        common = first.keys() & other.keys()
        missing = (first.keys() | other.keys()) - common
        first = {name: join(first[name], other[name]) for name in common} | dict.fromkeys(missing, UNKNOWN)
    return first


def _loaded(target: ast.expr) -> ast.expr:
    """The same expression, read instead of written."""
    return ast.copy_location(ast.parse(ast.unparse(target), mode="eval").body, target)


def _held(value: Value, name: str) -> Value:
    return replace(value, name=value.name or f"self.{name}", place=name) if isinstance(value, Metric) else value
