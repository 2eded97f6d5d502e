"""Patches that come off again: whatever is put on is put back, as long as it is still ours."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_MISSING = object()


class _PatchedMethod:
    """Stands in an object's ``__dict__`` for one of its methods.

    A copy of the object, made by ``copy`` or ``pickle``, gets the plain method, bound to the copy.
    """

    def __init__(self, original: Callable[..., Any], stand_in: Callable[..., Any]) -> None:
        functools.update_wrapper(self, original)
        self._original = original
        self._stand_in = stand_in

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._stand_in(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Callable[..., Any]]]:
        """What ``pickle`` and ``copy`` make of it: the plain method."""
        return _the_same, (self._original,)


def _the_same(method: Callable[..., Any]) -> Callable[..., Any]:
    return method


class Patches:
    """A stack of replaced attributes.

    ``put`` sets an attribute in the ``__dict__`` of an object or class; ``undo`` restores all in reverse order.
    An attribute that someone else has replaced since is left alone. ``undo`` may be called twice.
    """

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, Any]] = []

    def put(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace ``owner.name`` by ``make(original)``.

        The original is what attribute look-up finds now, inherited or own.
        """
        before = vars(owner).get(name, _MISSING)
        original = getattr(owner, name)
        ours = make(original) if isinstance(owner, type) else _PatchedMethod(original, make(original))
        self._write(owner, name, ours)
        self._undo.append((owner, name, before, ours))

    def undo(self) -> None:
        """Take off all patches, the latest first."""
        while self._undo:
            owner, name, before, ours = self._undo.pop()
            if vars(owner).get(name, _MISSING) is not ours:
                continue
            if before is _MISSING:
                self._erase(owner, name)
            else:
                self._write(owner, name, before)

    @staticmethod
    def _write(owner: Any, name: str, value: Any) -> None:
        if isinstance(owner, type):
            setattr(owner, name, value)
        else:
            # past `torch.nn.Module.__setattr__`, which treats modules and parameters in its own way
            owner.__dict__[name] = value

    @staticmethod
    def _erase(owner: Any, name: str) -> None:
        if isinstance(owner, type):
            delattr(owner, name)
        else:
            del owner.__dict__[name]
