"""Small changes to a module, one at a time."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}


@dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        line: Where it is, from 1.
        change: What stood there, and what stands there now.
        source: The whole module.
    """

    line: int
    change: str
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of a module: comparisons, arithmetic, constants, conditions, results and missing statements."""
    tree = ast.parse(source)
    unread = {id(part) for node in ast.walk(tree) for hint in _hints(node) for part in ast.walk(hint)}
    for place, node in enumerate(ast.walk(tree)):
        for change in _changes(node) if id(node) not in unread else ():
            changed = copy.deepcopy(tree)
            target = next(own for number, own in enumerate(ast.walk(changed)) if number == place)
            before = ast.unparse(target)
            change(target)
            text = ast.unparse(ast.fix_missing_locations(changed))
            yield Mutant(getattr(node, "lineno", 0), _difference(before, ast.unparse(target)), text)


def _hints(node: ast.AST) -> list[ast.expr]:
    """Type annotations, which nothing evaluates."""
    return [hint for name in ("annotation", "returns") if (hint := getattr(node, name, None)) is not None]


def _difference(before: str, after: str) -> str:
    """The first line that is not the same."""
    pairs = zip(before.splitlines(), after.splitlines(), strict=False)
    old, new = next((old, new) for old, new in pairs if old != new)
    return f"{old.strip()}  ->  {new.strip()}"


def _changes(node: ast.AST) -> Iterator[Callable[..., None]]:
    if isinstance(node, ast.Compare):
        yield _other_comparison
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield _other_operator
    elif isinstance(node, ast.BoolOp):
        yield _other_connective
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
        yield _without_not
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield _other_constant
    elif isinstance(node, ast.IfExp | ast.If):
        yield _other_way
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield _no_result
    elif isinstance(node, ast.FunctionDef):
        for place, statement in enumerate(node.body):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
                yield _without(place)


def _is_none(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _other_comparison(node: ast.Compare) -> None:
    node.ops[0] = COMPARISONS[type(node.ops[0])]()


def _other_operator(node: ast.BinOp) -> None:
    node.op = OPERATORS[type(node.op)]()


def _other_connective(node: ast.BoolOp) -> None:
    node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()


def _without_not(node: ast.UnaryOp) -> None:
    node.op = ast.UAdd() if isinstance(node.op, ast.Invert) else node.op
    node.operand = node.operand if isinstance(node.op, ast.UAdd) else ast.UnaryOp(ast.Not(), node.operand)


def _other_constant(node: ast.Constant) -> None:
    node.value = not node.value if isinstance(node.value, bool) else node.value + 1


def _other_way(node: ast.If | ast.IfExp) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _no_result(node: ast.Return) -> None:
    node.value = ast.Constant(None)


def _without(place: int) -> Callable[[ast.FunctionDef], None]:
    def change(node: ast.FunctionDef) -> None:
        node.body[place] = ast.Pass()

    return change
