"""Where in the user's source a call stands, and what its arguments say there."""

from __future__ import annotations

import ast
import linecache
import re
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from types import FrameType

_LIBRARIES = frozenset({"lightning", "lightning_fabric", "pytorch_lightning", "torchmetrics", "torch", "contextlib"})
_OWN = __name__.partition(".")[0]
_OWN_PROGRAMS = f"{_OWN}.demo"
_DEVICE_COUNT = re.compile(
    r"world_?size|(num|n)_?(gpus?|devices|ranks|processes|replicas)|device_?count", re.IGNORECASE
)


@dataclass(frozen=True)
class Site:
    """A line of the user's source.

    Attributes:
        path: The file as Python knows it.
        line: The line in it, from 1.
    """

    path: str
    line: int


def user_site(past: Collection[str] = ()) -> Site:
    """The innermost line that belongs neither to a library nor to the guard.

    Args:
        past: Names of functions of the user's to look past, where there is a caller of the user's.
    """
    innermost: FrameType = sys._getframe(1)
    found: FrameType | None = None
    frame: FrameType | None = innermost
    while frame is not None:
        if not _is_library(frame.f_globals.get("__name__", "")):
            found = found or frame
            if frame.f_code.co_name not in past:
                found = frame
                break
        frame = frame.f_back
    best = found or innermost
    return Site(best.f_code.co_filename, best.f_lineno)


def _is_library(module: str) -> bool:
    root = module.partition(".")[0]
    return root in _LIBRARIES or (root == _OWN and not module.startswith(_OWN_PROGRAMS))


def names_device_count(site: Site) -> bool:
    """Whether the source of the ``batch_size`` argument at a log call names the number of devices.

    Simple names are followed to their assignments in the same file.
    """
    argument = _batch_size_argument(site)
    if argument is None:
        return False
    tree = _parse(site.path)
    names = {node.id for node in ast.walk(argument) if isinstance(node, ast.Name)}
    sources = [argument, *(_assigned(tree, names) if tree is not None else [])]
    return any(_DEVICE_COUNT.search(ast.unparse(source)) for source in sources)


def _batch_size_argument(site: Site) -> ast.expr | None:
    tree = _parse(site.path)
    if tree is None:
        return None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _covers(node, site.line)]
    for call in calls:
        for keyword in call.keywords:
            if keyword.arg == "batch_size":
                return keyword.value
    return None


def _covers(node: ast.Call, line: int) -> bool:
    return node.lineno <= line <= (node.end_lineno or node.lineno)


def _assigned(tree: ast.Module, names: set[str]) -> list[ast.expr]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            targets = {target.id for target in node.targets if isinstance(target, ast.Name)}
            if targets & names:
                found.append(node.value)
    return found


@lru_cache(maxsize=32)
def _parse(path: str) -> ast.Module | None:
    try:
        return ast.parse("".join(linecache.getlines(path)))
    except (SyntaxError, ValueError):  # a notebook cell with magics, or a file that has changed
        return None
