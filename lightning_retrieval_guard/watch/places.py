"""Where a program holds its metrics: the names that follow from it, and those that are no part of the module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from torch import nn
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import Unregistered, to_payload
from lightning_retrieval_guard.watch.batches import tensors_in
from lightning_retrieval_guard.watch.call_site import CallSite
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.metrics import STEP_HOOKS, MetricWatch
from lightning_retrieval_guard.watch.update_context import Given

# a metric that was made in one of these was not meant to last
_HOOK_ENDINGS = ("_batch_start", "_batch_end", "_epoch_end")


@dataclass(frozen=True)
class _Holding:
    """What is held in one place: a metric, or a module with metrics in it."""

    name: str
    whole: nn.Module
    of_callback: bool = False


def _iter_modules(attributes: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, nn.Module]]:
    """The modules among attributes, and in their plain dicts and lists, each with its path such as ``metrics['mrr']``.

    Args:
        attributes: Of one object.
        prefix: What the paths begin with; nothing if empty.
    """
    for name, value in attributes.items():
        path = f"{prefix}.{name}" if prefix else name
        parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for part_path, part in ((path, value), *((f"{path}[{index!r}]", part) for index, part in parts)):
            if isinstance(part, nn.Module):
                yield part_path, part


def _held_modules(trainer: Any, module: Any) -> Iterator[tuple[bool, str, nn.Module]]:
    """What the module and the callbacks hold: whether a callback does, the path, and what it is."""
    owners = [("", module), *((type(callback).__name__, callback) for callback in _compat.callbacks_of(trainer))]
    for prefix, owner in owners:
        for path, held in _iter_modules(vars(owner), prefix):
            yield bool(prefix), path, held


class MetricNames:
    """Names metrics by where they are held, which is the same on every rank; others by the line of their first update.

    Args:
        trainer: Lightning's trainer.
        module: Lightning's module.
        watch: Knows the metrics.
    """

    def __init__(self, trainer: Any, module: Any, watch: MetricWatch) -> None:
        self._trainer = trainer
        self._module = module
        self._watch = watch

    def of(self, record: MetricRecord) -> str:
        """The name of a metric."""
        return self._names().get(id(record.metric())) or _name_by_site(record)

    def metric(self, name: str) -> Metric | None:
        """The metric of that name that keeps rows, if this rank has it."""
        names = self._names()
        return next((metric for metric, _ in self._watch.row_records() if names.get(id(metric)) == name), None)

    def each(self, metrics: Iterable[tuple[Metric, MetricRecord]]) -> dict[str, tuple[Metric, MetricRecord]]:
        """Some metrics by their names, with a number where several would have the same."""
        names, named = self._names(), dict[str, tuple[Metric, MetricRecord]]()
        for metric, record in metrics:
            named[free_name(names.get(id(metric)) or _name_by_site(record), named)] = metric, record
        return named

    def _names(self) -> dict[int, str]:
        modules = _compat.named_modules(self._module)
        names = {id(module): path for path, module in modules if isinstance(module, Metric)}
        for _, path, held in _held_modules(self._trainer, self._module):
            if isinstance(held, Metric):
                # the path within the module goes before one in a list or in a callback
                names.setdefault(id(held), path)
        return names


def _name_by_site(record: MetricRecord) -> str:
    metric, site = record.metric(), record.first_update
    where = f"@{PurePath(site.path).name}:{site.line}" if site is not None else ""
    return f"{type(metric).__name__}{where}"


def free_name(name: str, taken: Mapping[str, object]) -> str:
    """The name, with a number where it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}#{number}"
    return free


def move_to_module_device(record: MetricRecord, module: Any, given: Given) -> None:
    """Before an update, move a metric that is no part of the module to where the module and all inputs are.

    Args:
        record: The metric.
        module: Lightning's module.
        given: The arguments of the update.
    """
    metric, device = record.metric(), module.device
    if metric is None or metric.device == device or not _is_lasting(metric, record):
        return
    is_registered = any(part is metric for _, part in _compat.named_modules(module))
    # inputs that are elsewhere show that the program wants the metric there
    if not is_registered and {tensor.device for tensor in tensors_in(given)} == {device}:
        record.moved_from = metric.device
        metric.to(device)


def collect_unregistered(
    trainer: Any, module: Any, watch: MetricWatch, stage: str, keys: Sequence[KeyRecord]
) -> list[dict[str, Any]]:
    """The metrics outside of the module that were updated in a stage or that its keys show, for the other ranks."""
    shown = {id(key.shown.metric()) for key in keys if key.shown is not None}
    # what is registered Lightning moves, saves and resets
    registered = {id(part) for _, part in _compat.named_modules(module)}
    strays = [
        (metric, record)
        for metric, record in watch.records()
        if (stage in record.fed_by or id(metric) in shown)
        and id(metric) not in registered
        and _is_lasting(metric, record)
    ]
    if not strays:
        return []
    holdings = _holdings(trainer, module)
    wrapped = {id(part) for metric, _ in strays for _, part in _compat.named_modules(metric) if part is not metric}
    unregistered: dict[tuple[str, CallSite], Unregistered] = {}
    for metric, record in strays:
        holding = holdings.get(id(metric)) or _Holding(type(metric).__name__, metric)
        site = record.first_update
        # metrics that Lightning does not move are no fault of a callback, which cannot register them
        if id(metric) not in wrapped and site is not None and (not holding.of_callback or _is_apart(record, module)):
            unregistered.setdefault((holding.name, site), _facts_of(holding, record, site, keys, module))
    return [to_payload(facts) for facts in unregistered.values()]


def _facts_of(
    holding: _Holding, record: MetricRecord, site: CallSite, keys: Sequence[KeyRecord], module: Any
) -> Unregistered:
    apart = _is_apart(record, module)
    parts = {id(part) for _, part in _compat.named_modules(holding.whole)}
    return Unregistered(
        name=holding.name,
        metric=type(holding.whole).__name__,
        path=site.path,
        line=site.line,
        device=str(_first_device(record)) if apart else "",
        module_device=str(module.device) if apart else "",
        moved=record.moved_from is not None,
        of_callback=holding.of_callback,
        storage=next(
            (key.call.storage for key in keys if key.shown is not None and id(key.shown.metric()) in parts), None
        ),
    )


def _first_device(record: MetricRecord) -> Any:
    metric: Any = record.metric()
    return metric.device if record.moved_from is None else record.moved_from


def _is_apart(record: MetricRecord, module: Any) -> bool:
    return bool(_first_device(record) != module.device)


def _is_lasting(metric: Metric, record: MetricRecord) -> bool:
    hook = record.created_in_hook or ""
    return hook not in STEP_HOOKS and not hook.endswith(_HOOK_ENDINGS) and not _compat.belongs_to_lightning(metric)


def _holdings(trainer: Any, module: Any) -> dict[int, _Holding]:
    """For every module that is held in a known place, the outermost that is held there."""
    holdings: dict[int, _Holding] = {}
    for of_callback, name, whole in _held_modules(trainer, module):
        for _, part in _compat.named_modules(whole):
            holdings.setdefault(id(part), _Holding(name, whole, of_callback))
    return holdings
