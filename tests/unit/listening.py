"""A guard that corrects, with nothing around it but a watch on metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.watch.suppressions import Suppressions


class Listener:
    """Lets every metric compute by itself.

    Args:
        hook: The Lightning hook that runs.
    """

    routes = True
    in_step = False

    def __init__(self, hook: str | None = None) -> None:
        self._hook = hook
        self.suppressions = Suppressions(REGISTRY)

    def may_drop_stale(self, record: Any) -> bool:
        return True

    def feeding(self) -> None:
        return None

    def move_to_module_device(self, record: Any, inputs: Iterable[Tensor]) -> None:
        pass

    def hook(self) -> str | None:
        return self._hook

    def protect(self, action: Callable[[], None]) -> None:
        action()

    def compute(self, record: Any, plain: Callable[[], Any]) -> tuple[Any, bool]:
        return plain(), False

    forward = compute
