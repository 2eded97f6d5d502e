"""The flake8 plugin, and the check of one file: which functions are interpreted, and what the rules say of it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_retrieval_guard import __version__
from lightning_retrieval_guard.lint import log_rules, metric_rules
from lightning_retrieval_guard.lint.events import HOOKS, Story
from lightning_retrieval_guard.lint.finding import LintFinding
from lightning_retrieval_guard.lint.interpreter import Interpreter
from lightning_retrieval_guard.lint.modules import ClassInfo, Module, asks_for_devices
from lightning_retrieval_guard.lint.values import UNKNOWN, Callee, Origin, Reference, Value, origin_of
from lightning_retrieval_guard.rules import static
from lightning_retrieval_guard.watch.suppressions import comments_in

_COMPOUND = (ast.If, ast.For, ast.AsyncFor, ast.While, ast.With, ast.AsyncWith, ast.Try, ast.FunctionDef, ast.ClassDef)
# An attribute is known when the methods that fill it have run, and those that fill what they fill it with.
_PASSES = 3


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
            yield finding.line, finding.column, finding.text, type(self)


def findings(tree: ast.Module, lines: Sequence[str], filename: str = "") -> list[LintFinding]:
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
    by_place: dict[tuple[int, int, str], LintFinding] = {}
    for story in _stories(module):
        for finding in _judge(story):
            if finding.module is module:
                by_place.setdefault((finding.line, finding.column, finding.rule.code), finding)
    quiet = [(comment.line, comment.patterns) for comment in comments_in(lines)] if by_place else []
    return [
        finding
        for (_, _, code), finding in sorted(by_place.items())
        if not any(line in _lines(finding) and code.startswith(patterns) for line, patterns in quiet)
    ]


def _is_of_interest(text: str) -> bool:
    """Whether a file may hold anything to find; most do not, and cost no more than this."""
    logs = ".log" in text and ("batch_size" in text or "rank_zero_only" in text)
    return "torchmetrics" in text or (logs and ("Lightning" in text or "pl_module" in text))


def _lines(finding: LintFinding) -> range:
    """The lines whose comments count: those of the statement, or of the node alone in the head of a block."""
    node = finding.node
    while not isinstance(node, ast.stmt):
        node = finding.module.parents[node]
    span = finding.node if isinstance(node, _COMPOUND) else node
    return range(span.lineno, (span.end_lineno or span.lineno) + 1)  # type: ignore[attr-defined]


def _stories(module: Module) -> Iterator[Story]:
    """What happens in each class of the file, and in its functions."""
    for cls in module.all_classes:
        has_metrics = any(ancestor.module.builds_metrics for ancestor in cls.lineage)
        if cls.lineage and (has_metrics or cls.derives("LightningModule", "Callback")):
            yield _story_of_class(cls)
    if module.builds_metrics:
        story = Story()
        for function in module.functions.values():
            Interpreter(story).run(Callee(function, module), function.name, [])
        yield story


def _story_of_class(cls: ClassInfo) -> Story:
    story = Story(cls)
    interpreter = Interpreter(story)
    methods = [name for ancestor in reversed(cls.lineage) for name in ancestor.methods]
    first = [name for name in ("__init__", "setup", "configure_model") if name in methods]
    for number in range(_PASSES):
        interpreter.is_recording = number == _PASSES - 1
        interpreter.all_steps = 0
        for name in dict.fromkeys([*first, *methods]):
            callee = interpreter.method(name)
            if callee and (name in HOOKS or name in first or callee.function not in interpreter.called):
                interpreter.run(callee, name, _given(cls, name))
    return story


def _given(cls: ClassInfo, name: str) -> list[Value]:
    """What Lightning passes to a hook."""
    given = list(HOOKS.get(name, ()))
    if cls.derives("Callback") and name in HOOKS:
        return [Reference("trainer"), Reference("pl_module"), *given]
    return given if cls.derives("LightningModule") else [UNKNOWN] * len(given)


def _judge(story: Story) -> list[LintFinding]:
    """All findings of one class."""
    findings = [finding for rule in (*log_rules.RULES, *metric_rules.RULES) for finding in rule(story)]
    gathers = any(Origin.GATHERED in origin_of(value) for event in story.of("feed") for value in event.arguments.all)
    if gathers and static.LRG201 not in [finding.rule for finding in findings]:
        findings = [finding for finding in findings if finding.rule is not static.LRG101]
    return [finding for finding in findings if not any(map(asks_for_devices, finding.functions))]
