"""The user's code behind a finding: from the update of the metric, and what is gathered, to the log call."""

from __future__ import annotations

import ast
import linecache
from collections.abc import Iterator
from typing import NamedTuple

from lightning_retrieval_guard.findings import Finding

# Lines that are shown before and after one that is marked.
_BEFORE, _AFTER = 10, 1
_LONGEST_LINE = 400
_GATHERS = frozenset({"all_gather", "gather_all_tensors", "all_gather_into_tensor", "all_gather_object", "gather"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


class Line(NamedTuple):
    """A line of source.

    Attributes:
        number: From 1; 0 for lines that are left out.
        text: Without the indentation that all lines share.
        is_marked: Whether the fault goes through it.
    """

    number: int
    text: str
    is_marked: bool


class Excerpt(NamedTuple):
    """Lines of one function.

    Attributes:
        path: The file.
        line: The last place in it.
        lines: Those that are shown; empty where the source is not at hand.
    """

    path: str
    line: int
    lines: list[Line]


def excerpts(finding: Finding) -> list[Excerpt]:
    """The functions that feed the metric and log it, in this order. The files are read now."""
    lines_by_function: dict[tuple[str, int], list[int]] = {}
    for path, line in (*finding.updates, (finding.path, finding.line)):
        lines_by_function.setdefault((path, _function_at(path, line)[0]), []).append(line)
    shown = [Excerpt(path, lines[-1], _lines(path, start, lines)) for (path, start), lines in lines_by_function.items()]
    return [excerpt for excerpt in shown[:-1] if excerpt.lines] + shown[-1:]


def _lines(path: str, start: int, called_at: list[int]) -> list[Line]:
    source = linecache.getlines(path)
    if not all(1 <= line <= len(source) for line in called_at):
        return []
    marked = {*called_at, *_gathers(path, max(called_at))}
    around = {line for mark in marked for line in range(mark - _BEFORE, mark + _AFTER + 1)}
    shown = sorted({start or min(marked), *(line for line in around if max(1, start) <= line <= len(source))})
    texts = {line: source[line - 1].rstrip().expandtabs(4)[:_LONGEST_LINE] for line in shown}
    indent = min((len(text) - len(text.lstrip()) for text in texts.values() if text), default=0)
    lines = []
    for before, line in zip([shown[0] - 1, *shown], shown, strict=False):
        if line > before + 1:
            lines.append(Line(0, "…", False))
        lines.append(Line(line, texts[line][indent:], line in marked))
    return lines


def _gathers(path: str, line: int) -> Iterator[int]:
    """The lines above in the same function that bring rows of all ranks together."""
    _, function = _function_at(path, line)
    for node in ast.walk(function) if function is not None else ():
        if isinstance(node, ast.Call) and node.lineno <= line:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in _GATHERS:
                yield node.lineno


def _function_at(path: str, line: int) -> tuple[int, ast.AST | None]:
    """The innermost function around a line, and where it begins; line 0 where there is none."""
    try:
        tree = ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):  # a notebook's cell, a template: its lines are shown all the same
        return 0, None
    around = [
        node
        for node in ast.walk(tree)
        if isinstance(node, _FUNCTIONS) and node.lineno <= line <= (node.end_lineno or node.lineno)
    ]
    innermost = max(around, key=lambda node: node.lineno, default=None)
    return (0, None) if innermost is None else (innermost.lineno, innermost)
