"""What is kept of metric lives that are over, shown by a key whose value is still to come."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import Any, Protocol

from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.digest import digest_rows
from lightning_retrieval_guard.epoch.row_table import Digest, Rows, Settled
from lightning_retrieval_guard.ranking.measures import Measure, measure_of
from lightning_retrieval_guard.watch import row_store
from lightning_retrieval_guard.watch.metric_lives import MetricLife

# bytes of rows that must have come to look for metrics that are gone: among young objects, and among all
_LIMITS = {1: 1 << 20, 2: 1 << 26}


def _is_due() -> bool:
    """Whether Python may look through young objects soon.

    In the middle of a step that would make metrics which are in use there old objects, and keep their rows for long.
    """
    return gc.get_count()[1] >= gc.get_threshold()[1] // 2


class RankListener(Protocol):
    """What is asked about other ranks."""

    @property
    def is_only_rank(self) -> bool:
        """Whether there is no other rank."""

    def is_final(self, metric: Metric, alone: bool) -> bool:
        """Whether no other rank and no other update can add to the queries of an update.

        Args:
            metric: The metric.
            alone: Whether the update is the only one of its metric life.
        """


class EndedLives:
    """Metric lives that wait until nothing can add to them."""

    def __init__(self, listener: RankListener) -> None:
        self._listener = listener
        self._waiting: dict[int, MetricLife] = {}
        # the first of those whose metrics had the same settings
        self._settled: dict[tuple[Any, ...], MetricLife] = {}
        # bytes that waited after the last look, because their metrics are in use or too old for it
        self._left = dict.fromkeys(_LIMITS, 0)

    def expect(self, segment: MetricLife) -> None:
        """A key shows these rows, and the step that made it do so is over."""
        self._waiting[id(segment)] = segment

    def clear(self) -> None:
        """Forget all of them."""
        self._waiting.clear()
        self._settled.clear()

    def digest(self) -> None:
        """Keep of lives that are over only what can still matter.

        Rows that several of them share are looked at once. Rows on another device than the CPU stay, because counting
        them would wait for the device.
        """
        self._collect()
        over = [segment for segment in self._waiting.values() if segment.is_over]
        shared: dict[tuple[int, ...], list[tuple[MetricLife, int]]] = {}
        for segment in over:
            del self._waiting[id(segment)]
            for update, rows in enumerate(zip(*segment.states(), strict=True)):
                if all(map(row_store.may_look, rows)):
                    shared.setdefault(tuple(map(id, rows)), []).append((segment, update))
        for holders in shared.values():
            self._digest(holders)

    def _collect(self) -> None:
        """Have Python look for metrics that nobody uses any more, where many rows wait for that.

        A metric refers to itself through its methods, so that it goes only when the garbage collector comes. Young
        objects are looked through in a millisecond, all of them in a quarter of a second.
        """
        for generation, limit in _LIMITS.items():
            waiting = self._waiting_bytes() if gc.isenabled() else 0
            left = min(self._left[generation], waiting)
            is_young = generation == 1
            # to look through all objects again for nothing would cost too much
            if waiting - left > max(limit, 0 if is_young else left) or (waiting and is_young and _is_due()):
                gc.collect(generation)
                left = self._waiting_bytes()
            self._left[generation] = left

    def _waiting_bytes(self) -> int:
        """The bytes of rows that nobody but a metric from a step that is over holds, as far as the guard can tell."""
        parts = {
            id(part): part
            for segment in self._waiting.values()
            if segment.waits_for_metric
            for column in segment.states()
            for part in column
        }
        return sum(part.numel() * part.element_size() for part in parts.values())

    def _digest(self, holders: Sequence[tuple[MetricLife, int]]) -> None:
        metrics = [segment.metric for segment, _ in holders]
        measures = [measure_of(metric) for metric in metrics]
        segment, update = holders[0]
        ids, preds, target = segment.states()
        alone = all(len(own.states()[0]) == 1 for own, _ in holders)
        final = all(self._listener.is_final(metric, alone) for metric in metrics)
        settles = alone and final and self._listener.is_only_rank
        known = [measure for measure in measures if measure is not None]
        found = digest_rows((ids[update], preds[update], target[update]), known, final, settles)
        if found is not None:
            self._keep(holders, measures, *found)

    def _keep(
        self,
        holders: Sequence[tuple[MetricLife, int]],
        measures: Sequence[Measure | None],
        rows: Rows,
        known: Digest | Settled,
    ) -> None:
        if isinstance(known, Digest):
            for segment, update in holders:
                segment.replace(update, rows, known)
            return
        ids, preds, target = rows
        left, settled = ([ids], [preds], [target]), {0: known}
        for (segment, _), measure in zip(holders, measures, strict=True):
            metric, like = segment.metric, segment
            if segment.outlived_metric:
                like = self._settled.setdefault((type(metric), measure, _compat.syncs_on_compute(metric)), segment)
            segment.settle(left, settled, like)
