"""Every torchmetrics metric of a run, its updates, and the tensors that came out of it.

Metrics are keyed by ``id``: comparing them builds new metrics, and hashing them reads all their state.
"""

from __future__ import annotations

import functools
import gc
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.watch.call_site import user_call_site
from lightning_retrieval_guard.watch.compiled import BesideGraphs
from lightning_retrieval_guard.watch.ended import EndedLives, RankListener
from lightning_retrieval_guard.watch.metric_lives import Feed, MetricLife, MetricRecord, UpdateInfo
from lightning_retrieval_guard.watch.patches import Patches
from lightning_retrieval_guard.watch.row_store import SharedRowStore, give_back, settle
from lightning_retrieval_guard.watch.stale import drop_stale
from lightning_retrieval_guard.watch.suppressions import Suppressions
from lightning_retrieval_guard.watch.update_context import UpdateContext

# a metric that was made in one of these lives for the step only, unless the program keeps it
STEP_HOOKS = ("training_step", "validation_step", "test_step")

How = Literal["compute", "forward"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a tensor came from: a metric, what made it, and the life and the update of the metric behind it."""

    record: MetricRecord
    how: How
    synced: bool
    segment: MetricLife | None
    update: int = 0
    program_value: Any = None


class MetricListener(RankListener, Protocol):
    """What the watch asks and tells while a metric works."""

    suppressions: Suppressions

    @property
    def routes(self) -> bool:
        """Whether the guard supplies the values of retrieval metrics, and may keep their rows as it likes."""

    def may_drop(self, record: MetricRecord) -> bool:
        """Whether a metric may be made to forget what it holds of earlier epochs."""

    def feeding(self) -> UpdateContext | None:
        """What feeds metrics at this moment, or ``None`` outside of stages."""

    def compute(self, record: MetricRecord, plain: Callable[[], Any]) -> tuple[Any, bool]:
        """Compute the metric, and say whether the value combines all ranks."""

    def forward(self, record: MetricRecord, plain: Callable[[], Any]) -> tuple[Any, bool]:
        """Run ``forward`` of the metric, and say whether the value combines all ranks."""

    def score_in_forward(self, metric: Metric | None, plain: Callable[[], Any]) -> Any:
        """Compute a retrieval metric on the one batch that its ``forward`` was given."""

    def bring(self, record: MetricRecord, inputs: Iterable[Tensor]) -> None:
        """Before an update with ``inputs``: move the metric to where it is needed."""

    def hook(self) -> str | None:
        """The Lightning hook that runs now."""

    def protect(self, action: Callable[[], None]) -> None:
        """Run a part of the guard that must not bring the run down."""


class MetricWatch:
    """Sees every metric of the process while it is installed."""

    def __init__(self, listener: MetricListener) -> None:
        self._listener = listener
        self._patches = Patches()
        self._records: dict[int, MetricRecord] = {}
        self._origins: dict[int, tuple[weakref.ref[Tensor], Origin]] = {}
        self._recent: list[MetricLife] = []
        self._ended = EndedLives(listener)
        self._store = SharedRowStore()
        self._installed = False

    def install(self) -> None:
        """Watch the metrics that exist and those that will be made."""
        self._installed = True
        self._patch_class()
        for metric in _living_metrics():
            self._adopt(metric, created_in_hook=None)

    def uninstall(self) -> None:
        """Take off every patch and forget everything."""
        self._installed = False
        self._patches.undo()
        # by the plainest way: ranks that hold relevance in different dtypes would abort where torchmetrics gathers it
        held = [(record.metric(), record) for record in list(self._records.values())]
        give_back(metric for metric, record in held if metric is not None and record.is_rows)
        self._records.clear()
        self._origins.clear()
        self._recent.clear()
        self._ended.clear()
        self._store.start_batch()

    def record_of(self, metric: Metric) -> MetricRecord:
        """The record of a metric, made where the metric was not known."""
        record = self._records.get(id(metric))
        if record is None or record.metric() is not metric:
            record = self._adopt(metric, created_in_hook=None)
        return record

    def origin_of(self, tensor: Tensor) -> Origin | None:
        """Where a tensor came from, as long as it is the same tensor."""
        known = self._origins.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None

    def start_batch(self) -> None:
        """Let go of the metrics of the batch before, as far as no key shows them.

        A metric holds its value, and the value's origin its metric; only this ends the circle.
        """
        self._let_go()
        self._store.start_batch()
        if self._listener.routes:
            self._ended.digest()

    def _let_go(self) -> None:
        for segment in self._recent:
            segment.release()
            if segment.is_held and self._listener.routes:
                self._ended.expect(segment)
                if segment.record.created_in_hook in STEP_HOOKS:
                    segment.stand_in()
        self._recent.clear()

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
        own = vars(metric)
        if "compute" in own and not _compat.belongs_to_lightning(metric):
            self._patches.put(metric, "update", functools.partial(self._wrap, record, self._update))
            self._patches.put(metric, "compute", functools.partial(self._wrap, record, self._compute))
        return record

    def _wrap(
        self, record: MetricRecord, watched: Callable[..., Any], original: Callable[..., Any]
    ) -> Callable[..., Any]:
        return BesideGraphs(functools.partial(watched, record, original), original, record.is_rows)

    def _update(self, record: MetricRecord, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if self._installed and not record.in_forward and record.feeds:
            self._listener.protect(lambda: self._drop_stale(record))
        self._bring(record, args, kwargs)
        result = original(*args, **kwargs)
        if self._installed and not record.in_forward:
            self._listener.protect(lambda: self._note_update(record, args, kwargs))
        return result

    def _compute(self, record: MetricRecord, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        plain = functools.partial(original, *args, **kwargs)
        if not self._installed:
            return plain()
        if record.in_forward:
            return self._listener.score_in_forward(record.metric(), plain) if record.is_rows else plain()
        value, synced = self._listener.compute(record, plain)
        self._listener.protect(lambda: self._note_value(record, value, "compute", synced))
        return value

    def _patch_class(self) -> None:
        watch = self

        def leaves(metric: Metric, *_: Any) -> bool:
            return _compat.is_rows_metric(metric)

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

        self._patches.put(Metric, "__init__", wrap_maker)
        self._patches.put(Metric, "__setstate__", wrap_maker)
        self._patches.put(Metric, "reset", wrap_reset)
        self._patches.put(Metric, "__call__", wrap_call)
        self._patches.put(Metric, "to", wrap_to)

    def _stays(self, metric: Metric, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a retrieval metric is told to move to where it is; Lightning does so in every log call."""
        record = self._records.get(id(metric)) if self._installed and self._listener.routes else None
        if record is None or not record.is_rows or kwargs or len(args) != 1 or args[0] != metric.device:
            return False
        self._listener.protect(lambda: settle(metric, record, metric.device))
        return True

    def _forward(self, metric: Metric, original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        plain = functools.partial(original, metric, *args, **kwargs)
        if self._installed and id(metric) not in self._records:
            self._listener.protect(lambda: void(self.record_of(metric)))
        record = self._records.get(id(metric)) if self._installed else None
        if record is None or record.in_forward:
            return plain()
        if record.feeds:
            self._listener.protect(lambda: self._drop_stale(record))
        self._bring(record, args, kwargs)
        record.in_forward = True
        try:
            value, synced = self._listener.forward(record, plain)
        finally:
            record.in_forward = False

        def note() -> None:
            self._note_update(record, args, kwargs)
            self._note_value(record, value, "forward", synced)

        self._listener.protect(note)
        return value

    def _drop_stale(self, record: MetricRecord) -> None:
        """Make a metric forget what it was fed in earlier epochs, before the first update of another one."""
        feeding = self._listener.feeding()
        if feeding is not None and self._listener.may_drop(record):
            drop_stale(record, feeding, self.row_records())

    def _bring(self, record: MetricRecord, args: Any, kwargs: dict[str, Any]) -> None:
        if self._installed and self._listener.routes and not record.in_forward:
            self._listener.protect(lambda: self._listener.bring(record, _tensors((args, kwargs))))

    def _note_update(self, record: MetricRecord, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if record.is_rows and self._listener.routes:
            self._store.take_in(record.metric(), args, kwargs)
            record.follow()
        feeding, feed, samples = self._listener.feeding(), Feed(), None
        if feeding is not None:
            feed = Feed(feeding.epoch, feeding.stage, feeding.dataloader)
            record.fed_by.setdefault(feeding.stage, set()).add(feeding.dataloader)
            if feeding.samples is not None:
                source = (feeding.stage, feeding.dataloader)
                samples = feeding.samples - record.samples_at_update.get(source, 0)
                record.samples_at_update[source] = feeding.samples
        record.feeds[feed] = record.feeds.get(feed, 0) + 1
        if record.is_rows:
            record.infos.append(UpdateInfo(samples, feed))
        if record.first_update is None:
            record.first_update = user_call_site()
            record.suppressed = self._listener.suppressions.at(record.first_update)

    def _note_value(self, record: MetricRecord, value: Any, how: How, synced: bool) -> None:
        segment = record.segment() if record.is_rows and record.metric() is not None else None
        update = 0
        if segment is not None:
            self._recent.append(segment)
            update = len(segment.states()[0]) - 1
        origin = Origin(record, how, synced, segment, update, record.program_value)
        record.program_value = None
        for tensor in _tensors(value):
            known = self.origin_of(tensor)
            # a wrapper hands on the tensor of the metric that it wraps
            if known is None or known.segment is None or record.is_rows:
                self._remember(tensor, origin)

    def _remember(self, tensor: Tensor, origin: Origin) -> None:
        key = id(tensor)
        origins = self._origins

        def forget(reference: weakref.ref[Tensor]) -> None:
            if origins.get(key, (None,))[0] is reference:
                del origins[key]

        origins[key] = (weakref.ref(tensor, forget), origin)

    def _note_reset(self, metric: Metric) -> None:
        record = self._records.get(id(metric))
        if record is None or record.in_forward:
            return
        if record.is_rows:
            ids = _compat.row_states(metric)[0]
            for other, sharer in self.row_records():
                # members of a compute group share one list, which the reset of the first of them empties
                if _compat.row_states(other)[0] is ids:
                    sharer.keep_rows()
        record.start_over()

    def start_stage(self, stage: str) -> None:
        """The count of samples starts again, and the keys of the epoch before show nothing any more."""
        self._ended.clear()
        for record in list(self._records.values()):
            for dataloader in record.fed_by.pop(stage, ()):
                record.samples_at_update.pop((stage, dataloader), None)


def void(_: object) -> None:
    """Drop a value where an action must return nothing."""


def _forget(records: dict[int, MetricRecord], key: int, reference: weakref.ref[Metric]) -> None:
    record = records.get(key)
    if record is not None and record.metric is reference:
        del records[key]


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _each_tensor(value.values())
    elif isinstance(value, (list, tuple)):
        yield from _each_tensor(value)


def _each_tensor(values: Iterable[Any]) -> Iterator[Tensor]:
    for value in values:
        yield from _tensors(value)


def _living_metrics() -> list[Metric]:
    """All metrics of the process, also those in plain lists and local variables."""
    return [thing for thing in gc.get_objects() if Metric in type(thing).__mro__]
