"""Every torchmetrics metric of a run, its updates, and the tensors that came out of it.

Metrics are keyed by ``id``: comparing them builds new metrics, and hashing them reads all their state.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Iterator
from typing import Any

from torchmetrics import Metric, MetricCollection

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.watch.beside import BesideFeeder, why_not_apart
from lightning_retrieval_guard.watch.call_site import user_call_site
from lightning_retrieval_guard.watch.held_rows import MEBIBYTE, HeldRows
from lightning_retrieval_guard.watch.keys import How, Origin, Origins
from lightning_retrieval_guard.watch.listener import WatchListener
from lightning_retrieval_guard.watch.metric_calls import MetricCalls
from lightning_retrieval_guard.watch.metric_history import drop_stale
from lightning_retrieval_guard.watch.metric_lives import MetricLife, MetricRecord
from lightning_retrieval_guard.watch.update_context import Given

# a metric that was made in one of these lives for the step only, unless the program keeps it
STEP_HOOKS = ("training_step", "validation_step", "test_step")


class MetricWatch:
    """Knows every metric of the process while it is installed, and what has happened to it.

    Args:
        listener: Answers the watch, and hears of what it sees.
        max_held_mb: The MiB of rows that the watch may keep alive.

    Attributes:
        origins: The tensors that came out of metrics.
    """

    def __init__(self, listener: WatchListener, max_held_mb: float) -> None:
        self._listener = listener
        self._calls = MetricCalls(self, listener)
        self._records: dict[int, MetricRecord] = {}
        self.origins = Origins()
        self._recent: list[MetricLife] = []
        self._held = HeldRows(max_held_mb)
        self._beside = BesideFeeder(max_held_mb * MEBIBYTE, self._calls.run)
        self._batch = 0

    def install(self) -> None:
        """Watch the metrics that exist and those that will be made."""
        self._calls.install()
        for metric in _living_metrics():
            self._adopt(metric, created_in_hook=None)

    def uninstall(self) -> None:
        """Take off every patch and forget everything."""
        self._calls.uninstall()
        self._records.clear()
        # tensors may outlive the run, and must not keep its metrics
        self.origins.clear()
        self._recent.clear()
        self._held.clear()

    def record_of(self, metric: Metric) -> MetricRecord:
        """The record of a metric, made where the metric was not known."""
        record = self._records.get(id(metric))
        if record is None or record.metric() is not metric:
            record = self._adopt(metric, created_in_hook=None)
        return record

    def start_batch(self) -> None:
        """Let go of the metrics of the batch before, as far as no key shows them.

        A metric holds its value, and the value's origin its metric; only this ends the circle.
        """
        for life in self._recent:
            life.release()
        self._recent.clear()
        self._held.start_batch()
        self._batch += 1

    def records(self) -> Iterator[tuple[Metric, MetricRecord]]:
        """The living metrics."""
        for record in list(self._records.values()):
            metric = record.metric()
            if metric is not None:
                yield metric, record

    def row_records(self) -> Iterator[tuple[Metric, MetricRecord]]:
        """The living metrics that keep rows."""
        return ((metric, record) for metric, record in self.records() if record.is_rows)

    # --- what happens to a metric -----------------------------------------------------------------------------

    def _adopt(self, metric: Metric, created_in_hook: str | None) -> MetricRecord:
        key = id(metric)
        forget = functools.partial(_forget, self._records, key)
        is_rows, is_composition = _compat.is_rows_metric(metric), _compat.is_composition(metric)
        record = MetricRecord(weakref.ref(metric, forget), is_rows, created_in_hook, is_composition)
        self._records[key] = record
        # samples seen before it was made are not the first update's
        feeding = self._listener.feeding() if created_in_hook is not None else None
        if feeding is not None and feeding.samples_before is not None:
            record.samples_at_update[feeding.feed.source] = feeding.samples_before
        if created_in_hook in STEP_HOOKS:
            record.made_in_batch = self._batch
        self._calls.install_on(metric, record)
        return record

    def note_made(self, metric: Metric) -> None:
        """A metric was made, copied or loaded."""
        self._adopt(metric, self._listener.hook())

    def note_groups(self, collection: MetricCollection) -> None:
        """A collection has updated the first member of each compute group; the others now hold the same."""
        for first, *others in _compat.compute_groups(collection):
            leader = self.record_of(first)
            for other in others:
                self.record_of(other).relink(leader)

    def stays(self, metric: Metric, *args: Any, **kwargs: Any) -> bool:
        """Whether a metric is asked to move to where it is; Lightning does so in every log call."""
        record = self._records.get(id(metric))
        if record is None or kwargs or len(args) != 1 or args[0] != metric.device:
            return False
        # what other metrics do in to() is their business, unless it is certain to do nothing
        if not record.is_rows:
            return _compat.stays_in_place(metric, args[0])
        if not self._listener.routes:
            return False
        states = _compat.row_states(metric)
        checked, count = record.checked_parts
        # parts that were looked at before stay where they are; a new list is looked at from the start
        start = count if checked == id(states[0]) and count <= len(states[0]) else 0
        stays = all(part.device == metric.device for column in states for part in column[start:])
        if stays:
            record.checked_parts = (id(states[0]), len(states[0]))
        return stays

    def before_update(self, record: MetricRecord, given: Given) -> None:
        """A metric forgets earlier epochs, comes to where the module is, and is fed beside."""
        feeding = self._listener.feeding()
        if feeding is None:
            return
        # of the same source as the last update, nothing is stale and nothing goes apart anew
        is_new_source = record.fed_last != feeding.feed
        # what was fed nothing holds nothing of another epoch
        if is_new_source and record.feeds:
            drop_stale(record, feeding, self.records(), self._listener.may_drop_stale)
        self._listener.move_to_module_device(record, given)
        may_differ = is_new_source or record.beside is not None or feeding.repeats is not None
        if may_differ and not record.is_rows:
            self._beside.take(record, feeding, given)

    def note_update(self, record: MetricRecord, given: Given) -> None:
        """A metric was updated."""
        if record.is_composition:
            return  # its parts were updated
        # only an update of the collection feeds the whole group
        if record.is_grouped and not self._calls.in_collection:
            record.leave_group()
        # fed in a later batch, it outlives the step in which it was made
        if record.made_in_batch != self._batch:
            record.made_in_batch = None
        feeding = self._listener.feeding()
        record.note_update(feeding, given)
        repeats = None if feeding is None or record.is_rows else feeding.repeats
        # an update with a repeated sample that correct mode, which is not at work, would leave out
        if feeding is not None and repeats is not None and repeats.last_of is not None and not self._listener.routes:
            metric = record.metric()
            if metric is not None and not why_not_apart(metric, given, repeats.size):
                record.fed_repeated = feeding.feed
        if record.first_update is None:
            record.first_update = user_call_site()
            record.suppressed = self._listener.suppressions.at(record.first_update)

    def note_value(self, record: MetricRecord, value: Any, how: How, synced: bool) -> None:
        """A metric gave a value."""
        life, update = None, 0
        record.is_computed |= how == "compute"
        if record.is_rows and record.metric() is not None:
            life = record.life
            self._recent.append(life)
            self._keep_rows(record, life)
            update = len(life.states()[0]) - 1
        origin = Origin(record, how, synced, life, update, record.program_value)
        # it stands beside this one value only
        record.program_value = None
        self.origins.remember(value, origin)

    def _keep_rows(self, record: MetricRecord, life: MetricLife) -> None:
        """Keep the rows of a value that a step shows, unless the metric is certain to hold them when the epoch ends."""
        # such a metric may be gone, or empty, when the epoch ends
        passes = record.made_in_batch is not None or record.resets_in_steps
        if passes and self._listener.in_step:
            self._held.capture(life, may_wait=True)
        else:
            life.resume()

    def note_reset(self, metric: Metric) -> None:
        """A metric is about to forget."""
        record = self._records.get(id(metric))
        # forward() resets a metric within its call, and puts back what it held
        if record is None or self._calls.runs(record):
            return
        # what other stages have fed it in epochs that go on
        lost = [feed for feed in record.feeds if self._listener.is_outer(feed)]
        if record.is_rows:
            feeding = self._listener.feeding() if self._listener.in_step else None
            record.reset_in_epoch = record.reset_in_epoch if feeding is None else feeding.feed.epoch
            ids = _compat.row_states(metric)[0]
            for other, sharer in self.row_records():
                # members of a compute group share one list, which the reset of the first of them empties
                if _compat.row_states(other)[0] is ids:
                    self._hand_over(sharer)
        else:
            if lost and self._listener.routes:
                self._beside.set_aside(record, lost)
            # what a stage resets itself, it wants to forget
            if record.outer is not None and not self._listener.is_outer(record.outer.feed):
                record.outer = None
        record.lost = {feed: count for feed, count in record.lost.items() if self._listener.is_outer(feed)}
        record.start_over(lost)

    def _hand_over(self, record: MetricRecord) -> None:
        """A metric forgets its rows, which somebody may still ask for."""
        life = record.held_life
        if life is None or not life.is_current:
            return
        if self._listener.in_step:
            record.resets_in_steps = True
            self._held.capture(life, may_wait=False)
        else:
            life.keep()

    def start_stage(self, stage: str) -> None:
        """The count of samples starts again."""
        records = list(self._records.values())
        kept = [beside for record in records for beside in (record.beside, record.outer) if beside is not None]
        self._beside.start_stage(kept)
        for record in records:
            for dataloader in record.fed_by.pop(stage, ()):
                record.samples_at_update.pop((stage, dataloader), None)


def _forget(records: dict[int, MetricRecord], key: int, reference: weakref.ref[Metric]) -> None:
    record = records.get(key)
    if record is not None and record.metric is reference:
        del records[key]


def _living_metrics() -> list[Metric]:
    """All metrics of the process, also those in plain lists and local variables."""
    # isinstance() would ask proxies, which may build what they stand for
    return [thing for thing in gc.get_objects() if Metric in type(thing).__mro__]
