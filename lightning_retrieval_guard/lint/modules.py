"""Parsed files: imports, classes and their bases, also those of files that are imported."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cached_property, lru_cache
from pathlib import Path

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef

_LIGHTNING = ("lightning", "pytorch_lightning")
_OF_LIGHTNING = ("LightningModule", "LightningDataModule", "Callback")
_PLAIN = frozenset({"object", "ABC", "Generic", "Protocol"})
# Names that switch combining on and off; where a file uses one, nothing is certain of its metrics.
_SWITCHES = ("sync_on_compute", "_to_sync", "_should_unsync", "distributed_available_fn", "dist_sync_fn")
_SWITCHING = ("sync_context", "sync", "unsync")
_ONE_PROCESS = re.compile(
    r"world_?size|(num|n)_?(gpus?|devices|ranks|processes|replicas)|device_?count|is_(initialized|available)|distributed$",
    re.IGNORECASE,
)
_MOST_BYTES = 1_000_000
_MOST_FOLDERS = 6
_MOST_EXPORTS = 5


class ClassInfo:
    """A class and what it derives from."""

    def __init__(self, node: ast.ClassDef, module: Module) -> None:
        self.node = node
        self.module = module

    @cached_property
    def methods(self) -> dict[str, Function]:
        """The methods of its own."""
        return {own.name: own for own in self.node.body if isinstance(own, FUNCTIONS)}

    @cached_property
    def lineage(self) -> list[ClassInfo]:
        """The class and the classes of the sources that it derives from; none where a base cannot be followed."""
        return [] if self._ancestry is None else self._ancestry[0]

    def derives(self, *names: str) -> bool:
        """Whether it surely derives from one of these classes of Lightning or torch, by its short name."""
        return self._ancestry is not None and bool(self._ancestry[1].intersection(names))

    @cached_property
    def _ancestry(self) -> tuple[list[ClassInfo], set[str]] | None:
        found: list[ClassInfo] = [self]
        roots: set[str] = set()
        for cls in found:  # grows on the way
            for base in cls.node.bases:
                node = base.value if isinstance(base, ast.Subscript) else base
                known = cls.module.find_class(node)
                root = _known_root(cls.module.dotted(node) or getattr(node, "id", ""))
                if known is not None:
                    found += [] if any(own.node is known.node for own in found) else [known]
                elif root is not None:
                    roots.add(root)
                else:
                    return None
        return found, roots


def _known_root(dotted: str) -> str | None:
    root, last = dotted.partition(".")[0], dotted.rpartition(".")[2]
    if (root in _LIGHTNING and last in _OF_LIGHTNING) or dotted in ("torch.nn.Module", "torch.nn.modules.Module"):
        return last
    return "" if last in _PLAIN and root in (last, "abc", "typing", "typing_extensions") else None


class Module:
    """One parsed file.

    Args:
        tree: Its syntax tree.
        path: Where it is, so that its imports can be found; ``None`` where that is not known.
        text: Its text, where it may be shown again.
    """

    def __init__(self, tree: ast.Module, path: Path | None = None, text: str = "") -> None:
        self.tree = tree
        self.path = path
        self.text = text
        self.nodes = list(ast.walk(tree))
        self.functions = {own.name: own for own in tree.body if isinstance(own, FUNCTIONS)}
        self.all_classes = [ClassInfo(own, self) for own in self.nodes if isinstance(own, ast.ClassDef)]
        self.outer = {own.node.name: own for own in self.all_classes if own.node in tree.body}
        self._asking: dict[ast.AST, bool] = {}
        self._imported: dict[str, ClassInfo | tuple[Module, Function] | None] = {}

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """What names are bound to, once and outside of functions."""
        found: dict[str, list[ast.expr]] = {}
        for own in self.tree.body:
            if isinstance(own, (ast.Assign, ast.AnnAssign)) and own.value is not None:
                for target in own.targets if isinstance(own, ast.Assign) else [own.target]:
                    if isinstance(target, ast.Name):
                        found.setdefault(target.id, []).append(own.value)
        return {name: values[0] for name, values in found.items() if len(values) == 1}

    @cached_property
    def imports(self) -> dict[str, str]:
        """The dotted name behind every name that imports bind; a relative one begins with dots."""
        found: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    found.setdefault(alias.asname or first, alias.name if alias.asname else first)
            elif isinstance(node, ast.ImportFrom):
                start = "." * node.level + (f"{node.module}." if node.module else "")
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name, f"{start}{alias.name}")
        bound = self.functions.keys() | self.outer.keys()
        return {name: dotted for name, dotted in found.items() if name not in bound}

    def dotted(self, node: ast.AST) -> str:
        """The full dotted name of ``a.b.c`` where ``a`` is imported; empty otherwise."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        first = self.imports.get(node.id, "") if isinstance(node, ast.Name) else ""
        return ".".join([first, *reversed(parts)]) if first else ""

    def find_class(self, node: ast.AST) -> ClassInfo | None:
        """The class that an expression names, in this file or in one that is imported."""
        if isinstance(node, ast.Name) and node.id in self.outer:
            return self.outer[node.id]
        found = self.imported(self.dotted(node))
        return found if isinstance(found, ClassInfo) else None

    def imported(self, dotted: str, depth: int = 0) -> ClassInfo | tuple[Module, Function] | None:
        """The class or function of another file of the same sources, by its full name."""
        if dotted not in self._imported:
            self._imported[dotted] = self._find_imported(dotted, depth)
        return self._imported[dotted]

    def _find_imported(self, dotted: str, depth: int) -> ClassInfo | tuple[Module, Function] | None:
        *package, name = dotted.lstrip(".").split(".")
        level = len(dotted) - len(dotted.lstrip("."))
        other = self._other(level, package) if level + len(package) and depth < _MOST_EXPORTS else None
        if other is None:
            return None
        if name in other.functions:
            return other, other.functions[name]
        return other.outer.get(name) or other.imported(other.imports.get(name, ""), depth + 1)

    def _other(self, level: int, package: list[str]) -> Module | None:
        if self.path is None or (not level and package[0] in (*_LIGHTNING, "torch", "torchmetrics", "typing", "abc")):
            return None
        above = list(self.path.absolute().parents)[:_MOST_FOLDERS]
        for folder in above[level - 1 : level] if level else above:
            inner = folder.joinpath(*package)
            for path in (inner.with_name(f"{inner.name}.py"), inner / "__init__.py"):
                if path.is_file() and (found := _read(path)) is not None:
                    return found
        return None

    @cached_property
    def builds_metrics(self) -> bool:
        """Whether anything of torchmetrics is imported."""
        return any(own.partition(".")[0] == "torchmetrics" for own in self.imports.values())

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """The node around each node."""
        return {child: own for own in self.nodes for child in ast.iter_child_nodes(own)}

    @cached_property
    def foreign_stores(self) -> set[str]:
        """The names of attributes that are set on something else than ``self``."""
        stores = (own for own in self.nodes if isinstance(own, ast.Attribute) and not isinstance(own.ctx, ast.Load))
        return {own.attr for own in stores if not (isinstance(own.value, ast.Name) and own.value.id == "self")}

    def is_generator(self, function: Function) -> bool:
        """Whether calling a function runs nothing of it."""
        return function in self._generators

    @cached_property
    def _generators(self) -> set[ast.AST]:
        functions = (own for own in self.nodes if isinstance(own, FUNCTIONS))
        return {own for own in functions if any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(own))}

    @cached_property
    def switches_sync(self) -> bool:
        """Whether the file may switch combining on or off after a metric was built."""
        called = {own.func for own in self.nodes if isinstance(own, ast.Call)}
        return any(
            isinstance(own, ast.Attribute)
            and (
                (own.attr in _SWITCHES and isinstance(own.ctx, ast.Store)) or (own.attr in _SWITCHING and own in called)
            )
            for own in self.nodes
        )

    @cached_property
    def is_on_one_device(self) -> bool:
        """Whether every Trainer of the file has one device or no distributed sampler, or every batch is one sample."""
        options = [
            {own.arg: own.value.value for own in call.keywords if isinstance(own.value, ast.Constant)}
            for call in self.nodes
            if isinstance(call, ast.Call)
        ]
        trainers = [own for own in options if own.keys() & {"devices", "gpus"}]
        alone = bool(trainers) and all(1 in (own.get("devices"), own.get("gpus")) for own in trainers)
        samplers = ("use_distributed_sampler", "replace_sampler_ddp")
        return alone or any(own.get(name) is False for own in options for name in samplers)

    @cached_property
    def loads_one_sample(self) -> bool:
        """Whether a loader of the file has batches of one sample."""
        loaders = [own for own in self.nodes if isinstance(own, ast.Call) and "DataLoader" in ast.unparse(own.func)]
        sizes = [own.value for call in loaders for own in call.keywords if own.arg == "batch_size"]
        return any(isinstance(own, ast.Constant) and own.value == 1 for own in sizes)

    def asks_for_devices(self, function: ast.AST) -> bool:
        """Whether a test in a function asks how many processes there are."""
        if function not in self._asking:
            self._asking[function] = any(map(_ONE_PROCESS.search, _names_in_tests(function)))
        return self._asking[function]


def _names_in_tests(function: ast.AST) -> Iterator[str]:
    for own in ast.walk(function):
        if isinstance(own, (ast.If, ast.IfExp, ast.While, ast.Assert)):
            for part in ast.walk(own.test):
                if isinstance(part, (ast.Name, ast.Attribute)):
                    yield part.id if isinstance(part, ast.Name) else part.attr


@lru_cache(maxsize=256)
def _read(path: Path) -> Module | None:
    try:
        return Module(ast.parse(path.read_bytes()), path) if path.stat().st_size <= _MOST_BYTES else None
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
