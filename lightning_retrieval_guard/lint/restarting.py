"""Query ids that count the samples of a batch, or the batches of a rank."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lightning_retrieval_guard.lint.finding import File, keyword
from lightning_retrieval_guard.lint.source import MOST_STEPS, Binding, Parameter

_BATCH, _BATCH_IDX = 1, 2
_ARANGE = frozenset({"dtype", "device"})
# Methods that keep which id a row has.
_KEEPING_IDS = frozenset(
    {
        "unsqueeze",
        "expand",
        "expand_as",
        "repeat",
        "repeat_interleave",
        "view",
        "view_as",
        "reshape",
        "flatten",
        "ravel",
        "squeeze",
        "contiguous",
        "clone",
        "to",
        "long",
        "int",
        "type",
        "type_as",
        "cuda",
        "cpu",
        "broadcast_to",
    }
)
_KEEPING_IDS_OF_TORCH = ("repeat_interleave", "flatten", "broadcast_to", "unsqueeze")
# Methods that keep the samples of the batch in the first dimension.
_KEEPING_SAMPLES = frozenset(
    {
        "float",
        "double",
        "half",
        "bfloat16",
        "to",
        "cpu",
        "cuda",
        "detach",
        "clone",
        "contiguous",
        "sigmoid",
        "softmax",
        "log_softmax",
        "logit",
        "exp",
        "log",
        "abs",
        "neg",
        "round",
        "clamp",
        "div",
        "mul",
        "add",
        "sub",
        "matmul",
        "mm",
        "masked_fill",
    }
)
_KEEPING_SAMPLES_OF_TORCH = (
    "torch.matmul",
    "torch.mm",
    "torch.sigmoid",
    "torch.softmax",
    "torch.nn.functional.normalize",
    "torch.nn.functional.softmax",
    "torch.nn.functional.log_softmax",
)
_FILLED = {"torch.full": 1, "torch.full_like": 1}


def restarting_ids(file: File, ids: ast.expr) -> str | None:
    """What ids are surely made of: ``"torch.arange"`` over the samples of the batch, or the index of the batch."""
    base = _without_shape(file, ids)
    if not isinstance(base, ast.Call):
        return None
    dotted = file.source.dotted(base.func)
    if dotted == "torch.arange":
        return dotted if _counts_samples(file, base) else None
    if dotted in _FILLED:
        filled = keyword(base, "fill_value") or (base.args[1] if len(base.args) > _FILLED[dotted] else None)
        return _batch_index(file, filled)
    if dotted == "torch.tensor" and len(base.args) == 1:
        return _batch_index(file, _repeated(base.args[0]))
    return None


def _without_shape(file: File, node: ast.expr) -> ast.expr:
    """What ids are before they are brought into shape."""
    for _ in range(MOST_STEPS):
        node = file.classes.resolve(node)
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(node, ast.Subscript) and _adds_dimensions(node.slice):
            node = node.value
        elif isinstance(node, ast.Call) and isinstance(function, ast.Attribute) and not file.source.dotted(function):
            if function.attr not in _KEEPING_IDS:
                break
            node = function.value
        elif isinstance(node, ast.Call) and _short(file, node) in _KEEPING_IDS_OF_TORCH and node.args:
            node = node.args[0]
        else:
            break
    return node


def _short(file: File, call: ast.Call) -> str:
    """The name of a function of torch without its module."""
    module, _, name = file.source.dotted(call.func).rpartition(".")
    return name if module == "torch" else ""


def _adds_dimensions(index: ast.expr) -> bool:
    """Whether an index such as ``[:, None]`` selects nothing."""
    parts = index.elts if isinstance(index, ast.Tuple) else [index]
    return all(
        (isinstance(own, ast.Constant) and own.value in (None, ...))
        or (isinstance(own, ast.Slice) and own.lower is own.upper is own.step is None)
        for own in parts
    )


def _repeated(node: ast.expr) -> ast.expr:
    """The item of ``[item]`` and ``[item] * count``."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        node = node.left
    return node.elts[0] if isinstance(node, ast.List) and len(node.elts) == 1 else node


def _batch_index(file: File, node: ast.expr | None) -> str | None:
    if node is None or not isinstance(name := file.classes.resolve(node), ast.Name):
        return None
    found = file.source.definition(name)
    is_index = isinstance(found, Parameter) and found.position == _BATCH_IDX
    return f"{name.id}" if is_index else None


