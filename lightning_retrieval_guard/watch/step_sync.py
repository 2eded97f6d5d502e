"""Where in the source the value of a ``compute()`` in a step goes nowhere but into the log of the epoch.

There its collective may be left out: nobody sees the value, and the epoch's number is put together by the guard.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
from collections.abc import Iterable, Iterator
from types import FunctionType
from typing import Any

from lightning_retrieval_guard.watch.call_site import is_library, parse_source

Site = tuple[str, int]
_FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef
_NESTED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)

# in these Lightning keeps the epoch's value alone, unless it is told otherwise
_EVALUATION_STEPS = frozenset({"validation_step", "test_step"})
# keywords of a log call under which the guard may put its own number
_KEYWORDS = frozenset({"on_step", "on_epoch", "batch_size", "prog_bar", "logger", "sync_dist", "add_dataloader_idx"})
_READ_EVERYTHING = frozenset({"locals", "vars", "eval", "exec"})


def digest(sites: Iterable[Site]) -> str:
    """A short text that is the same for the same sites; empty for none."""
    text = "".join(f"{path}:{line};" for path, line in sites)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""


def sync_free_sites(module: Any, callbacks: Iterable[Any]) -> frozenset[Site]:
    """The lines whose ``compute()`` need not combine ranks.

    Args:
        module: Lightning's module.
        callbacks: Of the trainer.

    Returns:
        File and line of each; nothing where the source of any class is missing, or where the program has a ``log`` of
        its own.
    """
    classes = [own for part in (module, *callbacks) for own in type(part).__mro__ if not is_library(own.__module__)]
    methods = [method for own in classes if own is not object for method in _methods(own)]
    if any(method.__name__ in ("log", "log_dict") for method in methods):
        return frozenset()
    trees = {method.__code__.co_filename: parse_source(method.__code__.co_filename) for method in methods}
    nodes = {id(method): _node_of(method, trees[method.__code__.co_filename]) for method in methods}
    if any(node is None for node in nodes.values()):
        return frozenset()
    free: set[Site] = set()
    seen: set[str] = set()
    for path, tree in trees.items():
        assert tree is not None
        own = {id(nodes[id(method)]) for method in methods if method.__code__.co_filename == path}
        reused = _calls_evaluation_steps(tree)
        for function in (node for node in ast.walk(tree) if isinstance(node, _FunctionNode)):
            logged = _logged_calls(function, reused) if id(function) in own else []
            lines = {call.lineno for call in logged}
            others = [call for call in _compute_calls(function) if call not in logged]
            lines -= {line for call in others for line in range(call.lineno, (call.end_lineno or call.lineno) + 1)}
            free |= {(path, line) for line in lines}
            if not function.name.endswith("_epoch_end"):
                seen |= set(map(_receiver, others))
    return frozenset(site for site in free if not _is_seen(site, trees, seen))


def _methods(own: type) -> Iterator[FunctionType]:
    for value in vars(own).values():
        method = inspect.unwrap(value) if callable(value) else value
        if isinstance(method, FunctionType) and not is_library(method.__module__):
            yield method


def _node_of(method: FunctionType, tree: ast.Module | None) -> ast.AST | None:
    line = method.__code__.co_firstlineno
    for node in ast.walk(tree) if tree is not None else ():
        if isinstance(node, _FunctionNode) and node.name == method.__name__:
            lines = (node.lineno, *(decorator.lineno for decorator in node.decorator_list))
        elif isinstance(node, ast.Lambda) and method.__name__ == "<lambda>":
            lines = (node.lineno,)
        else:
            continue
        if line in lines:
            return node
    return None


def _calls_evaluation_steps(tree: ast.Module) -> bool:
    """Whether the program itself calls an evaluation step, whose hook may be another one then."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return any(
        isinstance(func, ast.Attribute) and func.attr in _EVALUATION_STEPS and ast.unparse(func.value) != "super()"
        for func in calls
    )


def _compute_calls(function: ast.AST) -> Iterator[ast.Call]:
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "compute":
            yield node


