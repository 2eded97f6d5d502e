"""Patches that come off again: whatever is put on is put back, whoever has patched the same since.

What they watch may be traced by ``torch.compile``, which must not see the guard.
"""

from __future__ import annotations

import functools
import weakref
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


_MISSING = object()


class Patch:
    """Stands in the ``__dict__`` of an object or class for one of its methods, until it is taken off.

    From then on it is what stood there before. Somebody who has laid another patch over it may bring it back by
    taking theirs off; it then goes at the first call.

    A copy of the object, made by ``copy`` or ``pickle``, gets the plain method, bound to the copy.
    """

    def __init__(self, owner: Any, name: str, make: Callable[[Any], Callable[..., Any]]) -> None:
        original = getattr(owner, name)
        # whoever asks the method for its name or signature gets those of the original
        functools.update_wrapper(self, original)
        self.is_on = True
        self._owner = weakref.ref(owner)
        self._name = name
        self._before = vars(owner).get(name, _MISSING)
        self._original = original
        self.stand_in = make(original)
        _write(owner, name, _as_function(self, original) if isinstance(owner, type) else self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the stand-in, or once it is off what was there before."""
        if not self.is_on:
            self._clear()
        return self.stand_in(*args, **kwargs)

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Callable[..., Any]]]:
        """What ``pickle`` and ``copy`` make of it: the plain method."""
        return _the_same, (self._original,)

    def take_off(self) -> None:
        """Let go of the stand-in, and put back what was there, unless somebody else has patched the attribute since."""
        self.is_on = False
        self.stand_in = self._original
        self._clear()

    def _clear(self) -> None:
        owner = self._owner()
        if owner is not None:
            clear(owner, self._name)

    def restore(self, owner: Any) -> None:
        """Put back what stood there before."""
        if self._before is _MISSING:
            _erase(owner, self._name)
        else:
            _write(owner, self._name, self._before)


def clear(owner: Any, name: str) -> None:
    """Put back what stood below patches that are off, as far as nobody else's lies over them."""
    while True:
        patch = _patch_in(vars(owner).get(name))
        if patch is None or patch.is_on:
            return
        patch.restore(owner)


class Patches:
    """Replaced attributes, which come off together in whatever order they were put on.

    They are kept no longer than their owners.
    """

    def __init__(self) -> None:
        self._patches: weakref.WeakSet[Patch] = weakref.WeakSet()

    def put(self, owner: Any, name: str, make: Callable[[Any], Callable[..., Any]]) -> None:
        """Replace ``owner.name`` by ``make(original)``.

        The original is what attribute look-up finds now, inherited or not.
        """
        clear(owner, name)
        self._patches.add(Patch(owner, name, make))

    def undo(self) -> None:
        """Take off all patches. May be called twice."""
        while self._patches:
            self._patches.pop().take_off()


def _patch_in(value: Any) -> Patch | None:
    """The patch that a value of a ``__dict__`` is, or stands for."""
    patch = value if isinstance(value, Patch) else getattr(value, "patch_of_guard", None)
    return patch if isinstance(patch, Patch) else None


def _as_function(patch: Patch, original: Callable[..., Any]) -> Callable[..., Any]:
    """What a class needs, so that look-up binds it to the object."""

    @functools.wraps(original)
    def patched(*args: Any, **kwargs: Any) -> Any:
        return (patch.stand_in if patch.is_on else patch)(*args, **kwargs)

    patched.__dict__["patch_of_guard"] = patch
    return patched


def _the_same(method: Callable[..., Any]) -> Callable[..., Any]:
    return method


def _write(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, type):
        setattr(owner, name, value)
    else:
        # past `torch.nn.Module.__setattr__`, which treats modules and parameters otherwise
        owner.__dict__[name] = value


def _erase(owner: Any, name: str) -> None:
    if isinstance(owner, type):
        delattr(owner, name)
    else:
        del owner.__dict__[name]
