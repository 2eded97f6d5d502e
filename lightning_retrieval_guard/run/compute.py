"""How a metric that the program computes arrives at its value."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import ComputeCall
from lightning_retrieval_guard.epoch.values import MetricOutcome
from lightning_retrieval_guard.run.context import RunContext
from lightning_retrieval_guard.run.epoch import RunningEpoch
from lightning_retrieval_guard.run.epochs import Epochs
from lightning_retrieval_guard.run.protection import refusing
from lightning_retrieval_guard.run.states import MergeResult
from lightning_retrieval_guard.watch.call_site import user_call_site
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.suppressions import patterns_of

Plain = Callable[[], Any]


class ComputeDispatcher:
    """Chooses between the program's way and the guard's.

    Args:
        run: The run.
        epochs: The epochs that run.
        protect: Runs a part of the guard that must not bring the run down.
    """

    def __init__(self, run: RunContext, epochs: Epochs, protect: Callable[[Callable[[], None]], None]) -> None:
        self._run = run
        self._epochs = epochs
        self._protect = protect
        self._is_part = False  # whether a composition is computed
        self._is_left = False  # whether the program's values of the parts of a composition are asked for

    def to_compute(self, record: MetricRecord, plain: Plain) -> tuple[Plain, bool]:
        """How ``compute()`` of a metric goes, and whether the value combines all ranks."""
        metric, epoch = record.metric(), self._epochs.current()
        syncs = self._run.world_size > 1 and _compat.syncs_on_compute(metric)
        # outside of stages nothing is logged that could be judged
        if metric is None or epoch is None:
            return plain, syncs
        if epoch.record.in_step:
            record.synced_in_steps += syncs  # what a program sees in a step is its own
            return plain, syncs
        if _compat.is_composition(metric):
            # the log call comes after compute(), so whether it ignores a rule is not known yet
            is_beside = self._run.settings.corrects and epoch.may_ignore and not self._is_left
            whole = functools.partial(self._compute_parts, plain)
            return (functools.partial(self._compute_composition, record, whole) if is_beside else whole), syncs
        merged = self._epochs.states.merged(record)
        if merged is not None:
            is_beside = not merged.is_fault and epoch.may_ignore
            if self._is_left and is_beside:
                return functools.partial(_without_trace, record, plain), syncs
            return functools.partial(_compute_within, merged, record, plain, is_beside), True
        if not record.is_rows or not self._run.settings.corrects or _compat.syncs_itself(metric):
            # the value is the program's; the others only learn that this rank is here
            others = functools.partial(self._compute_with_others, record, epoch, plain)
            return (others if syncs else plain), syncs
        # from here on the guard knows the rows, and its value takes the place of the program's
        outcome, needs_plain = self._outcome(record, epoch, syncs), self._needs_program_value(record, epoch)
        if outcome is None:
            return plain, syncs
        if self._is_left and needs_plain:
            return functools.partial(_without_trace, record, plain), syncs
        self._note_compute(record, epoch, syncs)
        if needs_plain:
            return functools.partial(_take_beside_plain, outcome, record, plain), True
        return functools.partial(_take, outcome, metric), True

    def to_forward(self, record: MetricRecord, plain: Plain) -> tuple[Plain, bool]:
        """How ``forward()`` of a metric goes, and whether the value combines all ranks."""
        metric, epoch = record.metric(), self._epochs.current()
        syncs = self._run.world_size > 1 and _compat.syncs_in_forward(metric)
        if syncs and epoch is not None:
            record.synced_in_steps += epoch.record.in_step
        return plain, syncs

    def after_failure(self, record: MetricRecord, plain: Plain, in_step: bool) -> tuple[Plain, bool]:
        """How a metric goes on from a failure here until the ranks meet, when the others hear of it.

        Later than in steps they do not come to combine ranks where they know the value.
        """
        metric = record.metric()
        if metric is None or not record.is_rows or not self._run.settings.corrects or self._run.world_size == 1:
            return plain, False
        # in a step all ranks still compute as the program does
        if in_step:
            return plain, False
        current, last = self._epochs.known_values.current(record), self._epochs.known_values.last(record)
        # the others take the value that is known, so none of them comes to combine ranks
        if current is not None and current.combined:
            return functools.partial(_take, current.outcome, metric), True
        # ranks with the same rows have their value without each other
        if last is not None and last.plan.replicated:
            return functools.partial(_alone, metric, plain), False
        return plain, False

    def _compute_with_others(self, record: MetricRecord, epoch: RunningEpoch, plain: Plain) -> Any:
        """The metric combines ranks by itself; the others hear of it, in warn mode without a wait."""
        self._protect(functools.partial(self._start, record, epoch))
        value = plain()
        self._protect(self._run.exchange.finish)
        return value

    def _start(self, record: MetricRecord, epoch: RunningEpoch) -> None:
        # a rank without a batch skips the loop, and never comes to compute anything
        if epoch.runs_on_all_ranks and _compat.waits_for_all(record.metric()):
            site = user_call_site()
            with refusing(self._run.settings):
                self._run.exchange.start(
                    f"{epoch.record.stage}/compute/{self._epochs.names.of(record)} at {site.path}:{site.line}",
                    waits=self._run.settings.mode != "warn",
                )

    def _compute_parts(self, plain: Plain) -> Any:
        """The value of a composition, the key of which shows findings about its parts."""
        is_part, self._is_part = self._is_part, True
        try:
            return plain()
        finally:
            self._is_part = is_part

    def _compute_composition(self, record: MetricRecord, plain: Plain) -> Any:
        """The value that follows from the guard's values of its parts, with the program's value kept beside it."""
        self._is_left = True
        try:
            # called twice: first with the program's values of the parts, then with the guard's
            record.program_value = plain()
        finally:
            self._is_left = False
        return plain()

    def _outcome(self, record: MetricRecord, epoch: RunningEpoch, syncs: bool) -> MetricOutcome | None:
        """The value of a metric over all ranks; ``None`` where the program's value stands.

        Args:
            record: The metric.
            epoch: The epoch that runs.
            syncs: Whether the program lets the metric combine ranks, so that all ranks are here.
        """
        source = self._epochs.known_values.current(record)
        if source is None and syncs:
            source = self._epochs.meet_for(record, epoch)
        if source is None or not source.plan.has_rows or source.name in epoch.left | epoch.plain:
            return None
        # Lightning computes an object on all ranks at once; in a hook one of them may be alone
        if source.is_left and _compat.current_hook(self._run.module) is None:
            return None
        # what the program makes of the value has no key at which a finding could stand
        if source.stale and not source.dropped and not (record.is_shown or source.plan.uneven or self._is_part):
            return None
        outcome = source.outcome
        # on one device the program's number stands, and where chance decides only torchmetrics knows which it is
        unsure = outcome.by_chance or outcome.error is not None or outcome.value is None
        alone = self._run.world_size == 1 and not source.plan.ids_restart
        return None if alone and unsure else outcome

    def _note_compute(self, record: MetricRecord, epoch: RunningEpoch, syncs: bool) -> None:
        """The program computes a metric, and the guard supplies the value without a wait."""
        source = self._epochs.known_values.last(record)
        name = self._epochs.names.of(record) if source is None else source.name
        # of several calls the first says where the program computes
        if name not in epoch.computed:
            site = user_call_site()
            hook = _compat.current_hook(self._run.module) or ""
            suppressed = patterns_of(self._run.suppressions.at(site))
            epoch.computed[name] = ComputeCall(name, hook, site.path, site.line, syncs, suppressed)

    def _needs_program_value(self, record: MetricRecord, epoch: RunningEpoch) -> bool:
        """Whether a rule that corrects may be ignored where the value of a metric is going to be logged.

        Then the program's value is worked out too. Ranks that were fed unequally often have none.
        """
        source = self._epochs.known_values.last(record)
        return epoch.may_ignore and not (source is not None and source.plan.uneven)


def _compute_within(merged: MergeResult, record: MetricRecord, plain: Plain, is_beside: bool) -> Any:
    """The value of other states, with the program's value kept for a log call that leaves the number to the program."""
    if is_beside:
        # once: from then on the metric keeps the value of the other states for the next call
        if merged.program_value is None:
            merged.program_value = _without_trace(record, plain)
        record.program_value = merged.program_value
    with merged.within:
        return plain()


