"""flake8 with the plugin of this package against flake8 without it, over the files of Lightning and torchmetrics."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from bench.declare import Bench, Line, NotMeasured, Result, Scale, at_most
from bench.turns import medians, ratio, take_turns

TREES = ("lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics")
QUICK_TREES = ("lightning_fabric",)
# In a process of its own; "without" forgets the entry point before flake8 looks for plugins.
LINT = """
import sys
from flake8.main.cli import main
from flake8.plugins import finder
if sys.argv.pop(1) == "without":
    finder._flake8_plugins_as_they_are = finder._find_importlib_plugins
    finder._find_importlib_plugins = lambda: (
        own for own in finder._flake8_plugins_as_they_are() if own.entry_point.name != "LRG"
    )
sys.exit(min(main(sys.argv[1:]), 1))
"""


def run(scale: Scale) -> Result:
    if find_spec("flake8") is None:
        raise NotMeasured("flake8 is not installed")
    if not any(point.name == "LRG" for point in entry_points(group="flake8.extension")):
        raise NotMeasured("flake8 does not know the plugin")
    trees = [str(_folder(name)) for name in (QUICK_TREES if scale.quick else TREES)]
    seconds = take_turns({way: lambda way=way: lint(way, trees) for way in ("with", "without")}, scale.pick(3, 1))
    files = sum(1 for tree in trees for _ in Path(tree).rglob("*.py"))
    return Result({"ratio": ratio(seconds["with"], seconds["without"])}, {"seconds": medians(seconds), "files": files})


def lint(way: str, trees: list[str]) -> None:
    """One run of flake8 in one process, of which only a failure counts."""
    command = [sys.executable, "-c", LINT, way, "--isolated", "--select=LRG,E9", "--jobs=1", *trees]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or done.stderr:
        raise RuntimeError(done.stderr or done.stdout)


def _folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise NotMeasured(f"{package} is not installed")
    return Path(spec.origin).parent


BENCH = Bench(
    "lint", {"ratio": Line("flake8 over Lightning and torchmetrics, with the plugin / without", at_most(1.2))}, run
)
