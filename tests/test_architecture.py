"""What the import contracts cannot say about the package's files, read from their syntax trees."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_retrieval_guard"
MAX_LINES = 400
# Private names of other packages stand in one file, whatever their number.
PRIVATE_NAMES = ("_compat.py",)
FOREIGN = {"lightning", "pytorch_lightning", "torchmetrics"}

MODULES = sorted(PACKAGE.rglob("*.py"))

# A check yields (line, what stands there).
Violation = tuple[int, str]


def imported_names(nodes: list[ast.AST]) -> dict[str, str]:
    """The full dotted name behind each name that an absolute import binds."""
    names = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.split(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def import_targets(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def attribute_target(node: ast.AST, names: dict[str, str]) -> str | None:
    """The full dotted name of `a.b.c`, or of `getattr(a.b, "c")`, where `a` is imported."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner, attribute = node.value, node.attr
    elif is_attribute_call(node):
        owner, attribute = node.args[0], node.args[1].value
    else:
        return None
    prefix = attribute_target(owner, names)
    return f"{prefix}.{attribute}" if prefix else None


def is_attribute_call(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"getattr", "setattr", "hasattr", "delattr"}
        and len(node.args) >= 2
        and isinstance(node.args[1], ast.Constant)
        and isinstance(node.args[1].value, str)
    )


@functools.cache
def parsed(source: str) -> list[ast.AST]:
    """All nodes of a file."""
    return list(ast.walk(ast.parse(source)))


def dotted_names(source: str) -> Iterator[Violation]:
    """Every dotted name of another package that the file imports, reads, or spells out as a whole string."""
    names = imported_names(parsed(source))
    for node in parsed(source):
        for target in import_targets(node):
            yield node.lineno, target
        if isinstance(node, ast.Attribute | ast.Call):
            target = attribute_target(node, names)
            if target:
                yield node.lineno, target
        if isinstance(node, ast.Constant) and re.fullmatch(r"\w+(\.\w+)+", str(node.value)):
            yield node.lineno, str(node.value)


def torch_distributed(source: str) -> Iterator[Violation]:
    for line, name in dotted_names(source):
        if f"{name}.".startswith("torch.distributed."):
            yield line, name


def private_foreign_names(source: str) -> Iterator[Violation]:
    for line, name in dotted_names(source):
        root, *parts = name.split(".")
        if root in FOREIGN and any(re.match(r"_(?!_)", part) for part in parts):
            yield line, name


