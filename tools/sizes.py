"""How large the package is, by the measures that say whether it is easy to live in: ``python -m tools.sizes``.

Nothing is enforced. ``python -m tools.sizes --traced`` also runs a program on two processes in correct mode, and counts
the files that one logged Metric object passes on its way to the logger.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "lightning_retrieval_guard"
BESIDE = ("lint", "parity", "demo")


def lines_in(paths: Iterator[Path]) -> int:
    """The lines of some files together."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)


def imported_modules(tree: ast.AST) -> set[str]:
    """The modules of this package that a file imports, by their dotted names."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(PACKAGE.name):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in PACKAGE.rglob("*.py")}
    return names & modules


def methods_of(node: ast.ClassDef) -> int:
    """The methods and properties of a class."""
    return sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in node.body)


def comment_share(paths: Iterator[Path]) -> float:
    """The share of lines that are nothing but a comment."""
    lines = [line.strip() for path in paths for line in path.read_text(encoding="utf-8").splitlines()]
    return sum(line.startswith("#") for line in lines) / len(lines)


def measures() -> Iterator[tuple[str, str]]:
    """Each measure with its value."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    beside = lines_in(path for name in BESIDE for path in (PACKAGE / name).rglob("*.py"))
    fan_out = Counter({path: len(imported_modules(tree)) for path, tree in trees.items()}).most_common(1)[0]
    classes = {
        f"{path.relative_to(PACKAGE)}: {node.name}": methods_of(node)
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    largest = Counter(classes).most_common(1)[0]
    functions = sum(isinstance(node, ast.FunctionDef) for tree in trees.values() for node in ast.walk(tree))
    yield "package: lines / of these lint, parity and demo", f"{lines_in(iter(trees)):,} / {beside:,}"
    yield "package: files / classes / functions", f"{len(trees)} / {len(classes)} / {functions}"
    yield "largest fan-out of a module", f"{fan_out[1]} ({fan_out[0].relative_to(PACKAGE)})"
    yield "most methods of a class", f"{largest[1]} ({largest[0]})"
    yield "share of comment lines", f"{comment_share(iter(trees)):.1%}"
    yield "tests: lines", f"{lines_in((ROOT / 'tests').rglob('*.py')):,}"


def main(arguments: list[str]) -> int:
    """Print the measures."""
    found = dict(measures())
    if "--traced" in arguments:
        from tools.way_of_a_value import files_on_the_way

        found["files that a logged Metric object passes (correct mode, two processes)"] = str(len(files_on_the_way()))
    width = max(map(len, found))
    for name, value in found.items():
        print(f"{name:{width}}  {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
