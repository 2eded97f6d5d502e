"""The flake8 plugin, and the check of one file: which functions are interpreted, and what the rules say of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_retrieval_guard import __version__
from lightning_retrieval_guard.lint import log_rules, metric_rules
from lightning_retrieval_guard.lint.events import Story
from lightning_retrieval_guard.lint.finding import LRG101, LRG201, LintFinding
from lightning_retrieval_guard.lint.interpreter import story_of
from lightning_retrieval_guard.lint.source import ClassInfo, SourceFile
from lightning_retrieval_guard.lint.values import GATHERED, made_of
from lightning_retrieval_guard.watch.suppressions import comments_in

# Statements that hold others: a comment in their body is about another line.
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
        self._arguments = tree, lines, filename

    def run(self) -> Iterator[tuple[int, int, str, type]]:
        """Line from 1, column from 0, text and plugin of each finding, in order."""
        for finding in findings(*self._arguments):
            text = f"{finding.rule.code} {finding.rule.slug}: {finding.message}"
            yield finding.line, finding.column, text, type(self)


def findings(tree: ast.Module, lines: Sequence[str], filename: str = "") -> list[LintFinding]:
    """What the source of one file makes certain, without what its comments suppress.

    Args:
        tree: The file's syntax tree.
        lines: The file's text, with line ends.
        filename: Where it is; without it, nothing of other files is known.
    """
    text = "".join(lines)
    if not _is_of_interest(text):
        return []
    source = SourceFile(tree, Path(filename) if filename else None, text)
    # several methods may lead to one call, and derived classes repeat what their bases do
    distinct: dict[tuple[int, int, str], LintFinding] = {}
    for cls in source.all_classes:
        for finding in _judge(story_of(cls)) if _may_use_metrics(cls) else ():
            if finding.source is source:  # what a base of another file does is found in that file
                distinct.setdefault((finding.line, finding.node.col_offset, finding.rule.code), finding)
    comments = comments_in(filename, lines) if distinct else []
    return [
        finding
        for (_, _, code), finding in sorted(distinct.items())
        if not any(comment.line in _lines(finding) and code.startswith(comment.patterns) for comment in comments)
    ]


def _is_of_interest(text: str) -> bool:
    """Whether a file may hold anything to find; most do not, and cost no more than this."""
    logs = ".log" in text and ("batch_size" in text or "rank_zero_only" in text)
    return "torchmetrics" in text or (logs and ("Lightning" in text or "pl_module" in text))


def _lines(finding: LintFinding) -> range:
    """The lines whose comments count: those of the statement, or of the node alone in the head of a block."""
    statement: ast.AST = finding.node
    while not isinstance(statement, ast.stmt):
        statement = finding.source.parents[statement]
    span = finding.node if isinstance(statement, _COMPOUND) else statement
    return range(span.lineno, (span.end_lineno or span.lineno) + 1)


def _may_use_metrics(cls: ClassInfo) -> bool:
    has_metrics = any(ancestor.source.builds_metrics for ancestor in cls.lineage)
    return has_metrics or cls.derives("LightningModule", "Callback")


_FINDERS = {
    "log": log_rules.find_in_log,
    "logger": log_rules.find_in_logger,
    "compute": metric_rules.find_in_compute,
    "feed": metric_rules.find_in_feed,
    "functional": metric_rules.find_in_function,
}


def _judge(story: Story) -> list[LintFinding]:
    """All findings of one class."""
    judged = [event for event in story.events if event.kind in _FINDERS]
    findings = [finding for event in judged for finding in _FINDERS[event.kind](story, event)]
    findings += metric_rules.find_in_attributes(story)
    # a program that gathers by hand may weigh what it gathered with the samples of all ranks
    gathers = any(GATHERED & made_of(*event.arguments.all).origin for event in story.of("feed"))
    if gathers and not any(finding.rule is LRG201 for finding in findings):
        findings = [finding for finding in findings if finding.rule is not LRG101]
    # a function that asks how many processes there are does something else on several
    return [finding for finding in findings if not any(function.asks_for_devices for function in finding.functions)]
