"""LRG201: rows that were gathered from all ranks, passed to a metric that combines the ranks again."""

from __future__ import annotations

import ast
import enum
from collections.abc import Iterable, Iterator

from lightning_retrieval_guard.lint.finding import File, Found, keyword
from lightning_retrieval_guard.lint.metrics import Metric, named
from lightning_retrieval_guard.lint.rank_tests import is_on_rank_zero
from lightning_retrieval_guard.lint.source import MOST_STEPS, Binding
from lightning_retrieval_guard.rules.static import LRG201

_COUNTS = ("len", "int", "float", "min", "max", "sum", "range")
_OF_THE_PLACE = ("device", "dtype")
_BY_CHANCE = ("rand", "normal", "bernoulli", "multinomial", "uniform", "dropout")
# Metrics that a second copy of every row changes where they look at two rows or more, or at any number of rows.
_CHANGED_FROM_TWO = ("RetrievalMAP", "RetrievalMRR", "RetrievalNormalizedDCG", "RetrievalHitRate", "RetrievalPrecision")
_CHANGED_FROM_ONE = ("RetrievalRecall", "RetrievalFallOut")
_CHANGED_WITHOUT_CUT = ("RetrievalMAP", "RetrievalMRR", "RetrievalNormalizedDCG")


class Origin(enum.Enum):
    """Where the values of an expression come from."""

    GATHERED = enum.auto()
    SAME = enum.auto()
    """The same on every rank, and no rows."""
    UNKNOWN = enum.auto()


def check(file: File) -> Iterator[Found]:
    """Findings at calls of ``update()``."""
    for call, receiver in file.method_calls("update"):
        metrics = file.metrics.of(receiver)
        if any(own.synced and _is_changed_by_copies(own) for own in metrics) and not is_on_rank_zero(file, call):
            rows = [*call.args, *(own.value for own in call.keywords)]
            if _all(file, rows, 0) is Origin.GATHERED:
                whose = named(metrics)
                message = f"the rows were gathered from all ranks, and {whose} combines the ranks again in compute()."
                yield Found(call, LRG201, message)


def _is_changed_by_copies(metric: Metric) -> bool:
    """Whether a metric surely tells every row once from every row several times."""
    cut = keyword(metric.call, "top_k")
    if metric.call.args:
        return False
    if cut is None or (isinstance(cut, ast.Constant) and cut.value is None):
        return metric.kind in _CHANGED_WITHOUT_CUT
    least = cut.value if isinstance(cut, ast.Constant) and isinstance(cut.value, int) else 1
    return metric.kind in _CHANGED_FROM_ONE or (metric.kind in _CHANGED_FROM_TWO and least > 1)


def _all(file: File, nodes: Iterable[ast.expr | None], depth: int) -> Origin:
    origins = {origin(file, node, depth + 1) for node in nodes if node is not None}
    if Origin.UNKNOWN in origins:
        return Origin.UNKNOWN
    return Origin.GATHERED if Origin.GATHERED in origins else Origin.SAME


def origin(file: File, node: ast.expr, depth: int = 0) -> Origin:
    """Where the values of an expression come from."""
    if depth > MOST_STEPS:
        return Origin.UNKNOWN
    if isinstance(node, ast.Constant):
        return Origin.SAME
    if isinstance(node, ast.Name):
        found = file.source.definition(node)
        value = found.value if isinstance(found, Binding) else None
        return Origin.UNKNOWN if value is None else origin(file, value, depth + 1)
    if isinstance(node, ast.Attribute):
        return _of_attribute(file, node, depth)
    if isinstance(node, (ast.GeneratorExp, ast.ListComp)):
        return origin(file, node.elt, depth + 1)
    if isinstance(node, ast.Call):
        return _of_call(file, node, depth)
    return _all(file, _parts(node), depth) if isinstance(node, _MADE_OF_PARTS) else Origin.UNKNOWN


_MADE_OF_PARTS = (ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript, ast.Slice, ast.Tuple, ast.List, ast.Starred)


def _parts(node: ast.expr) -> Iterator[ast.expr]:
    return (own for own in ast.iter_child_nodes(node) if isinstance(own, ast.expr))


def _of_attribute(file: File, node: ast.Attribute, depth: int) -> Origin:
    if file.source.dotted(node).startswith("torch.") or (
        node.attr in _OF_THE_PLACE and file.source.is_self(node.value)
    ):
        return Origin.SAME
    if file.source.is_self(node.value):
        value = file.classes.resolve(node)
        return Origin.SAME if isinstance(value, ast.Constant) else Origin.UNKNOWN
    return origin(file, node.value, depth + 1)


def _of_call(file: File, call: ast.Call, depth: int) -> Origin:
    function = call.func
    values = [*call.args, *(own.value for own in call.keywords)]
    dotted = file.source.dotted(function)
    name = dotted.rpartition(".")[2] if dotted else getattr(function, "attr", "")
    if any(part in name for part in _BY_CHANCE):
        return Origin.UNKNOWN
    if dotted:
        known = dotted.startswith("torch.") and not dotted.startswith(("torch.distributed.", "torch.cuda."))
        return _all(file, values, depth) if known else Origin.UNKNOWN
    if isinstance(function, ast.Name):
        return _all(file, values, depth) if function.id in _COUNTS else Origin.UNKNOWN
    if not isinstance(function, ast.Attribute):
        return Origin.UNKNOWN
    if function.attr == "all_gather":
        return Origin.GATHERED if _gathers_all(file, call, function.value) else Origin.UNKNOWN
    if file.source.is_self(function.value):
        return Origin.UNKNOWN
    return _all(file, [function.value, *values], depth)


def _gathers_all(file: File, call: ast.Call, receiver: ast.expr) -> bool:
    """Whether it is Lightning's own ``all_gather`` over all ranks."""
    method = file.source.method_of(call)
    own = method is not None and file.classes.derives(method[1], "LightningModule") and file.source.is_self(receiver)
    return own and len(call.args) == 1 and all(argument.arg == "sync_grads" for argument in call.keywords)
