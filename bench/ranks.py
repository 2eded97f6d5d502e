"""Runs a function on real processes that form one gloo group."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from tests.distributed.harness import Pool

Call = Callable[..., list[Any]]
TIMEOUT = 1800.0


@contextlib.contextmanager
def ranks(world_size: int) -> Iterator[Call]:
    """Give a function that calls another on every rank and returns what each of them returned."""
    pool = Pool(world_size)

    def call(function: Callable[..., Any], **arguments: Any) -> list[Any]:
        outcomes = pool.run(f"{function.__module__}:{function.__qualname__}", timeout=TIMEOUT, **arguments)
        lost = [outcome for outcome in outcomes if not outcome.ok]
        if lost:
            raise RuntimeError("\n".join(map(str, lost)))
        return [outcome.value for outcome in outcomes]

    try:
        yield call
    finally:
        pool.close()
