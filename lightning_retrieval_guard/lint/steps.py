"""Metrics in steps: LRG207, made and combined in every step, and LRG301, ids that restart in every batch."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from lightning_retrieval_guard.lint.finding import File, Found, keyword
from lightning_retrieval_guard.lint.metrics import Metric
from lightning_retrieval_guard.lint.rank_tests import is_logged
from lightning_retrieval_guard.lint.restarting import restarting_ids
from lightning_retrieval_guard.lint.source import FUNCTIONS
from lightning_retrieval_guard.rules.static import LRG207, LRG301

# Hooks that run between epochs or stages, so that a reset in them says nothing of single batches.
_BETWEEN = re.compile(r"(on_(?!.*batch)\w+_(start|end))|(training|validation|test)_epoch_end|setup|teardown|__init__")
_POSITION_OF_IDS = 2


def check(file: File) -> Iterator[Found]:
    """Findings at calls in steps."""
    for call in file.calls:
        if isinstance(call.func, (ast.Attribute, ast.Name)) and file.is_in_step(call):
            yield from _made_here(file, call)
            yield from _restarting(file, call)


def _is_local(file: File, metric: ast.expr, call: ast.Call) -> bool:
    """Whether a metric is made in the function that the call stands in."""
    return file.source.function_of(file.classes.resolve(metric)) is file.source.function_of(call)


# --- LRG207 -----------------------------------------------------------------------------------------------------


def _made_here(file: File, call: ast.Call) -> Iterator[Found]:
    if not isinstance(call.func, ast.Attribute) or call.func.attr != "compute":
        return
    combining = [own for own in file.metrics.of(call.func.value) if own.is_retrieval and own.synced]
    if combining and _is_local(file, call.func.value, call):
        message = (
            f"{combining[0].kind} is made in the step and combines ranks in compute(): in every step all ranks wait for"
            " the slowest."
        )
        yield Found(call, LRG207, message)


# --- LRG301 -----------------------------------------------------------------------------------------------------


def _restarting(file: File, call: ast.Call) -> Iterator[Found]:
    fed = _fed(file, call)
    if fed is None:
        return
    metric, members = fed
    ids = keyword(call, "indexes") or (call.args[_POSITION_OF_IDS] if len(call.args) > _POSITION_OF_IDS else None)
    kind = None if ids is None else restarting_ids(file, ids)
    if kind is None:
        return
    if _is_local(file, metric, call):
        if _is_combined_here(file, metric, members, call):
            yield Found(
                call, LRG301, f"ids from {kind} are the same on every rank, so rows of different queries merge."
            )
    elif not _is_reset_in_steps(file) and _accumulates(file, metric, call):
        if kind == "torch.arange":
            yield Found(
                call, LRG301, "ids from torch.arange restart in every batch, so rows of different queries merge."
            )
        elif all(own.synced for own in members) and not _depends_on_batch(file, call):
            message = f"ids from {kind} restart on every rank, so rows of different queries merge on several devices."
            yield Found(call, LRG301, message)


def _fed(file: File, call: ast.Call) -> tuple[ast.expr, list[Metric]] | None:
    """The metric that a call feeds with rows, and its members."""
    function = call.func
    metric = (
        function.value if isinstance(function, ast.Attribute) and function.attr in ("update", "forward") else function
    )
    members = [own for own in file.metrics.of(metric) if own.is_retrieval]
    return (metric, members) if members else None


def _is_combined_here(file: File, metric: ast.expr, members: list[Metric], call: ast.Call) -> bool:
    """Whether a metric that is made in the step surely combines rows that ranks hold of their own."""
    function = file.source.function_of(call)
    names = (own.attr for own in ast.walk(function or file.source.tree) if isinstance(own, ast.Attribute))
    if any("gather" in name for name in names) or not all(own.synced for own in members):
        return False
    computed = (own for one, own in file.method_calls("compute") if file.source.function_of(one) is function)
    return any(file.same(own, metric) for own in computed)


def _accumulates(file: File, metric: ast.expr, call: ast.Call) -> bool:
    """Whether anything is made of the rows over the epoch, and not of the value of the batch alone."""
    if _depends_on_batch(file, call):
        return False
    is_update = isinstance(call.func, ast.Attribute) and call.func.attr == "update"
    if is_update or isinstance(file.source.parents[call], ast.Expr):
        return True
    return is_logged(file, metric) or any(file.same(own, metric) for _, own in file.method_calls("compute"))


def _depends_on_batch(file: File, call: ast.Call) -> bool:
    """Whether the step tests which batch it has: then it may feed the metric once in an epoch."""
    function = file.source.function_of(call)
    tests = (own.test for own in ast.walk(function or file.source.tree) if isinstance(own, (ast.If, ast.IfExp)))
    return any("batch" in own.id for test in tests for own in ast.walk(test) if isinstance(own, ast.Name))


def _is_reset_in_steps(file: File) -> bool:
    """Whether a metric may be reset between two batches."""
    for call, _ in file.method_calls("reset"):
        function = next((own for own in file.source.ancestors(call) if isinstance(own, FUNCTIONS)), None)
        if function is None or not _BETWEEN.fullmatch(function.name):
            return True
    return False
