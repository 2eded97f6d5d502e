"""Parsed files: imports, functions, classes and their bases, also those of files that are imported."""

from __future__ import annotations

import ast
import io
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from lightning_retrieval_guard.lint.values import Value, constant_keywords

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

_LIGHTNING = ("lightning", "pytorch_lightning")
_NOT_FOLLOWED = frozenset({*_LIGHTNING, "torch", "torchmetrics", "typing", "abc"})
_OF_LIGHTNING = ("LightningModule", "LightningDataModule", "Callback")
_PLAIN = frozenset({"object", "ABC", "Generic", "Protocol"})
# Names that switch combining on and off; where a file uses one, nothing is certain of its metrics.
_SWITCHES = ("sync_on_compute", "_to_sync", "_should_unsync", "distributed_available_fn", "dist_sync_fn")
_SWITCHING = ("sync_context", "sync", "unsync")
_NUMBER_OF_PROCESSES = re.compile(
    r"world_?size|(num|n)_?(gpus?|devices|ranks|processes|replicas)|device_?count|is_(initialized|available)|distributed$",
    re.IGNORECASE,
)
# Those of a Trainer, today and before 2.0: whether it shares the samples out among the processes.
_SAMPLER_OPTIONS = ("use_distributed_sampler", "replace_sampler_ddp")
# A longer file is generated, and a deeper root none that a program is started from.
_MOST_BYTES = 1_000_000
_MOST_FOLDERS = 6


def lines_of(text: str) -> list[str]:
    """The lines of a source with their ends, counted as Python counts them."""
    # str.splitlines() ends a line at a form feed too, and at some marks that may stand in strings
    return list(io.StringIO(text, newline=""))


def column_of(line: str, offset: int) -> int:
    """The column in characters of one that ast counts, which is in bytes of UTF-8."""
    return len(line.encode()[:offset].decode())


@dataclass(frozen=True)
class Function(Value):
    """A function or method of the sources."""

    node: ast.FunctionDef | ast.AsyncFunctionDef
    source: SourceFile
    cls: ClassInfo | None = None

    @cached_property
    def decorators(self) -> set[str]:
        """The last names of its decorators."""
        return {ast.unparse(node).rpartition(".")[2] for node in self.node.decorator_list}

    @cached_property
    def is_generator(self) -> bool:
        """Whether calling it runs nothing of it."""
        return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in ast.walk(self.node))

    @cached_property
    def asks_for_devices(self) -> bool:
        """Whether a test in it asks how many processes there are."""
        nodes = ast.walk(self.node)
        tests = [node.test for node in nodes if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert))]
        names = [getattr(node, "id", getattr(node, "attr", "")) for test in tests for node in ast.walk(test)]
        return any(map(_NUMBER_OF_PROCESSES.search, names))


class ClassInfo:
    """A class and what it derives from."""

    def __init__(self, node: ast.ClassDef, source: SourceFile) -> None:
        self.node = node
        self.source = source
        self.methods = {part.name: Function(part, source, self) for part in node.body if isinstance(part, FUNCTIONS)}

    @property
    def lineage(self) -> list[ClassInfo]:
        """The class and the classes of the sources that it derives from; none where a base cannot be followed."""
        return self._ancestry[0]

    def derives(self, *names: str) -> bool:
        """Whether it surely derives from one of these classes of Lightning or torch, by its short name."""
        return not self._ancestry[1].isdisjoint(names)

    def method(self, name: str, after: ClassInfo | None = None) -> Function | None:
        """A method of the object, or of the classes after one."""
        start = next((number + 1 for number, cls in enumerate(self.lineage) if after and cls.node is after.node), 0)
        return next((cls.methods[name] for cls in self.lineage[start:] if name in cls.methods), None)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """Everything in the class and the classes that it derives from."""
        return [node for cls in self.lineage for node in ast.walk(cls.node)]

    @cached_property
    def asked_keys(self) -> list[str]:
        """The strings that the class may ask dictionaries for."""
        asked = [argument for node in self.nodes if isinstance(node, ast.Call) for argument in node.args]
        asked += [node.slice for node in self.nodes if isinstance(node, ast.Subscript)]
        names = {node.value for node in asked if isinstance(node, ast.Constant) and isinstance(node.value, str)}
        return sorted(filter(str.isidentifier, names))

    @cached_property
    def _ancestry(self) -> tuple[list[ClassInfo], set[str]]:
        classes: list[ClassInfo] = [self]
        roots: set[str] = set()  # the short names of the classes of Lightning or torch at its end
        for cls in classes:  # grows on the way
            for base in cls.node.bases:
                node = base.value if isinstance(base, ast.Subscript) else base  # Generic[T]
                parent = cls.source.find_class(node)
                root = _root_of(cls.source.dotted(node) or getattr(node, "id", ""))
                if parent is None and root is None:
                    return [], set()  # what an unknown base does nobody sees, and nothing uncertain is reported
                if parent is None:
                    roots.add(root or "")
                elif all(other.node is not parent.node for other in classes):
                    classes.append(parent)
        return classes, roots


