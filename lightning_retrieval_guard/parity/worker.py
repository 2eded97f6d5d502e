"""What a rank does with one case: build the module, evaluate it under a Trainer with the guard, return its numbers.

What the target returns is checked here, in the process that needs it: modules and loaders need not be picklable.

The first process writes the weights to a file, the others read them; state that is no tensor is left as each process
has built it. Batches are cut so that all processes together have the batch that one process has.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from lightning_retrieval_guard.callback import RetrievalGuard
from lightning_retrieval_guard.findings import Finding
from lightning_retrieval_guard.parity.options import FORMS, Options, ParityError, Target

EVALUATE = f"{__name__}:evaluate"
_FILE = "weights.pt"
_RETURNS = (
    "a LightningModule, (module, loaders), (module, datamodule), or either of these with a dict of Trainer arguments"
    " as the third; loaders may be None where the module brings its own"
)
_PACKAGES = ("lightning.pytorch", "pytorch_lightning")
_REFUSED_ARGUMENTS = ("accelerator", "devices", "num_nodes", "strategy")
_TAKEN_FROM_GUARD = ("select", "ignore", "query_scope", "batch_size_fn")


@dataclass(frozen=True)
class Loader:
    """One loader as a run had it."""

    batch_size: int | None  # of each process; None where the loader does not tell
    fixed: str  # why it cannot be given another batch size; empty where it can
    shuffled: bool  # whether it draws its samples in a random order


class Evaluation(NamedTuple):
    """What came of a case on one rank."""

    numbers: dict[str, float]  # of the epoch, by key
    findings: tuple[Finding, ...]  # the guard's, merged over ranks
    loaders: tuple[Loader, ...]  # after the cut


def evaluate(options: Options, batch_sizes: tuple[int, ...] | None, weights: Path, folder: str) -> Evaluation:
    """Run one case on this rank.

    Args:
        options: What the user asked for.
        batch_sizes: Of each process, one for each loader; ``None`` leaves them as they are.
        weights: The folder of the weights; one process writes them, more of them read them.
        folder: The working directory.

    Raises:
        ParityError: The function, what it returned or its weights are of no use; the text says why.
    """
    os.chdir(folder)  # processes are kept, and may have been started in another one
    _seed(options.seed)
    built = build(options.target)
    exchange = save_weights if os.environ["WORLD_SIZE"] == "1" else load_weights  # one process runs first
    exchange(built.module, weights)
    trainer, guard = _trainer(built, options)
    loaders: list[Loader] = []
    # The strategy is asked with each loader in turn, after Lightning has put its samplers in.
    trainer.strategy.process_dataloader = partial(_cut, batch_sizes, loaders)
    _seed(options.seed)  # what setup() draws does not depend on how the weights came to be
    returned = getattr(trainer, options.stage)(built.module, **built.data, verbose=False)
    numbers = {key: float(value) for metrics in returned for key, value in metrics.items()}
    return Evaluation(numbers, tuple(guard.findings), tuple(loaders))


def _seed(seed: int) -> None:
    importlib.import_module("lightning.pytorch").seed_everything(seed, workers=True)


def _trainer(built: Built, options: Options) -> tuple[Any, RetrievalGuard]:
    """The trainer of the module's package, and the guard in it."""
    package, strategies, environments, loggers = (
        importlib.import_module(f"{built.package}{name}")
        for name in ("", ".strategies", ".plugins.environments", ".loggers.logger")
    )
    given = built.trainer.get("callbacks") or []
    callbacks = list(given) if isinstance(given, (list, tuple)) else [given]
    others = [callback for callback in callbacks if not isinstance(callback, RetrievalGuard)]
    # A guard that the program brings lends its settings, but for the mode: what it would write, a report or counts,
    # belongs to the program's own runs.
    brought = [callback.settings for callback in callbacks if isinstance(callback, RetrievalGuard)][:1]
    settings = {name: getattr(own, name) for own in brought for name in _TAKEN_FROM_GUARD}
    guard = RetrievalGuard(options.mode, **settings, log_findings=False)
    # One process too has a process group, as programs that are written for several of them expect.
    torchrun = environments.TorchElasticEnvironment()
    strategy = strategies.DDPStrategy(cluster_environment=torchrun, process_group_backend="gloo")
    silent = dict.fromkeys(("enable_checkpointing", "enable_model_summary", "enable_progress_bar"), False)
    defaults = {"logger": loggers.DummyLogger(), **silent}
    fixed = {"accelerator": "cpu", "devices": int(os.environ["WORLD_SIZE"]), "num_nodes": 1, "strategy": strategy}
    return package.Trainer(**{**defaults, **built.trainer, **fixed, "callbacks": [*others, guard]}), guard


