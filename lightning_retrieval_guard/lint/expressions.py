"""What expressions are, by what is known of their parts, and what tests say of the code under them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

from lightning_retrieval_guard.lint.calls import Calls
from lightning_retrieval_guard.lint.events import BATCH, RANK_ZERO, Story
from lightning_retrieval_guard.lint.state import BATCH_COUNTS, SYMBOLS, Instance
from lightning_retrieval_guard.lint.tensors import arithmetic, kept, matmul, subscript
from lightning_retrieval_guard.lint.values import (
    UNKNOWN,
    Callee,
    Const,
    Data,
    Items,
    Lead,
    Many,
    Mapping,
    Reference,
    Shape,
    Symbol,
    Text,
    Unknown,
    Value,
    as_data,
    is_known,
    item_of,
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
        module = self.frame.callee.module
        if node.id in self.frame.names:
            return self.frame.names[node.id]
        if node.id in module.functions:
            return Callee(module.functions[node.id], module)
        if node.id in module.imports:
            return Reference(module.imports[node.id])
        constant = module.constants.get(node.id)
        if isinstance(constant, (ast.Constant, ast.Tuple, ast.List, ast.Dict)):
            return self.eval(constant)
        return Data() if constant is not None else Reference(node.id)

    def _eval_attribute(self, node: ast.Attribute) -> Value:
        owner, name = self.eval(node.value), node.attr
        if isinstance(owner, Instance):
            return self.attribute(name)
        if name in SYMBOLS and not (isinstance(owner, Data) and owner.is_batch):
            return SYMBOLS[name]
        if isinstance(owner, Reference):
            return Reference(f"{owner.dotted}.{name}")
        if not isinstance(owner, Data) or isinstance(owner, Unknown):
            return Reference(f"?.{name}")  # of something that may be a metric
        if name == "shape":
            return Shape(owner)
        if owner.is_batch:
            return Data(owner.origin, size=owner.lead) if name in BATCH_COUNTS else owner
        if name in ("T", "mT", "H"):
            return Data(owner.origin, ndim=2 if name == "T" else owner.ndim, line=owner.line)
        return Data() if name in ("device", "dtype") else kept(owner, name)

    def _eval_subscript(self, node: ast.Subscript) -> Value:
        return subscript(self.eval(node.value), self.eval(node.slice), node.slice)

    def _eval_slice(self, node: ast.Slice) -> Value:
        bounds = [bound for bound in (node.lower, node.upper, node.step) if bound is not None]
        return unsure(*map(self.eval, bounds)) if bounds else Const(...)

    def _eval_binop(self, node: ast.BinOp) -> Value:
        left, right = self.eval(node.left), self.eval(node.right)
        if isinstance(left, (Items, Many)):
            if isinstance(node.op, ast.Mult):
                return Many(item_of(left), right.size if isinstance(right, Data) else None)
            return join(Many(item_of(left)), right) if isinstance(right, (Items, Many)) else UNKNOWN
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            return left.merged(right)
        one, other = as_data(left), as_data(right)
        symbol = _symbol_of(node, one, other)
        if symbol is not None:
            factors = {node.left: other, node.right: one}
            factor = next((part for part, value in factors.items() if value.symbol is Symbol.DEVICES), None)
            return Data(unsure(one, other).origin, symbol=symbol, factor=factor)
        if isinstance(node.op, ast.MatMult):
            return matmul(one, other)
        is_plain = all(is_known(value) or isinstance(value, Const) for value in (left, right))
        return arithmetic(one, other, _OPERATIONS.get(type(node.op), "")) if is_plain else UNKNOWN

    def _eval_unaryop(self, node: ast.UnaryOp) -> Value:
        value = self.eval(node.operand)
        if isinstance(value, Const) and isinstance(node.op, ast.USub) and isinstance(value.value, (int, float)):
            return Const(-value.value)
        if isinstance(value, Const) and isinstance(node.op, ast.Not):
            return Const(not value.value)
        return kept(value, "neg") if isinstance(value, Data) else UNKNOWN

    def _eval_compare(self, node: ast.Compare) -> Value:
        first, *others = values = [self.eval(part) for part in (node.left, *node.comparators)]
        is_equality = isinstance(node.ops[0], (ast.Eq, ast.NotEq)) and len(others) == 1
        if is_equality and isinstance(first, Const) and isinstance(others[0], Const):
            return Const((first == others[0]) is isinstance(node.ops[0], ast.Eq))
        data = as_data(first)
        return Data(unsure(*values).origin, data.lead, ndim=data.ndim)

    def _eval_boolop(self, node: ast.BoolOp) -> Value:
        values = []
        with self.guarded(set()):
            for part in node.values:
                values.append(self.eval(part))
                self.guards += self.guards_of(part, isinstance(node.op, ast.And))
        return joined(values)

    def _eval_ifexp(self, node: ast.IfExp) -> Value:
        test = self.eval(node.test)
        values = []
        for outcome, part in ((True, node.body), (False, node.orelse)):
            if not isinstance(test, Const) or bool(test.value) is outcome:
                with self.guarded(self.guards_of(node.test, outcome)):
                    values.append(self.eval(part))
        return joined(values)

    def _eval_namedexpr(self, node: ast.NamedExpr) -> Value:
        value = self.eval(node.value)
        self.assign(node.target, value)
        return value

    def _eval_joinedstr(self, node: ast.JoinedStr) -> Value:
        parts = [self.eval(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
        constants = [str(part.value) for part in parts if isinstance(part, Const)]
        if len(constants) == len(parts):
            return Const("".join(constants))
        return Text("".join(re.escape(str(part.value)) if isinstance(part, Const) else ".*" for part in parts))

    def _eval_tuple(self, node: ast.Tuple | ast.List | ast.Set) -> Value:
        values = [self.eval(part.value if isinstance(part, ast.Starred) else part) for part in node.elts]
        is_starred = [isinstance(part, ast.Starred) for part in node.elts]
        if any(is_starred):
            return Many(
                joined(item_of(item) if inner else item for item, inner in zip(values, is_starred, strict=True))
            )
        return Items(tuple(values)) if values or isinstance(node, ast.Tuple) else Many()

    _eval_list = _eval_set = _eval_tuple

    def _eval_dict(self, node: ast.Dict) -> Value:
        result = Mapping()
        for key, part in zip(node.keys, node.values, strict=True):
            value = self.eval(part)
            result = result.merged(value) if key is None else result.with_item(self.eval(key), value)
        return result

    def _eval_listcomp(self, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Value:
        results = [self.eval(node.elt) for _ in self._generated(node.generators)]
        if len(node.generators) > 1:
            return Many(joined(results) if results else None)
        if self._is_unrolled and not node.generators[0].ifs:
            return Items(tuple(results))
        return Many(joined(results) if results else None, self._lead_of_loop)

    _eval_generatorexp = _eval_setcomp = _eval_listcomp

    def _eval_dictcomp(self, node: ast.DictComp) -> Value:
        result = Mapping()
        for _ in self._generated(node.generators):
            result = result.with_item(self.eval(node.key), self.eval(node.value))
        return result

    def _generated(self, generators: Sequence[ast.comprehension]) -> Iterator[None]:
        """Binds the names of a comprehension, once for each item that is known."""
        before = dict(self.frame.names)
        first, *others = generators
        iterable = self.eval(first.iter)
        items = self.items_of(iterable)
        is_unrolled = items is not None and len(items) <= MOST_ITEMS
        for item in items if items is not None and is_unrolled else [item_of(iterable)]:
            self.assign(first.target, item)
            if others:
                yield from self._generated(others)
            else:
                yield
        self._is_unrolled = is_unrolled
        self._lead_of_loop = iterable.lead if isinstance(iterable, (Many, Data)) and not first.ifs else None
        self.frame.names = before

    def _eval_call(self, node: ast.Call) -> Value:
        return self.call(node)

    def _eval_await(self, node: ast.Await | ast.Starred) -> Value:
        return self.eval(node.value)

    _eval_starred = _eval_await

    # --- tests ------------------------------------------------------------------------------------------------------

    def guards_of(self, test: ast.expr, outcome: bool) -> set[str]:
        """What holds where a test comes out like this."""
        guards = {BATCH} if _names_batch(test) else set()
        return guards | ({RANK_ZERO} if self._implies_rank_zero(test, outcome) else set())

    def _implies_rank_zero(self, test: ast.expr, outcome: bool, depth: int = 0) -> bool:
        if depth > _DEEPEST:
            return False
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            return self._implies_rank_zero(test.operand, not outcome, depth + 1)
        if isinstance(test, ast.BoolOp):
            enough = any if isinstance(test.op, ast.And) is outcome else all
            return enough(self._implies_rank_zero(part, outcome, depth + 1) for part in test.values)
        if isinstance(test, ast.Compare):
            other = test.comparators[0]
            is_zero = len(test.ops) == 1 and isinstance(other, ast.Constant) and other.value == 0
            ops = (ast.Eq, ast.Is, ast.Lt, ast.LtE) if outcome else (ast.NotEq, ast.Gt, ast.IsNot)
            return is_zero and isinstance(test.ops[0], ops) and self._symbol(test.left) is Symbol.GLOBAL_RANK
        return self._symbol(test) is (Symbol.IS_ZERO if outcome else Symbol.GLOBAL_RANK)

    def _symbol(self, node: ast.expr) -> Symbol | None:
        if isinstance(node, ast.Call) and (node.args or node.keywords):
            return None
        value = self.eval(node)
        return value.symbol if isinstance(value, Data) else None


@lru_cache(maxsize=1024)
def _names_batch(test: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and "batch" in node.id for node in ast.walk(test))


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
