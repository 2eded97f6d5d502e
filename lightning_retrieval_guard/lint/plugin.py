"""The flake8 plugin."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from lightning_retrieval_guard import __version__
from lightning_retrieval_guard.lint import containers, gathered, log_calls, rank_tests, steps
from lightning_retrieval_guard.lint.finding import File, Found
from lightning_retrieval_guard.lint.rank_tests import asks_for_devices
from lightning_retrieval_guard.lint.source import Source
from lightning_retrieval_guard.watch.comments import comments_in

_CHECKS = (log_calls.check, rank_tests.check, gathered.check, steps.check, containers.check)
# Without one of them nothing is said of metrics outside of a LightningModule.
_OUTSIDE_OF_MODULES = ("is_global_zero", "_rank", "rank_zero", "nn.Module", "Module)")
_COMPOUND = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.FunctionDef, ast.ClassDef)


class Plugin:
    """What flake8 runs on each file.

    Args:
        tree: The file's syntax tree.
        lines: The file's text, with line ends.
    """

    name = "lightning-retrieval-guard"
    version = __version__

    def __init__(self, tree: ast.Module, lines: Sequence[str]) -> None:
        self._tree = tree
        self._lines = lines

    def run(self) -> Iterator[tuple[int, int, str, type]]:
        """Line from 1, column from 0, text and plugin of each finding, in order."""
        for found in findings(self._tree, self._lines):
            yield found.node.lineno, found.node.col_offset, found.text, type(self)


def findings(tree: ast.Module, lines: Sequence[str]) -> list[Found]:
    """What the source of one file makes certain, without what its comments keep quiet.

    Args:
        tree: The file's syntax tree.
        lines: The file's text, with line ends.
    """
    if not _is_of_interest("".join(lines)):
        return []
    file = File(Source(tree, lines))
    found = [own for check in _CHECKS for own in check(file) if not asks_for_devices(file, own.node)]
    quiet = [(own.line, own.patterns) for own in comments_in(lines)] if found else []
    heard = [
        own
        for own in found
        if not any(line in _lines(file, own) and own.advice.code.startswith(patterns) for line, patterns in quiet)
    ]
    return sorted(heard, key=lambda own: (own.node.lineno, own.node.col_offset, own.advice.code))


def _is_of_interest(text: str) -> bool:
    """Whether a file may hold anything to find; most do not, and cost no more than this."""
    metrics = "torchmetrics" in text
    logs = "LightningModule" in text or "pl_module" in text
    arguments = "batch_size" in text or "rank_zero_only" in text
    return (logs and (metrics or arguments)) or (metrics and any(word in text for word in _OUTSIDE_OF_MODULES))


def _lines(file: File, found: Found) -> range:
    """The lines whose comments count: those of the statement, or of the node alone in the head of a block."""
    statement = file.source.statement_of(found.node)
    node = found.node if isinstance(statement, _COMPOUND) else statement
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)
