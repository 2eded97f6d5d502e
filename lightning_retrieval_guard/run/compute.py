"""How a metric that the program computes arrives at its value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.distributed.exchange import Exchange
from lightning_retrieval_guard.epoch.values import Outcome
from lightning_retrieval_guard.run.collect import refusing
from lightning_retrieval_guard.run.epoch import RunningEpoch
from lightning_retrieval_guard.run.epochs import Epochs
from lightning_retrieval_guard.settings import Settings
from lightning_retrieval_guard.watch.call_site import user_call_site
from lightning_retrieval_guard.watch.metric_lives import MetricRecord

Plain = Callable[[], Any]


class ComputeDispatcher:
    """Chooses between the program's own way and the guard's.

    Args:
        epochs: The epochs that run.
        exchange: Where ranks meet.
        settings: Of the guard.
        protect: Runs a part of the guard that must not bring the run down.
    """

    def __init__(
        self,
        epochs: Epochs,
        exchange: Exchange,
        settings: Settings,
        protect: Callable[[Callable[[], None]], None],
    ) -> None:
        self._epochs = epochs
        self._exchange = exchange
        self._settings = settings
        self._protect = protect

    def to_compute(self, record: MetricRecord, plain: Plain) -> tuple[Plain, bool]:
        """How ``compute()`` of a metric goes, and whether the value combines all ranks."""
        metric, epoch = record.metric(), self._epochs.current()
        syncs = self._exchange.world_size > 1 and _compat.syncs_on_compute(metric)
        if metric is None or epoch is None:
            return plain, syncs
        if epoch.record.in_step:
            record.synced_in_steps += syncs  # what a program sees in a step is its own
            return plain, syncs
        merged = self._epochs.states.merged(record)
        if merged is not None:
            states, is_beside = merged
            is_beside = is_beside and self._epochs.may_ignore(epoch)
            return functools.partial(_compute_within, states, record, plain, is_beside), True
        if not record.is_rows or not self._settings.corrects or _compat.syncs_itself(metric):
            others = functools.partial(self._compute_with_others, record, epoch, plain)
            return (others if syncs else plain), syncs
        outcome = self._epochs.outcome(record, epoch, syncs)
        if outcome is None:
            return plain, syncs
        self._epochs.note_compute(record, epoch, syncs)
        if self._epochs.needs_program_value(record, epoch):
            return functools.partial(_take_beside_plain, outcome, record, plain), True
        return functools.partial(_take, outcome, metric), True

    def to_forward(self, record: MetricRecord, plain: Plain) -> tuple[Plain, bool]:
        """How ``forward()`` of a metric goes, and whether the value combines all ranks."""
        metric, epoch = record.metric(), self._epochs.current()
        syncs = self._exchange.world_size > 1 and _compat.syncs_in_forward(metric)
        if syncs and epoch is not None:
            record.synced_in_steps += epoch.record.in_step
        return plain, syncs

    def after_failure(self, record: MetricRecord, plain: Plain, in_step: bool) -> tuple[Plain, bool]:
        """How a metric goes on from a failure here until the ranks meet, when the others hear of it.

        Later than in steps they do not come to combine ranks where they know the value.
        """
        metric = record.metric()
        if metric is None or not record.is_rows or not self._settings.corrects or self._exchange.world_size == 1:
            return plain, False
        if in_step:
            return plain, False
        known = self._epochs.synchronized.get(id(record))
        current = known is not None and known.stamp == record.stamp and known.source.combined
        outcome = known.source.outcome if known is not None and current else None
        if outcome is not None:
            return functools.partial(_take, outcome, metric), True
        if known is not None and known.source.plan.replicated:
            return functools.partial(_alone, metric, plain), False
        return plain, False

    def _compute_with_others(self, record: MetricRecord, epoch: RunningEpoch, plain: Plain) -> Any:
        """The metric combines ranks by itself; the others hear of it, in warn mode without a wait."""
        self._protect(functools.partial(self._start, record, epoch))
        value = plain()
        self._protect(self._exchange.finish)
        return value

    def _start(self, record: MetricRecord, epoch: RunningEpoch) -> None:
        if epoch.runs_on_all_ranks and _compat.waits_for_all(record.metric()):
            site = user_call_site()
            with refusing(self._settings):
                self._exchange.start(
                    f"{epoch.record.stage}/compute/{self._epochs.name(record)} at {site.path}:{site.line}",
                    waits=self._settings.mode != "warn",
                )


def _compute_within(states: _compat.WithStates, record: MetricRecord, plain: Plain, is_beside: bool) -> Any:
    """The value of other states, with the program's own kept for a log call that leaves the number to the program."""
    if is_beside:
        record.program_value = plain()
    with states:
        return plain()


def _alone(metric: Any, plain: Plain) -> Any:
    """The value of this rank's rows, which no later call may take for that of all ranks."""
    _compat.forget_computed(metric)
    try:
        with _compat.WithoutSync(metric):
            return plain()
    finally:
        _compat.forget_computed(metric)


def _take_beside_plain(outcome: Outcome, record: MetricRecord, plain: Plain) -> Any:
    """The guard's value, with the program's own kept for a log call that leaves the number to the program."""
    record.program_value = plain()
    return _take(outcome, record.metric())


def _take(outcome: Outcome, metric: Any) -> Any:
    """The value as the metric itself would return it."""
    if outcome.error is not None:
        raise outcome.error
    if not isinstance(outcome.value, float):
        return tuple(part.to(metric.device) for part in outcome.value) if outcome.value is not None else None
    preds = _compat.row_states(metric)[1]
    dtype = preds[-1].dtype if preds else _compat.default_dtype()
    return torch.tensor(outcome.value, dtype=dtype, device=metric.device)
