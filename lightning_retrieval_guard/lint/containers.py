"""LRG405: metrics in a plain dict or list that is an attribute of a module."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from lightning_retrieval_guard.lint.finding import File, Found
from lightning_retrieval_guard.lint.source import MOST_STEPS
from lightning_retrieval_guard.rules.static import LRG405

_READING = ("items", "keys", "values")
# Names with which the metrics are registered, moved, or fed on the CPU on purpose.
_BY_HAND = ("add_module", "register_module", "_modules", "to", "cuda", "cpu")


def check(file: File) -> Iterator[Found]:
    """Findings at attributes that ``__init__`` sets."""
    for node in file.source.nodes:
        if not isinstance(node, ast.Attribute) or not isinstance(node.ctx, ast.Store):
            continue
        method = file.source.method_of(node)
        value = file.classes.attribute(node)
        if method is None or value is None or method[0].name != "__init__":
            continue
        kind = _kind(value)
        of_module = file.classes.derives(method[1], "LightningModule", "Module")
        if kind and of_module and _holds_metrics(file, value) and _stays(file, node, method[1]):
            message = (
                f"{node.attr!r} is a plain {kind}, so its metrics are no part of the module: Lightning neither moves"
                " nor saves them."
            )
            yield Found(node, LRG405, message)


def _kind(value: ast.expr) -> str:
    if isinstance(value, (ast.Dict, ast.DictComp)):
        return "dict"
    if isinstance(value, (ast.List, ast.ListComp)):
        return "list"
    return "tuple" if isinstance(value, ast.Tuple) else ""


def _holds_metrics(file: File, value: ast.expr, depth: int = 0) -> bool:
    """Whether all items are metrics that are built here, so that nothing else can hold them."""
    if isinstance(value, ast.DictComp):
        items: list[ast.expr] = [value.value]
    elif isinstance(value, ast.Dict):
        items = value.values
    elif isinstance(value, ast.ListComp):
        items = [value.elt]
    elif isinstance(value, (ast.List, ast.Tuple)):
        items = value.elts
    else:
        return isinstance(value, ast.Call) and bool(file.metrics.kind(value))
    return bool(items) and depth < MOST_STEPS and all(_holds_metrics(file, own, depth + 1) for own in items)


def _stays(file: File, attribute: ast.Attribute, cls: ast.ClassDef) -> bool:
    """Whether the metrics surely become no part of the module later."""
    return not _is_handled(file, cls) and all(_is_read(file, own) for own in _uses(file, attribute, cls))


def _is_handled(file: File, cls: ast.ClassDef) -> bool:
    """Whether the class moves or registers anything by hand."""
    return any(
        (isinstance(node, ast.Attribute) and node.attr in _BY_HAND)
        or (isinstance(node, ast.Name) and node.id in ("setattr", "vars"))
        for own in file.classes.family(cls)
        for node in ast.walk(own)
    )


def _uses(file: File, attribute: ast.Attribute, cls: ast.ClassDef) -> Iterator[ast.Attribute]:
    """Every place in the family that reads the attribute."""
    for own in file.classes.family(cls):
        for node in ast.walk(own):
            if isinstance(node, ast.Attribute) and node.attr == attribute.attr and isinstance(node.ctx, ast.Load):
                yield node


def _is_read(file: File, node: ast.Attribute) -> bool:
    """Whether a use surely registers no metric: a loop, or a method of one of them."""
    parents = file.source.parents
    use: ast.AST = node
    parent = parents[use]
    while isinstance(parent, ast.Subscript) and use is parent.value:
        use, parent = parent, parents[parent]
    if isinstance(parent, ast.Attribute):
        reading = parent.attr in _READING
        use, parent = parents[parent], parents[parents[parent]]
        if not reading or not isinstance(use, ast.Call):
            return isinstance(use, ast.Call)
    if isinstance(parent, ast.Call):
        return use is parent.func
    return isinstance(parent, (ast.For, ast.comprehension)) and use is parent.iter
