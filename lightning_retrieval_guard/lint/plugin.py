"""The flake8 plugin, and the check of one file."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_retrieval_guard import __version__
from lightning_retrieval_guard.lint.analysis import stories
from lightning_retrieval_guard.lint.finding import Found
from lightning_retrieval_guard.lint.modules import Module
from lightning_retrieval_guard.lint.rules import judge
from lightning_retrieval_guard.watch.comments import comments_in

_COMPOUND = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.FunctionDef, ast.ClassDef)


class Plugin:
    """What flake8 runs on each file.

    Args:
        tree: The file's syntax tree.
        lines: The file's text, with line ends.
        filename: Where it is, so that base classes of other files are found.
    """

    name = "lightning-retrieval-guard"
    version = __version__

    def __init__(self, tree: ast.Module, lines: Sequence[str], filename: str = "") -> None:
        self._tree = tree
        self._lines = lines
        self._filename = filename

    def run(self) -> Iterator[tuple[int, int, str, type]]:
        """Line from 1, column from 0, text and plugin of each finding, in order."""
        for found in findings(self._tree, self._lines, self._filename):
            yield found.line, found.column, found.text, type(self)


def findings(tree: ast.Module, lines: Sequence[str], filename: str = "") -> list[Found]:
    """What the source of one file makes certain, without what its comments keep quiet.

    Args:
        tree: The file's syntax tree.
        lines: The file's text, with line ends.
        filename: Where it is; without it, nothing of other files is known.
    """
    text = "".join(lines)
    if not _is_of_interest(text):
        return []
    module = Module(tree, Path(filename) if filename else None, text)
    found: dict[tuple[int, int, str], Found] = {}
    for story in stories(module):
        for own in judge(story):
            if own.module is module:
                found.setdefault((own.line, own.column, own.advice.code), own)
    quiet = [(own.line, own.patterns) for own in comments_in(lines)] if found else []
    return [
        own
        for _, own in sorted(found.items())
        if not any(line in _lines(module, own) and own.advice.code.startswith(patterns) for line, patterns in quiet)
    ]


def _is_of_interest(text: str) -> bool:
    """Whether a file may hold anything to find; most do not, and cost no more than this."""
    logs = ".log" in text and ("batch_size" in text or "rank_zero_only" in text)
    return "torchmetrics" in text or (logs and ("Lightning" in text or "pl_module" in text))


def _lines(module: Module, found: Found) -> range:
    """The lines whose comments count: those of the statement, or of the node alone in the head of a block."""
    node = found.node
    while not isinstance(node, ast.stmt):
        node = module.parents[node]
    span = found.node if isinstance(node, _COMPOUND) else node
    return range(span.lineno, (span.end_lineno or span.lineno) + 1)  # type: ignore[attr-defined]
