"""Every torchmetrics metric of a run, its updates, and the tensors that came out of it.

Metrics are keyed by ``id``: comparing them builds new metrics, and hashing them reads all their state.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.query_ids import Batch
from lightning_retrieval_guard.watch.batches import tensors_in
from lightning_retrieval_guard.watch.beside import BesideFeeder, why_not_apart
from lightning_retrieval_guard.watch.call_site import user_call_site
from lightning_retrieval_guard.watch.held_rows import MEBIBYTE, HeldRows
from lightning_retrieval_guard.watch.keys import How, Origin, Origins
from lightning_retrieval_guard.watch.listener import WatchListener
from lightning_retrieval_guard.watch.merged import Given
from lightning_retrieval_guard.watch.metric_history import drop_stale
from lightning_retrieval_guard.watch.metric_lives import Feed, MetricLife, MetricRecord, Repeats, UpdateContext
from lightning_retrieval_guard.watch.patches import BesideGraphs, Patches

# a metric that was made in one of these lives for the step only, unless the program keeps it
STEP_HOOKS = ("training_step", "validation_step", "test_step")


class _Calls(threading.local):
    """The calls of metrics that run in a thread, the outermost first."""

    def __init__(self) -> None:
        self.records: list[MetricRecord] = []
        self.in_collection = 0


class MetricWatch:
    """Sees every metric of the process while it is installed.

    A call within that of another metric, or of the same one, belongs to the outer call and is not looked at.
    Collections and arithmetics on metrics are no outer calls: what they hold is judged by itself.

    Args:
        listener: Answers the watch, and hears of what it sees.
        max_held_mb: The MiB of rows that the watch may keep alive.
    """

    def __init__(self, listener: WatchListener, max_held_mb: float) -> None:
        self._listener = listener
        self._patches = Patches()
        self._records: dict[int, MetricRecord] = {}
        self._origins = Origins()
        self._recent: list[MetricLife] = []
        self._held = HeldRows(max_held_mb)
        self._beside = BesideFeeder(max_held_mb * MEBIBYTE)
        self._calls = _Calls()
        self._batch = 0
        self._installed = False

    def install(self) -> None:
        """Watch the metrics that exist and those that will be made."""
        self._installed = True
        self._patch_classes()
        for metric in _living_metrics():
            self._adopt(metric, created_in_hook=None)

    def uninstall(self) -> None:
        """Take off every patch and forget everything."""
        self._installed = False
        self._patches.undo()
        self._records.clear()
        self._origins.clear()
        self._recent.clear()
        self._held.clear()

    def record_of(self, metric: Metric) -> MetricRecord:
        """The record of a metric, made where the metric was not known."""
        record = self._records.get(id(metric))
        if record is None or record.metric() is not metric:
            record = self._adopt(metric, created_in_hook=None)
        return record

    def origin_of(self, tensor: Tensor) -> tuple[Origin | None, Tensor | bool]:
        """Where a tensor came from, as long as it is the same tensor, and whether it was written to since."""
        return self._origins.of(tensor)

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
        record = MetricRecord(weakref.ref(metric, forget), _compat.is_rows_metric(metric), created_in_hook)
        self._records[key] = record
        feeding = self._listener.feeding() if created_in_hook is not None else None
        if feeding is not None and feeding.samples_before is not None:
            record.samples_at_update[feeding.stage, feeding.dataloader] = feeding.samples_before
        if created_in_hook in STEP_HOOKS:
            record.made_in_batch = self._batch
        if "compute" in vars(metric) and not _compat.belongs_to_lightning(metric):
            self._patches.put(metric, "update", functools.partial(self._wrap, record, self._update))
            self._patches.put(metric, "compute", functools.partial(self._wrap, record, self._compute))
        return record

    def _wrap(
        self, record: MetricRecord, watched: Callable[..., Any], original: Callable[..., Any]
    ) -> Callable[..., Any]:
        return BesideGraphs(functools.partial(watched, record, original), original, record.is_rows)

    @contextlib.contextmanager
    def _running(self, record: MetricRecord) -> Iterator[None]:
        """While a call of a metric runs, calls within it belong to it."""
        metric, calls = record.metric(), self._calls.records
        if metric is not None and _compat.is_composition(metric):
            yield
            return
        calls.append(record)
        try:
            yield
        finally:
            calls.pop()

    def _is_watched(self) -> bool:
        return self._installed and not self._calls.records

    def _update(self, record: MetricRecord, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if not self._is_watched():
            return original(*args, **kwargs)
        self._before_update(record, args, kwargs)
        with self._running(record):
            result = original(*args, **kwargs)
        self._listener.protect(lambda: self._note_update(record, Given(args, kwargs)))
        return result

    def _compute(self, record: MetricRecord, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        plain = functools.partial(original, *args, **kwargs)
        if not self._is_watched():
            return plain()
        with self._running(record):
            value, synced = self._listener.compute(record, plain)
        self._listener.protect(lambda: self._note_value(record, value, "compute", synced))
        return value

    def _forward(self, metric: Metric, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        plain = functools.partial(original, metric, *args, **kwargs)
        if self._is_watched() and id(metric) not in self._records:
            self._listener.protect(lambda: void(self.record_of(metric)))
        record = self._records.get(id(metric)) if self._is_watched() else None
        if record is None:
            return plain()
        self._before_update(record, args, kwargs)
        with self._running(record):
            value, synced = self._listener.forward(record, plain)

        def note() -> None:
            self._note_update(record, Given(args, kwargs))
            self._note_value(record, value, "forward", synced)

        self._listener.protect(note)
        return value

    def _patch_classes(self) -> None:
        watch = self

        def leaves(metric: Metric, *_: Any) -> bool:
            return _compat.is_rows_metric(metric)

        def holds_rows(collection: MetricCollection, *_: Any) -> bool:
            return any(isinstance(part, Metric) and leaves(part) for part in collection.modules())

        def wrap_maker(original: Callable[..., None]) -> Callable[..., None]:
            def make(self: Metric, *args: Any, **kwargs: Any) -> None:
                original(self, *args, **kwargs)
                if watch._installed:
                    watch._listener.protect(lambda: void(watch._adopt(self, created_in_hook=watch._listener.hook())))

            return BesideGraphs(make, original, leaves)

        def wrap_reset(original: Callable[..., None]) -> Callable[..., None]:
            def reset(self: Metric) -> None:
                if watch._installed:
                    watch._listener.protect(lambda: watch._note_reset(self))
                original(self)

            return BesideGraphs(reset, original, leaves)

        def wrap_call(original: Callable[..., Any]) -> Callable[..., Any]:
            def call(self: Metric, *args: Any, **kwargs: Any) -> Any:
                return watch._forward(self, original, args, kwargs)

            return BesideGraphs(call, original, leaves)

        def wrap_to(original: Callable[..., Any]) -> Callable[..., Any]:
            def to(self: Metric, *args: Any, **kwargs: Any) -> Any:
                return self if watch._stays(self, args, kwargs) else original(self, *args, **kwargs)

            return BesideGraphs(to, original, leaves)

        def wrap_update_of_collection(original: Callable[..., None]) -> Callable[..., None]:
            def update(self: MetricCollection, *args: Any, **kwargs: Any) -> None:
                watch._update_collection(self, functools.partial(original, self, *args, **kwargs))

            return BesideGraphs(update, original, holds_rows)

        self._patches.put(Metric, "__init__", wrap_maker)
        self._patches.put(Metric, "__setstate__", wrap_maker)
        self._patches.put(Metric, "reset", wrap_reset)
        self._patches.put(Metric, "__call__", wrap_call)
        self._patches.put(Metric, "to", wrap_to)
        self._patches.put(MetricCollection, "update", wrap_update_of_collection)

    def _update_collection(self, collection: MetricCollection, plain: Callable[[], None]) -> None:
        """Updates the first member of each compute group; the others then hold the same."""
        self._calls.in_collection += 1
        try:
            plain()
        finally:
            self._calls.in_collection -= 1
        if self._is_watched():
            self._listener.protect(lambda: self._note_groups(collection))

    def _note_groups(self, collection: MetricCollection) -> None:
        for first, *others in _compat.compute_groups(collection):
            leader = self.record_of(first)
            for other in others:
                self.record_of(other).relink(leader)

    def _stays(self, metric: Metric, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a retrieval metric is told to move to where it is; Lightning does so in every log call."""
        record = self._records.get(id(metric)) if self._installed and self._listener.routes else None
        if record is None or not record.is_rows or kwargs or len(args) != 1 or args[0] != metric.device:
            return False
        states = _compat.row_states(metric)
        checked, count = record.checked_parts
        # parts that were looked at before stay where they are; a new list is looked at from the start
        start = count if checked == id(states[0]) and count <= len(states[0]) else 0
        stays = all(part.device == metric.device for column in states for part in column[start:])
        if stays:
            record.checked_parts = (id(states[0]), len(states[0]))
        return stays

    def _before_update(self, record: MetricRecord, args: Any, kwargs: dict[str, Any]) -> None:
        if self._listener.routes:
            self._listener.protect(lambda: self._prepare(record, (args, kwargs)))

    def _prepare(self, record: MetricRecord, inputs: tuple[tuple[Any, ...], dict[str, Any]]) -> None:
        """Before an update: a metric forgets earlier epochs, comes to where the module is, and is fed beside."""
        feeding = self._listener.feeding()
        if feeding is None:
            return
        # what was fed nothing holds nothing of another epoch
        if record.feeds:
            drop_stale(record, feeding, self.records(), self._listener.may_drop_stale)
        self._listener.move_to_module_device(record, tensors_in(inputs))
        if not record.is_rows:
            self._beside.take(record, feeding, inputs, self._running)

    def _note_update(self, record: MetricRecord, given: Given) -> None:
        metric: Any = record.metric()
        if metric is not None and _compat.is_composition(metric):
            return  # its parts were updated
        # only an update of the collection feeds the whole group
        if record.is_grouped and not self._calls.in_collection:
            record.leave_group()
        if record.made_in_batch != self._batch:
            record.made_in_batch = None
        feeding = self._listener.feeding()
        if feeding is None:
            record.note_update(Feed(), Batch())
        else:
            counted_ids = feeding.counted_ids
            record.note_update(*feeding.feed(record, counted_ids is not None and counted_ids.hold(given.ids)))
            if feeding.repeats is not None and not record.is_rows:
                self._note_repeated(record, feeding, feeding.repeats, given)
        rows = given.rows if record.is_rows else None
        if rows is not None:
            record.left_rows_out |= _compat.row_states(metric)[0][-1].numel() < rows
        if record.first_update is None:
            record.first_update = user_call_site()
            record.suppressed = self._listener.suppressions.at(record.first_update)

    def _note_repeated(self, record: MetricRecord, feeding: UpdateContext, repeats: Repeats, given: Given) -> None:
        """Whether an update brought a repeated sample that correct mode would leave out."""
        metric = record.metric()
        if metric is None or repeats.last_of is None or self._listener.routes:
            return
        if not why_not_apart(metric, given, repeats.size):
            record.fed_repeated = feeding.epoch, feeding.dataloader

    def _note_value(self, record: MetricRecord, value: Any, how: How, synced: bool) -> None:
        life, update = None, 0
        record.is_computed |= how == "compute"
        if record.is_rows and record.metric() is not None:
            life = record.life
            self._recent.append(life)
            self._keep_rows(record, life)
            update = len(life.states()[0]) - 1
        origin = Origin(record, how, synced, life, update, record.program_value)
        record.program_value = None
        self._origins.remember(value, origin)

    def _keep_rows(self, record: MetricRecord, life: MetricLife) -> None:
        """Keep the rows behind a value of a step, unless the metric is certain to hold them when the epoch ends."""
        passes = record.made_in_batch is not None or record.resets_in_steps
        if passes and self._listener.in_step:
            self._held.capture(life, may_wait=True)
        else:
            life.resume()

    def _note_reset(self, metric: Metric) -> None:
        record = self._records.get(id(metric))
        # forward() resets a metric within its own call, and puts back what it held
        if record is None or any(caller is record for caller in self._calls.records):
            return
        if record.is_rows:
            feeding = self._listener.feeding() if self._listener.in_step else None
            record.reset_in_epoch = record.reset_in_epoch if feeding is None else feeding.epoch
            ids = _compat.row_states(metric)[0]
            for other, sharer in self.row_records():
                # members of a compute group share one list, which the reset of the first of them empties
                if _compat.row_states(other)[0] is ids:
                    self._hand_over(sharer)
        record.start_over()

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
        self._beside.clear()
        for record in list(self._records.values()):
            for dataloader in record.fed_by.pop(stage, ()):
                record.samples_at_update.pop((stage, dataloader), None)


def void(_: object) -> None:
    """Drop a value where an action must return nothing."""


def _forget(records: dict[int, MetricRecord], key: int, reference: weakref.ref[Metric]) -> None:
    record = records.get(key)
    if record is not None and record.metric is reference:
        del records[key]


def _living_metrics() -> list[Metric]:
    """All metrics of the process, also those in plain lists and local variables."""
    # isinstance() would ask proxies, which may build what they stand for
    return [thing for thing in gc.get_objects() if Metric in type(thing).__mro__]
