"""The only file that touches private names of Lightning, torchmetrics and torch.

Each function says for which versions the private name was checked. Lightning and ``pytorch_lightning`` have the
same names, so objects of either are reached through attributes and never through imports.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version
from torch import Tensor
from torch.utils.data import DistributedSampler
from torchmetrics import Metric
from torchmetrics.metric import CompositionalMetric
from torchmetrics.retrieval import RetrievalFallOut, RetrievalPrecisionRecallCurve, RetrievalRecallAtFixedPrecision
from torchmetrics.retrieval.base import RetrievalMetric
from torchmetrics.utilities.data import dim_zero_cat, dim_zero_max, dim_zero_mean, dim_zero_min, dim_zero_sum
from torchmetrics.wrappers import BootStrapper, Running

try:
    from torch.compiler import is_compiling as is_compiling
except ImportError:  # torch 2.1
    from torch._dynamo import is_compiling as is_compiling

DEFAULT_TIMEOUT = timedelta(minutes=30)  # Lightning's default for a process group

_LIGHTNING = ("lightning", "pytorch_lightning")


class GuardError(MisconfigurationException):
    """Raised on every rank in strict mode, and where a run could only hang or log nonsense."""

    __module__ = __name__.partition(".")[0]  # a traceback names it as it is imported


# --- versions -------------------------------------------------------------------------------------------------

# What this file was checked with; docs/compatibility.md has what was run.
CHECKED = dict.fromkeys(_LIGHTNING, ">=2.1,!=2.6.2,!=2.6.3,<2.7") | {"torchmetrics": ">=1.2,<1.10"}


@dataclass(frozen=True)
class Fault:
    """What releases of a package do wrong, and a later one may put right: the guard's correction goes with it.

    Attributes:
        what: In words, with the issue where there is one.
        versions: The releases that show it; without an upper end while no release is known that does not.
    """

    what: str
    versions: SpecifierSet

    def shown_by(self, package: str) -> bool:
        """Whether the installed version of a package shows it; an unknown version is taken to."""
        version = version_of(package)
        return version is None or self.versions.contains(version, prereleases=True)


# Each has a test in tests/distributed/test_upstream_faults.py that fails where the installed version is put right.
FLOORED_WEIGHTS = Fault("integer weights are floored (Lightning-AI/pytorch-lightning#21859)", SpecifierSet(">=2.0.7"))
ORDER_PAIRS_KEYS = Fault("keys are combined by their order alone", SpecifierSet(">=2.0"))
REFUSED_CALLBACKS = Fault("callbacks of the other package are refused", SpecifierSet("<2.6"))
TRACED_MODES = Fault("torch.compile traces the code of a function mode, and fails at it", SpecifierSet("<2.6"))
UNEVEN_LISTS = Fault("every update is gathered by itself (Lightning-AI/torchmetrics#3336)", SpecifierSet(">=1.0"))


def lightning_of(part: Any) -> str:
    """The package that a trainer, a module or a result belongs to: ``"lightning"`` or ``"pytorch_lightning"``."""
    roots = (base.__module__.partition(".")[0] for base in type(part).__mro__)
    return next((root for root in roots if root in _LIGHTNING), _LIGHTNING[0])


def unchecked_versions(*parts: Any) -> Iterator[str]:
    """A clause for each package in use whose version this file was not checked with.

    Args:
        parts: The trainer and the module.
    """
    for package in sorted({*map(lightning_of, parts), "torchmetrics"}):
        version, checked = version_of(package), CHECKED[package]
        if version is None or not SpecifierSet(checked).contains(version, prereleases=True):
            yield f"it was not checked with {package} {version or '(no version)'}, but with {checked}"


@functools.cache
def version_of(package: str) -> Version | None:
    """The installed version of a package, ``None`` where it is not installed or has no readable version."""
    try:
        return Version(importlib.metadata.version(package))
    except (importlib.metadata.PackageNotFoundError, InvalidVersion):
        return None


# --- Lightning's results (2.1 to 2.6) -------------------------------------------------------------------------


def results_of(trainer: Any) -> Any | None:
    """The result collection of the loop that runs now, a dict of storage key to result, or ``None``."""
    return trainer._results


def inferred_batch_size(results: Any) -> int | None:
    """The batch size that Lightning took from the batch, or ``None`` where it did not have to."""
    return results.batch_size  # type: ignore[no-any-return]


def current_hook(module: Any) -> str | None:
    """The Lightning hook that runs now, or ``None`` outside of hooks."""
    return module._current_fx_name  # type: ignore[no-any-return]


def defines_hook(owner: Any, hook: str) -> bool:
    """Whether a hook of a module or callback is the user's, and not the one Lightning comes with."""
    # the guard's own patch may stand over it
    method = inspect.unwrap(getattr(owner, hook))
    return not _is_lightnings(getattr(method, "__module__", None) or "")


