"""Where in the user's source a call stands, and what its arguments say there."""

from __future__ import annotations

import ast
import linecache
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from types import FrameType, TracebackType

_LIBRARIES = frozenset({"lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics", "torch", "contextlib"})
# methods that log, of Lightning's or of the user's
LOG_METHODS = ("log", "log_dict")
_OWN = __name__.partition(".")[0]
_OWN_PROGRAMS = f"{_OWN}.demo"
_DEVICE_COUNT = re.compile(
    r"world_?size|(num|n)_?(gpus?|devices|ranks|processes|replicas)|device_?count", re.IGNORECASE
)


@dataclass(frozen=True)
class CallSite:
    """A line of the user's source.

    Attributes:
        path: The file as Python knows it.
        line: The line in it, from 1.
    """

    path: str
    line: int


def user_call_site(skip_functions: Collection[str] = ()) -> CallSite:
    """The innermost line that belongs neither to a library nor to the guard.

    Args:
        skip_functions: Names of functions of the user's to look past, where there is a caller of the user's.
    """
    innermost: FrameType = sys._getframe(1)
    user_frame: FrameType | None = None
    frame: FrameType | None = innermost
    while frame is not None:
        if not is_library(frame.f_globals.get("__name__", "")):
            # should every frame of the user's be one to look past, the innermost stands
            user_frame = user_frame or frame
            if frame.f_code.co_name not in skip_functions:
                user_frame = frame
                break
        frame = frame.f_back
    best = user_frame or innermost
    return CallSite(best.f_code.co_filename, best.f_lineno)


def is_library(module: str) -> bool:
    """Whether a module is one of a library, or of the guard."""
    root = module.partition(".")[0]
    return root in _LIBRARIES or (root == _OWN and not module.startswith(_OWN_PROGRAMS))


def without_guard_frames(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without the frames of the guard."""
    if traceback is None:
        return None
    rest = without_guard_frames(traceback.tb_next)
    frame = traceback.tb_frame
    if frame.f_globals.get("__name__", "").partition(".")[0] == _OWN:
        return rest
    return TracebackType(rest, frame, traceback.tb_lasti, traceback.tb_lineno)


def call_lines(site: CallSite) -> range:
    """The lines of the call at a site: of the ``log`` call where one stands there, else of the shortest one."""
    tree = parse_source(site.path)
    calls = [] if tree is None else [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    spans = [(not is_log_call(call), *_span(call)) for call in calls if _covers(call, site.line)]
    if not spans:
        return range(site.line, site.line + 1)
    _, first, last = min(spans, key=lambda span: (span[0], span[2] - span[1]))
    return range(first, last + 1)


def is_log_call(call: ast.Call) -> bool:
    """Whether a call is one of a ``log`` or ``log_dict`` method."""
    return isinstance(call.func, ast.Attribute) and call.func.attr in LOG_METHODS


def names_device_count(site: CallSite) -> bool:
    """Whether the source of the ``batch_size`` argument at a log call names the number of devices.

    Simple names are followed to their assignments in the same file.
    """
    argument = _batch_size_argument(site)
    if argument is None:
        return False
    tree = parse_source(site.path)
    names = {node.id for node in ast.walk(argument) if isinstance(node, ast.Name)}
    sources = [argument, *(_assigned(tree, names) if tree is not None else [])]
    return any(_DEVICE_COUNT.search(ast.unparse(source)) for source in sources)


def _batch_size_argument(site: CallSite) -> ast.expr | None:
    tree = parse_source(site.path)
    if tree is None:
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _covers(node, site.line)]
    for call in calls:
        for keyword in call.keywords:
            if keyword.arg == "batch_size":
                return keyword.value
    return None


def _covers(node: ast.Call, line: int) -> bool:
    first, last = _span(node)
    return first <= line <= last


def _span(node: ast.Call) -> tuple[int, int]:
    return node.lineno, node.end_lineno or node.lineno


def _assigned(tree: ast.Module, names: set[str]) -> list[ast.expr]:
    values = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if targets & names:
                values.append(node.value)
    return values


@lru_cache(maxsize=32)
def parse_source(path: str) -> ast.Module | None:
    """The syntax tree of a file, or ``None`` where it cannot be read as Python."""
    try:
        return ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):  # a notebook cell with magics, or a file that has changed
        return None
