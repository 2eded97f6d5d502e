"""One parsed file: parents, imports, and which value a name has within its function."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
_SCOPES = (*FUNCTIONS, ast.Lambda, ast.ClassDef)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)

MOST_STEPS = 40
"""How far an expression is followed, and how deep it is looked into; beyond that nothing is certain."""


@dataclass(frozen=True)
class Binding:
    """What a name is bound to.

    Attributes:
        statement: Where that happens.
        value: The expression, or ``None`` where it cannot be followed.
        index: Which item of the value it is, where that is unpacked.
    """

    statement: ast.AST
    value: ast.expr | None = None
    index: int | None = None


@dataclass(frozen=True)
class Parameter:
    """A parameter of the function, with its position."""

    name: str
    position: int


class Source:
    """A parsed file.

    Args:
        tree: Its syntax tree.
        lines: Its text, with line ends.
    """

    def __init__(self, tree: ast.Module, lines: Sequence[str]) -> None:
        self.tree = tree
        self.lines = lines
        self.nodes: list[ast.AST] = [tree]
        self.parents: dict[ast.AST, ast.AST] = {}
        for node in self.nodes:  # grows on the way
            children = list(ast.iter_child_nodes(node))
            self.nodes += children
            self.parents.update(dict.fromkeys(children, node))
        self._bindings: dict[Function, dict[str, list[Binding]]] = {}

    # --- where a node stands --------------------------------------------------------------------------------------

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """The nodes around a node, innermost first."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def function_of(self, node: ast.AST) -> Function | None:
        """The innermost function around a node; ``None`` outside of functions, in a lambda and in a class body."""
        scope = next((own for own in self.ancestors(node) if isinstance(own, _SCOPES)), None)
        return scope if isinstance(scope, FUNCTIONS) else None

    def method_of(self, node: ast.AST) -> tuple[Function, ast.ClassDef] | None:
        """The method around a node and its class."""
        for own in self.ancestors(node):
            parent = self.parents.get(own)
            if isinstance(own, ast.ClassDef):
                return None
            if isinstance(own, FUNCTIONS) and isinstance(parent, ast.ClassDef):
                return own, parent
        return None

    def is_self(self, node: ast.AST) -> bool:
        """Whether an expression is the object that the method around it belongs to."""
        method = self.method_of(node)
        if method is None or not isinstance(node, ast.Name):
            return False
        function = method[0]
        positional = [*function.args.posonlyargs, *function.args.args]
        plain = not any(isinstance(own, ast.Name) and own.id.endswith("method") for own in function.decorator_list)
        return plain and bool(positional) and positional[0].arg == node.id

    def statement_of(self, node: ast.AST) -> ast.stmt:
        """The innermost statement that a node is, or is a part of."""
        if isinstance(node, ast.stmt):
            return node
        return next(own for own in self.ancestors(node) if isinstance(own, ast.stmt))

    # --- names of imports -----------------------------------------------------------------------------------------

    @cached_property
    def imports(self) -> dict[str, str]:
        """The dotted name behind every name that absolute imports bind, and nothing else does."""
        found: dict[str, set[str]] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    found.setdefault(alias.asname or first, set()).add(alias.name if alias.asname else first)
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    full = "" if node.level or node.module is None else f"{node.module}.{alias.name}"
                    found.setdefault(alias.asname or alias.name, set()).add(full)
        bound = self.bound_names
        return {name: full for name, (full, *others) in found.items() if full and not others and name not in bound}

    @cached_property
    def bound_names(self) -> Counter[str]:
        """How often each name is bound anywhere in the file by something else than an import."""
        found: Counter[str] = Counter()
        for node in self.nodes:
            if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                found[node.id] += 1
            elif isinstance(node, ast.arg):
                found[node.arg] += 1
            elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
                found[node.name] += 1
        return found

    def dotted(self, node: ast.AST) -> str:
        """The full dotted name of ``a.b.c`` where ``a`` is imported; empty otherwise."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        first = self.imports.get(node.id, "") if isinstance(node, ast.Name) else ""
        return ".".join([first, *reversed(parts)]) if first else ""

    # --- values of names ------------------------------------------------------------------------------------------

    def definition(self, name: ast.Name) -> Binding | Parameter | None:
        """What a name is at this place within its function; ``None`` where that is not certain."""
        function = self.function_of(name)
        if function is None or self._is_of_comprehension(name):
            return None
        bindings = self._bindings_of(function).get(name.id, [])
        use = self.statement_of(name)
        before = [own for own in bindings if _place(own.statement) < _place(use)]
        last = max(before, key=lambda own: _place(own.statement), default=None)
        if any(own.statement is function for own in bindings):  # global or nonlocal
            return None
        inside = None if last is None else last.statement
        if self._changes_in_loop(bindings, use, inside):
            return None
        if last is not None:
            return last if self._is_passed(last.statement, use) else None
        names = [own.arg for own in (*function.args.posonlyargs, *function.args.args)]
        return Parameter(name.id, names.index(name.id)) if name.id in names else None

    def _is_of_comprehension(self, name: ast.Name) -> bool:
        generators = (
            generator
            for own in self.ancestors(name)
            if isinstance(own, _COMPREHENSIONS)
            for generator in own.generators
        )
        return any(
            isinstance(node, ast.Name) and node.id == name.id
            for generator in generators
            for node in ast.walk(generator.target)
        )

    def _is_passed(self, statement: ast.AST, use: ast.stmt) -> bool:
        """Whether every way to the use goes through the statement."""
        block = self._block(statement)
        return any(own in block for own in (use, *self.ancestors(use)))

    def _block(self, statement: ast.AST) -> list[ast.AST]:
        for _, value in ast.iter_fields(self.parents[statement]):
            if isinstance(value, list) and statement in value:
                return value
        return []

    def _changes_in_loop(self, bindings: Sequence[Binding], use: ast.stmt, last: ast.AST | None) -> bool:
        """Whether a loop around the use binds the name anew, after it was bound outside of the loop."""
        outside = set() if last is None else {last, *self.ancestors(last)}
        for loop in (own for own in self.ancestors(use) if isinstance(own, _LOOPS) and own not in outside):
            if any(loop in self.ancestors(own.statement) for own in bindings):
                return True
        return False

    def _bindings_of(self, function: Function) -> dict[str, list[Binding]]:
        if function not in self._bindings:
            found: dict[str, list[Binding]] = {}
            for name, binding in _all_bindings(function):
                found.setdefault(name, []).append(binding)
            self._bindings[function] = found
        return self._bindings[function]


def _place(node: ast.AST) -> tuple[int, int]:
    statement: ast.stmt = node  # type: ignore[assignment]  # bindings and uses are statements
    return statement.lineno, statement.col_offset


def _all_bindings(function: Function) -> Iterator[tuple[str, Binding]]:
    # (node, the statement it is a part of)
    waiting: list[tuple[ast.AST, ast.AST]] = [(own, own) for own in reversed(function.body)]
    while waiting:
        node, statement = waiting.pop()
        yield from _bindings_at(node, statement, function)
        if isinstance(node, _SCOPES):
            inner = (own for own in ast.walk(node) if isinstance(own, ast.Nonlocal))
            yield from ((name, Binding(function)) for own in inner for name in own.names)
            continue
        own = node.target if isinstance(node, ast.comprehension) else None
        inside = (child for child in ast.iter_child_nodes(node) if child is not own)
        waiting.extend((child, child if isinstance(child, ast.stmt) else statement) for child in inside)


def _bindings_at(node: ast.AST, statement: ast.AST, function: Function) -> Iterator[tuple[str, Binding]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _bound(target, node.value, node)
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        yield from _bound(node.target, node.value, node)
    elif isinstance(node, (ast.Global, ast.Nonlocal)):
        yield from ((name, Binding(function)) for name in node.names)
    elif isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        yield node.name, Binding(statement)
    elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)):
            yield node.id, Binding(statement)
    elif isinstance(node, (ast.ExceptHandler, ast.MatchAs, ast.MatchStar)) and node.name:
        yield node.name, Binding(statement)
    elif isinstance(node, ast.MatchMapping) and node.rest:
        yield node.rest, Binding(statement)
    elif isinstance(node, ast.NamedExpr):
        yield node.target.id, Binding(statement)
    elif isinstance(node, ast.Call):
        yield from ((name, Binding(statement)) for name in _changed_in_place(node))


def _changed_in_place(call: ast.Call) -> Iterator[str]:
    """The names that ``x.add_(1)`` and ``f(out=x)`` change."""
    changed = [keyword.value for keyword in call.keywords if keyword.arg == "out"]
    if isinstance(call.func, ast.Attribute) and call.func.attr.endswith("_") and not call.func.attr.endswith("__"):
        changed.append(call.func.value)
    return (own.id for own in changed if isinstance(own, ast.Name))


def _bound(target: ast.expr, value: ast.expr, statement: ast.AST) -> Iterator[tuple[str, Binding]]:
    if isinstance(target, ast.Name):
        yield target.id, Binding(statement, value)
    elif isinstance(target, ast.Subscript) and isinstance(target.value, ast.Name):
        yield target.value.id, Binding(statement)
    elif isinstance(target, (ast.Tuple, ast.List)):
        for index, (own, item) in enumerate(paired(target, value)):
            if item is not None:
                yield from _bound(own, item, statement)
            elif isinstance(own, ast.Name):
                starred = any(isinstance(one, ast.Starred) for one in target.elts)
                yield own.id, Binding(statement, None if starred else value, index)
            else:
                inner = (one.id for one in ast.walk(own) if isinstance(one, ast.Name))
                yield from ((name, Binding(statement)) for name in inner)


def paired(target: ast.Tuple | ast.List, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr | None]]:
    """Each target of an unpacking with its own expression, or ``None`` where the value is not spelled out."""
    items = value.elts if isinstance(value, (ast.Tuple, ast.List)) else []
    known = len(items) == len(target.elts) and not any(isinstance(own, ast.Starred) for own in (*items, *target.elts))
    for index, own in enumerate(target.elts):
        yield own, items[index] if known else None