def _is_lightnings(module: str) -> bool:
    return module.partition(".")[0] in _LIGHTNING


def class_that_logs(module: Any) -> type:
    """Lightning's class among those of the module that defines ``log``."""
    classes = type(module).__mro__
    return next(owner for owner in classes if _is_lightnings(owner.__module__) and "log" in vars(owner))


def find_result(results: Any, hook: str, name: str) -> str | None:
    """Under which key Lightning stored what was just logged, with or without the index of the dataloader."""
    index, key = results.dataloader_idx, f"{hook}.{name}"
    if index is not None and f"{key}.{index}" in results:
        return f"{key}.{index}"
    return key if key in results else None


@dataclass(frozen=True, kw_only=True)
class LogArguments:
    """The arguments of a log call as Lightning understood them.

    Attributes:
        dataloader: The index of the dataloader, where there are several.
        on_epoch: Whether a number of the epoch is logged.
        reduction: Over the batches: mean, sum, min or max.
        sync_dist: Whether Lightning was asked to reduce it over ranks, and there are several.
        rank_zero_only: As given.
        own_group: Whether a ``sync_dist_group`` was given.
    """

    dataloader: int | None = None
    on_epoch: bool = True
    reduction: str = "mean"
    sync_dist: bool = False
    rank_zero_only: bool = False
    own_group: bool = False


def result_arguments(result: Any) -> LogArguments:
    """The arguments with which a key was logged first."""
    meta = result.meta
    names = ("mean", "sum", "min", "max")
    reduction = next((name for name in names if getattr(meta, f"is_{name}_reduction")), "custom")
    return LogArguments(
        dataloader=meta.dataloader_idx if meta.add_dataloader_idx else None,
        on_epoch=bool(meta.on_epoch),
        reduction=reduction,
        sync_dist=bool(meta.sync.should),
        rank_zero_only=bool(meta.sync.rank_zero_only),
        own_group=meta.sync.group is not None,
    )


def result_value(result: Any) -> Tensor:
    """The running value of a logged tensor: the weighted sum for a mean, before any reduction over ranks."""
    return result.value  # type: ignore[no-any-return]


def result_weight(result: Any) -> Tensor | None:
    """The running sum of the batch sizes, or ``None`` where the reduction is no mean."""
    return getattr(result, "cumulated_batch_size", None)


def result_computed(result: Any) -> Tensor | None:
    """The epoch value, if Lightning has computed it already; looking does not compute it."""
    return result._computed  # type: ignore[no-any-return]


def install_result(result: Any, value: Tensor) -> None:
    """Make ``value`` the epoch value of a logged key. Lightning then neither reduces nor computes it."""
    result._computed = value


def replace_value(result: Any, value: Tensor) -> None:
    """Make ``value`` what was logged, once, in the epoch; Lightning goes on to reduce it as it would have."""
    weight = result_weight(result)
    result.value = torch.as_tensor(value if weight is None else value * weight).to(result.value)


def sort_results(results: Any) -> None:
    """Put the logged keys in one order that is the same on every rank."""
    items = sorted(results.items())
    results.clear()
    results.update(items)


