"""Watching functions that ``torch.compile`` may trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from lightning_retrieval_guard import _compat


class BesideGraphs:
    """A watched function, which becomes part of no graph.

    Args:
        watched: What runs outside of compiled code.
        plain: What compiled code traces in its place, as if nobody watched.
        leaves: Whether a call leaves the graph instead, so that it is watched; or a function of the arguments. For
            what can be part of no graph anyway, else code that is compiled with ``fullgraph=True`` would fail.
    """

    # one object for each method of a metric: Python's garbage collector comes by the number of objects
    __slots__ = ("_leaves", "_plain", "_watched")

    def __init__(
        self, watched: Callable[..., Any], plain: Callable[..., Any], leaves: Callable[..., bool] | bool
    ) -> None:
        self._watched = watched
        self._plain = plain
        self._leaves = leaves

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the one or the other."""
        if not _compat.is_compiling():
            return self._watched(*args, **kwargs)
        leaves = self._leaves if isinstance(self._leaves, bool) else self._leaves(*args)
        return _outside(self._watched, *args, **kwargs) if leaves else self._plain(*args, **kwargs)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _outside(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)