def _receiver(call: ast.Call) -> str:
    """What tells the metric of a ``compute()``: the last name, or nothing for what may be any metric."""
    assert isinstance(call.func, ast.Attribute)
    value = call.func.value
    return value.id if isinstance(value, ast.Name) else value.attr if isinstance(value, ast.Attribute) else ""


def _is_seen(site: Site, trees: dict[str, ast.Module | None], seen: set[str]) -> bool:
    """Whether the value of the same metric is looked at somewhere else, which must find it in the metric's cache."""
    tree = trees[site[0]]
    assert tree is not None
    receivers = {_receiver(call) for call in _compute_calls(tree) if call.lineno == site[1]}
    return "" in seen or "" in receivers or bool(receivers & seen)


def _logged_calls(function: _FunctionNode, reused: bool) -> list[ast.Call]:
    """The ``compute()`` calls of a function whose values go into log calls of the epoch and nowhere else."""
    names = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
    if names & _READ_EVERYTHING:
        return []
    by_default = function.name in _EVALUATION_STEPS and not reused
    values = [value for node in ast.walk(function) for value in _logged_values(node, by_default)]
    kept = {id(value) for value in values}
    return [
        call
        for call in _compute_calls(function)
        if call.lineno == call.end_lineno
        and not (call.args or call.keywords)
        and not _is_nested(call, function)
        and (id(call) in kept or _goes_into(call, function, kept))
    ]


def _logged_values(node: ast.AST, by_default: bool) -> list[ast.expr]:
    """The values that a log call of the epoch gets."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return []
    keywords = {keyword.arg: keyword.value for keyword in node.keywords}
    if not set(keywords) <= _KEYWORDS or not _keeps_epoch(keywords, by_default):
        return []
    if node.func.attr == "log" and len(node.args) == 2:
        return [node.args[1]]
    if node.func.attr == "log_dict" and len(node.args) == 1:
        given = node.args[0]
        return [given, *(given.values if isinstance(given, ast.Dict) else ())]
    return []


def _keeps_epoch(keywords: dict[str | None, ast.expr], by_default: bool) -> bool:
    """Whether a log call keeps the epoch's value, and no step's."""
    on_step, on_epoch = (_constant(keywords.get(name)) for name in ("on_step", "on_epoch"))
    if by_default:
        return on_step in (None, False) and on_epoch in (None, True)
    return on_step is False and on_epoch is True


def _constant(node: ast.expr | None) -> object:
    if node is None:
        return None
    return node.value if isinstance(node, ast.Constant) else node


def _goes_into(call: ast.Call, function: _FunctionNode, kept: set[int]) -> bool:
    """Whether a call is the value of a local name that is used in kept values alone; through other names too."""
    name = _assigned_name(call, function)
    return name is not None and _is_only_logged(name, function, kept, frozenset())


def _assigned_name(value: ast.expr, function: ast.AST) -> str | None:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and node.value is value and len(node.targets) == 1:
            target = node.targets[0]
            return target.id if isinstance(target, ast.Name) else None
    return None


def _is_only_logged(name: str, function: _FunctionNode, kept: set[int], asked: frozenset[str]) -> bool:
    if name in asked:
        return True
    for node in ast.walk(function):
        if isinstance(node, (ast.Global, ast.Nonlocal)) and name in node.names:
            return False
        if not isinstance(node, ast.Name) or node.id != name:
            continue
        if _is_nested(node, function) or isinstance(node.ctx, ast.Del):
            return False
        if isinstance(node.ctx, ast.Load) and id(node) not in kept:
            alias = _assigned_name(node, function)
            if alias is None or not _is_only_logged(alias, function, kept, asked | {name}):
                return False
    return not any(isinstance(node, ast.AugAssign) and _is_name(node.target, name) for node in ast.walk(function))


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _is_nested(node: ast.AST, function: _FunctionNode) -> bool:
    """Whether a node stands in a function within the function."""
    inner = (own for own in ast.walk(function) if isinstance(own, _NESTED) and own is not function)
    return any(part is node for own in inner for part in ast.walk(own))