# --- Lightning's loops and connectors (2.1 to 2.6) ------------------------------------------------------------


def logger_connector(trainer: Any) -> Any:
    """The object whose ``epoch_end_reached`` and ``on_epoch_end`` frame the computing of epoch values."""
    return trainer._logger_connector


def loader_at(trainer: Any, dataloader: int | None) -> Any | None:
    """The dataloader that feeds the running loop, or ``None`` where several feed it at once."""
    loop = trainer._active_loop
    combined = getattr(loop, "_combined_loader", None)
    if combined is None:
        return None
    loaders = combined.flattened
    if len(loaders) == 1:
        return loaders[0]
    # Lightning counts the dataloaders of an evaluation from 0, also where a batch comes from all of them
    in_turn = dataloader is not None and combined._mode == "sequential"
    return loaders[dataloader] if in_turn else None


def draws_from_several(trainer: Any) -> bool:
    """Whether the running loop has several dataloaders."""
    return len(trainer._active_loop._combined_loader.flattened) > 1


def count_of_writes(tensor: Tensor) -> int | None:
    """How often a tensor was written to, or ``None`` in inference mode, where torch does not count."""
    return None if tensor.is_inference() else int(tensor._version)


def deals_in_turns(sampler: Any) -> bool:
    """Whether a sampler deals its samples to the ranks as torch does, also where Lightning has wrapped it."""
    if not isinstance(sampler, DistributedSampler):
        return False
    # Lightning's wrapper deals the indexes of a sampler of the user's
    wraps = _is_lightnings(type(sampler).__module__) and type(sampler).__name__ == "DistributedSamplerWrapper"
    return wraps or type(sampler).__iter__ is DistributedSampler.__iter__


def stage_name(trainer: Any) -> str | None:
    """``"train"``, ``"sanity_check"``, ``"validate"``, ``"test"``, ``"predict"``, or ``None`` outside of them."""
    stage = trainer.state.stage
    # asked in every call, and the public property of an enum takes longer than all the rest
    return None if stage is None else stage._value_


def is_compiled(module: Any) -> bool:
    """Whether ``torch.compile`` was given a module or a part of it."""
    marks = ("_compiled_call_impl", "_orig_mod", "_compiler_ctx")
    return any(getattr(part, mark, None) is not None for _, part in named_modules(module) for mark in marks)


# what a strategy calls for a batch of an evaluation
EVALUATION_STEPS = ("validation_step", "test_step")


def evaluation_loops(trainer: Any) -> tuple[Any, ...]:
    """The loops that evaluate: on their own, and inside a fit."""
    return (trainer.validate_loop, trainer.test_loop, trainer.fit_loop.epoch_loop.val_loop)


def skipped_for_lack_of_batches(loop: Any) -> bool:
    """Whether an evaluation was skipped because this rank has no batch, not because it was switched off."""
    loaders = loop._combined_loader
    return loaders is not None and bool(loop.skip) and any(len(loader) == 0 for loader in loaders.flattened)


def monitored_keys(trainer: Any) -> set[str]:
    """The keys by which checkpoints, early stopping and schedulers decide."""
    monitors = [getattr(callback, "monitor", None) for callback in trainer.callbacks]
    monitors += [config.monitor for config in trainer.strategy.lr_scheduler_configs if config.reduce_on_plateau]
    return {monitor for monitor in monitors if isinstance(monitor, str)}


def callbacks_of(trainer: Any) -> list[Any]:
    """The callbacks of a trainer; Lightning sets the attribute without declaring it."""
    return trainer.callbacks  # type: ignore[no-any-return]


def group_timeout(trainer: Any) -> timedelta:
    """The time-out of the strategy's process group, which the guard's own group shares."""
    timeout = getattr(trainer.strategy, "_timeout", None)
    return timeout if isinstance(timeout, timedelta) else DEFAULT_TIMEOUT


# --- torchmetrics (1.2 to 1.9) --------------------------------------------------------------------------------


