"""Watching functions that ``torch.compile`` may trace."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from lightning_retrieval_guard import _compat


def beside_graphs(
    watched: Callable[..., Any], plain: Callable[..., Any], leaves: Callable[..., bool]
) -> Callable[..., Any]:
    """The watched function, which becomes part of no graph.

    Args:
        watched: What runs outside of compiled code.
        plain: What compiled code traces in its place, as if nobody watched.
        leaves: Whether a call with these arguments leaves the graph instead, so that it is watched. For what can be
            part of no graph anyway, else code that is compiled with ``fullgraph=True`` would fail.
    """

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not _compat.is_compiling():
            return watched(*args, **kwargs)
        return _outside(watched, *args, **kwargs) if leaves(*args) else plain(*args, **kwargs)

    return call


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _outside(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs)