UNTRUSTED = {"eval", "exec", "compile", "__import__"}
LOADERS = {"cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
READERS = {"pickle.load", "pickle.loads", "pickle.Unpickler", "torch.jit.load", "numpy.load", "pandas.read_pickle"}


def runs_what_it_reads(source: str) -> Iterator[Violation]:
    """What can run code that stands in a file or came from another process."""
    safe = {node.lineno for node in parsed(source) if isinstance(node, ast.Call) and takes_weights_only(node)}
    for line, name in dotted_names(source):
        if name.partition(".")[0] in LOADERS or name in READERS or (name == "torch.load" and line not in safe):
            yield line, name
    for node in parsed(source):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in UNTRUSTED:
            yield node.lineno, node.func.id
        if isinstance(node, ast.Attribute) and re.fullmatch(
            r"(all_gather|broadcast|gather|scatter|send|recv)_object(_list)?",  # they unpickle
            node.attr,
        ):
            yield node.lineno, node.attr


def takes_weights_only(call: ast.Call) -> bool:
    given = [keyword.value for keyword in call.keywords if keyword.arg == "weights_only"]
    return any(isinstance(value, ast.Constant) and value.value is True for value in given)


def too_long(source: str) -> Iterator[Violation]:
    count = len(source.splitlines())
    if count > MAX_LINES:
        yield count, f"{count} lines, the limit is {MAX_LINES}"


def rule_codes(source: str) -> Iterator[Violation]:
    for node in parsed(source):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch(r"LRG\d{3}", node.value):
            yield node.lineno, node.value


Check = Callable[[str], Iterator[Violation]]


def violations(check: Check, path: Path) -> list[str]:
    """The distinct violations in a file as `path:line: what`."""
    found = sorted(set(check(path.read_text(encoding="utf-8"))))
    return [f"{path.relative_to(PACKAGE.parent)}:{line}: {what}" for line, what in found]


@pytest.mark.parametrize(
    ("check", "exempt", "advice"),
    [
        (torch_distributed, ("distributed/exchange.py",), "only exchange.py may use torch.distributed"),
        (private_foreign_names, PRIVATE_NAMES, "only _compat.py may touch private names of Lightning or torchmetrics"),
        (runs_what_it_reads, (), "data are read as JSON or numbers, never unpickled or evaluated"),
        (too_long, PRIVATE_NAMES, "split this module by concern"),
        (rule_codes, ("rules/", "lint/", "demo/"), "no other part knows a rule's code"),
    ],
)
def test_every_file_of_the_package(check: Check, exempt: tuple[str, ...], advice: str) -> None:
    paths = [path for path in MODULES if not path.relative_to(PACKAGE).as_posix().startswith(exempt)]
    assert PACKAGE / "__init__.py" in paths
    found = [line for path in paths for line in violations(check, path)]
    assert not found, "\n".join([advice, *found])


RECOGNISED: dict[Check, list[str]] = {
    torch_distributed: [
        "import torch.distributed",
        "import torch.distributed as dist",
        "import torch.distributed.nn",
        "from torch import distributed",
        "from torch import Tensor, distributed as dist",
        "from torch.distributed import barrier",
        "from torch.distributed.nn import all_gather",
        "import torch\ntorch.distributed.barrier()",
        "import torch as t\nt.distributed.barrier()",
        "import torch\ngetattr(torch, 'distributed')",
        "import importlib\nimportlib.import_module('torch.distributed')",
        "def late():\n    import torch.distributed",
    ],
    private_foreign_names: [
        "from lightning.pytorch.trainer.call import _call_callback_hooks",
        "from lightning.pytorch import _graveyard",
        "from lightning.pytorch._graveyard import hpu",
        "import pytorch_lightning._graveyard",
        "from torchmetrics import Metric\nMetric._sync_dist",
        "from torchmetrics import Metric as M\nM._sync_dist = None",
        "from torchmetrics import Metric\nsetattr(Metric, '_sync_dist', None)",
        "import torchmetrics\ntorchmetrics.metric._flatten",
        "import lightning.pytorch as pl\npl.trainer.call._call_teardown_hook",
        "import importlib\nimportlib.import_module('lightning.pytorch._graveyard')",
        "if TYPE_CHECKING:\n    from lightning.pytorch.trainer.connectors.x import _Result",
    ],
    runs_what_it_reads: [
        "import pickle\npickle.load(file)",
        "from pickle import loads",
        "import torch\ntorch.load(path, weights_only=False)",
        "import torch\ntorch.load(path)",
        "from torch import load",
        "from torch import load as read",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import joblib",
        "eval(text)",
        "exec(text)",
        "import torch.distributed as dist\ndist.all_gather_object(found, own)",
        "import importlib\nimportlib.import_module('torch.load')",
    ],
    too_long: ["x = 1\n" * (MAX_LINES + 1)],
    rule_codes: ["code = 'LRG301'"],
}
SILENT: dict[Check, list[str]] = {
    torch_distributed: [
        '"""Nothing here calls torch.distributed."""',
        "import torch\ntorch.utils.data.distributed.DistributedSampler",
        "from torch.utils.data.distributed import DistributedSampler",
        "from .distributed import barrier",
        "self.torch.distributed",
        "import torch.distributions",
    ],
    private_foreign_names: [
        "import torchmetrics\ntorchmetrics.__version__",
        "from lightning.pytorch import Callback",
        "from lightning_retrieval_guard._compat import logged_results",
        "from ._compat import logged_results",
        "self._metric.update()",
        "import torch\ntorch._C",
    ],
    runs_what_it_reads: [
        "import json\njson.loads(text)",
        "import torch\ntorch.load(path, weights_only=True)",
        "import torch\ntorch.save(1, path)",
        "ast.parse(text)",
    ],
    too_long: ["x = 1\n" * MAX_LINES],
    rule_codes: ["text = 'See LRG301.'"],
}


def sources(by_check: dict[Check, list[str]]) -> pytest.MarkDecorator:
    pairs = [pytest.param(check, text, id=text[:60]) for check, texts in by_check.items() for text in texts]
    return pytest.mark.parametrize(("check", "source"), pairs)


@sources(RECOGNISED)
def test_a_violation_is_recognised(check: Check, source: str) -> None:
    assert list(check(source))


@sources(SILENT)
def test_what_is_no_violation_is_not(check: Check, source: str) -> None:
    assert not list(check(source))


def test_a_violation_names_its_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "package")
    path = tmp_path / "package" / "bad.py"
    path.parent.mkdir()
    path.write_text("import torch\n\ntorch.distributed.barrier()\n", encoding="utf-8")
    assert violations(torch_distributed, path) == [
        "package/bad.py:3: torch.distributed",
        "package/bad.py:3: torch.distributed.barrier",
    ]