def is_rows_metric(metric: Metric) -> bool:
    """Whether the metric keeps rows (query id, score, relevance) as list states and computes as torchmetrics does."""
    return scores_by_query(metric) or is_curve(metric)


def stays_in_place(metric: Any, device: torch.device) -> bool:
    """Whether ``to(device)`` would change nothing about a metric: a glance at it costs a tenth of the call.

    It changes nothing of one that torchmetrics moves and that holds nothing but tensors on that device. Lists are not
    looked at, because torchmetrics makes new ones.
    """
    holds_modules = metric._modules or metric._parameters
    # torchmetrics sets the dtype anew when it moves a metric
    if holds_modules or type(metric)._apply is not Metric._apply or dtype_of(metric) is not torch.get_default_dtype():
        return False
    states = [getattr(metric, name) for name in metric._defaults]
    others = [held for held in (*metric._buffers.values(), metric._computed, metric._forward_cache) if held is not None]
    return all(isinstance(held, Tensor) and held.device == device for held in states + others)


def is_curve(metric: Metric) -> bool:
    """Whether the metric aggregates precision and recall at every cut-off over queries, as torchmetrics does."""
    curves = (RetrievalPrecisionRecallCurve, RetrievalRecallAtFixedPrecision)
    return isinstance(metric, curves) and type(metric).compute in [curve.compute for curve in curves]


def scores_by_query(metric: Metric) -> bool:
    """Whether the epoch value is an aggregation of ``_metric`` over queries, as torchmetrics defines it."""
    compute = type(metric).compute
    return isinstance(metric, RetrievalMetric) and compute in (RetrievalMetric.compute, RetrievalFallOut.compute)


def needs_irrelevant_row(metric: Metric) -> bool:
    """Whether a query counts as empty when it has no irrelevant row, rather than no relevant one."""
    return type(metric).compute is RetrievalFallOut.compute


def query_value(metric: Any, preds: Tensor, target: Tensor) -> Tensor:
    """The metric of one query: ``preds`` and ``target`` of shape ``(rows,)``."""
    return metric._metric(preds, target)  # type: ignore[no-any-return]


def aggregation_of(metric: Metric) -> str | Callable[..., Tensor]:
    """How values of queries become one number; torchmetrics before 1.3 knows the mean only."""
    return getattr(metric, "aggregation", "mean")


def aggregate(values: Tensor, aggregation: str | Callable[..., Tensor]) -> Tensor:
    """Aggregate values of shape ``(queries,)`` as torchmetrics does."""
    if aggregation == "mean":
        return values.mean()
    # torchmetrics before 1.3 has no such function
    from torchmetrics.retrieval.base import _retrieval_aggregate

    return _retrieval_aggregate(values, aggregation)  # type: ignore[arg-type]


