"""Parsed files: imports, classes and their bases, also those of files that are imported."""

from __future__ import annotations

import ast
import re
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
        self.methods = {part.name: part for part in node.body if isinstance(part, FUNCTIONS)}

    @property
    def lineage(self) -> list[ClassInfo]:
        """The class and the classes of the sources that it derives from; none where a base cannot be followed."""
        return self._ancestry[0]

    def derives(self, *names: str) -> bool:
        """Whether it surely derives from one of these classes of Lightning or torch, by its short name."""
        return bool(self._ancestry[1].intersection(names))

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Everything in the class and the classes that it derives from."""
        return [node for cls in self.lineage for node in ast.walk(cls.node)]

    @cached_property
    def _ancestry(self) -> tuple[list[ClassInfo], set[str]]:
        classes: list[ClassInfo] = [self]
        roots: set[str] = set()
        for cls in classes:  # grows on the way
            for base in cls.node.bases:
                node = base.value if isinstance(base, ast.Subscript) else base
                parent = cls.module.find_class(node)
                root = _known_root(cls.module.dotted(node) or getattr(node, "id", ""))
                if parent is not None:
                    classes += [] if any(other.node is parent.node for other in classes) else [parent]
                elif root is not None:
                    roots.add(root)
                else:
                    return [], set()
        return classes, roots


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
        self.functions = {node.name: node for node in tree.body if isinstance(node, FUNCTIONS)}
        self.all_classes = [ClassInfo(node, self) for node in self.nodes if isinstance(node, ast.ClassDef)]
        self.outer = {cls.node.name: cls for cls in self.all_classes if cls.node in tree.body}
        self._imported: dict[str, ClassInfo | tuple[Module, Function] | None] = {}

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """What names are bound to, once and outside of functions."""
        values: dict[str, list[ast.expr]] = {}
        for node in self.tree.body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    if isinstance(target, ast.Name):
                        values.setdefault(target.id, []).append(node.value)
        return {name: bound[0] for name, bound in values.items() if len(bound) == 1}

    @cached_property
    def imports(self) -> dict[str, str]:
        """The dotted name behind every name that imports bind; a relative one begins with dots."""
        names: dict[str, str] = {}
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    first = alias.name.partition(".")[0]
                    names.setdefault(alias.asname or first, alias.name if alias.asname else first)
            elif isinstance(node, ast.ImportFrom):
                start = "." * node.level + (f"{node.module}." if node.module else "")
                for alias in node.names:
                    names.setdefault(alias.asname or alias.name, f"{start}{alias.name}")
        return {name: names[name] for name in names.keys() - self.functions.keys() - self.outer.keys()}

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
        entry = self.imported(self.dotted(node))
        return entry if isinstance(entry, ClassInfo) else None

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
                if path.is_file() and (module := _read(path)) is not None:
                    return module
        return None

    @cached_property
    def builds_metrics(self) -> bool:
        """Whether anything of torchmetrics is imported."""
        return any(dotted.partition(".")[0] == "torchmetrics" for dotted in self.imports.values())

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """The node around each node."""
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    @cached_property
    def foreign_stores(self) -> set[str]:
        """The names of attributes that are set on something else than ``self``."""
        stores = (node for node in self.nodes if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load))
        return {node.attr for node in stores if getattr(node.value, "id", "") != "self"}

    @cached_property
    def switches_sync(self) -> bool:
        """Whether the file may switch combining on or off after a metric was built."""
        called = {node.func for node in self.nodes if isinstance(node, ast.Call)}
        attributes = [node for node in self.nodes if isinstance(node, ast.Attribute)]
        stored = {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}
        return not stored.isdisjoint(_SWITCHES) or any(
            node.attr in _SWITCHING and node in called for node in attributes
        )

    @cached_property
    def is_on_one_device(self) -> bool:
        """Whether every Trainer of the file has one device, or one has no distributed sampler."""
        options = [
            {keyword.arg: keyword.value.value for keyword in call.keywords if isinstance(keyword.value, ast.Constant)}
            for call in self.nodes
            if isinstance(call, ast.Call)
        ]
        trainers = [given for given in options if given.keys() & {"devices", "gpus"}]
        alone = bool(trainers) and all(1 in (given.get("devices"), given.get("gpus")) for given in trainers)
        samplers = ("use_distributed_sampler", "replace_sampler_ddp")
        return alone or any(given.get(name) is False for given in options for name in samplers)

    @cached_property
    def loads_one_sample(self) -> bool:
        """Whether a loader of the file has batches of one sample."""
        loaders = [node for node in self.nodes if isinstance(node, ast.Call) and "DataLoader" in ast.unparse(node.func)]
        sizes = [keyword.value for call in loaders for keyword in call.keywords if keyword.arg == "batch_size"]
        return any(isinstance(size, ast.Constant) and size.value == 1 for size in sizes)


@lru_cache(maxsize=1024)
def is_generator(function: Function) -> bool:
    """Whether calling a function runs nothing of it."""
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(function))


@lru_cache(maxsize=1024)
def asks_for_devices(function: ast.AST) -> bool:
    """Whether a test in a function asks how many processes there are."""
    tests = [node.test for node in ast.walk(function) if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert))]
    parts = [part for test in tests for part in ast.walk(test)]
    return any(_ONE_PROCESS.search(getattr(part, "id", getattr(part, "attr", ""))) for part in parts)


@lru_cache(maxsize=256)
def _read(path: Path) -> Module | None:
    try:
        return Module(ast.parse(path.read_bytes()), path) if path.stat().st_size <= _MOST_BYTES else None
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
