"""What tensors are after an operation, by tables of what functions of torch keep."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace

from lightning_retrieval_guard.lint import values
from lightning_retrieval_guard.lint.values import UNKNOWN, UNSURE, Const, Data, Listing, Value, as_data, made_of

# What is kept of the first argument, by function; of one that is not named here the origin alone is known.
_KEPT = {
    name: facts.split()
    for facts, names in (
        (
            "rows ids ndim scores size symbol is_batch factor",
            "to cpu cuda detach clone contiguous type type_as float double half bfloat16 long int data get pop"
            " requires_grad_",
        ),
        (
            "rows ndim",
            "sigmoid softmax log_softmax logit exp log abs neg masked_fill where normalize relu tanh squeeze_ pow sqrt"
            " logical_not bool nan_to_num argsort sort cumsum fliplr flip scatter scatter_",
        ),
        ("rows ndim ids scores", "round clamp mul div add sub mul_ div_ add_ sub_"),
        ("rows ids", "expand expand_as broadcast_to"),
        ("ids scores", "repeat repeat_interleave view view_as reshape flatten ravel squeeze unsqueeze"),
        ("scores", "mean item tolist nanmean sum max min amax amin median any all argmax argmin count_nonzero numpy"),
    )
    for name in names.split()
}
# Methods that leave the value of a metric as it is.
_EXACT = frozenset({"item", "tolist", "detach", "cpu", "clone", "to", "float", "double", "numpy", "data"})
# Functions that make a list of tensors, or of numbers, one.
_CONCATENATING = frozenset({"cat", "concat", "concatenate", "hstack", "vstack"})
_FROM_LISTS = frozenset({"stack", "tensor", "as_tensor", "LongTensor", "IntTensor", "FloatTensor", "array", "asarray"})
# Functions that ask for the shape first.
_FILLED = frozenset({"full", "full_like", "new_full"})
_MADE = frozenset({"zeros", "ones", "empty", "rand", "randn", "randint", "eye", "zeros_like", "ones_like", "rand_like"})
_RANDOM = ("rand", "normal", "bernoulli", "multinomial", "uniform", "dropout")


def subscript(value: Value, key: Value, node: ast.expr | None = None) -> Value:
    """``value[key]``."""
    index = key.value if isinstance(key, Const) else None
    if isinstance(value, values.Mapping):
        return value.get(key)
    if isinstance(value, Listing):
        if isinstance(node, ast.Slice):
            return values.many(*value.items, rows=value.rows)
        if value.is_exact and isinstance(index, int) and abs(index) < len(value.items):
            return value.items[index]
        return values.item_of(value)
    if isinstance(value, values.Metric):
        return value.single if value.is_collection else UNKNOWN
    if isinstance(value, values.Shape):
        return Data(value.of.origin, size=value.of.rows if index == 0 else None)
    return _indexed(value, key, node) if isinstance(value, Data) else UNKNOWN


def _indexed(value: Data, key: Value, node: ast.expr | None) -> Data:
    # an entry of a batch is rows of the batch again, such as one of its columns
    if value.is_batch and isinstance(key, (Const, values.Text)):
        return value
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    added = sum(isinstance(part, ast.Constant) and part.value is None for part in parts)
    whole = [isinstance(part, ast.Slice) and part.lower is part.upper is part.step is None for part in parts]
    only_adds = added + sum(whole) == len(parts)  # so every number is still there, in its order
    result = Data(made_of(value, key).origin, ids=value.ids, scores=value.scores, line=value.line)
    if whole[0]:
        return replace(result, rows=value.rows, ndim=value.ndim + added if value.ndim and only_adds else None)
    return replace(result, ids=value.ids if only_adds else None)


# --- functions ------------------------------------------------------------------------------------------------------


def arange(line: int, bounds: Sequence[Value]) -> Data:
    """Numbers from one bound to the other."""
    if not 1 <= len(bounds) <= 2 or bounds[-1] == UNKNOWN:
        return made_of(*bounds)
    start, end = as_data(bounds[0]) if len(bounds) == 2 else Data(), as_data(bounds[-1])
    result = Data(made_of(start, end).origin, ndim=1, line=line)
    # from a counter on: ids that go on within the rank, and start anew on the next
    if start.ids and (end.ids or end.size or not end.origin):
        return replace(result, ids="rank")
    is_fixed = len(bounds) == 1 or isinstance(bounds[0], Const)
    return replace(result, ids=end.size, rows=end.size) if is_fixed else result


def tensor_function(line: int, name: str, arguments: values.Arguments) -> Value:
    """A function of torch."""
    given, keywords, _ = arguments
    others = {key: value for key, value in keywords.items() if key not in ("dtype", "device", "requires_grad")}
    first = given[0] if given else next(iter(others.values()), Data())
    if name == "arange":
        return arange(line, [*given, *(others[key] for key in ("start", "end") if key in others)])
    if name in _FILLED:
        filled = as_data(arguments.get(1, "fill_value") or UNKNOWN)
        return Data(filled.origin, ids=filled.ids, line=filled.line or line)
    if name in _MADE:
        ndim = first.ndim if name.endswith("_like") else len(given) if given[1:] else None
        return Data(UNSURE if _is_random(name) else values.SAME, ndim=2 if name == "eye" else ndim)
    if name in _CONCATENATING or name in _FROM_LISTS:
        return _stacked(name, first, len(given) > 1 or "dim" in keywords)
    if name == "einsum" and isinstance(first, Const):
        result = str(first.value).partition("->")[2].strip()
        return Data(made_of(*given).origin, ndim=len(result) if result.isalpha() else None)
    return tensor_method(as_data(first), name, values.Arguments(given[1:], others if given else {}))


def _is_random(name: str) -> bool:
    return any(part in name for part in _RANDOM)


def _stacked(name: str, value: Value, has_dimension: bool) -> Data:
    if isinstance(value, Data):
        return value
    items = values.contents(value)
    if not items:
        return made_of(value)
    item = as_data(values.joined(items))
    rows, ndim = value.rows, None
    if name in _CONCATENATING:
        is_exact = isinstance(value, Listing) and value.is_exact
        rows, ndim = item.rows if is_exact or item.rows is None else rows, item.ndim
    scores = values.scores_of(value)
    rows = None if has_dimension else rows
    return Data(made_of(value).origin, rows=rows, ids=item.ids, ndim=ndim, scores=scores, line=item.line)


def tensor_method(data: Data, name: str, arguments: values.Arguments) -> Value:
    """A method of a tensor, or the same function with the tensor as its first argument."""
    given = arguments.values
    if name == "size":
        return subscript(values.Shape(data), given[0]) if given else values.Shape(data)
    if name in ("matmul", "mm", "bmm") and given:
        return matmul(data, as_data(given[0]), is_flat=name == "mm")
    if name in ("t", "transpose", "permute"):
        return Data(data.origin, ndim=2 if name == "t" else data.ndim, line=data.line)
    return kept(data, name, arguments.all, arguments.keywords.get("dim"))


def kept(data: Data, name: str, others: Sequence[Value] = (), dimension: Value | None = None) -> Data:
    """What the tables keep of a tensor."""
    if name not in _KEPT and _is_random(name):
        return Data(UNSURE)
    facts = {fact: getattr(data, fact) for fact in _KEPT.get(name, ())}
    first = dimension or (others[0] if others else UNKNOWN)
    index = first.value if isinstance(first, Const) else None
    # an operation along a later dimension leaves the first, the samples, as it is
    if isinstance(index, int) and (index > 0 or (index == -1 and data.ndim != 1)):
        facts["rows"] = data.rows
    if name in ("view", "reshape"):
        facts |= {"rows": first.size, "ndim": len(others) if len(others) > 1 else None}
    if "scores" in facts:
        # mixed with data, a metric's value is a metric's value no longer
        scores = () if any(as_data(value).origin for value in others) else data.scores
        facts["scores"] = scores if name in _EXACT else _inexact(*scores)
    return Data(made_of(data, *others).origin, line=data.line, **facts)


# --- arithmetic -----------------------------------------------------------------------------------------------------


def matmul(left: Data, right: Data, is_flat: bool = False) -> Data:
    """A product of matrices: samples stay first, and two matrices give one."""
    is_matrix = is_flat or (right.ndim == 2 and (left.ndim == 2 or (left.rows is not None and left.ndim is None)))
    ndim = 2 if is_matrix else None
    return Data(made_of(left, right).origin, rows=left.rows, ndim=ndim, line=left.line or right.line)


def arithmetic(left: Data, right: Data, operation: ast.operator) -> Data:
    """``left + right`` and the like; symbols are looked at elsewhere."""
    both = (left, right)
    keeps_ids = isinstance(operation, (ast.Add, ast.Sub, ast.Mult))
    # ids that are moved by what counts, or is the same everywhere, start again as before
    is_counted = keeps_ids and all(part.ids or part.size or not part.origin for part in both)
    ids = left.ids if left.ids == "rank" else right.ids or left.ids
    is_local = all(part.scores or part.origin <= values.RANK for part in both)
    ndim = left.ndim if left.ndim == right.ndim or not right.origin else right.ndim if not left.origin else None
    return Data(
        made_of(*both).origin,
        rows=left.rows or (None if left.origin else right.rows),
        size=left.size if isinstance(operation, (ast.Add, ast.Sub)) and not right.origin else None,
        ndim=ndim,
        ids=ids if is_counted else None,
        scores=_inexact(*left.scores, *right.scores) if is_local else (),
        line=left.line or right.line,
    )


def _inexact(*scores: values.Score) -> tuple[values.Score, ...]:
    return tuple(replace(score, is_exact=False) for score in scores)
