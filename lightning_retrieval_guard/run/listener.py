"""What the watches ask and report while a program runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.run.compute import ComputeDispatcher, Plain
from lightning_retrieval_guard.run.context import RunContext, may_correct
from lightning_retrieval_guard.run.epochs import Epochs
from lightning_retrieval_guard.run.protection import Protection
from lightning_retrieval_guard.watch.batches import gives_equal_batches
from lightning_retrieval_guard.watch.keys import KeyRecord
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.places import move_to_module_device
from lightning_retrieval_guard.watch.stage import StageRecord
from lightning_retrieval_guard.watch.update_context import Feed, Given, UpdateContext

Choose = Callable[[MetricRecord, Plain], tuple[Plain, bool]]


class Listener:
    """Answers the watches of one run.

    Attributes:
        epochs: The epochs that run; set when the ranks are connected.
        dispatcher: Chooses how metrics arrive at their values; set likewise.
        suppressions: What the user ignores at single places.
        protect: Runs a part of the guard that must not bring the run down.
    """

    epochs: Epochs
    dispatcher: ComputeDispatcher

    def __init__(self, run: RunContext, protection: Protection) -> None:
        self.suppressions = run.suppressions
        self.protect = protection.protect
        self._run = run
        self._protection = protection

    @property
    def world_size(self) -> int:
        """The number of ranks."""
        return self._run.world_size

    @property
    def in_step(self) -> bool:
        """Whether a batch has begun since the ranks last met."""
        return self._protection.in_step

    @property
    def routes(self) -> bool:
        """Whether the guard supplies the values of retrieval metrics."""
        return self._run.settings.corrects and self._protection.failure is None

    def may_drop_stale(self, record: MetricRecord) -> bool:
        """Whether a metric may be made to forget what it holds of earlier epochs."""
        suppressed = (*record.suppressed, *record.suppressed_where_shown)
        return may_correct("stale_state", suppressed, self._run.settings)

    def stage(self) -> StageRecord | None:
        """The stage that runs now."""
        epoch = self.epochs.current()
        return None if epoch is None else epoch.record

    def hook(self) -> str | None:
        """The Lightning hook that runs now."""
        return _compat.current_hook(self._run.module)

    def feeding(self) -> UpdateContext | None:
        """What feeds metrics now."""
        stage = self.stage()
        return None if stage is None else stage.feeding

    def is_outer(self, feed: Feed) -> bool:
        """Whether a feed is that of an epoch of another stage, which goes on after the stage that runs now."""
        return self.epochs.runs(feed.epoch) and feed.stage != _compat.stage_name(self._run.trainer)

    def move_to_module_device(self, record: MetricRecord, given: Given) -> None:
        """Before an update: a metric outside of the module comes to where the module is."""
        move_to_module_device(record, self._run.module, given)

    def logged(self, key: KeyRecord) -> None:
        """A log call was taken in; strict mode raises where every rank sees the same wrong weight."""
        # weights that are one multiple of the samples leave the mean as it is
        if self._run.settings.mode != "strict" or not key.weights.varies or not key.call.on_epoch:
            return
        loader = _compat.loader_at(self._run.trainer, key.call.dataloader)
        epoch = self.epochs.current()
        # a rank that raises where others do not would keep them waiting
        if epoch is not None and (self.world_size == 1 or gives_equal_batches(loader)):
            self.epochs.judgement.refuse_weights(key, epoch)

    def compute(self, record: MetricRecord, plain: Plain) -> tuple[Any, bool]:
        """Compute a metric: in a step as the program does, at the end of the epoch over all ranks."""
        return self._dispatch(self.dispatcher.to_compute, record, plain)

    def forward(self, record: MetricRecord, plain: Plain) -> tuple[Any, bool]:
        """Run ``forward``."""
        return self._dispatch(self.dispatcher.to_forward, record, plain)

    def _dispatch(self, choose: Choose, record: MetricRecord, plain: Plain) -> tuple[Any, bool]:
        """Choose the call under protection and make it without, because what it raises is the program's."""
        call, synced = plain, False

        def choose_call() -> None:
            nonlocal call, synced
            call, synced = choose(record, plain)

        self.protect(choose_call)
        if self._protection.failure is not None:
            # also where it has failed just now, as other ranks may be at the same metric
            call, synced = self.dispatcher.after_failure(record, plain, self._protection.in_step)
        return call(), synced
