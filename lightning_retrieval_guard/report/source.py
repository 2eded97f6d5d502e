"""The user's code behind a finding: from the update of the metric, and what is gathered, to the log call."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lightning_retrieval_guard.findings import Finding

# Lines that are shown before and after one that is marked.
_BEFORE, _AFTER = 10, 1
_LONGEST_LINE = 400
_GATHERS = frozenset({"all_gather", "gather_all_tensors", "all_gather_into_tensor", "all_gather_object", "gather"})
_Function = ast.FunctionDef | ast.AsyncFunctionDef


class Line(NamedTuple):
    """A line of source."""

    number: int  # from 1; 0 for lines that are left out
    text: str  # without the indentation that all lines share
    is_marked: bool  # whether the fault goes through it


class Excerpt(NamedTuple):
    """Lines of one function."""

    path: str
    line: int  # the last one that matters
    lines: list[Line]  # those that are shown; empty where the source is not at hand


def excerpts(finding: Finding) -> list[Excerpt]:
    """The functions that feed the metric and log it, in this order. The files are read now."""
    lines_by_function: dict[tuple[str, _Function | None], list[int]] = {}
    trees = {path: _functions(path) for path in {path for path, _ in finding.updates} | {finding.path}}
    for path, line in (*finding.updates, (finding.path, finding.line)):
        lines_by_function.setdefault((path, _innermost(trees[path], line)), []).append(line)
    shown = [
        Excerpt(path, lines[-1], _lines(path, function, lines)) for (path, function), lines in lines_by_function.items()
    ]
    # The log call is named even where its source is not at hand.
    return [excerpt for excerpt in shown[:-1] if excerpt.lines] + shown[-1:]


def _functions(path: str) -> list[_Function]:
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):  # a notebook's cell, a template: its lines are shown all the same
        return []
    return [node for node in ast.walk(tree) if isinstance(node, _Function)]


def _innermost(functions: Sequence[_Function], line: int) -> _Function | None:
    around = [node for node in functions if node.lineno <= line <= (node.end_lineno or node.lineno)]
    return max(around, key=lambda node: node.lineno, default=None)  # the innermost begins last


def _lines(path: str, function: _Function | None, called_at: list[int]) -> list[Line]:
    source = linecache.getlines(path)
    if not all(1 <= line <= len(source) for line in called_at):
        return []  # the file has changed since the program was started, or is not at hand
    marked = {*called_at, *_gathers(function, max(called_at))}
    start = min(marked) if function is None else function.lineno
    first = 1 if function is None else start
    around = {line for mark in marked for line in range(mark - _BEFORE, mark + _AFTER + 1)}
    shown = sorted({start, *(line for line in around if first <= line <= len(source))})
    texts = {line: source[line - 1].rstrip().expandtabs(4)[:_LONGEST_LINE] for line in shown}
    indent = min((len(text) - len(text.lstrip()) for text in texts.values() if text), default=0)
    lines = []
    for before, line in zip([shown[0] - 1, *shown], shown, strict=False):
        if line > before + 1:
            lines.append(Line(0, "…", False))
        lines.append(Line(line, texts[line][indent:], line in marked))
    return lines


def _gathers(function: _Function | None, last: int) -> Iterator[int]:
    """The lines of a function, up to one, that bring rows of all ranks together."""
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.Call) and node.lineno <= last:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _GATHERS:
                yield node.lineno
