"""Calls of torch functions, as a program makes them in some of its steps and hooks."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from torch.overrides import TorchFunctionMode

from lightning_retrieval_guard import _compat


class FunctionObserver(Protocol):
    """What hears of calls."""

    def note(self, function: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any], result: Any) -> None:
        """A torch function was called."""


class FunctionWatch(TorchFunctionMode):
    """Tells observers of calls while it is entered.

    One class for all of them: compiled code is compiled anew for every other stack of modes.

    Args:
        protect: Runs a part of the guard that must not bring the program down.

    Attributes:
        observers: Who hears of calls now.
    """

    def __init__(self, protect: Callable[[Callable[[], None]], None]) -> None:
        super().__init__()
        self.observers: Sequence[FunctionObserver] = ()
        self._protect = protect

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function as it is, and pass it on."""
        result = func(*args, **(kwargs or {}))
        if not _compat.is_compiling():
            for observer in self.observers:
                self._protect(functools.partial(observer.note, func, args, kwargs or {}, result))
        return result
