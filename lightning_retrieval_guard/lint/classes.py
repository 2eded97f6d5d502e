"""The classes of a file: what they derive from, and what their attributes are."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from lightning_retrieval_guard.lint.source import FUNCTIONS, MOST_STEPS, Binding, Function, Source, paired

_LIGHTNING = ("lightning", "pytorch_lightning")
_OF_LIGHTNING = ("LightningModule", "LightningDataModule", "Callback")
_PLAIN = frozenset({"object", "abc.ABC", "typing.Generic", "typing.Protocol", "typing_extensions.Protocol"})


@dataclass(frozen=True)
class _Store:
    """One place that sets an attribute.

    Attributes:
        owner: The class whose object it is, or ``None`` where that is not known.
        method: The method that sets it, or ``None`` for the class body.
        value: The expression, or ``None`` where it cannot be followed.
    """

    owner: ast.ClassDef | None
    method: Function | None = None
    value: ast.expr | None = None


class Classes:
    """The classes of a file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lineages: dict[ast.ClassDef, tuple[list[ast.ClassDef], set[str]] | None] = {}

    def derives(self, cls: ast.ClassDef, *names: str) -> bool:
        """Whether a class surely derives from one of these classes of Lightning or torch, by its short name."""
        lineage = self._lineage(cls)
        return lineage is not None and bool(lineage[1].intersection(names))

    def lineage(self, cls: ast.ClassDef) -> Sequence[ast.ClassDef]:
        """The class and those of the file that it derives from; none where a base cannot be followed."""
        lineage = self._lineage(cls)
        return () if lineage is None else lineage[0]

    def family(self, cls: ast.ClassDef) -> list[ast.ClassDef]:
        """The lineage of a class, and the classes of the file that derive from it."""
        return [*self.lineage(cls), *(own for own in self._all if own is not cls and cls in self._above(own))]

    def attribute(self, node: ast.AST) -> ast.expr | None:
        """The expression that ``self.name`` was set to, once and in ``__init__``; else ``None``."""
        method = self._source.method_of(node)
        if method is None or not isinstance(node, ast.Attribute) or not self._source.is_self(node.value):
            return None
        lineage = self.lineage(method[1])
        stores = self._stores.get(node.attr, [])
        family = self.family(method[1])
        own = [store for store in stores if store.owner is None or store.owner in family]
        if len(own) != 1 or own[0].owner not in lineage:
            return None
        return own[0].value if own[0].method is not None and own[0].method.name == "__init__" else None

    def resolve(self, node: ast.expr) -> ast.expr:
        """The expression that a name or an attribute of ``self`` stands for, as far as it can be followed."""
        for _ in range(MOST_STEPS):
            value = self._step(node)
            if value is None:
                break
            node = value
        return node

    def _step(self, node: ast.expr) -> ast.expr | None:
        if isinstance(node, ast.Name):
            found = self._source.definition(node)
            return found.value if isinstance(found, Binding) and found.index is None else None
        return self.attribute(node)

    # --- bases ----------------------------------------------------------------------------------------------------

    @cached_property
    def _all(self) -> list[ast.ClassDef]:
        return [node for node in self._source.nodes if isinstance(node, ast.ClassDef)]

    @cached_property
    def _by_name(self) -> dict[str, ast.ClassDef]:
        outermost = (own for own in self._source.tree.body if isinstance(own, ast.ClassDef))
        return {own.name: own for own in outermost if self._source.bound_names[own.name] == 1}

    def _above(self, cls: ast.ClassDef) -> list[ast.ClassDef]:
        """The classes of the file that a class derives from, also where not all bases can be followed."""
        found: list[ast.ClassDef] = []
        waiting = [cls]
        while waiting:
            for base in waiting.pop().bases:
                own = self._by_name.get(base.id) if isinstance(base, ast.Name) else None
                if own is not None and own not in found:
                    found.append(own)
                    waiting.append(own)
        return found

    def _lineage(self, cls: ast.ClassDef) -> tuple[list[ast.ClassDef], set[str]] | None:
        if cls not in self._lineages:
            classes = [cls, *self._above(cls)]
            known = [self._known_base(base) for own in classes for base in own.bases]
            names = {name for name in known if name}
            self._lineages[cls] = None if None in known else (classes, names)
        return self._lineages[cls]

    def _known_base(self, base: ast.expr) -> str | None:
        """The short name of a known class of Lightning or torch, nothing for one that adds nothing, or ``None``."""
        if isinstance(base, ast.Subscript):
            base = base.value
        if isinstance(base, ast.Name) and (base.id in self._by_name or base.id == "object"):
            return ""
        dotted = self._source.dotted(base)
        root, last = dotted.partition(".")[0], dotted.rpartition(".")[2]
        if root in _LIGHTNING and last in _OF_LIGHTNING:
            return last
        if root == "torch" and last == "Module":
            return last
        return "" if dotted in _PLAIN else None

    # --- attributes -----------------------------------------------------------------------------------------------

    @cached_property
    def _stores(self) -> dict[str, list[_Store]]:
        found: dict[str, list[_Store]] = {}
        for name, store in self._all_stores():
            found.setdefault(name, []).append(store)
        return found

    def _all_stores(self) -> Iterator[tuple[str, _Store]]:
        for node in self._source.nodes:
            if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
                yield node.attr, self._store(node)
            elif isinstance(node, ast.ClassDef):
                yield from ((name, _Store(node)) for name in _names_of_body(node))
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
                name = node.args[1] if len(node.args) > 1 else None
                if isinstance(name, ast.Constant) and isinstance(name.value, str):
                    yield name.value, _Store(None)

    def _store(self, node: ast.Attribute) -> _Store:
        method = self._source.method_of(node)
        if method is None or not self._source.is_self(node.value):
            return _Store(None)
        inner = self._source.function_of(node) is not method[0]
        return _Store(method[1], method[0], None if inner else self._stored(node))

    def _stored(self, node: ast.Attribute) -> ast.expr | None:
        parent = self._source.parents[node]
        if isinstance(parent, (ast.Assign, ast.AnnAssign)):
            return parent.value
        above = self._source.parents[parent]
        if isinstance(parent, (ast.Tuple, ast.List)) and isinstance(above, ast.Assign):
            return next(item for own, item in paired(parent, above.value) if own is node)
        return None


def _names_of_body(cls: ast.ClassDef) -> Iterator[str]:
    for own in cls.body:
        if isinstance(own, (*FUNCTIONS, ast.ClassDef)):
            yield own.name
        elif isinstance(own, ast.Assign):
            yield from (target.id for target in own.targets if isinstance(target, ast.Name))
        elif isinstance(own, ast.AnnAssign) and own.value is not None and isinstance(own.target, ast.Name):
            yield own.target.id
