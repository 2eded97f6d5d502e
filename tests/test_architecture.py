"""What the import contracts cannot say about the package's files, read from their syntax trees."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lightning_retrieval_guard"
MAX_LINES = 400
# Private names of other packages stand in one file, whatever their number.
PRIVATE_NAMES = PACKAGE / "_compat.py"
FOREIGN = {"lightning", "pytorch_lightning", "torchmetrics"}

MODULES = sorted(PACKAGE.rglob("*.py"))
each_module = pytest.mark.parametrize("path", MODULES, ids=lambda p: p.relative_to(PACKAGE).as_posix())

# A check yields (line, what stands there).
Violation = tuple[int, str]


def imported_names(tree: ast.AST) -> dict[str, str]:
    """The full dotted name behind each name that an absolute import binds."""
    names = {}
    for node in ast.walk(tree):
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


def dotted_names(tree: ast.AST) -> Iterator[Violation]:
    """Every dotted name of another package that the file imports, reads, or spells out as a whole string."""
    names = imported_names(tree)
    for node in ast.walk(tree):
        for target in import_targets(node):
            yield node.lineno, target
        if isinstance(node, ast.Attribute | ast.Call):
            target = attribute_target(node, names)
            if target:
                yield node.lineno, target
        if isinstance(node, ast.Constant) and re.fullmatch(r"\w+(\.\w+)+", str(node.value)):
            yield node.lineno, str(node.value)


def torch_distributed(source: str) -> Iterator[Violation]:
    for line, name in dotted_names(ast.parse(source)):
        if f"{name}.".startswith("torch.distributed."):
            yield line, name


def private_foreign_names(source: str) -> Iterator[Violation]:
    for line, name in dotted_names(ast.parse(source)):
        root, *parts = name.split(".")
        if root in FOREIGN and any(re.match(r"_(?!_)", part) for part in parts):
            yield line, name


UNTRUSTED = {"eval", "exec", "compile", "__import__"}
LOADERS = {"cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "yaml"}
READERS = {"pickle.load", "pickle.loads", "pickle.Unpickler", "torch.jit.load", "numpy.load", "pandas.read_pickle"}


def runs_what_it_reads(source: str) -> Iterator[Violation]:
    """What can run code that stands in a file or came from another process."""
    tree = ast.parse(source)
    safe = {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and takes_weights_only(node)}
    for line, name in dotted_names(tree):
        if name.partition(".")[0] in LOADERS or name in READERS or (name == "torch.load" and line not in safe):
            yield line, name
    for node in ast.walk(tree):
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


def violations(check: Callable[[str], Iterator[Violation]], path: Path) -> str:
    """The distinct violations in a file as `path:line: what`, one a line."""
    found = sorted(set(check(path.read_text(encoding="utf-8"))))
    return "\n".join(f"{path.relative_to(PACKAGE.parent)}:{line}: {what}" for line, what in found)


RULE_CODE = re.compile(r"LRG\d{3}")
JUDGING = ("rules", "lint", "demo")


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.relative_to(PACKAGE).parts[0] not in JUDGING], ids=lambda p: p.name
)
def test_no_rule_code_steers_anything_outside_of_the_rules(path: Path) -> None:
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    strings = [(node.lineno, node.value) for node in nodes if isinstance(node, ast.Constant)]
    assert not [text for text in strings if isinstance(text[1], str) and RULE_CODE.fullmatch(text[1])]


def test_the_package_is_found() -> None:
    assert PACKAGE / "__init__.py" in MODULES


@each_module
def test_only_exchange_uses_torch_distributed(path: Path) -> None:
    if path == PACKAGE / "distributed" / "exchange.py":
        return
    found = violations(torch_distributed, path)
    assert not found, f"only exchange.py may use torch.distributed; move this there:\n{found}"


@each_module
def test_only_compat_touches_private_names(path: Path) -> None:
    if path == PRIVATE_NAMES:
        return
    found = violations(private_foreign_names, path)
    assert not found, f"only _compat.py may touch private names of Lightning or torchmetrics:\n{found}"


@each_module
def test_nothing_that_is_read_is_run(path: Path) -> None:
    found = violations(runs_what_it_reads, path)
    assert not found, f"data are read as JSON or numbers, never unpickled or evaluated:\n{found}"


@pytest.mark.parametrize(
    "source",
    [
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
)
def test_what_runs_data_is_recognised(source: str) -> None:
    assert list(runs_what_it_reads(source))


@pytest.mark.parametrize(
    "source",
    [
        "import json\njson.loads(text)",
        "import torch\ntorch.load(path, weights_only=True)",
        "import torch\ntorch.save(1, path)",
        "ast.parse(text)",
    ],
)
def test_what_reads_data_is_not_refused(source: str) -> None:
    assert not list(runs_what_it_reads(source))


@each_module
def test_modules_are_short(path: Path) -> None:
    if path == PRIVATE_NAMES:
        return
    found = violations(too_long, path)
    assert not found, f"split this module by concern:\n{found}"


@pytest.mark.parametrize(
    "source",
    [
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
)
def test_torch_distributed_is_recognised(source: str) -> None:
    assert list(torch_distributed(source))


@pytest.mark.parametrize(
    "source",
    [
        '"""Nothing here calls torch.distributed."""',
        "import torch\ntorch.utils.data.distributed.DistributedSampler",
        "from torch.utils.data.distributed import DistributedSampler",
        "from .distributed import barrier",
        "self.torch.distributed",
        "import torch.distributions",
    ],
)
def test_other_names_are_not_torch_distributed(source: str) -> None:
    assert not list(torch_distributed(source))


@pytest.mark.parametrize(
    "source",
    [
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
)
def test_private_names_are_recognised(source: str) -> None:
    assert list(private_foreign_names(source))


@pytest.mark.parametrize(
    "source",
    [
        "import torchmetrics\ntorchmetrics.__version__",
        "from lightning.pytorch import Callback",
        "from lightning_retrieval_guard._compat import logged_results",
        "from ._compat import logged_results",
        "self._metric.update()",
        "import torch\ntorch._C",
    ],
)
def test_public_names_are_not_private(source: str) -> None:
    assert not list(private_foreign_names(source))


@pytest.mark.parametrize(("lines", "expected"), [(MAX_LINES, 0), (MAX_LINES + 1, 1)])
def test_length_is_counted(lines: int, expected: int) -> None:
    assert len(list(too_long("x = 1\n" * lines))) == expected


def test_a_violation_names_its_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path / "package")
    path = tmp_path / "package" / "bad.py"
    path.parent.mkdir()
    path.write_text("import torch\n\ntorch.distributed.barrier()\n", encoding="utf-8")
    assert violations(torch_distributed, path).splitlines() == [
        "package/bad.py:3: torch.distributed",
        "package/bad.py:3: torch.distributed.barrier",
    ]
