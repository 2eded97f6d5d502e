"""The function that the user names: finding it, calling it, and checking what it returns."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
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
REFUSED_ARGUMENTS = ("accelerator", "devices", "num_nodes", "strategy")


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


def build(target: Target) -> Built:
    """Import the function, call it, and check what it returns; raises ParityError where that is not possible."""
    try:
        returned = _function_of(target)()
    except ImportError as error:
        # What cannot be imported is the program's affair: its line says more than the way there.
        frames = traceback.extract_tb(error.__traceback__)
        last = next(frame for frame in reversed(frames) if not frame.filename.startswith("<frozen "))
        raise ParityError(
            f"{target.text!r} cannot be imported: {last.filename}:{last.lineno}: {type(error).__name__}: {error}."
            " Install what is missing for the Python that runs this command, or correct the import."
        ) from error
    return _check(target, returned)


def _function_of(target: Target) -> Callable[[], Any]:
    module = _import(target)
    function: Callable[[], Any] | None = getattr(module, target.function, None)
    if not callable(function):
        names = [name for name, value in vars(module).items() if inspect.isfunction(value) and name[0] != "_"]
        existing = f"It has {', '.join(names)}." if names else "It has no functions."
        raise ParityError(f"{target.text!r}: {target.module} has no function {target.function!r}. {existing}")
    collecting = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    needed = [entry.name for entry in parameters if entry.default is entry.empty and entry.kind not in collecting]
    if needed:
        raise ParityError(
            f"{target.text!r} needs the arguments {', '.join(needed)}. It is called without any: give them defaults, or"
            " name a function that calls this one."
        )
    return function


def _import(target: Target) -> ModuleType:
    if target.folder not in sys.path:
        sys.path.insert(0, target.folder)
    if target.path is not None and "." not in target.module:
        return _import_file(target.module, target.path)
    try:
        return importlib.import_module(target.module)
    except ModuleNotFoundError as error:
        if not f"{target.module}.".startswith(f"{error.name}."):
            raise  # something that the module imports
        raise ParityError(
            f"{target.text!r}: there is no module {error.name!r} in {target.folder} or where Python looks. Give"
            f" {FORMS}."
        ) from error


def _import_file(name: str, path: str) -> ModuleType:
    loaded = sys.modules.get(name)
    if loaded is not None:
        if str(Path(getattr(loaded, "__file__", None) or "").resolve()) == path:
            return loaded
        # A file may be called random.py, and libraries must go on getting the standard library's.
        name = f"{name}_of_target"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    # Before it is executed, as Python does: what it defines may be looked up by the name of its module.
    sys.modules[name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _check(target: Target, returned: object) -> Built:
    values = returned if isinstance(returned, tuple) else (returned,)
    package = _package_of(values[0], "LightningModule") if 1 <= len(values) <= 3 else None
    if package is None:
        kinds = ", ".join(type(value).__name__ for value in values)
        got = f"({kinds})" if isinstance(returned, tuple) else kinds
        raise ParityError(f"{target.text!r} returned {got}. It must return {RETURNS}.")
    module, data, trainer = (*values, None, None)[:3]
    trainer = {} if trainer is None else trainer
    if not isinstance(trainer, Mapping):
        raise ParityError(
            f"{target.text!r} returned {type(trainer).__name__} as the third part, which must be a dict of Trainer"
            " arguments."
        )
    if refused := [name for name in REFUSED_ARGUMENTS if name in trainer]:
        raise ParityError(
            f"{target.text!r} returned the Trainer arguments {', '.join(refused)}, which parity sets itself: it runs on"
            " the CPU, on each number of processes in turn. Take them out."
        )
    return Built(module, package, _data_arguments(target, data, package), trainer)


def _data_arguments(target: Target, data: Any, package: str) -> dict[str, Any]:
    if data is None:
        return {}
    other = _package_of(data, "LightningDataModule")
    if other not in (None, package):
        raise ParityError(f"{target.text!r} returned a module of {package} and a datamodule of {other}. Take one.")
    if other == package:
        return {"datamodule": data}
    if isinstance(data, str) or not hasattr(data, "__iter__"):
        raise ParityError(f"{target.text!r} returned {type(data).__name__} as the data. It must return {RETURNS}.")
    return {"dataloaders": data}


def _package_of(value: object, name: str) -> str | None:
    """The package whose class of that name the value is an instance of."""
    loaded = [package for package in PACKAGES if package in sys.modules]
    return next((package for package in loaded if isinstance(value, getattr(sys.modules[package], name))), None)
