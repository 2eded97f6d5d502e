"""Metrics whose value over all ranks is known, until they are fed again."""

from __future__ import annotations

from typing import NamedTuple

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.run.epoch import RunningEpoch
from lightning_retrieval_guard.run.sources import SourceFinder
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.metrics import MetricWatch


class _RememberedSource(NamedTuple):
    """The rows of a metric when the ranks exchanged facts.

    Attributes:
        stamp: Of the metric's record then.
        source: What the ranks know of them.
    """

    stamp: tuple[int, int]
    source: SourceView


class KnownValues:
    """What the ranks knew of metrics at the last exchange."""

    def __init__(self, watch: MetricWatch, finder: SourceFinder) -> None:
        self._watch = watch
        self._finder = finder
        self._entries: dict[int, _RememberedSource] = {}

    def clear(self) -> None:
        """Forget all values."""
        self._entries.clear()

    def last(self, record: MetricRecord) -> SourceView | None:
        """What was known of a metric, which may have been fed since."""
        entry = self._entries.get(id(record))
        return None if entry is None else entry.source

    def current(self, record: MetricRecord) -> SourceView | None:
        """What is known of a metric that was not fed since."""
        entry = self._entries.get(id(record))
        return None if entry is None or entry.stamp != record.stamp else entry.source

    def remember(self, epoch: RunningEpoch) -> None:
        """Note for the metrics that now have a value over all ranks what it is, until they are fed again."""
        names = {name: source for name, source in epoch.local.items() if name in epoch.sources}
        for metric, record in self._watch.row_records():
            lives = self._finder.epoch_rows([record.life], epoch.record).lives
            name = next((name for name, source in names.items() if source.shows(lives)), None)
            # without rows of its own, a metric is known by its name alone
            if name is None and not _compat.row_states(metric)[0]:
                name = self._finder.name(record)
            if name in epoch.sources:
                self._entries[id(record)] = _RememberedSource(record.stamp, epoch.sources[name])
