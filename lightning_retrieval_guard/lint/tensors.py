"""What tensors are after an operation, by the tables."""

from __future__ import annotations

import ast
from dataclasses import replace

from lightning_retrieval_guard.lint.state import State
from lightning_retrieval_guard.lint.tables import BY_CHANCE, CONCATENATING, FILLED, KEEPS, MADE, SYMBOLS
from lightning_retrieval_guard.lint.values import (
    UNKNOWN,
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
    Symbol,
    Text,
    Unknown,
    Value,
    as_data,
    contents,
    joined,
    scores_of,
    unsure,
)

_EXACT = frozenset({"item", "tolist", "detach", "cpu", "clone", "to", "float", "double", "numpy", "data"})
_FROM_LISTS = ("tensor", "as_tensor", "LongTensor", "IntTensor", "FloatTensor", "array", "asarray")


class Tensors(State):
    """Evaluates what is done with tensors and lists."""

    def symbol(self, symbol: Symbol) -> Data:
        """A number with a meaning; that of a rank differs between ranks."""
        is_same = symbol is Symbol.DEVICES
        return Data(frozenset() if is_same else frozenset({Origin.UNSURE}), symbol=symbol)

    def named_symbol(self, name: str) -> Data | None:
        """The number that an attribute of this name is."""
        return self.symbol(SYMBOLS[name]) if name in SYMBOLS else None

    # --- items ----------------------------------------------------------------------------------------------------

    def items_of(self, value: Value) -> list[Value] | None:
        """The items of what is iterated, where they are known one by one."""
        if isinstance(value, Items):
            return list(value.items)
        if not isinstance(value, Mapping):
            return None
        # of keys that are not known, those matter that are asked for
        keys = [key for key, _ in value.items] if value.rest is None else self.asked_keys
        return [*map(Const, keys), *([] if value.rest is None else [Text()])]

    def item_of(self, value: Value) -> Value:
        """What each item of what is iterated is."""
        if isinstance(value, Data) and not isinstance(value, Unknown):
            return Data(value.origin, ids=value.ids, line=value.line) if not value.is_batch else unsure(value)
        if isinstance(value, Mapping):
            return Text()
        inner = contents(value)
        return joined(inner) if inner else UNKNOWN

    def subscript(self, value: Value, key: Value, node: ast.expr | None = None) -> Value:
        """``value[key]``."""
        if isinstance(value, Mapping):
            return value.get(key)
        if isinstance(value, Items):
            index = key.value if isinstance(key, Const) else None
            is_index = isinstance(index, int) and abs(index) < len(value.items)
            return value.items[index] if isinstance(index, int) and is_index else self.item_of(value)
        if isinstance(value, Many):
            return value if isinstance(node, ast.Slice) else self.item_of(value)
        if isinstance(value, Metric):
            single = tuple((own,) for own in value.members)
            return replace(value, choices=single, is_collection=False) if value.is_collection else UNKNOWN
        if isinstance(value, Shape):
            is_first = key in (Const(0), Const(-value.of.ndim if value.of.ndim else None))
            return Data(value.of.origin, size=value.of.lead if is_first else None)
        if not isinstance(value, Data) or isinstance(value, Unknown):
            return UNKNOWN
        return self._indexed(value, key, node)

    def _indexed(self, value: Data, key: Value, node: ast.expr | None) -> Data:
        if value.is_batch and isinstance(key, (Const, Text)) and not isinstance(node, ast.Slice):
            return value
        if isinstance(key, Const) and isinstance(key.value, str):
            return value
        parts = node.elts if isinstance(node, ast.Tuple) else [node]
        added = sum(isinstance(own, ast.Constant) and own.value is None for own in parts)
        whole = [isinstance(own, ast.Slice) and own.lower is own.upper is own.step is None for own in parts]
        only_adds = added + sum(whole) == len(parts)
        origin = unsure(value, key).origin
        if not whole[0]:
            is_cut = isinstance(node, ast.Slice)
            ids = value.ids if is_cut or only_adds else None
            return Data(origin, ids=ids, ndim=value.ndim if is_cut else None, scores=value.scores, line=value.line)
        ndim = value.ndim + added if value.ndim is not None and only_adds else None
        return Data(origin, value.lead, ndim=ndim, ids=value.ids, line=value.line, scores=value.scores)

    # --- counting -------------------------------------------------------------------------------------------------

    def counting(self, node: ast.Call, name: str, values: list[Value], keywords: dict[str, Value]) -> Value:
        """``len``, ``range``, ``enumerate`` and ``zip``."""
        first = values[0] if values else UNKNOWN
        lead = first.lead if isinstance(first, (Data, Many)) else None
        if name == "len":
            return Data(unsure(first).origin, size=lead)
        if name == "range":
            counted = self._arange(node, values)
            return Many(Data(counted.origin, ids=counted.ids, line=counted.line), counted.lead)
        if name == "enumerate":
            items = self.items_of(first)
            if items is not None:
                return Items(tuple(Items((Data(), own)) for own in items))
            return Many(Items((Data(ids=lead, line=node.lineno), self.item_of(first))), lead)
        columns = [self.items_of(own) for own in values]
        if columns and all(own is not None and len(own) == len(columns[0] or ()) for own in columns):
            return Items(tuple(Items(tuple(row)) for row in zip(*(own or () for own in columns), strict=True)))
        leads = [own.lead for own in values if isinstance(own, (Data, Many))]
        return Many(Items(tuple(map(self.item_of, values))), leads[0] if leads else None)

    def _arange(self, node: ast.Call, values: list[Value]) -> Data:
        if not 1 <= len(values) <= 2 or isinstance(values[-1], Unknown):
            return unsure(*values)
        end = as_data(values[-1])
        start = as_data(values[0]) if len(values) == 2 else Data()
        result = Data(unsure(start, end).origin, ndim=1, line=node.lineno)
        if start.ids and (end.ids or end.size or not end.origin):
            return replace(result, ids=Lead.RANK)
        is_fixed = len(values) == 1 or isinstance(values[0], Const)
        return replace(result, ids=end.size, lead=end.size) if is_fixed and end.size else result

    # --- functions ------------------------------------------------------------------------------------------------

    def tensor_function(self, node: ast.Call, name: str, values: list[Value], keywords: dict[str, Value]) -> Value:
        """A function of torch."""
        others = {key: own for key, own in keywords.items() if key not in ("dtype", "device", "requires_grad")}
        first = values[0] if values else next(iter(others.values()), Data())
        if name == "arange":
            return self._arange(node, [*values, *(others[key] for key in ("start", "end") if key in others)])
        if name in FILLED:
            filled = as_data(keywords.get("fill_value") or (values[1] if len(values) > 1 else UNKNOWN))
            return Data(filled.origin, ids=filled.ids, line=filled.line or node.lineno)
        if name in MADE:
            is_random = any(part in name for part in BY_CHANCE)
            is_like = isinstance(first, Data) and name.endswith("_like")
            ndim = first.ndim if is_like and isinstance(first, Data) else len(values) if len(values) > 1 else None
            return Data(UNKNOWN.origin if is_random else frozenset(), ndim=2 if name == "eye" else ndim)
        if name in CONCATENATING or name == "stack" or name in _FROM_LISTS:
            return self._stacked(name, first, len(values) > 1 or "dim" in keywords)
        if name == "einsum" and isinstance(first, Const) and isinstance(first.value, str):
            result = first.value.partition("->")[2].strip()
            return Data(unsure(*values).origin, ndim=len(result) if result.isalpha() else None)
        if name == "where" and len(values) == 3:
            return Data(unsure(*values).origin, lead=as_data(first).lead, ndim=as_data(first).ndim)
        if name == "where" and len(values) == 1:
            return Many(unsure(first))
        return self.tensor_method(node, as_data(first), name, values[1:], others if values else {})

    def _stacked(self, name: str, value: Value, has_dimension: bool) -> Data:
        if isinstance(value, Data):
            return value
        inner = contents(value)
        if not inner:
            return unsure(value)
        item = as_data(joined(inner))
        lead = value.lead if isinstance(value, Many) else None
        if name in CONCATENATING:
            if isinstance(value, Items):
                lead = item.lead
            elif item.lead is None:
                lead = None
            ndim = item.ndim
        else:
            ndim = item.ndim + 1 if item.ndim is not None else None
        origin, scores = unsure(value).origin, scores_of(value)
        return Data(origin, None if has_dimension else lead, ids=item.ids, ndim=ndim, scores=scores, line=item.line)

    def tensor_method(
        self, node: ast.Call, data: Data, name: str, values: list[Value], keywords: dict[str, Value]
    ) -> Value:
        """A method of a tensor, or the same function with the tensor as its first argument."""
        if name == "size":
            return self.subscript(Shape(data), values[0]) if values else Shape(data)
        if name in ("matmul", "mm", "bmm") and values:
            return self.matmul(data, as_data(values[0]), is_flat=name == "mm")
        if name in ("t", "transpose", "permute"):
            return Data(data.origin, ndim=2 if name == "t" else data.ndim, line=data.line)
        if name in ("add", "sub", "mul", "div") and values:
            return self.arithmetic(data, as_data(values[0]), name)
        return self.kept(data, name, [*values, *keywords.values()], keywords.get("dim"))

    def kept(self, data: Data, name: str, others: list[Value], dimension: Value | None = None) -> Data:
        """What the tables keep of a tensor."""
        facts = KEEPS.get(name, frozenset())
        origin = unsure(data, *others).origin
        if name not in KEEPS and any(part in name for part in BY_CHANCE):
            return Data(UNKNOWN.origin)
        first = dimension or (others[0] if others else None)
        rows = data.lead if "rows" in facts or _is_later(first, data) else None
        ndim = data.ndim if "ndim" in facts else None
        if name in ("view", "reshape"):
            ndim = len(others) if len(others) > 1 else None
            rows = first.size if isinstance(first, Data) else None
        elif name in ("flatten", "ravel") and not others:
            ndim = 1
        elif name == "unsqueeze" and data.ndim is not None:
            ndim = data.ndim + 1 if rows else None
        elif name == "expand_as" and isinstance(first, Data):
            ndim, rows = first.ndim, rows or first.lead
        scores = data.scores if "scores" in facts and not any(as_data(own).origin for own in others) else ()
        return Data(
            origin,
            rows,
            data.size if "size" in facts else None,
            ndim,
            data.ids if "ids" in facts else None,
            scores if name in _EXACT else _inexact(scores),
            is_batch=data.is_batch and "size" in facts,
            line=data.line,
            symbol=data.symbol if "size" in facts else None,
            factor=data.factor,
        )

    # --- arithmetic -----------------------------------------------------------------------------------------------

    def matmul(self, left: Data, right: Data, is_flat: bool = False) -> Data:
        """A product of matrices: samples stay first, and two matrices give one."""
        is_matrix = is_flat or (right.ndim == 2 and (left.ndim == 2 or (left.lead is not None and left.ndim is None)))
        return Data(unsure(left, right).origin, left.lead, ndim=2 if is_matrix else None, line=left.line or right.line)

    def arithmetic(self, left: Data, right: Data, operation: str) -> Data:
        """``left + right`` and the like; symbols are looked at elsewhere."""
        ids = None
        is_counted = all(own.ids or own.size or not own.origin for own in (left, right))
        if operation in ("add", "sub", "mul") and (left.ids or right.ids) and is_counted:
            ids = Lead.RANK if Lead.RANK in (left.ids, right.ids) else Lead.BATCH
        scores: tuple[Score, ...] = ()
        if left.scores or right.scores:
            is_own = all(own.scores or own.origin <= {Origin.RANK} for own in (left, right))
            scores = _inexact((*left.scores, *right.scores)) if is_own else ()
        is_shift = operation in ("add", "sub") and not right.origin
        return Data(
            unsure(left, right).origin,
            left.lead or (right.lead if not left.origin else None),
            size=left.size if is_shift else None,
            ndim=left.ndim if left.ndim == right.ndim or not right.origin else right.ndim if not left.origin else None,
            ids=ids,
            scores=scores,
            line=left.line or right.line,
        )


def _inexact(scores: tuple[Score, ...]) -> tuple[Score, ...]:
    return tuple(replace(own, is_exact=False) for own in scores)


def _is_later(dimension: Value | None, data: Data) -> bool:
    """Whether a dimension is surely not the first."""
    if not isinstance(dimension, Const) or not isinstance(dimension.value, int):
        return False
    return dimension.value > 0 or (dimension.value == -1 and data.ndim != 1)
