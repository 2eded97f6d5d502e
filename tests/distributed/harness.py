"""Pools of real processes that run many test cases over one process group: those of the package, made for tests.

1. A case in which no rank failed and one still runs when the time is over fails the test, with the stacks of all.
2. Where every rank raised the same error, a probe finds out whether the group still works, and is kept then.
"""

from __future__ import annotations

import functools
import gc
import importlib
import os
from collections import defaultdict
from typing import Any

from lightning_retrieval_guard.parity import pool
from lightning_retrieval_guard.parity.pool import Outcome

__all__ = ["CaseTimeout", "Outcome", "Pool", "Pools", "probe"]

PRELOADED = ("lightning.pytorch", "torchmetrics.retrieval", "pytest")


class CaseTimeout(AssertionError):
    """No answer in time; the text holds the stacks of every rank.

    Attributes:
        outcomes: what each rank did until then.
    """

    def __init__(self, text: str, outcomes: list[Outcome]) -> None:
        super().__init__(text)
        self.outcomes = outcomes


class Pool(pool.Pool):
    """W processes, started at the first case and kept for the next ones."""

    def __init__(self, world_size: int) -> None:
        super().__init__(world_size, preloaded=PRELOADED)
        self._probes = 0

    def run(
        self, target: str, *, case: str = "", timeout: float = 30.0, grace: float = 5.0, **kwargs: Any
    ) -> list[Outcome]:
        """Call `module:function` with `kwargs` on every rank.

        Args:
            target: the function; its result must be picklable.
            case: what to call this in the text of a time-out.
            timeout: seconds until the case fails.
            grace: seconds that ranks have after one of them has failed.
            kwargs: the arguments of the function; they must be picklable.

        Raises:
            CaseTimeout: no rank failed, and one still runs after `timeout` seconds.
        """
        outcomes = super().run(target, timeout=timeout, grace=grace, **kwargs)
        killed = any(outcome.status == "killed" for outcome in outcomes)
        if killed and not any(outcome.failed for outcome in outcomes):
            stacks = "\n".join(map(str, outcomes))
            raise CaseTimeout(f"{case or target}: {self.world_size} ranks, {timeout:g} s\n{stacks}", outcomes)
        return outcomes

    def values(self, target: str, **kwargs: Any) -> list[Any]:
        """What `run` returns on every rank; all of them must return."""
        outcomes = self.run(target, **kwargs)
        assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
        return [outcome.value for outcome in outcomes]

    def _call(self, target: str, kwargs: dict[str, Any], timeout: float, grace: float) -> list[Outcome]:
        return super()._call(f"{__name__}:{call.__name__}", {"target": target, "kwargs": kwargs}, timeout, grace)

    def _can_go_on(self, outcomes: list[Outcome]) -> bool:
        return len({outcome.error_types for outcome in outcomes}) == 1 and self._works()

    def _works(self) -> bool:
        """Whether the ranks still meet."""
        self._probes += 1
        outcomes = self._call(f"{__name__}:probe", {"token": self._probes}, 5.0, 1.0)
        return all(outcome.ok and outcome.value for outcome in outcomes)


class Pools(defaultdict[int, Pool]):
    """Pools by world size, started when first asked for."""

    def __missing__(self, world_size: int) -> Pool:
        self[world_size] = Pool(world_size)
        return self[world_size]

    def close(self) -> None:
        for started in self.values():
            started.close()


def call(target: str, kwargs: dict[str, Any]) -> Any:
    """What a rank does with a case."""
    module, _, function = target.partition(":")
    runnable = getattr(importlib.import_module(module), function)
    set_libraries_aside()
    return runnable(**kwargs)


@functools.cache
def set_libraries_aside() -> None:
    """Spare the garbage collector, and the guard's search for metrics, the objects of the libraries: most of a run."""
    gc.freeze()


def probe(token: int) -> bool:
    """Whether every rank sends the same token through the default group."""
    import torch.distributed as dist

    tokens = [None] * int(os.environ["WORLD_SIZE"])
    if dist.is_initialized():
        dist.all_gather_object(tokens, token)
    return all(other in (token, None) for other in tokens)
