"""What expressions are, by what is known of their parts, and what tests say of the code under them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from lightning_retrieval_guard.lint import calls, values
from lightning_retrieval_guard.lint.events import BATCH, RANK_ZERO
from lightning_retrieval_guard.lint.tensors import arithmetic, kept, matmul, subscript
from lightning_retrieval_guard.lint.values import UNKNOWN, Const, Data, Listing, Mapping, Reference, Value, many

if TYPE_CHECKING:
    from lightning_retrieval_guard.lint.interpreter import Interpreter

_BATCH_COUNTS = ("num_graphs", "batch_size")
# Deeper tests are generated; what they say is not looked for.
_MOST_NEGATIONS = 40


def evaluate(run: Interpreter, node: ast.expr) -> Value:
    """What is known of an expression; nothing of a kind that is not in the table."""
    evaluate_kind = _EXPRESSIONS.get(type(node))
    return evaluate_kind(run, node) if evaluate_kind else UNKNOWN


def _name(run: Interpreter, node: ast.Name) -> Value:
    source = run.frame.function.source
    if node.id in run.frame.names:
        return run.frame.names[node.id]
    if node.id in source.functions:
        return source.functions[node.id]
    if node.id in source.imports:
        return Reference(source.imports[node.id])
    constant = source.constants.get(node.id)
    if isinstance(constant, (ast.Constant, ast.Tuple, ast.List, ast.Dict)):
        return run.eval(constant)
    # what is worked out when the file is imported is the same on every rank
    return Data() if constant is not None else Reference(node.id)


def _attribute(run: Interpreter, node: ast.Attribute) -> Value:
    owner, name = run.eval(node.value), node.attr
    if owner == values.SELF:
        return run.attribute(name)
    if name in calls.SYMBOLS and not owner.is_batch:
        return calls.SYMBOLS[name]
    if not isinstance(owner, Data):  # it may be a metric
        # the question mark keeps what is not known from being taken for an import
        return Reference(f"{owner.dotted if isinstance(owner, Reference) else '?'}.{name}")
    if name == "shape":
        return values.Shape(owner)
    if owner.is_batch:
        return Data(owner.origin, size=owner.rows) if name in _BATCH_COUNTS else owner
    if name == "T":
        return Data(owner.origin, ndim=2, line=owner.line)
    return Data() if name in ("device", "dtype") else kept(owner, name)


def _binary(run: Interpreter, node: ast.BinOp) -> Value:
    left, right = run.eval(node.left), run.eval(node.right)
    if isinstance(left, Listing):
        if isinstance(node.op, ast.Mult):
            return many(*left.items, rows=right.size)
        return values.join(many(*left.items), right) if isinstance(right, Listing) else UNKNOWN
    one, other = values.as_data(left), values.as_data(right)
    symbol = _symbol_of(node, one, other)
    if symbol is not None:
        factor = node.left if other.symbol == "devices" else node.right if one.symbol == "devices" else None
        return Data(values.made_of(one, other).origin, symbol=symbol, factor=factor)
    if isinstance(node.op, ast.MatMult):
        return matmul(one, other)
    is_plain = isinstance(left, (Data, Const)) and isinstance(right, (Data, Const))
    return arithmetic(one, other, node.op) if is_plain else UNKNOWN


def _symbol_of(node: ast.BinOp, left: Data, right: Data) -> values.Symbol | None:
    """What a product or a quotient with the number of devices is."""
    symbols = {left.symbol, right.symbol}
    if isinstance(node.op, ast.Mult) and symbols & {"devices", "product"}:
        return None if "share" in symbols else "product"
    if isinstance(node.op, (ast.Div, ast.FloorDiv)):
        if right.symbol == "devices":
            return None if left.symbol else "share"
        return "product" if left.symbol == "product" and isinstance(node.right, ast.Constant) else None
    return None


def _unary(run: Interpreter, node: ast.UnaryOp) -> Value:
    value = run.eval(node.operand)
    if isinstance(value, Const) and isinstance(node.op, ast.USub) and isinstance(value.value, (int, float)):
        return Const(-value.value)
    return kept(value, "neg") if isinstance(value, Data) else UNKNOWN


def _compare(run: Interpreter, node: ast.Compare) -> Value:
    first, *others = compared = [run.eval(part) for part in (node.left, *node.comparators)]
    is_equality = isinstance(node.ops[0], (ast.Eq, ast.NotEq)) and len(others) == 1
    # so a helper that gets the name of a stage is followed into the branch of that stage alone
    if is_equality and isinstance(first, Const) and isinstance(others[0], Const):
        return Const((first == others[0]) is isinstance(node.ops[0], ast.Eq))
    data = values.as_data(first)
    return Data(values.made_of(*compared).origin, rows=data.rows, ndim=data.ndim)


def _boolean(run: Interpreter, node: ast.BoolOp) -> Value:
    options = []
    with run.guarded(set()):
        for part in node.values:
            options.append(run.eval(part))
            # the next part is reached only where this one held, or did not
            run.guards += _guards_of(run, part, isinstance(node.op, ast.And))
    return values.joined(options)


def _conditional(run: Interpreter, node: ast.IfExp) -> Value:
    options = []
    for outcome, guards in outcomes_of(run, node.test):
        with run.guarded(guards):
            options.append(run.eval(node.body if outcome else node.orelse))
    return values.joined(options)


def _walrus(run: Interpreter, node: ast.NamedExpr) -> Value:
    value = run.eval(node.value)
    run.assign(node.target, value)
    return value


def _formatted(run: Interpreter, node: ast.JoinedStr) -> Value:
    parts = [run.eval(part.value if isinstance(part, ast.FormattedValue) else part) for part in node.values]
    texts = [str(part.value) if isinstance(part, Const) else None for part in parts]
    if None not in texts:
        return Const("".join(filter(None, texts)))
    return values.Text("".join(".*" if text is None else re.escape(text) for text in texts))


def _sequence(run: Interpreter, node: ast.Tuple | ast.List | ast.Set) -> Value:
    is_starred = [isinstance(part, ast.Starred) for part in node.elts]
    items = [run.eval(part.value if isinstance(part, ast.Starred) else part) for part in node.elts]
    if any(is_starred):
        pairs = zip(items, is_starred, strict=True)
        return many(*(values.item_of(item) if starred else item for item, starred in pairs))
    return Listing(tuple(items)) if items or isinstance(node, ast.Tuple) else many()


def _dictionary(run: Interpreter, node: ast.Dict) -> Value:
    result = Mapping()
    for key, part in zip(node.keys, node.values, strict=True):
        value = run.eval(part)
        result = result.merged(value) if key is None else result.with_item(run.eval(key), value)
    return result


def _comprehension(run: Interpreter, node: ast.ListComp | ast.GeneratorExp | ast.SetComp) -> Value:
    first, *others = node.generators
    iterable = run.eval(first.iter)
    results = [run.eval(node.elt) for _ in _turns(run, iterable, node.generators)]
    if others or first.ifs:
        return many(*results)
    is_exact = run.turns_of(iterable) is not None
    return Listing(tuple(results)) if is_exact else many(*results, rows=iterable.rows)


def _dictionary_comprehension(run: Interpreter, node: ast.DictComp) -> Value:
    result = Mapping()
    for _ in _turns(run, run.eval(node.generators[0].iter), node.generators):
        result = result.with_item(run.eval(node.key), run.eval(node.value))
    return result


def _turns(run: Interpreter, iterable: Value, generators: Sequence[ast.comprehension]) -> Iterator[None]:
    """Binds the names of a comprehension, once for each item that is known."""
    before = dict(run.frame.names)  # as they are again behind the comprehension
    first, *others = generators
    items = run.turns_of(iterable)
    for item in [values.item_of(iterable)] if items is None else items:
        run.assign(first.target, item)
        if others:
            yield from _turns(run, run.eval(others[0].iter), others)
        else:
            yield
    run.frame.names = before


_EXPRESSIONS: dict[type[ast.expr], Callable[[Interpreter, Any], Value]] = {
    ast.Attribute: _attribute,
    ast.Await: lambda run, node: run.eval(node.value),
    ast.BinOp: _binary,
    ast.BoolOp: _boolean,
    ast.Call: calls.call,
    ast.Compare: _compare,
    ast.Constant: lambda run, node: Const(node.value),
    ast.Dict: _dictionary,
    ast.DictComp: _dictionary_comprehension,
    ast.GeneratorExp: _comprehension,
    ast.IfExp: _conditional,
    ast.JoinedStr: _formatted,
    ast.List: _sequence,
    ast.ListComp: _comprehension,
    ast.Name: _name,
    ast.NamedExpr: _walrus,
    ast.Set: _sequence,
    ast.SetComp: _comprehension,
    ast.Slice: lambda run, node: values.made_of(*map(run.eval, filter(None, (node.lower, node.upper, node.step)))),
    ast.Starred: lambda run, node: run.eval(node.value),
    ast.Subscript: lambda run, node: subscript(run.eval(node.value), run.eval(node.slice), node.slice),
    ast.Tuple: _sequence,
    ast.UnaryOp: _unary,
}


# --- tests ----------------------------------------------------------------------------------------------------------


def outcomes_of(run: Interpreter, test: ast.expr) -> list[tuple[bool, set[str]]]:
    """How a test may come out, and what holds then."""
    value = run.eval(test)
    outcomes = [bool(value.value)] if isinstance(value, Const) else [True, False]
    return [(outcome, _guards_of(run, test, outcome)) for outcome in outcomes]


def _guards_of(run: Interpreter, test: ast.expr, outcome: bool) -> set[str]:
    guards = {BATCH} if _names_batch(test) else set()
    return guards | ({RANK_ZERO} if _implies_rank_zero(run, test, outcome) else set())


@lru_cache(maxsize=1024)
def _names_batch(test: ast.expr) -> bool:
    return any(isinstance(node, ast.Name) and "batch" in node.id for node in ast.walk(test))


def _implies_rank_zero(run: Interpreter, test: ast.expr, outcome: bool, depth: int = 0) -> bool:
    if depth > _MOST_NEGATIONS:
        return False
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _implies_rank_zero(run, test.operand, not outcome, depth + 1)
    if isinstance(test, ast.BoolOp):
        enough = any if isinstance(test.op, ast.And) is outcome else all
        return enough(_implies_rank_zero(run, part, outcome, depth + 1) for part in test.values)
    if isinstance(test, ast.Compare):
        other = test.comparators[0]
        is_zero = len(test.ops) == 1 and isinstance(other, ast.Constant) and other.value == 0
        ops = (ast.Eq, ast.Is, ast.Lt, ast.LtE) if outcome else (ast.NotEq, ast.Gt, ast.IsNot)
        return is_zero and isinstance(test.ops[0], ops) and _symbol(run, test.left) == "global rank"
    # a rank by itself is false on rank zero alone
    return _symbol(run, test) == ("is rank zero" if outcome else "global rank")


def _symbol(run: Interpreter, node: ast.expr) -> values.Symbol | None:
    # with arguments it may be the rank within a group
    is_call = isinstance(node, ast.Call) and bool(node.args or node.keywords)
    return None if is_call else run.eval(node).symbol