def _root_of(dotted: str) -> str | None:
    """The short name of a class whose behaviour is known; empty for one that has none."""
    package, last = dotted.partition(".")[0], dotted.rpartition(".")[2]
    if (package in _LIGHTNING and last in _OF_LIGHTNING) or dotted in ("torch.nn.Module", "torch.nn.modules.Module"):
        return last
    return "" if last in _PLAIN and package in (last, "abc", "typing", "typing_extensions") else None


class SourceFile:
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
        self.calls = [node for node in self.nodes if isinstance(node, ast.Call)]
        self.attributes = [node for node in self.nodes if isinstance(node, ast.Attribute)]
        self.functions = {node.name: Function(node, self) for node in tree.body if isinstance(node, FUNCTIONS)}
        self.all_classes = [ClassInfo(node, self) for node in self.nodes if isinstance(node, ast.ClassDef)]
        self.classes = {cls.node.name: cls for cls in self.all_classes if cls.node in tree.body}
        self._imported: dict[str, ClassInfo | Function | None] = {}

    # --- names ------------------------------------------------------------------------------------------------------

    @cached_property
    def constants(self) -> dict[str, ast.expr]:
        """What names are bound to, once and outside of functions."""
        values: dict[str, list[ast.expr]] = {}
        for node in self.tree.body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                    values.setdefault(getattr(target, "id", ""), []).append(node.value)
        # which of several values holds depends on the order in which code runs
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
        return {name: names[name] for name in names.keys() - self.functions.keys() - self.classes.keys()}

    def dotted(self, node: ast.AST) -> str:
        """The full dotted name of ``a.b.c`` where ``a`` is imported; empty otherwise."""
        if isinstance(node, ast.Attribute):
            owner = self.dotted(node.value)
            return owner and f"{owner}.{node.attr}"
        return self.imports.get(node.id, "") if isinstance(node, ast.Name) else ""

    def find_class(self, node: ast.AST) -> ClassInfo | None:
        """The class that an expression names, in this file or in one that is imported."""
        if isinstance(node, ast.Name) and node.id in self.classes:
            return self.classes[node.id]
        imported = self.imported(self.dotted(node))
        return imported if isinstance(imported, ClassInfo) else None

    def imported(self, dotted: str) -> ClassInfo | Function | None:
        """The class or function of another file of the same sources, by its full name."""
        if dotted not in self._imported:
            self._imported[dotted] = None  # for files that import each other
            *package, name = dotted.lstrip(".").split(".")
            level = len(dotted) - len(dotted.lstrip("."))
            if other := self._other(level, package):
                inner = other.functions.get(name) or other.classes.get(name)
                self._imported[dotted] = inner or other.imported(other.imports.get(name, ""))
        return self._imported[dotted]

    def _other(self, level: int, package: list[str]) -> SourceFile | None:
        if self.path is None or not (level or package) or (not level and package[0] in _NOT_FOLLOWED):
            return None
        # the root of the sources is not known, so every folder above is tried, the nearest first
        above = list(self.path.absolute().parents)[:_MOST_FOLDERS]
        for folder in above[level - 1 : level] if level else above:
            inner = folder.joinpath(*package)
            for path in (inner.with_name(f"{inner.name}.py"), inner / "__init__.py"):
                if path.is_file() and (source := _read(path)) is not None:
                    return source
        return None

    # --- what holds in the whole file -------------------------------------------------------------------------------

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """The node around each node."""
        return {child: node for node in self.nodes for child in ast.iter_child_nodes(node)}

    @cached_property
    def builds_metrics(self) -> bool:
        """Whether anything of torchmetrics is imported."""
        return any(dotted.partition(".")[0] == "torchmetrics" for dotted in self.imports.values())

    @cached_property
    def foreign_stores(self) -> set[str]:
        """The names of attributes that are set on something else than ``self``."""
        stores = [node for node in self.attributes if not isinstance(node.ctx, ast.Load)]
        return {node.attr for node in stores if getattr(node.value, "id", "") != "self"}

    @cached_property
    def switches_sync(self) -> bool:
        """Whether the file may switch combining on or off after a metric was built."""
        called = {getattr(call.func, "attr", "") for call in self.calls}
        stored = {node.attr for node in self.attributes if isinstance(node.ctx, ast.Store)}
        return not (stored.isdisjoint(_SWITCHES) and called.isdisjoint(_SWITCHING))

    @cached_property
    def is_on_one_device(self) -> bool:
        """Whether every Trainer of the file has one device, or one has no distributed sampler."""
        passed = [constant_keywords(call) for call in self.calls]
        devices = [options.get("devices", options.get("gpus", ...)) for options in passed]
        counts = [count for count in devices if count is not ...]
        samplers = [options.get(name) for options in passed for name in _SAMPLER_OPTIONS]
        return False in samplers or (bool(counts) and all(count == 1 for count in counts))

    @cached_property
    def loads_one_sample(self) -> bool:
        """Whether a loader of the file has batches of one sample."""
        loaders = [call for call in self.calls if "DataLoader" in ast.unparse(call.func)]
        return any(constant_keywords(call).get("batch_size") == 1 for call in loaders)


@lru_cache(maxsize=256)
def _read(path: Path) -> SourceFile | None:
    try:
        return SourceFile(ast.parse(path.read_bytes()), path) if path.stat().st_size <= _MOST_BYTES else None
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
