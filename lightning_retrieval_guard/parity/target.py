"""The function that the user names: finding it, calling it, and checking what it returns."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

FORMS = "path/to/file.py:function or package.module:function"
RETURNS = (
    "a LightningModule, (module, loaders), (module, datamodule), or either of these with a dict of Trainer arguments"
    " as the third; loaders may be None where the module brings its own"
)
PACKAGES = ("lightning.pytorch", "pytorch_lightning")
OWN_ARGUMENTS = ("accelerator", "devices", "num_nodes", "strategy")


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
class Built:
    """What the function returned."""

    module: Any  # a LightningModule
    package: str  # whose Trainer runs it: lightning.pytorch or pytorch_lightning
    data: Mapping[str, Any]  # arguments of validate and test: loaders, a datamodule or nothing
    trainer: Mapping[str, Any]  # arguments of the Trainer


def find_target(given: str | Callable[..., Any]) -> Target:
    """Where a function is, from its text or from the function itself.

    Raises:
        ParityError: The text has another form, there is no such file, or other processes cannot import the function.
    """
    if not isinstance(given, str):
        return _target_of(given)
    module, _, function = given.rpartition(":")
    if not module or not function.isidentifier():
        raise ParityError(f"{given!r} is no target. Give {FORMS}.")
    if not module.endswith(".py"):
        if not all(part.isidentifier() for part in module.split(".")):
            raise ParityError(f"{given!r} is no target: {module!r} is neither a .py file nor a module. Give {FORMS}.")
        return Target(given, module, None, os.getcwd(), function)
    path = Path(module).resolve()
    if not path.is_file():
        raise ParityError(f"{given!r}: there is no file {str(path)!r}.")
    return _in_file(given, path, function)


def _target_of(function: Callable[..., Any]) -> Target:
    name, module = getattr(function, "__qualname__", ""), getattr(function, "__module__", None) or ""
    path = Path(sys.modules[module].__file__ or "").resolve() if module in sys.modules else Path()
    if not name.isidentifier() or not path.is_file():
        raise ParityError(
            f"{name or function!r} cannot be found by other processes. Move the function to the top of its module, or"
            f" give its place as text: {FORMS}."
        )
    text, parts = f"{module}:{name}", module.split(".")
    root = path.parents[len(parts) - 1] if len(parts) <= len(path.parts) - 1 else path.parent
    by_name = list(path.with_suffix("").parts[-len(parts) :]) == parts
    if by_name and root in [Path(entry).resolve() for entry in sys.path]:
        return Target(text, module, str(path), str(root), name)
    return _in_file(text, path, name)


def _in_file(text: str, path: Path, function: str) -> Target:
    """The module is named as its packages name it, so that its relative imports work."""
    folder, parts = path.parent, [path.stem]
    while (folder / "__init__.py").is_file():
        folder, parts = folder.parent, [folder.name, *parts]
    return Target(text, ".".join(parts), str(path), str(folder), function)


def build(target: Target) -> Built:
    """Import the function, call it, and check what it returns.

    Raises:
        ParityError: One of these is not possible; the text says which, and what is allowed.
    """
    with _telling_of_imports(target):
        module = _imported(target)
    function = getattr(module, target.function, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_"]
        there = f"It has {', '.join(names)}." if names else "It has no functions."
        raise ParityError(f"{target.text!r}: {target.module} has no function {target.function!r}. {there}")
    needed = _needed_arguments(function)
    if needed:
        raise ParityError(
            f"{target.text!r} needs the arguments {', '.join(needed)}. It is called without any: give them defaults, or"
            " name a function that calls this one."
        )
    with _telling_of_imports(target):
        returned = function()
    return _checked(target, returned)


@contextlib.contextmanager
def _telling_of_imports(target: Target) -> Iterator[None]:
    """What cannot be imported is the program's affair: its line says more than the way there."""
    try:
        yield
    except ImportError as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = next(frame for frame in reversed(frames) if not frame.filename.startswith("<frozen "))
        raise ParityError(
            f"{target.text!r} cannot be imported: {last.filename}:{last.lineno}: {type(error).__name__}: {error}."
            " Install what is missing for the Python that runs this command, or correct the import."
        ) from error


def _imported(target: Target) -> ModuleType:
    if target.folder not in sys.path:
        sys.path.insert(0, target.folder)
    if target.path is not None and "." not in target.module:
        loaded = sys.modules.get(target.module)
        if loaded is None or str(Path(getattr(loaded, "__file__", None) or "").resolve()) != target.path:
            suffix = "" if loaded is None else f"_at_{abs(hash(target.path))}"
            return _executed(f"{target.module}{suffix}", target.path)
    try:
        return importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{target.module}.".startswith(f"{error.name}."):
            raise ParityError(
                f"{target.text!r}: there is no module {error.name!r} in {target.folder} or where Python looks. Give"
                f" {FORMS}."
            ) from error
        raise


def _executed(name: str, path: str) -> ModuleType:
    """A file that belongs to no package, under its own name or, where another module has that, under a new one."""
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ParityError(f"{path!r} cannot be imported as a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _needed_arguments(function: Callable[..., Any]) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # some built-in callables do not tell
        return []
    given = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.default is one.empty and one.kind not in given]


def _checked(target: Target, returned: object) -> Built:
    parts = returned if isinstance(returned, tuple) else (returned,)
    package = _package_of(parts[0], "LightningModule") if 1 <= len(parts) <= 3 else None
    if package is None:
        kinds = ", ".join(type(part).__name__ for part in parts)
        got = f"({kinds})" if isinstance(returned, tuple) else kinds
        raise ParityError(f"{target.text!r} returned {got}. It must return {RETURNS}.")
    module, data, trainer = (*parts, None, None)[:3]
    if trainer is not None and not isinstance(trainer, Mapping):
        raise ParityError(
            f"{target.text!r} returned {type(trainer).__name__} as the third part, which must be a dict of Trainer"
            " arguments."
        )
    refused = [name for name in OWN_ARGUMENTS if name in (trainer or {})]
    if refused:
        raise ParityError(
            f"{target.text!r} returned the Trainer arguments {', '.join(refused)}, which parity sets itself: it runs on"
            " the CPU, on each number of processes in turn. Take them out."
        )
    return Built(module, package, _data_arguments(target, data, package), trainer or {})


def _data_arguments(target: Target, data: Any, package: str) -> dict[str, Any]:
    if data is None:
        return {}
    of = _package_of(data, "LightningDataModule")
    if of is not None:
        if of != package:
            raise ParityError(f"{target.text!r} returned a module of {package} and a datamodule of {of}. Take one.")
        return {"datamodule": data}
    if isinstance(data, str) or not hasattr(data, "__iter__"):
        raise ParityError(f"{target.text!r} returned {type(data).__name__} as the data. It must return {RETURNS}.")
    return {"dataloaders": data}


def _package_of(value: object, name: str) -> str | None:
    """The package whose class of that name the value is an instance of."""
    loaded = [package for package in PACKAGES if package in sys.modules]
    return next((package for package in loaded if isinstance(value, getattr(sys.modules[package], name))), None)
