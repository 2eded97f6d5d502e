"""What a test says of the code under it."""

from __future__ import annotations

import ast
from functools import lru_cache

from lightning_retrieval_guard.lint.state import State
from lightning_retrieval_guard.lint.values import Data, Symbol

RANK_ZERO, BATCH = "rank zero", "batch"
_DEEPEST = 40


def guards_of(state: State, test: ast.expr, outcome: bool) -> set[str]:
    """What holds where a test comes out like this."""
    found = {BATCH} if _names_batch(test) else set()
    return found | ({RANK_ZERO} if _implies_rank_zero(state, test, outcome) else set())


@lru_cache(maxsize=1024)
def _names_batch(test: ast.expr) -> bool:
    return any(isinstance(own, ast.Name) and "batch" in own.id for own in ast.walk(test))


def _implies_rank_zero(state: State, test: ast.expr, outcome: bool, depth: int = 0) -> bool:
    if depth > _DEEPEST:
        return False
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _implies_rank_zero(state, test.operand, not outcome, depth + 1)
    if isinstance(test, ast.BoolOp):
        enough = any if isinstance(test.op, ast.And) is outcome else all
        return enough(_implies_rank_zero(state, own, outcome, depth + 1) for own in test.values)
    if isinstance(test, ast.Compare):
        other = test.comparators[0]
        is_zero = len(test.ops) == 1 and isinstance(other, ast.Constant) and other.value == 0
        ops = (ast.Eq, ast.Is, ast.Lt, ast.LtE) if outcome else (ast.NotEq, ast.Gt, ast.IsNot)
        return is_zero and _symbol(state, test.left) is Symbol.GLOBAL_RANK and isinstance(test.ops[0], ops)
    symbol = _symbol(state, test)
    return (symbol is Symbol.IS_ZERO and outcome) or (symbol is Symbol.GLOBAL_RANK and not outcome)


def _symbol(state: State, node: ast.expr) -> Symbol | None:
    if isinstance(node, ast.Call) and (node.args or node.keywords):
        return None
    value = state.eval(node)
    return value.symbol if isinstance(value, Data) else None