# --- what the target returns --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Built:
    """What the function returned."""

    module: Any  # a LightningModule
    package: str  # whose Trainer runs it: lightning.pytorch or pytorch_lightning
    data: Mapping[str, Any]  # arguments of validate and test: loaders, a datamodule or nothing
    trainer: Mapping[str, Any]  # arguments of the Trainer


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
        raise ParityError(f"{target.text!r} returned {got}. It must return {_RETURNS}.")
    module, data, trainer = (*values, None, None)[:3]
    trainer = {} if trainer is None else trainer
    if not isinstance(trainer, Mapping):
        raise ParityError(
            f"{target.text!r} returned {type(trainer).__name__} as the third part, which must be a dict of Trainer"
            " arguments."
        )
    if refused := [name for name in _REFUSED_ARGUMENTS if name in trainer]:
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
        raise ParityError(f"{target.text!r} returned {type(data).__name__} as the data. It must return {_RETURNS}.")
    return {"dataloaders": data}


def _package_of(value: object, name: str) -> str | None:
    """The package whose class of that name the value is an instance of."""
    loaded = [package for package in _PACKAGES if package in sys.modules]
    return next((package for package in loaded if isinstance(value, getattr(sys.modules[package], name))), None)


# --- weights ----------------------------------------------------------------------------------------------------


def save_weights(module: Any, folder: Path) -> None:
    """Write the weights of a module; raises ParityError where a tensor has no numbers that could be copied."""
    try:
        torch.save({name: tensor.detach().cpu() for name, tensor in _tensors(module).items()}, folder / _FILE)
    except (RuntimeError, NotImplementedError) as error:
        raise ParityError(
            f"The weights of {type(module).__name__} cannot be copied: {error} Every process must get the same ones, so"
            " the state_dict must hold tensors with numbers in them."
        ) from error


def load_weights(module: Any, folder: Path) -> None:
    """Give a module the weights that another process has written; raises ParityError where it has other tensors."""
    # Mapped, so that the processes of a large model share its pages.
    written: dict[str, Tensor] = torch.load(str(folder / _FILE), weights_only=True, mmap=True)
    kinds, written_kinds = (
        {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        for tensors in (_tensors(module), written)
    )
    if kinds != written_kinds:
        names = sorted(name for name in kinds.keys() | written_kinds if kinds.get(name) != written_kinds.get(name))
        raise ParityError(
            f"{type(module).__name__} has other weights here than on one process: {', '.join(names)}. Build the same"
            " module on every number of processes."
        )
    module.load_state_dict({**module.state_dict(), **written})


def _tensors(module: Any) -> dict[str, Tensor]:
    """The tensors of a module's state that have a shape already."""
    state = module.state_dict().items()
    return {name: value for name, value in state if isinstance(value, Tensor) and not is_lazy(value)}


# --- batches ----------------------------------------------------------------------------------------------------


def share(loaders: tuple[Loader, ...], world_size: int) -> tuple[int, ...]:
    """The batch size of each of several processes, one for each loader that one process had.

    Raises:
        ParityError: A batch cannot be cut into that many equal parts.
    """
    sizes = []
    for index, loader in enumerate(loaders):
        if loader.batch_size is None:
            raise ParityError(
                f"The batches of loader {index} cannot be cut into {world_size}: {loader.fixed}. With --keep per-rank"
                " batches stay as the program makes them."
            )
        if loader.batch_size % world_size:
            raise ParityError(
                f"The batch of {loader.batch_size} of loader {index} cannot be cut into {world_size} equal parts."
                " Choose world sizes that divide it, a batch size that they divide, or --keep per-rank."
            )
        sizes.append(loader.batch_size // world_size)
    return tuple(sizes)


def _cut(batch_sizes: tuple[int, ...] | None, loaders: list[Loader], loader: Any) -> Any:
    """Give a loader its batch size, where there is one for it, and note it among the loaders."""
    entry = _describe(loader)
    if batch_sizes is not None:
        index = len(loaders)
        if index >= len(batch_sizes) or entry.fixed:
            raise ParityError(
                f"Loader {index} is not as on one process, where there are {len(batch_sizes)} loaders whose batches can"
                f" be cut{entry.fixed and f': {entry.fixed}'}. Return the same loaders on every number of processes, or"
                " use --keep per-rank."
            )
        # Built anew, a loader of a class of the user's may want other arguments; nothing was drawn from it yet.
        loader.batch_sampler.batch_size = batch_sizes[index]
        vars(loader)["batch_size"] = batch_sizes[index]  # plain assignment is refused after __init__
        entry = _describe(loader)
    loaders.append(entry)
    return loader


def _describe(loader: Any) -> Loader:
    if not isinstance(loader, DataLoader):
        return Loader(None, f"it is a {type(loader).__name__} and no DataLoader", False)
    sampler: Any = loader.batch_sampler
    shuffled = isinstance(loader.sampler, RandomSampler) or bool(getattr(loader.sampler, "shuffle", False))
    if sampler is None:
        return Loader(None, "it has batch_size=None, so its dataset makes the batches", shuffled)
    if type(sampler) is not BatchSampler:
        return Loader(None, f"a {type(sampler).__name__} makes them", shuffled)
    return Loader(sampler.batch_size, "", shuffled)
