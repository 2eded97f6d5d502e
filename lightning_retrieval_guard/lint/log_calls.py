"""The ``log`` calls of a file: LRG101, LRG202 and LRG204."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lightning_retrieval_guard.lint.finding import File, Found, keyword
from lightning_retrieval_guard.lint.source import MOST_STEPS, Binding
from lightning_retrieval_guard.rules.static import LRG101, LRG202, LRG204

LOG_METHODS = ("log", "log_dict")
_DEVICE_COUNTS = ("world_size", "num_devices")
_COUNTING = ("get_world_size", "device_count")
_NUMBERS = ("int", "float", "round", "max", "min", "len", "sum", "abs")
# Methods that may return a Metric object, or return what they were called on.
_PASSING = ("to", "cpu", "cuda", "clone", "detach", "train", "eval")
_HOLDING = ("get", "pop", "setdefault")
# Hooks in which Lightning takes the mean over the batches unless told otherwise.
_OVER_BATCHES = (
    "validation_step",
    "test_step",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_test_batch_start",
    "on_test_batch_end",
)


def check(file: File) -> Iterator[Found]:
    """Findings at the log calls of modules and callbacks."""
    for call, receiver in file.method_calls(*LOG_METHODS):
        spelled_out = all(own.arg is not None for own in call.keywords) and len(call.args) <= 2
        if spelled_out and _logs(file, receiver):
            yield from _weight(file, call)
            yield from _reduction(file, call)


def _logs(file: File, receiver: ast.expr) -> bool:
    """Whether a ``log`` method is Lightning's own."""
    method = file.source.method_of(receiver)
    if method is None:
        return False
    own = any(
        isinstance(node, ast.FunctionDef) and node.name in LOG_METHODS
        for cls in file.classes.family(method[1])
        for node in cls.body
    )
    if file.source.is_self(receiver):
        return file.classes.derives(method[1], "LightningModule") and not own
    return isinstance(receiver, ast.Name) and receiver.id == "pl_module" and file.classes.derives(method[1], "Callback")


def _value(call: ast.Call) -> ast.expr | None:
    position, name = (
        (1, "value") if isinstance(call.func, ast.Attribute) and call.func.attr == "log" else (0, "dictionary")
    )
    return call.args[position] if len(call.args) > position else keyword(call, name)


# --- LRG101 -----------------------------------------------------------------------------------------------------


def _weight(file: File, call: ast.Call) -> Iterator[Found]:
    size, value = keyword(call, "batch_size"), _value(call)
    if size is None or value is None or not _is_weighed(file, call) or not is_plain(file, value):
        return
    if _is_multiplied(file, size):
        message = (
            "batch_size is multiplied by the number of devices, but Lightning weighs each rank's own batch with it."
        )
        yield Found(call, LRG101, message)


def _is_weighed(file: File, call: ast.Call) -> bool:
    """Whether Lightning surely takes the mean over batches."""
    reduction = keyword(call, "reduce_fx")
    if reduction is not None and not (isinstance(reduction, ast.Constant) and reduction.value == "mean"):
        return False
    over_epoch = keyword(call, "on_epoch")
    if over_epoch is not None:
        return file.is_true(over_epoch)
    method = file.source.method_of(call)
    return method is not None and method[0].name in _OVER_BATCHES


def _is_multiplied(file: File, size: ast.expr) -> bool:
    """Whether a number is a product with the number of devices, and nothing is divided by what may be that number."""
    found, waiting, steps = False, [size], 0
    while waiting and steps < MOST_STEPS:
        steps += 1
        node = file.classes.resolve(waiting.pop())
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            waiting += [node.left, node.right]
        elif isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Div, ast.FloorDiv)):
            if not isinstance(file.classes.resolve(node.right), ast.Constant):
                return False
            waiting.append(node.left)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("int", "float"):
            waiting += node.args
        else:
            found |= _is_device_count(file, node)
    return found and steps > 1 and not waiting


def _is_device_count(file: File, node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return file.calls_torch(node, *_COUNTING)
    return isinstance(node, ast.Attribute) and node.attr in _DEVICE_COUNTS


# --- LRG202 and LRG204 ------------------------------------------------------------------------------------------


def _reduction(file: File, call: ast.Call) -> Iterator[Found]:
    value = _value(call)
    if value is None or not file.is_true(keyword(call, "sync_dist")):
        return
    if file.is_true(keyword(call, "rank_zero_only")):
        if is_plain(file, value):
            message = (
                "sync_dist=True and rank_zero_only=True: Lightning reduces nothing, and the logger shows the shard of"
                " rank 0."
            )
            yield Found(call, LRG204, message)
    elif (
        keyword(call, "rank_zero_only") is None
        and _is_sum(file, keyword(call, "reduce_fx"))
        and _is_combined(file, value)
    ):
        message = (
            "compute() combines all ranks already, and sync_dist=True with reduce_fx='sum' adds its value up once for"
            " each rank."
        )
        yield Found(call, LRG202, message)


def _is_sum(file: File, reduction: ast.expr | None) -> bool:
    if isinstance(reduction, ast.Constant):
        return isinstance(reduction.value, str) and reduction.value.lower() == "sum"
    return reduction is not None and file.source.dotted(reduction) == "torch.sum"


def _is_combined(file: File, value: ast.expr) -> bool:
    value = file.classes.resolve(value)
    if not isinstance(value, ast.Call) or not isinstance(value.func, ast.Attribute) or value.func.attr != "compute":
        return False
    metrics = file.metrics.of(value.func.value)
    return bool(metrics) and all(own.synced for own in metrics)


# --- values -----------------------------------------------------------------------------------------------------


def is_plain(file: File, value: ast.expr, depth: int = 0) -> bool:
    """Whether a logged value is surely no Metric object, for which Lightning ignores most arguments."""
    value = file.classes.resolve(value)
    if depth > MOST_STEPS:
        return False
    if isinstance(value, ast.Name):
        found = file.source.definition(value)
        return isinstance(found, Binding) and found.value is not None and is_plain(file, found.value, depth + 1)
    if isinstance(value, ast.Dict):
        return bool(value.values) and all(is_plain(file, own, depth + 1) for own in value.values)
    if isinstance(value, (ast.BinOp, ast.IfExp)):
        sides = (value.left, value.right) if isinstance(value, ast.BinOp) else (value.body, value.orelse)
        return all(is_plain(file, own, depth + 1) for own in sides)
    if isinstance(value, (ast.UnaryOp, ast.Subscript, ast.Attribute)):
        inner = value.operand if isinstance(value, ast.UnaryOp) else value.value
        return not file.source.is_self(inner) and is_plain(file, inner, depth + 1)
    if isinstance(value, ast.Call):
        return _is_plain_call(file, value, depth)
    return isinstance(value, (ast.Constant, ast.Compare))


def _is_plain_call(file: File, call: ast.Call, depth: int) -> bool:
    function = call.func
    if file.source.is_self(function):
        return True
    if isinstance(function, ast.Name):
        dotted = file.source.dotted(function)
        return function.id in _NUMBERS or dotted.startswith(("torch.", "torchmetrics.functional."))
    if not isinstance(function, ast.Attribute) or function.attr in _HOLDING:
        return False
    if function.attr in _PASSING:
        return is_plain(file, function.value, depth + 1)
    # a method that is named after metrics may return one
    return "metric" not in function.attr.lower() and not function.attr[:1].isupper()
