"""LRG204: the ``compute()`` of a metric that combines ranks, on rank zero alone."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from lightning_retrieval_guard.lint.finding import File, Found
from lightning_retrieval_guard.lint.log_calls import LOG_METHODS
from lightning_retrieval_guard.lint.source import FUNCTIONS, MOST_STEPS
from lightning_retrieval_guard.rules.static import LRG204

_RANKS = ("global_rank", "local_rank")
_ONE_PROCESS = re.compile(
    r"world_?size|(num|n)_?(gpus?|devices|ranks|processes|replicas)|device_?count|is_(initialized|available)|distributed$",
    re.IGNORECASE,
)
_MESSAGE = "compute() combines all ranks, and is called on rank zero alone: it waits for ranks that never come."
_FIX = "Call compute() on every rank, and use its value on rank zero."


def check(file: File) -> Iterator[Found]:
    """Findings at calls of ``compute()``."""
    computed = list(file.method_calls("compute"))
    for call, receiver in computed:
        metrics = file.metrics.of(receiver)
        if any(own.synced for own in metrics) and is_on_rank_zero(file, call):
            others = (other for one, other in computed if one is not call and not is_on_rank_zero(file, one))
            if not any(file.same(other, receiver) for other in others) and not is_logged(file, receiver):
                yield Found(call, LRG204, _MESSAGE, _FIX)


def is_logged(file: File, metric: ast.expr) -> bool:
    """Whether the metric is logged as an object, which leaves its value behind for later calls."""
    return any(
        file.same(node, metric)
        for call, _ in file.method_calls(*LOG_METHODS)
        for own in (*call.args, *(keyword.value for keyword in call.keywords))
        for node in ast.walk(own)
        if isinstance(node, (ast.Name, ast.Attribute)) and not _is_used(file, node)
    )


def _is_used(file: File, node: ast.expr) -> bool:
    """Whether an expression is only called, or only has an attribute read."""
    parent = file.source.parents[node]
    return (isinstance(parent, ast.Call) and parent.func is node) or isinstance(parent, ast.Attribute)


def is_on_rank_zero(file: File, node: ast.AST) -> bool:
    """Whether a node is reached on rank zero alone."""
    inner = node
    for outer in file.source.ancestors(node):
        if _has_returned(file, outer, inner):
            return True
        if isinstance(outer, FUNCTIONS):
            return any(file.source.dotted(own).endswith(".rank_zero_only") for own in outer.decorator_list)
        if isinstance(outer, (ast.Lambda, ast.ClassDef)):
            return False
        if isinstance(outer, (ast.If, ast.IfExp)) and inner is not outer.test:
            then = outer.body if isinstance(outer.body, list) else [outer.body]
            if _implies(file, outer.test, inner in then):
                return True
        if isinstance(outer, ast.BoolOp):
            passed = outer.values[: outer.values.index(inner)] if inner in outer.values else []
            if any(_implies(file, own, isinstance(outer.op, ast.And)) for own in passed):
                return True
        inner = outer
    return False


def _has_returned(file: File, outer: ast.AST, inner: ast.AST) -> bool:
    """Whether every other rank has left the block before."""
    for _, block in ast.iter_fields(outer):
        if isinstance(block, list) and inner in block:
            for own in block[: block.index(inner)]:
                leaves = (
                    isinstance(own, ast.If) and isinstance(own.body[-1], (ast.Return, ast.Raise)) and not own.orelse
                )
                if leaves and _implies(file, own.test, False):
                    return True
    return False


def _implies(file: File, test: ast.expr, outcome: bool, depth: int = 0) -> bool:
    """Whether a test that comes out like this means that the rank is zero."""
    test = file.classes.resolve(test)
    if depth > MOST_STEPS:
        return False
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _implies(file, test.operand, not outcome, depth + 1)
    if isinstance(test, ast.BoolOp):
        enough = any if isinstance(test.op, ast.And) is outcome else all
        return enough(_implies(file, own, outcome, depth + 1) for own in test.values)
    if isinstance(test, ast.Compare) and len(test.ops) == 1 and _is_rank(file, test.left):
        other = test.comparators[0]
        zero = isinstance(other, ast.Constant) and other.value == 0
        return zero and isinstance(test.ops[0], (ast.Eq, ast.Is) if outcome else (ast.NotEq, ast.Gt, ast.IsNot))
    if isinstance(test, ast.Attribute) and test.attr == "is_global_zero":
        return outcome
    return _is_rank(file, test) and not outcome


def _is_rank(file: File, node: ast.expr) -> bool:
    node = file.classes.resolve(node)
    if isinstance(node, ast.Call):
        return file.calls_torch(node, "get_rank") and not node.args
    return isinstance(node, ast.Attribute) and node.attr in _RANKS


def asks_for_devices(file: File, node: ast.AST) -> bool:
    """Whether a test around a node, or before it, asks how many processes there are."""
    method = next((own for own in file.source.ancestors(node) if isinstance(own, FUNCTIONS)), None)
    tests = (
        own.test
        for own in ast.walk(method or file.source.tree)
        if isinstance(own, (ast.If, ast.IfExp, ast.While, ast.Assert))
    )
    names = (
        part.id if isinstance(part, ast.Name) else part.attr
        for test in tests
        for part in ast.walk(test)
        if isinstance(part, (ast.Name, ast.Attribute))
    )
    return any(_ONE_PROCESS.search(name) for name in names)
