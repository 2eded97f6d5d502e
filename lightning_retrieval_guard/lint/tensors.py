"""What tensors are after an operation, by tables of what functions of torch keep."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import replace

from lightning_retrieval_guard.lint.values import (
    UNKNOWN,
    Arguments,
    Const,
    Data,
    Items,
    Lead,
    Many,
    Mapping,
    Metric,
    Origin,
    Score,
    Shape,
    Text,
    Unknown,
    Value,
    as_data,
    contents,
    item_of,
    joined,
    scores_of,
    unsure,
)

# What is kept of the first argument; whatever is not named here keeps the origin alone.
# "rows": the first dimension, "ids": which id a row has, "ndim": the number of dimensions, "scores": metric values.
_ALL = frozenset({"rows", "ids", "ndim", "scores", "size"})
_SHAPE = frozenset({"rows", "ndim"})
_PLACES = "to cpu cuda detach clone contiguous type type_as float double half bfloat16 long int requires_grad_ data"
_ELEMENTWISE = (
    "sigmoid softmax log_softmax logit exp log abs neg masked_fill where normalize relu tanh squeeze_ pow sqrt"
    " logical_not bool nan_to_num argsort sort cumsum fliplr flip scatter scatter_"
)
_SCALING = "round clamp mul div add sub mul_ div_ add_ sub_"
_FIRST_DIMENSION = "expand expand_as broadcast_to"
_RESHAPED = "repeat repeat_interleave view view_as reshape flatten ravel squeeze unsqueeze"
_REDUCED = "mean item tolist nanmean sum max min amax amin median any all argmax argmin count_nonzero numpy"
_KEEPS: dict[str, frozenset[str]] = {
    **dict.fromkeys(_PLACES.split(), _ALL),
    **dict.fromkeys(_ELEMENTWISE.split(), _SHAPE),
    **dict.fromkeys(_SCALING.split(), _SHAPE | {"ids", "scores"}),
    **dict.fromkeys(_FIRST_DIMENSION.split(), frozenset({"rows", "ids"})),
    **dict.fromkeys(_RESHAPED.split(), frozenset({"ids", "scores"})),
    **dict.fromkeys(_REDUCED.split(), frozenset({"scores"})),
}
# Methods that leave the value of a metric as it is.
_EXACT = frozenset({"item", "tolist", "detach", "cpu", "clone", "to", "float", "double", "numpy", "data"})
# Functions that make a list of tensors, or of numbers, one.
_CONCATENATING = frozenset({"cat", "concat", "concatenate", "hstack", "vstack"})
_FROM_LISTS = frozenset({"stack", "tensor", "as_tensor", "LongTensor", "IntTensor", "FloatTensor", "array", "asarray"})
# Functions that ask for the shape first.
_FILLED = frozenset({"full", "full_like", "new_full"})
_MADE = frozenset({"zeros", "ones", "empty", "rand", "randn", "randint", "eye", "zeros_like", "ones_like", "rand_like"})
_BY_CHANCE = ("rand", "normal", "bernoulli", "multinomial", "uniform", "dropout")


def subscript(value: Value, key: Value, node: ast.expr | None = None) -> Value:
    """``value[key]``."""
    if isinstance(value, Mapping):
        return value.get(key)
    if isinstance(value, Items):
        index = key.value if isinstance(key, Const) else None
        return value.items[index] if isinstance(index, int) and abs(index) < len(value.items) else item_of(value)
    if isinstance(value, Many):
        return value if isinstance(node, ast.Slice) else item_of(value)
    if isinstance(value, Metric):
        return value.single if value.is_collection else UNKNOWN
    if isinstance(value, Shape):
        is_first = key in (Const(0), Const(-value.of.ndim if value.of.ndim else None))
        return Data(value.of.origin, size=value.of.lead if is_first else None)
    return _indexed(value, key, node) if isinstance(value, Data) and not isinstance(value, Unknown) else UNKNOWN


def _indexed(value: Data, key: Value, node: ast.expr | None) -> Data:
    is_slice = isinstance(node, ast.Slice)
    if value.is_batch and isinstance(key, (Const, Text)) and not is_slice:
        return value
    if isinstance(key, Const) and isinstance(key.value, str):
        return value
    parts = node.elts if isinstance(node, ast.Tuple) else [node]
    added = sum(isinstance(part, ast.Constant) and part.value is None for part in parts)
    whole = [isinstance(part, ast.Slice) and part.lower is part.upper is part.step is None for part in parts]
    only_adds = added + sum(whole) == len(parts)
    result = Data(unsure(value, key).origin, ids=value.ids, scores=value.scores, line=value.line)
    if whole[0]:
        return replace(result, lead=value.lead, ndim=value.ndim + added if value.ndim and only_adds else None)
    ids = value.ids if is_slice or only_adds else None
    return replace(result, ids=ids, ndim=value.ndim if is_slice else None)


# --- functions ------------------------------------------------------------------------------------------------------


def arange(node: ast.Call, bounds: Sequence[Value]) -> Data:
    """Numbers from one bound to the other."""
    if not 1 <= len(bounds) <= 2 or isinstance(bounds[-1], Unknown):
        return unsure(*bounds)
    start, end = as_data(bounds[0]) if len(bounds) == 2 else Data(), as_data(bounds[-1])
    result = Data(unsure(start, end).origin, ndim=1, line=node.lineno)
    if start.ids and (end.ids or end.size or not end.origin):
        return replace(result, ids=Lead.RANK)
    is_fixed = len(bounds) == 1 or isinstance(bounds[0], Const)
    return replace(result, ids=end.size, lead=end.size) if is_fixed else result


def tensor_function(node: ast.Call, name: str, arguments: Arguments) -> Value:
    """A function of torch."""
    values, keywords, _ = arguments
    others = {key: value for key, value in keywords.items() if key not in ("dtype", "device", "requires_grad")}
    first = values[0] if values else next(iter(others.values()), Data())
    if name == "arange":
        return arange(node, [*values, *(others[key] for key in ("start", "end") if key in others)])
    if name in _FILLED:
        filled = as_data(arguments.get(1, "fill_value") or UNKNOWN)
        return Data(filled.origin, ids=filled.ids, line=filled.line or node.lineno)
    if name in _MADE:
        if name == "eye":
            return Data(ndim=2)
        ndim = first.ndim if isinstance(first, Data) and name.endswith("_like") else None
        is_random = any(part in name for part in _BY_CHANCE)
        return Data(UNKNOWN.origin if is_random else frozenset(), ndim=ndim or (len(values) if values[1:] else None))
    if name in _CONCATENATING or name in _FROM_LISTS:
        return _stacked(name, first, len(values) > 1 or "dim" in keywords)
    if name == "einsum" and isinstance(first, Const) and isinstance(first.value, str):
        result = first.value.partition("->")[2].strip()
        return Data(unsure(*values).origin, ndim=len(result) if result.isalpha() else None)
    return tensor_method(as_data(first), name, Arguments(values[1:], others if values else {}))


def _stacked(name: str, value: Value, has_dimension: bool) -> Data:
    if isinstance(value, Data):
        return value
    inner = contents(value)
    if not inner:
        return unsure(value)
    item = as_data(joined(inner))
    lead = value.lead if isinstance(value, Many) else None
    ndim = item.ndim
    if name in _CONCATENATING:
        lead = item.lead if isinstance(value, Items) or item.lead is None else lead
    elif ndim is not None:
        ndim += 1
    lead = None if has_dimension else lead
    return Data(unsure(value).origin, lead, ids=item.ids, ndim=ndim, scores=scores_of(value), line=item.line)


def tensor_method(data: Data, name: str, arguments: Arguments) -> Value:
    """A method of a tensor, or the same function with the tensor as its first argument."""
    values = arguments.values
    if name == "size":
        return subscript(Shape(data), values[0]) if values else Shape(data)
    if name in ("matmul", "mm", "bmm") and values:
        return matmul(data, as_data(values[0]), is_flat=name == "mm")
    if name in ("t", "transpose", "permute"):
        return Data(data.origin, ndim=2 if name == "t" else data.ndim, line=data.line)
    if name in ("add", "sub", "mul", "div") and values:
        return arithmetic(data, as_data(values[0]), name)
    return kept(data, name, arguments.all, arguments.keywords.get("dim"))


def kept(data: Data, name: str, others: Sequence[Value] = (), dimension: Value | None = None) -> Data:
    """What the tables keep of a tensor."""
    if name not in _KEEPS and any(part in name for part in _BY_CHANCE):
        return Data(UNKNOWN.origin)
    facts = _KEEPS.get(name, frozenset())
    first = dimension or (others[0] if others else None)
    rows = data.lead if "rows" in facts or _is_later(first, data) else None
    ndim = data.ndim if "ndim" in facts else None
    if name in ("view", "reshape"):
        ndim = len(others) if len(others) > 1 else None
        rows = first.size if isinstance(first, Data) else None
    scores = data.scores if "scores" in facts and not any(as_data(value).origin for value in others) else ()
    is_same = "size" in facts
    return Data(
        unsure(data, *others).origin,
        rows,
        data.size if is_same else None,
        ndim,
        data.ids if "ids" in facts else None,
        scores if name in _EXACT else _inexact(scores),
        data.symbol if is_same else None,
        data.is_batch and is_same,
        data.line,
        data.factor,
    )


def _is_later(dimension: Value | None, data: Data) -> bool:
    """Whether a dimension is surely not the first."""
    index = dimension.value if isinstance(dimension, Const) else None
    return isinstance(index, int) and (index > 0 or (index == -1 and data.ndim != 1))


# --- arithmetic -----------------------------------------------------------------------------------------------------


def matmul(left: Data, right: Data, is_flat: bool = False) -> Data:
    """A product of matrices: samples stay first, and two matrices give one."""
    is_matrix = is_flat or (right.ndim == 2 and (left.ndim == 2 or (left.lead is not None and left.ndim is None)))
    return Data(unsure(left, right).origin, left.lead, ndim=2 if is_matrix else None, line=left.line or right.line)


def arithmetic(left: Data, right: Data, operation: str) -> Data:
    """``left + right`` and the like; symbols are looked at elsewhere."""
    both = (left, right)
    ids: Lead | None = None
    if operation in ("add", "sub", "mul") and all(part.ids or part.size or not part.origin for part in both):
        ids = left.ids if left.ids is Lead.RANK else right.ids or left.ids
    is_own = all(part.scores or part.origin <= {Origin.RANK} for part in both)
    ndim = left.ndim if left.ndim == right.ndim or not right.origin else right.ndim if not left.origin else None
    return Data(
        unsure(*both).origin,
        left.lead or (right.lead if not left.origin else None),
        size=left.size if operation in ("add", "sub") and not right.origin else None,
        ndim=ndim,
        ids=ids,
        scores=_inexact((*left.scores, *right.scores)) if is_own else (),
        line=left.line or right.line,
    )


def _inexact(scores: tuple[Score, ...]) -> tuple[Score, ...]:
    return tuple(replace(score, is_exact=False) for score in scores)
