"""What statements do: they bind names, branch, and repeat."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_retrieval_guard.lint import values
from lightning_retrieval_guard.lint.expressions import outcomes_of
from lightning_retrieval_guard.lint.values import NONE, SELF, UNKNOWN, Const, Data, Listing, Value

if TYPE_CHECKING:
    from lightning_retrieval_guard.lint.interpreter import Interpreter


def run_block(run: Interpreter, body: Sequence[ast.stmt]) -> bool:
    """Runs statements in order; whether the block is surely left before its end."""
    for number, statement in enumerate(body):
        run.step()
        if isinstance(statement, ast.If):
            # where one branch leaves, the rest is run as a part of the other one
            one_leaves = _leaves(statement.body) != _leaves(statement.orelse)
            is_left = _run_if(run, statement, body[number + 1 :] if one_leaves else [])
            if is_left or one_leaves:
                return is_left
        elif _run_statement(run, statement):
            return True
    return False


def _leaves(body: Sequence[ast.stmt]) -> bool:
    """Whether a block surely ends the function or the turn of the loop."""
    return bool(body) and isinstance(body[-1], (ast.Return, ast.Raise, ast.Continue, ast.Break))


def _run_if(run: Interpreter, statement: ast.If, rest: Sequence[ast.stmt]) -> bool:
    branches = []
    for outcome, guards in outcomes_of(run, statement.test):
        body = statement.body if outcome else statement.orelse
        branches.append((body if _leaves(body) else [*body, *rest], guards))
    return _run_branches(run, branches)


def _run_branches(run: Interpreter, branches: Sequence[tuple[Sequence[ast.stmt], set[str]]]) -> bool:
    """Runs blocks of which one is chosen, each with what holds in it; whether all are surely left."""
    before, after = run.frame.names, []
    for body, guards in branches:
        run.frame.names = dict(before)
        with run.guarded(guards):
            if not run_block(run, body):
                after.append(run.frame.names)
    run.frame.names = _join_names(*after) if after else before
    return bool(branches) and not after


def _join_names(first: dict[str, Value], *others: dict[str, Value]) -> dict[str, Value]:
    """The names after branches; one that only some of them bind is not known."""
    for other in others:
        names = dict.fromkeys((*first, *other))
        both = first.keys() & other.keys()
        first = {name: values.join(first[name], other[name]) if name in both else UNKNOWN for name in names}
    return first


def _run_statement(run: Interpreter, node: ast.stmt) -> bool:
    """Runs a statement; whether it surely leaves the block."""
    match node:
        case ast.Assign():
            value = run.eval(node.value)
            for target in node.targets:
                run.assign(target, value)
        case ast.AnnAssign(value=ast.expr() as assigned):
            run.assign(node.target, run.eval(assigned))
        case ast.AugAssign():
            _augment(run, node)
        case ast.Expr():
            run.bare_call = node.value
            run.eval(node.value)
        case ast.For() | ast.AsyncFor():
            _run_loop(run, node)
        case ast.While():
            run.eval(node.test)
            _repeat(run, node.body, None, UNKNOWN)
        case ast.With() | ast.AsyncWith():
            for item in node.items:
                value = run.eval(item.context_expr)
                if item.optional_vars is not None:
                    run.assign(item.optional_vars, value)
            return run_block(run, node.body)
        case ast.Try():
            bodies = [[*node.body, *node.orelse], *(handler.body for handler in node.handlers)]
            _run_branches(run, [(body, set()) for body in bodies])
            run_block(run, node.finalbody)
        case ast.Match():
            _run_branches(run, [(case.body, set()) for case in node.cases])
        case ast.FunctionDef() | ast.AsyncFunctionDef():
            run.frame.names[node.name] = UNKNOWN  # what it closes over may change before it is called
        case ast.Return():
            run.frame.returned.append(NONE if node.value is None else run.eval(node.value))
    return _leaves([node])


def _run_loop(run: Interpreter, node: ast.For | ast.AsyncFor) -> None:
    iterable = run.eval(node.iter)
    items = run.turns_of(iterable)
    for item in items or ():
        run.assign(node.target, item)
        run_block(run, node.body)
    if items is None:
        outer, run.loop_rows = run.loop_rows, iterable.rows
        _repeat(run, node.body, node.target, values.item_of(iterable))
        run.loop_rows = outer
    run_block(run, node.orelse)


def _repeat(run: Interpreter, body: Sequence[ast.stmt], target: ast.expr | None, item: Value) -> None:
    """Runs the body of a loop twice, so that its second turn knows the names of the first."""
    was_recording = run.is_recording
    for is_last in (False, True):
        run.is_recording = was_recording and is_last
        before = dict(run.frame.names)
        if target is not None:
            run.assign(target, item)
        run_block(run, body)
        run.frame.names = _join_names(before, run.frame.names)


def _augment(run: Interpreter, node: ast.AugAssign) -> None:
    target = node.target
    # the same expression, to be read: a target itself is only written
    read = ast.copy_location(ast.parse(ast.unparse(target), mode="eval").body, target)
    value, more = run.eval(read), run.eval(node.value)
    added = values.contents(more)
    if isinstance(value, Listing) and isinstance(node.op, ast.Add) and added is not None:
        run.assign(target, run.extended(target, value, added))
        return
    value = run.eval(ast.copy_location(ast.BinOp(read, node.op, node.value), node))
    is_held = isinstance(target, ast.Attribute) and run.eval(target.value) == SELF
    # what grows by a number of samples or batches
    if is_held and (isinstance(more, Const) or more.size):
        value = Data(ids="rank", line=node.lineno)  # a counter, which starts anew on every rank
    run.assign(target, value)