# --- torch.arange over the samples ------------------------------------------------------------------------------


def _counts_samples(file: File, arange: ast.Call) -> bool:
    """Whether the numbers go from zero to the number of samples in the batch."""
    start = arange.args[:-1]
    from_zero = not start or (len(start) == 1 and isinstance(start[0], ast.Constant) and start[0].value == 0)
    plain = all(own.arg in _ARANGE for own in arange.keywords) and len(arange.args) in (1, 2)
    return plain and from_zero and any(_holds_samples(file, own) for own in _measured(file, arange.args[-1]))


def _measured(file: File, size: ast.expr) -> Iterator[ast.expr]:
    """The tensor whose first dimension a number is, if it is one."""
    size = file.classes.resolve(size)
    if isinstance(size, ast.Name):
        found = file.source.definition(size)
        if isinstance(found, Binding) and found.index == 0 and found.value is not None:
            yield from _shaped(found.value)
    elif isinstance(size, ast.Subscript) and isinstance(size.slice, ast.Constant) and size.slice.value == 0:
        yield from _shaped(size.value)
    elif isinstance(size, ast.Call) and len(size.args) == 1:
        function, argument = size.func, size.args[0]
        if isinstance(function, ast.Name) and function.id == "len":
            yield argument
        elif isinstance(function, ast.Attribute) and function.attr == "size" and isinstance(argument, ast.Constant):
            yield from [function.value] if argument.value == 0 else []


def _shaped(node: ast.expr) -> Iterator[ast.expr]:
    """The tensor of ``tensor.shape`` and ``tensor.size()``."""
    call = node.func if isinstance(node, ast.Call) and not node.args else None
    if isinstance(node, ast.Attribute) and node.attr == "shape":
        yield node.value
    elif isinstance(call, ast.Attribute) and call.attr == "size":
        yield call.value


def _holds_samples(file: File, node: ast.expr, depth: int = 0) -> bool:
    """Whether the first dimension of a tensor is surely that of the samples in the batch."""
    node = file.classes.resolve(node)
    if depth > MOST_STEPS:
        return False
    if isinstance(node, ast.Name):
        found = file.source.definition(node)
        if isinstance(found, Binding):
            return found.value is not None and _holds_samples(file, found.value, depth + 1)
        return isinstance(found, Parameter) and found.position == _BATCH
    if isinstance(node, ast.Subscript):
        return _holds_samples_of_item(file, node, depth)
    if isinstance(node, ast.Attribute):
        return node.attr not in ("T", "mT", "H", "shape") and _is_batch(file, node.value)
    if isinstance(node, ast.BinOp):
        return _holds_samples(file, node.left, depth + 1)
    return isinstance(node, ast.Call) and _holds_samples_of_call(file, node, depth)


def _holds_samples_of_item(file: File, node: ast.Subscript, depth: int) -> bool:
    key = node.slice
    if isinstance(key, ast.Constant) and isinstance(key.value, str):
        return _holds_samples(file, node.value, depth + 1)
    if isinstance(key, ast.Constant) and isinstance(key.value, int):
        return _is_batch(file, node.value)
    first = key.elts[0] if isinstance(key, ast.Tuple) and key.elts else None
    keeps = isinstance(first, ast.Slice) and first.lower is first.upper is first.step is None
    return keeps and _holds_samples(file, node.value, depth + 1)


def _holds_samples_of_call(file: File, call: ast.Call, depth: int) -> bool:
    dotted = file.source.dotted(call.func)
    if dotted:
        return dotted in _KEEPING_SAMPLES_OF_TORCH and bool(call.args) and _holds_samples(file, call.args[0], depth + 1)
    owner = call.func
    while isinstance(owner, ast.Attribute):
        owner = owner.value
    if file.source.is_self(owner):
        # The module is taken to keep the samples first where it is given nothing but the batch.
        values = [*call.args, *(own.value for own in call.keywords)]
        return bool(values) and all(_holds_samples(file, own, depth + 1) for own in values)
    kept = isinstance(call.func, ast.Attribute) and call.func.attr in _KEEPING_SAMPLES
    return kept and isinstance(call.func, ast.Attribute) and _holds_samples(file, call.func.value, depth + 1)


def _is_batch(file: File, node: ast.expr) -> bool:
    """Whether an expression is the batch itself."""
    node = file.classes.resolve(node)
    found = file.source.definition(node) if isinstance(node, ast.Name) else None
    return isinstance(found, Parameter) and found.position == _BATCH
