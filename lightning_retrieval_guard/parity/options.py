"""What is asked of parity: the function that the user names, and the frozen, validated options."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from lightning_retrieval_guard.settings import LARGEST_SEED, check_choice

Stage = Literal["validate", "test"]
Mode = Literal["warn", "correct"]
Keep = Literal["global", "per-rank"]

CHOICES: dict[str, tuple[str, ...]] = {"stage": get_args(Stage), "mode": get_args(Mode), "keep": get_args(Keep)}
LARGEST_WORLD_SIZE = 64
FORMS = "path/to/file.py:function or package.module:function"


class ParityError(Exception):
    """Parity could not be run; the text says why, and what to do."""


@dataclass(frozen=True)
class Target:
    """A function as every process can find it."""

    text: str  # as the user gave it
    module: str  # the dotted name of its module
    path: str | None  # the module's file, or None where the name is enough
    folder: str  # what goes to the front of sys.path before the module is imported
    function: str  # its name in the module


@dataclass(frozen=True)
class Options:
    """What is asked; the defaults are those of the command and of the assertion.

    Raises:
        ValueError: An option has a value that is not allowed; the message names the allowed ones.
    """

    target: Target  # the function that builds the module and its data
    world_sizes: tuple[int, ...] = (1, 2, 4)  # in ascending order; the first is 1, the reference
    stage: Stage = "validate"  # what is run on the module
    mode: Mode = "warn"  # of the guard in every run
    keep: Keep = "global"  # which batch stays the same: that of all processes together, or that of each
    rtol: float = 1e-5  # the relative difference, to the number of one process, that counts as none
    atol: float = 1e-6  # the absolute difference that counts as none
    timeout: float = 300.0  # seconds that each run may take
    seed: int = 0  # of every process, before the function is called and before the evaluation

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            check_choice(name, getattr(self, name), allowed)
        for name in ("rtol", "atol"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)!r} must be a number from 0 on.")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"timeout={self.timeout!r} must be a number of seconds above 0.")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise ValueError(f"seed={self.seed!r} must be a whole number from 0 to {LARGEST_SEED}.")


def build_options(
    target: str | Callable[..., Any], *, world_sizes: Sequence[int] = Options.world_sizes, **others: Any
) -> Options:
    """Find the target, and validate the options; 1 is added to ``world_sizes``, because one process is the reference.

    Raises:
        ParityError: The target is neither a file nor a module with a function, or there is no such file.
        ValueError: Another option has a value that is not allowed; the message names the allowed ones.
    """
    sizes = tuple(sorted({1, *world_sizes}))
    if len(sizes) < 2 or sizes[0] < 1 or sizes[-1] > LARGEST_WORLD_SIZE:
        raise ValueError(
            f"world_sizes={tuple(world_sizes)!r} is not allowed. Give whole numbers from 1 to {LARGEST_WORLD_SIZE}, one"
            " of them above 1, such as 1,2,4."
        )
    return Options(find_target(target), sizes, **others)


# --- the target ----------------------------------------------------------------------------------------------------


def find_target(given: str | Callable[..., Any]) -> Target:
    """Where a function is, from its text or from the function itself; raises ParityError where that is not possible."""
    if not isinstance(given, str):
        return _target_of(given)
    module, _, function = given.rpartition(":")
    if not module or not function.isidentifier():
        raise ParityError(f"{given!r} is no target. Give {FORMS}.")
    if module.endswith(".py"):
        path = Path(module).resolve()
        if not path.is_file():
            raise ParityError(f"{given!r}: there is no file {str(path)!r}.")
        return _in_file(given, path, function)
    if not all(name.isidentifier() for name in module.split(".")):
        raise ParityError(f"{given!r} is no target: {module!r} is neither a .py file nor a module. Give {FORMS}.")
    return Target(given, module, None, os.getcwd(), function)


def _target_of(function: Callable[..., Any]) -> Target:
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", None) or ""
    path = Path(getattr(sys.modules.get(module), "__file__", None) or "").resolve()
    if not name.isidentifier() or not path.is_file():
        raise ParityError(
            f"{name or function!r} cannot be found by other processes. Move the function to the top of its module, or"
            f" give its place as text: {FORMS}."
        )
    text = f"{module}:{name}"
    # A package may be a folder without __init__.py: then only sys.path tells the name of the module.
    for root in (Path(entry).resolve() for entry in sys.path):
        if root.joinpath(*module.split(".")).with_suffix(".py") == path:
            return Target(text, module, str(path), str(root), name)
    return _in_file(text, path, name)


def _in_file(text: str, path: Path, function: str) -> Target:
    """The module is named as its packages name it, so that its relative imports work."""
    folder, names = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        folder, names = folder.parent, [folder.name, *names]
    return Target(text, ".".join(names), str(path), str(folder), function)
