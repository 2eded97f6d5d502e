"""Calls of metrics and of functionals: passed on as they are, and reported where they are the program's."""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import FlattenedCall
from lightning_retrieval_guard.watch.call_site import user_call_site
from lightning_retrieval_guard.watch.listener import WatchListener
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.patches import BesideGraphs, Patches
from lightning_retrieval_guard.watch.suppressions import patterns_of
from lightning_retrieval_guard.watch.update_context import Given

if TYPE_CHECKING:
    from lightning_retrieval_guard.watch.metrics import MetricWatch

P = ParamSpec("P")
T = TypeVar("T")


class _Running(threading.local):
    """The calls of metrics that run in a thread, the outermost first."""

    def __init__(self) -> None:
        self.records: list[MetricRecord] = []
        self.collections = 0


class MetricCalls:
    """Watches the calls of all metrics while it is installed.

    A call within that of another metric, or of the same one, belongs to the outer call and is not looked at.
    Collections and arithmetics on metrics are no outer calls: what they hold is judged by itself.
    """

    def __init__(self, observer: MetricWatch, listener: WatchListener) -> None:
        self._observer = observer
        self._listener = listener
        self._patches = Patches()
        self._running = _Running()
        self._is_installed = False

    def install(self) -> None:
        """Watch all classes of metrics."""
        self._is_installed = True
        put = self._patches.put
        put(Metric, "__init__", self._wrap_maker)
        put(Metric, "__setstate__", self._wrap_maker)
        put(Metric, "reset", self._wrap_reset)
        put(Metric, "__call__", self._wrap_forward)
        put(Metric, "to", self._wrap_to)
        put(MetricCollection, "update", self._wrap_update_of_collection)
        for module, name in _compat.functional_input_checks():
            put(module, name, self._wrap_functional_check)

    def install_on(self, metric: Metric, record: MetricRecord) -> None:
        """Watch one metric, which wraps ``update`` and ``compute`` of its class for itself."""
        if "compute" in vars(metric) and not _compat.belongs_to_lightning(metric):
            for name, watched in (("update", self._update), ("compute", self._compute)):
                self._patches.put(metric, name, functools.partial(_beside_graphs, record, watched))

    def uninstall(self) -> None:
        """Take off every patch."""
        self._is_installed = False
        self._patches.undo()

    @property
    def in_collection(self) -> bool:
        """Whether a collection updates its members."""
        return self._running.collections > 0

    def runs(self, record: MetricRecord) -> bool:
        """Whether a call of a metric runs."""
        return any(caller is record for caller in self._running.records)

    def run(self, record: MetricRecord, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run what belongs to a call of a metric: calls of metrics within it are not looked at."""
        if record.is_composition:
            return function(*args, **kwargs)
        running = self._running.records
        running.append(record)
        try:
            return function(*args, **kwargs)
        finally:
            running.pop()

    @property
    def _is_watched(self) -> bool:
        return self._is_installed and not self._running.records

    def _update(self, record: MetricRecord, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if not self._is_watched:
            return original(*args, **kwargs)
        # in the other modes the metric must be fed as it would be without a guard
        given, listener = Given(args, kwargs), self._listener
        if listener.routes:
            listener.protect(self._observer.before_update, record, given)
        result = self.run(record, original, *args, **kwargs)
        listener.protect(self._observer.note_update, record, given)
        return result

    def _compute(self, record: MetricRecord, original: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        plain = functools.partial(original, *args, **kwargs)
        if not self._is_watched:
            return plain()
        value, synced = self.run(record, self._listener.compute, record, plain)
        self._listener.protect(self._observer.note_value, record, value, "compute", synced)
        return value

    def _forward(self, original: Callable[..., Any], metric: Metric, args: Any, kwargs: dict[str, Any]) -> Any:
        plain, listener = functools.partial(original, metric, *args, **kwargs), self._listener
        record = listener.protect(self._observer.record_of, metric) if self._is_watched else None
        if record is None:
            return plain()
        given = Given(args, kwargs)
        if listener.routes:
            listener.protect(self._observer.before_update, record, given)
        value, synced = self.run(record, listener.forward, record, plain)
        listener.protect(self._observer.note_update, record, given)
        listener.protect(self._observer.note_value, record, value, "forward", synced)
        return value

    # --- patches of classes -----------------------------------------------------------------------------------

    def _wrap_maker(self, original: Callable[..., None]) -> Callable[..., None]:
        def make(metric: Metric, *args: Any, **kwargs: Any) -> None:
            original(metric, *args, **kwargs)
            if self._is_installed:
                self._listener.protect(self._observer.note_made, metric)

        return BesideGraphs(make, original, _keeps_rows)

    def _wrap_reset(self, original: Callable[..., None]) -> Callable[..., None]:
        def reset(metric: Metric) -> None:
            if self._is_installed:
                self._listener.protect(self._observer.note_reset, metric)
            original(metric)

        return BesideGraphs(reset, original, _keeps_rows)

    def _wrap_forward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(metric: Metric, *args: Any, **kwargs: Any) -> Any:
            return self._forward(original, metric, args, kwargs)

        return BesideGraphs(call, original, _keeps_rows)

    def _wrap_to(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def to(metric: Metric, *args: Any, **kwargs: Any) -> Any:
            stays = self._is_installed and self._listener.protect(self._observer.stays, metric, *args, **kwargs)
            return metric if stays else original(metric, *args, **kwargs)

        return BesideGraphs(to, original, _keeps_rows)

    def _wrap_update_of_collection(self, original: Callable[..., None]) -> Callable[..., None]:
        def update(collection: MetricCollection, *args: Any, **kwargs: Any) -> None:
            self._running.collections += 1
            try:
                original(collection, *args, **kwargs)
            finally:
                self._running.collections -= 1
            if self._is_watched:
                self._listener.protect(self._observer.note_groups, collection)

        return BesideGraphs(update, original, _holds_rows)

    def _wrap_functional_check(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """See what a functional's check of its input sees: where it gets a batch, it scores that as one query."""

        def check(preds: Tensor, *args: Any, **kwargs: Any) -> Any:
            if self._is_installed and preds.ndim == 2 and min(preds.shape) > 1:
                function = _functional_that_runs()
                self._listener.protect(_note_flattened, self._listener, function, (preds.shape[0], preds.shape[1]))
            return original(preds, *args, **kwargs)

        return BesideGraphs(check, original, leaves=False)


def _beside_graphs(
    record: MetricRecord, watched: Callable[..., Any], original: Callable[..., Any]
) -> Callable[..., Any]:
    return BesideGraphs(functools.partial(watched, record, original), original, record.is_rows)


def _keeps_rows(metric: Metric, *_: Any) -> bool:
    return _compat.is_rows_metric(metric)


def _holds_rows(collection: MetricCollection, *_: Any) -> bool:
    return any(isinstance(part, Metric) and _keeps_rows(part) for part in collection.modules())


def _functional_that_runs() -> str:
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not frame.f_code.co_name.startswith("retrieval_"):
        frame = frame.f_back
    return "a retrieval functional" if frame is None else frame.f_code.co_name


def _note_flattened(listener: WatchListener, function: str, shape: tuple[int, int]) -> None:
    stage, site = listener.stage(), user_call_site()
    if stage is not None:
        suppressed = patterns_of(listener.suppressions.at(site))
        call = FlattenedCall(function, shape, listener.hook() or "", site.path, site.line, suppressed)
        stage.flattened.setdefault(call.target, call)
