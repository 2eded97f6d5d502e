"""A small abstract interpreter: follows values through one function and what it calls, and notes what happens."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from lightning_retrieval_guard.lint.events import RANK_ZERO
from lightning_retrieval_guard.lint.expressions import MOST_ITEMS, Expressions
from lightning_retrieval_guard.lint.modules import FUNCTIONS, is_generator
from lightning_retrieval_guard.lint.state import PARAMETERS, Frame, Instance, TooLong
from lightning_retrieval_guard.lint.values import (
    NONE,
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
    Value,
    contents,
    item_of,
    join,
    joined,
)

_MOST_CALLS = 6


class Interpreter(Expressions):
    """Runs functions on what is known of values."""

    # --- functions --------------------------------------------------------------------------------------------------

    def run(self, callee: Callee, hook: str, given: list[Value]) -> None:
        """Interprets a function as Lightning or the user calls it."""
        self.hook = hook
        self.steps = 0
        try:
            self.call_function(callee, Arguments(given, {}))
        except TooLong:
            self.frames.clear()

    def call_function(self, callee: Callee, arguments: Arguments) -> Value:
        """What a function of the source returns."""
        function = callee.function
        if len(self.frames) >= _MOST_CALLS or any(frame.callee.function is function for frame in self.frames):
            return UNKNOWN
        if self.frames:
            self.called.add(function)
        frame = Frame(callee)
        self.frames.append(frame)
        try:
            decorators = {getattr(node, "id", getattr(node, "attr", "")) for node in function.decorator_list}
            bound = [] if callee.instance is None or "staticmethod" in decorators else [callee.instance]
            self._bind(function.args, [*bound, *arguments.values], arguments.keywords)
            with self.guarded({RANK_ZERO} if "rank_zero_only" in decorators else set()):
                self._block(function.body)
        finally:
            self.frames.pop()
        if is_generator(function):
            return UNKNOWN
        return joined(frame.returned) if frame.returned else NONE

    def _bind(self, parameters: ast.arguments, given: Sequence[Value], keywords: dict[str, Value]) -> None:
        names = self.frame.names
        is_called = len(self.frames) > 1  # by code that is interpreted too, which passes all that it does not leave out
        positional = [parameter.arg for parameter in (*parameters.posonlyargs, *parameters.args)]
        by_name = [parameter.arg for parameter in parameters.kwonlyargs]
        defaults: dict[str, ast.expr | None] = dict(zip(by_name, parameters.kw_defaults, strict=True))
        defaults |= dict(zip(reversed(positional), reversed(parameters.defaults), strict=False))
        for name in [*positional, *by_name]:
            default = defaults.get(name)
            if name in keywords:
                names[name] = keywords[name]
            elif default is not None and is_called:
                names[name] = self.eval(default)
            else:
                names[name] = PARAMETERS.get(name, UNKNOWN)
        names |= dict(zip(positional, given, strict=False))
        if parameters.vararg:
            names[parameters.vararg.arg] = Items(tuple(given[len(positional) :]))
        if parameters.kwarg:
            others = tuple((name, value) for name, value in keywords.items() if name not in names)
            names[parameters.kwarg.arg] = Mapping(others, None if is_called else UNKNOWN)

    # --- statements -------------------------------------------------------------------------------------------------

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
        one_leaves = _leaves(statement.body) != _leaves(statement.orelse)
        branches = []
        for outcome, body in ((True, statement.body), (False, statement.orelse)):
            if not isinstance(test, Const) or bool(test.value) is outcome:
                whole = [*body, *rest] if one_leaves and not _leaves(body) else body
                branches.append((whole, self.guards_of(statement.test, outcome)))
        return self._branches(branches)

    def _branches(self, branches: Sequence[tuple[Sequence[ast.stmt], set[str]]]) -> bool:
        """Runs blocks of which one is chosen, each with what holds in it; whether all are surely left."""
        before, after = self.frame.names, []
        for body, guards in branches:
            self.frame.names = dict(before)
            with self.guarded(guards):
                if not self._block(body):
                    after.append(self.frame.names)
        self.frame.names = _join_names(after) if after else before
        return bool(branches) and not after

    def _statement(self, node: ast.stmt) -> bool:
        """Runs a statement; whether it surely leaves the block."""
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
            self._repeat(node.body, None, UNKNOWN)
        elif isinstance(node, (ast.With, ast.AsyncWith)):
            for item in node.items:
                value = self.eval(item.context_expr)
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, UNKNOWN if isinstance(value, Metric) else value)
            return self._block(node.body)
        elif isinstance(node, ast.Try):
            bodies = [[*node.body, *node.orelse], *(handler.body for handler in node.handlers)]
            self._branches([(body, set()) for body in bodies])
            self._block(node.finalbody)
        elif isinstance(node, ast.Match):
            self._branches([(case.body, set()) for case in node.cases])
        elif isinstance(node, FUNCTIONS):
            self.frame.names[node.name] = UNKNOWN
        elif isinstance(node, ast.Return):
            self.frame.returned.append(NONE if node.value is None else self.eval(node.value))
        return _leaves([node])

    def _loop(self, node: ast.For | ast.AsyncFor) -> None:
        iterable = self.eval(node.iter)
        items = self.items_of(iterable)
        if items is not None and len(items) <= MOST_ITEMS:
            for item in items:
                self.assign(node.target, item)
                self._block(node.body)
        else:
            outer, self.loop_lead = self.loop_lead, iterable.lead if isinstance(iterable, (Many, Data)) else None
            self._repeat(node.body, node.target, item_of(iterable))
            self.loop_lead = outer
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
            self.frame.names = _join_names([before, self.frame.names])

    def _augment(self, node: ast.AugAssign) -> None:
        target = node.target
        read = ast.copy_location(ast.parse(ast.unparse(target), mode="eval").body, target)
        value, more = self.eval(read), self.eval(node.value)
        added = contents(more)
        if isinstance(value, (Items, Many)) and isinstance(node.op, ast.Add) and added is not None:
            self.assign(target, self.extended(target, value, added))
            return
        value = self.eval(ast.copy_location(ast.BinOp(read, node.op, node.value), node))
        is_held = isinstance(target, ast.Attribute) and isinstance(self.eval(target.value), Instance)
        if is_held and (isinstance(more, Const) or (isinstance(more, Data) and more.size)):
            value = Data(ids=Lead.RANK, line=node.lineno)  # a counter, which starts anew on every rank
        self.assign(target, value)


def _leaves(body: Sequence[ast.stmt]) -> bool:
    """Whether a block surely ends the function or the turn of the loop."""
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))


def _join_names(options: Sequence[dict[str, Value]]) -> dict[str, Value]:
    """The names after branches; one that only some of them bind is not known."""
    first, *others = options
    for other in others:
        first = {
            name: join(first[name], other[name]) if name in first and name in other else UNKNOWN
            for name in (*first, *other)
        }
    return first