def _without_trace(record: MetricRecord, plain: Plain) -> Any:
    """A value that the program did not ask for.

    What ``compute()`` writes to the metric, such as an average that goes on, is undone, and so are random numbers.
    """
    metric = record.metric()
    assert metric is not None
    with _compat.attributes_kept(metric), torch.random.fork_rng(devices=[]):
        # a tensor of the metric itself would go back too
        return _copied(plain())


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {name: _copied(part) for name, part in value.items()}
    return type(value)(map(_copied, value)) if type(value) in (list, tuple) else value


def _alone(metric: Any, plain: Plain) -> Any:
    """The value of this rank's rows, which no later call may take for that of all ranks."""
    _compat.forget_computed(metric)
    try:
        with _compat.WithoutSync(metric):
            return plain()
    finally:
        _compat.forget_computed(metric)


def _take_beside_plain(outcome: MetricOutcome, record: MetricRecord, plain: Plain) -> Any:
    record.program_value = _without_trace(record, plain)
    return _take(outcome, record.metric())


def _take(outcome: MetricOutcome, metric: Any) -> Any:
    """The value as the metric itself would return it."""
    if outcome.error is not None:
        raise outcome.error
    if not isinstance(outcome.value, float):
        return tuple(part.to(metric.device) for part in outcome.value) if outcome.value is not None else None
    preds = _compat.row_states(metric)[1]
    # torchmetrics returns the dtype of the scores
    dtype = preds[-1].dtype if preds else _compat.default_dtype()
    return torch.tensor(outcome.value, dtype=dtype, device=metric.device)