def row_states(metric: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The three list states (ids, scores, relevance), one element an update."""
    return metric.indexes, metric.preds, metric.target


def share_rows(metric: Any, other: Any) -> None:
    """Let another metric keep its rows in the lists of ``metric``, as members of a compute group do."""
    other.indexes, other.preds, other.target = row_states(metric)


def local_row_states(metric: Any) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """The rows of this rank alone, also while ``sync()`` has put those of all ranks in their place."""
    if metric._is_synced and metric._cache:
        return metric._cache["indexes"], metric._cache["preds"], metric._cache["target"]
    return row_states(metric)


def detached_clone(metric: Any) -> Any:
    """A metric with the same settings and no rows, without anything that would keep this one alive."""
    clone = metric.__class__.__new__(metric.__class__)
    # the first two are bound to this metric, and would keep it alive
    gone = ("update", "compute", "_cache", *metric._defaults)
    settings = {name: value for name, value in vars(metric).items() if name not in gone}
    clone.__dict__.update(settings, _cache=None, _computed=None, _forward_cache=None)
    clone.__dict__.update(indexes=[], preds=[], target=[])
    return clone


def compute_groups(collection: Any) -> list[list[Metric]]:
    """The members of a ``MetricCollection`` that share a state with others, the one that is updated first in each list.

    Groups come to be in the first update.
    """
    groups = collection._groups.values() if collection._groups_checked else ()
    return [[getattr(collection, name) for name in names] for names in groups if len(names) > 1]


def is_composition(metric: Metric) -> bool:
    """Whether the metric is arithmetics on others, which it updates and computes and which are judged themselves."""
    return isinstance(metric, CompositionalMetric)


def composed_value(metric: Any, values: Mapping[int, float | None]) -> Any:
    """What a composition comes to, where its metrics have given values.

    Args:
        metric: The composition.
        values: By the ``id`` of a metric.

    Raises:
        LookupError: The value of a metric is not given.
    """
    if is_composition(metric):
        operands = [composed_value(part, values) for part in (metric.metric_a, metric.metric_b)]
        return metric.op(*operands[: 1 if operands[1] is None else 2])
    if not isinstance(metric, Metric):
        return metric
    value = values.get(id(metric))
    if value is None:
        raise LookupError(f"the value of {type(metric).__name__} is not known")
    return torch.tensor(value, device=metric.device)


def group_of(metric: Any) -> Any | None:
    """The process group that the metric combines, or ``None`` for all ranks."""
    return metric.process_group


def syncs_on_compute(metric: Any) -> bool:
    """Whether ``compute()`` combines ranks; a composition does so in each of its parts."""
    if is_composition(metric):
        return all(part.sync_on_compute for part in metrics_in(metric).values())
    return bool(metric.sync_on_compute) and keeps_states(metric)


def syncs_itself(metric: Any) -> bool:
    """Whether the program gave the metric a function of its own that combines ranks."""
    return bool(metric.sync_on_compute) and metric.dist_sync_fn is not None


def waits_for_all(metric: Any) -> bool:
    """Whether ``compute()`` of a metric that combines ranks does so now, and with all of them."""
    is_ready = metric._computed is None and metric._to_sync and not metric._is_synced
    is_plain = metric.dist_sync_fn is None and metric.process_group is None
    available = metric.distributed_available_fn
    return is_ready and is_plain and bool(metric._defaults) and callable(available) and bool(available())


def syncs_in_forward(metric: Any) -> bool:
    """Whether ``forward()`` combines ranks."""
    return bool(metric.dist_sync_on_step)


class WithoutSync:
    """Context: ``compute()`` and ``forward()`` of the metric stay on this rank."""

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def __enter__(self) -> None:
        metric = self._metric
        self._saved = (metric._to_sync, metric.dist_sync_on_step)
        metric._to_sync = metric.dist_sync_on_step = False

    def __exit__(self, *_: object) -> None:
        self._metric._to_sync, self._metric.dist_sync_on_step = self._saved


def forget_computed(metric: Any) -> None:
    """Drop the cached value, so that the next ``compute()`` computes."""
    metric._computed = None


def belongs_to_lightning(metric: Metric) -> bool:
    """Whether the metric is the wrapper in which Lightning keeps a logged value."""
    return _is_lightnings(type(metric).__module__)


def dtype_of(metric: Any) -> torch.dtype:
    """The dtype of a metric's states; torchmetrics before 1.3 does not tell it."""
    dtype: torch.dtype = getattr(metric, "dtype", torch.get_default_dtype())
    return dtype


def default_dtype() -> torch.dtype:
    """The dtype in which Lightning keeps logged values."""
    dtype = torch.get_default_dtype()
    return dtype if dtype in (torch.float32, torch.float64) else torch.float32


# --- the states of metrics (torchmetrics 1.2 to 1.9) ----------------------------------------------------------

_REDUCTIONS = {
    dim_zero_sum: "sum",
    dim_zero_mean: "mean",
    dim_zero_max: "max",
    dim_zero_min: "min",
    dim_zero_cat: "cat",
}


def named_modules(module: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """As the method of that name, without hashing: the hash of a metric reads all that it holds, and may fail."""
    seen = set() if seen is None else seen
    if id(module) in seen:
        return
    seen.add(id(module))
    yield path, module
    for name, part in module._modules.items():
        if part is not None:
            yield from named_modules(part, f"{path}.{name}" if path else name, seen)


def keeps_states(metric: Any) -> bool:
    """Whether there is anything in a metric that torchmetrics could combine."""
    return bool(metric._defaults or metrics_in(metric))


def metrics_in(metric: Metric) -> dict[str, Any]:
    """A metric and the metrics in it that keep states, by their paths."""
    return {path: part for path, part in named_modules(metric) if isinstance(part, Metric) and part._defaults}


def state_reductions(metric: Any) -> dict[str, Any]:
    """How each state is reduced over ranks: sum, mean, max, min or cat, a function, or ``None``."""
    return {name: _REDUCTIONS.get(function, function) for name, function in metric._reductions.items()}


def held_states(metric: Any) -> dict[str, Any]:
    """The states by name, as the metric holds them."""
    return {name: getattr(metric, name) for name in metric._defaults}


def copied_states(states: Mapping[str, Any]) -> dict[str, Any]:
    """States that no update of the metric writes to."""
    return {
        name: state.detach().clone() if isinstance(state, Tensor) else list(state) for name, state in states.items()
    }


def default_states(metric: Any) -> dict[str, Any]:
    """The states by name, as a metric holds them that was fed nothing."""
    return {name: _to_device(default, metric) for name, default in metric._defaults.items()}


def is_blank(metric: Any) -> bool:
    """Whether a metric holds nothing that it was fed."""
    if metric.update_count:
        return False
    return all(_is_default(getattr(metric, name), default) for name, default in metric._defaults.items())


def _is_default(state: Any, default: Any) -> bool:
    if isinstance(state, Tensor) and isinstance(default, Tensor):
        return torch.equal(state.cpu(), default.cpu())
    return not isinstance(state, Tensor) and not state


def combines_by_states(metric: Any) -> bool:
    """Whether ``compute()`` combines ranks in the way of torchmetrics, and not in one of the program's."""
    available = metric.distributed_available_fn
    return bool(metric.sync_on_compute and metric.dist_sync_fn is None and callable(available) and available())


def stays_on_rank(metric: Any) -> bool:
    """Whether ``compute()`` never combines ranks: it must not, is given one rank, or has no states."""
    available = metric.distributed_available_fn
    return not metric.sync_on_compute or not metric._defaults or (callable(available) and not available())


def overrides_combining(metric: Metric) -> bool:
    """Whether a class of the program's says itself how states are combined, or one whose states are a window."""
    metric_class = type(metric)
    if metric_class.__module__.startswith("torchmetrics."):
        return isinstance(metric, Running)
    return any(getattr(metric_class, name) is not getattr(Metric, name) for name in ("sync", "_sync_dist"))


def resamples(metric: Metric) -> bool:
    """Whether a metric draws the samples anew that it was updated with, on whatever device."""
    return any(isinstance(part, BootStrapper) for _, part in named_modules(metric))


def overrides_merge(metric: Metric) -> bool:
    """Whether the class says itself how its state takes in another one; torchmetrics before 1.6 never asks."""
    return hasattr(Metric, "merge_state") and type(metric).merge_state is not Metric.merge_state


class WithStates:
    """Context: metrics hold other states, as if these were their own, and combine no ranks.

    Afterwards each holds the very tensors and lists that it held before. What was computed within is known there again.

    Args:
        metrics: The metrics, by some name.
        states: By the same name, a number of updates and the states; a metric without any keeps its own.
    """

    def __init__(self, metrics: Mapping[str, Any], states: Mapping[str, tuple[int, Mapping[str, Any]]]) -> None:
        self._metrics = metrics
        self._states = states
        self._computed: dict[str, Any] = {}

    def __enter__(self) -> None:
        self._saved = [(metric, _attributes(metric)) for metric in self._metrics.values()]
        for name, metric in self._metrics.items():
            metric._to_sync = False
            metric._computed = self._computed.get(name)
            if name in self._states:
                metric._update_count, states = self._states[name]
                for attribute, value in states.items():
                    setattr(metric, attribute, _to_device(value, metric))

    def __exit__(self, *_: object) -> None:
        self._computed = {name: metric._computed for name, metric in self._metrics.items()}
        for metric, attributes in self._saved:
            for attribute, value in attributes.items():
                setattr(metric, attribute, value)


@contextlib.contextmanager
def attributes_kept(metric: Metric) -> Iterator[None]:
    """Afterwards a metric, and all metrics in it, have the very attributes that they had before, with their contents.

    What is written into tensors, lists and dictionaries, such as the buffers, is undone too.
    """
    kept: list[Callable[[], None]] = []
    for _, part in named_modules(metric):
        if isinstance(part, Metric):
            attributes = vars(part)
            contents = [*attributes.values(), *part._buffers.values()]
            kept += [_keeper(attributes), *map(_keeper, contents)]
    try:
        yield
    finally:
        for put_back in kept:
            put_back()


def _keeper(value: Any) -> Callable[[], None]:
    """What gives a value the contents again that it has now; a tensor is left alone where nothing was written to it."""
    if isinstance(value, Tensor):
        return functools.partial(_write_back, value, value.detach().clone(), count_of_writes(value))
    if isinstance(value, (dict, set)):
        content: Any = value.copy()

        def refill() -> None:
            value.clear()
            value.update(content)

        return refill
    return functools.partial(value.__setitem__, slice(None), list(value)) if isinstance(value, list) else lambda: None


def _write_back(tensor: Tensor, content: Tensor, writes: int | None) -> None:
    # where torch does not count, a comparison would wait for the device
    if writes is None or count_of_writes(tensor) != writes:
        with torch.inference_mode(tensor.is_inference()), torch.no_grad():
            tensor.copy_(content)


def _attributes(metric: Any) -> dict[str, Any]:
    names = ("_to_sync", "_update_count", *metric._defaults)
    return {name: getattr(metric, name) for name in names}


def _to_device(value: Any, metric: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(metric.device)
    if isinstance(value, list) and not metric.compute_on_cpu:
        return [_to_device(part, metric) for part in value]
    return value


# --- torchmetrics' retrieval formulas (1.2 to 1.9) ------------------------------------------------------------


def formula_code(metric: Metric) -> Any:
    """What scores one query of a ``RetrievalMetric``: the function, which tells one definition from another."""
    return vars(metric).get("_metric", getattr(type(metric), "_metric", None))


def functional_input_checks() -> Iterator[tuple[Any, str]]:
    """Where the functionals hold the check of their input: a module and a name in it."""
    name = "_check_retrieval_functional_inputs"
    package = importlib.import_module("torchmetrics.functional.retrieval")
    modules = {sys.modules[function.__module__] for function in vars(package).values() if callable(function)}
    return ((module, name) for module in modules if name in vars(module))


def formula_of(retrieval_class: type) -> Any:
    """The function with which a class of torchmetrics scores one query."""
    return retrieval_class._metric  # type: ignore[attr-defined]


def aggregate_curves(values: Tensor, aggregation: str | Callable[..., Tensor]) -> Tensor:
    """Aggregate values of shape ``(queries, k)`` over the queries as torchmetrics does."""
    if aggregation == "mean":
        return values.mean(dim=0)
    from torchmetrics.retrieval.base import _retrieval_aggregate

    return _retrieval_aggregate(values, aggregation, dim=0)  # type: ignore[arg-type]


def recall_at_precision(
    precision: Tensor, recall: Tensor, top_k: Tensor, min_precision: float
) -> tuple[Tensor, Tensor]:
    """The highest recall whose precision is high enough, and its k; all of shape ``(k,)``."""
    from torchmetrics.retrieval.precision_recall_curve import _retrieval_recall_at_fixed_precision

    return _retrieval_recall_at_fixed_precision(precision, recall, top_k, min_precision)
