"""Metrics that a program feeds or shows although they are no part of the module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import Unregistered
from lightning_retrieval_guard.epoch.payload import to_payload
from lightning_retrieval_guard.watch.call_site import CallSite
from lightning_retrieval_guard.watch.holders import iter_modules
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.metrics import STEP_HOOKS, MetricWatch

# a metric that was made in one of these was not meant to last
_HOOK_ENDINGS = ("_batch_start", "_batch_end", "_epoch_end")


@dataclass(frozen=True)
class _Holding:
    """What is held in one place: a metric, or a module with metrics in it."""

    name: str
    whole: nn.Module
    of_callback: bool = False


def bring(record: MetricRecord, module: Any, inputs: Iterable[Tensor]) -> None:
    """Before an update, move a metric that is no part of the module to where the module and all inputs are.

    Args:
        record: The metric.
        module: Lightning's module.
        inputs: The tensors that the metric is updated with.
    """
    metric, device = record.metric(), module.device
    if metric is None or metric.device == device or not _is_lasting(metric, record):
        return
    if not any(part is metric for _, part in _compat.named_modules(module)) and {one.device for one in inputs} == {
        device
    }:
        record.moved_from = metric.device
        metric.to(device)


def collect_unregistered(
    trainer: Any, module: Any, watch: MetricWatch, stage: str, keys: Sequence[KeyRecord]
) -> list[dict[str, Any]]:
    """The metrics outside of the module that were updated in a stage or that its keys show, for the other ranks."""
    shown = {id(key.shown.metric()) for key in keys if key.shown is not None}
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
    found: dict[tuple[str, CallSite], Unregistered] = {}
    for metric, record in strays:
        holding = holdings.get(id(metric)) or _Holding(type(metric).__name__, metric)
        site = record.first_update
        # metrics that Lightning does not move are no fault of a callback, which cannot register them
        if id(metric) not in wrapped and site is not None and (not holding.of_callback or _is_apart(record, module)):
            found.setdefault((holding.name, site), _told(holding, record, site, keys, module))
    return [to_payload(own) for own in found.values()]


def _told(
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
    found: dict[int, _Holding] = {}
    owners = [("", module), *((type(callback).__name__, callback) for callback in _compat.callbacks_of(trainer))]
    for prefix, owner in owners:
        for name, whole in iter_modules(vars(owner), prefix):
            for _, part in _compat.named_modules(whole):
                found.setdefault(id(part), _Holding(name, whole, bool(prefix)))
    return found


def unregistered_of(meetings: Iterable[Sequence[Mapping[str, Any]]]) -> list[Unregistered]:
    """What the ranks told at all meetings, each metric once; what was told last counts, and what is worse."""
    found: dict[tuple[str, str, int], Unregistered] = {}
    for rank, own in _each(meetings):
        place = (own.name, own.path, own.line)
        known = found.get(place, own)
        worse = own if own.device or not known.device else known
        ranks = tuple(sorted({*known.ranks, rank}))
        found[place] = replace(worse, storage=own.storage or known.storage, ranks=ranks)
    return list(found.values())


def _each(meetings: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[tuple[int, Unregistered]]:
    for messages in meetings:
        for rank, message in enumerate(messages):
            yield from ((rank, Unregistered(**told)) for told in message.get("unregistered", ()))
