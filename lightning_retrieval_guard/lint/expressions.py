"""What expressions are, by what is known of their parts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lightning_retrieval_guard.lint.calls import Calls
from lightning_retrieval_guard.lint.events import Story
from lightning_retrieval_guard.lint.guards import guards_of
from lightning_retrieval_guard.lint.state import Instance
from lightning_retrieval_guard.lint.tables import BATCH_COUNTS
from lightning_retrieval_guard.lint.values import (
    UNKNOWN,
    Callee,
    Const,
    Data,
    Items,
    Lead,
    Many,
    Mapping,
    Method,
    Reference,
    Shape,
    Symbol,
    Text,
    Unknown,
    Value,
    as_data,
    join,
    joined,
    unsure,
)

MOST_ITEMS = 60
_DEEPEST = 40
_OPERATIONS = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.FloorDiv: "floor"}


class Expressions(Calls):
    """Evaluates expressions."""

    def __init__(self, story: Story) -> None:
        super().__init__(story)
        self._depth = 0
        self._is_unrolled = False
        self._lead_of_loop: Lead | None = None

    def eval(self, node: ast.expr) -> Value:
        """What is known of an expression."""
        self.step()
        if self._depth > _DEEPEST:
            return UNKNOWN
        self._depth += 1
        try:
            evaluate = getattr(self, f"_eval_{type(node).__name__.lower()}", None)
            return UNKNOWN if evaluate is None else evaluate(node)
        finally:
            self._depth -= 1

    def _eval_constant(self, node: ast.Constant) -> Value:
        return Const(node.value)

    def _eval_name(self, node: ast.Name) -> Value:
        names = self.frame.names
        if node.id in names:
            return names[node.id]
        module = self.frame.module
        if node.id in module.functions:
            return Callee(module.functions[node.id], module)
        if node.id in module.imports:
            return Reference(module.imports[node.id])
        constant = module.constants.get(node.id)
        if isinstance(constant, (ast.Constant, ast.Tuple, ast.List, ast.Dict)):
            return self.eval(constant)
        return Data() if constant is not None else Reference(node.id)

    def _eval_attribute(self, node: ast.Attribute) -> Value:
        owner = self.eval(node.value)
        if isinstance(owner, Instance):
            return self.attribute(node.attr)
        symbol = self.named_symbol(node.attr)
        if symbol is not None and not (isinstance(owner, Data) and owner.is_batch):
            return symbol
        if isinstance(owner, Reference):
            return Reference(f"{owner.dotted}.{node.attr}")
        if isinstance(owner, Data) and not isinstance(owner, Unknown):
            if node.attr == "shape":
                return Shape(owner)
            if owner.is_batch:
                size = owner.lead if node.attr in BATCH_COUNTS else None
                return Data(owner.origin, size=size) if size else owner
            if node.attr in ("T", "mT", "H"):
                return Data(owner.origin, ndim=2 if node.attr == "T" else owner.ndim, line=owner.line)
            return Data() if node.attr in ("device", "dtype") else self.kept(owner, node.attr, [])
        return Method(owner, node.attr)

    def attribute(self, name: str) -> Value:
        """What ``self.name`` is."""
        if any(name in own.module.foreign_stores for own in (self.instance.cls.lineage if self.instance.cls else [])):
            return UNKNOWN
        if name in self.instance.attributes:
            known = self.instance.attributes[name]
            return Method(self.instance, name) if isinstance(known, Unknown) else known
        found = self.method(name)
        if found is not None:
            is_property = any("property" in ast.unparse(own) for own in found.function.decorator_list)
            return self.call_function(found, (), {}) if is_property else found
        for cls in self.instance.cls.lineage if self.instance.cls else []:
            for own in cls.node.body:
                targets = own.targets if isinstance(own, ast.Assign) else []
                if isinstance(own, ast.Assign) and any(getattr(target, "id", "") == name for target in targets):
                    return self.eval(own.value) if isinstance(own.value, ast.Constant) else Data()
        symbol = self.named_symbol(name)
        if symbol is not None:
            return symbol
        return Data() if name in ("device", "dtype") else Method(self.instance, name)

    def _eval_subscript(self, node: ast.Subscript) -> Value:
        return self.subscript(self.eval(node.value), self.eval(node.slice), node.slice)

    def _eval_slice(self, node: ast.Slice) -> Value:
        bounds = [own for own in (node.lower, node.upper, node.step) if own is not None]
        return unsure(*map(self.eval, bounds)) if bounds else Const(...)

    def _eval_binop(self, node: ast.BinOp) -> Value:
        left, right = self.eval(node.left), self.eval(node.right)
        if isinstance(left, (Items, Many)):
            if isinstance(node.op, ast.Mult):
                return Many(self.item_of(left), right.size if isinstance(right, Data) else None)
            return join(Many(self.item_of(left)), right) if isinstance(right, (Items, Many)) else UNKNOWN
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            return left.merged(right)
        one, other = as_data(left), as_data(right)
        symbol = _symbol_of(node, one, other)
        if symbol is not None:
            factors = {node.left: other, node.right: one}
            factor = next((own for own, value in factors.items() if value.symbol is Symbol.DEVICES), None)
            return Data(unsure(one, other).origin, symbol=symbol, factor=factor)
        if isinstance(node.op, ast.MatMult):
            return self.matmul(one, other)
        is_plain = all(isinstance(own, (Data, Const)) and not isinstance(own, Unknown) for own in (left, right))
        return self.arithmetic(one, other, _OPERATIONS.get(type(node.op), "")) if is_plain else UNKNOWN

    def _eval_unaryop(self, node: ast.UnaryOp) -> Value:
        value = self.eval(node.operand)
        if isinstance(value, Const) and isinstance(node.op, ast.USub) and isinstance(value.value, (int, float)):
            return Const(-value.value)
        if isinstance(value, Const) and isinstance(node.op, ast.Not):
            return Const(not value.value)
        return self.kept(value, "neg", []) if isinstance(value, Data) else UNKNOWN

    def _eval_compare(self, node: ast.Compare) -> Value:
        first, *others = values = [self.eval(own) for own in (node.left, *node.comparators)]
        is_equality = isinstance(node.ops[0], (ast.Eq, ast.NotEq)) and len(others) == 1
        if is_equality and isinstance(first, Const) and isinstance(others[0], Const):
            return Const((first == others[0]) is isinstance(node.ops[0], ast.Eq))
        known = as_data(first)
        return Data(unsure(*values).origin, known.lead, ndim=known.ndim)

    def _eval_boolop(self, node: ast.BoolOp) -> Value:
        values = []
        with self.guarded(set()):
            for own in node.values:
                values.append(self.eval(own))
                self.guards += guards_of(self, own, isinstance(node.op, ast.And))
        return joined(values)

    def _eval_ifexp(self, node: ast.IfExp) -> Value:
        test = self.eval(node.test)
        values = []
        for outcome, own in ((True, node.body), (False, node.orelse)):
            if not isinstance(test, Const) or bool(test.value) is outcome:
                with self.guarded(guards_of(self, node.test, outcome)):
                    values.append(self.eval(own))
        return joined(values)

    def _eval_namedexpr(self, node: ast.NamedExpr) -> Value:
        value = self.eval(node.value)
        self.assign(node.target, value)
        return value

    def _eval_joinedstr(self, node: ast.JoinedStr) -> Value:
        parts = [self.eval(own.value if isinstance(own, ast.FormattedValue) else own) for own in node.values]
        if all(isinstance(own, Const) for own in parts):
            return Const("".join(str(own.value) for own in parts if isinstance(own, Const)))
        known = (re.escape(str(own.value)) if isinstance(own, Const) else ".*" for own in parts)
        return Text("".join(known))

    def _eval_tuple(self, node: ast.Tuple | ast.List | ast.Set) -> Value:
        values = [self.eval(own.value if isinstance(own, ast.Starred) else own) for own in node.elts]
        if any(isinstance(own, ast.Starred) for own in node.elts):
            pairs = zip(node.elts, values, strict=True)
            inner = [self.item_of(value) if isinstance(own, ast.Starred) else value for own, value in pairs]
            return Many(joined(inner))
        return Items(tuple(values)) if values or isinstance(node, ast.Tuple) else Many()

    _eval_list = _eval_set = _eval_tuple

    def _eval_dict(self, node: ast.Dict) -> Value:
        result = Mapping()
        for key, own in zip(node.keys, node.values, strict=True):
            value = self.eval(own)
            if key is None:
                result = result.merged(value if isinstance(value, Mapping) else Mapping(rest=UNKNOWN))
            else:
                result = _with(result, self.eval(key), value)
        return result

    def _eval_listcomp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Value:
        results = [self.eval(node.elt) for _ in self._generated(node.generators)]
        lead = self._lead_of_loop
        if len(node.generators) == 1 and not node.generators[0].ifs and self._is_unrolled:
            return Items(tuple(results))
        return Many(joined(results) if results else None, lead if len(node.generators) == 1 else None)

    _eval_generatorexp = _eval_setcomp = _eval_listcomp

    def _eval_dictcomp(self, node: ast.DictComp) -> Value:
        result = Mapping()
        for _ in self._generated(node.generators):
            result = _with(result, self.eval(node.key), self.eval(node.value))
        return result

    def _generated(self, generators: Sequence[ast.comprehension]) -> Iterator[None]:
        """Binds the names of a comprehension, once for each item that is known."""
        before = dict(self.frame.names)
        first, *others = generators
        iterable = self.eval(first.iter)
        items = self.items_of(iterable)
        is_unrolled = items is not None and len(items) <= MOST_ITEMS
        lead = iterable.lead if isinstance(iterable, (Many, Data)) and not first.ifs else None
        for item in (items or ()) if is_unrolled else [self.item_of(iterable)]:
            self.assign(first.target, item)
            if others:
                yield from self._generated(others)
            else:
                yield
        self._is_unrolled, self._lead_of_loop = is_unrolled, lead
        self.frame.names = before

    def _eval_call(self, node: ast.Call) -> Value:
        return self.call(node)

    def _eval_await(self, node: ast.Await) -> Value:
        return self.eval(node.value)

    def _eval_starred(self, node: ast.Starred) -> Value:
        return self.eval(node.value)


def _with(mapping: Mapping, key: Value, value: Value) -> Mapping:
    if isinstance(key, Const):
        return mapping.merged(Mapping(((key.value, value),)))
    return replace(mapping, rest=value if mapping.rest is None else join(mapping.rest, value))


def _symbol_of(node: ast.BinOp, left: Data, right: Data) -> Symbol | None:
    """What a product or a quotient with the number of devices is."""
    symbols = {left.symbol, right.symbol}
    if isinstance(node.op, ast.Mult) and symbols & {Symbol.DEVICES, Symbol.PRODUCT}:
        return None if Symbol.SHARE in symbols else Symbol.PRODUCT
    if isinstance(node.op, (ast.Div, ast.FloorDiv)):
        if right.symbol is Symbol.DEVICES:
            return None if left.symbol else Symbol.SHARE
        return left.symbol if left.symbol is Symbol.PRODUCT and isinstance(node.right, ast.Constant) else None
    return None
