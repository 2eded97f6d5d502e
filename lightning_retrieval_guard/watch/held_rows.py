"""Rows that the guard alone keeps alive, because no metric may hold them when the epoch ends."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.combine import score_update
from lightning_retrieval_guard.ranking.measures import measure_of
from lightning_retrieval_guard.watch.batches import bytes_of
from lightning_retrieval_guard.watch.metric_lives import MetricLife

MEBIBYTE = 1 << 20
# Joining and sorting rows at the end of the epoch takes about three times what they take themselves.
_SHARE_OF_ROWS = 0.25


class HeldRows:
    """Copies of rows, as many as a budget allows; of others only what they come to.

    Copies, because a program may write to its tensors once it has its value. Rows that come to the same are kept once.

    Args:
        limit_mb: The budget in MiB; a quarter of it is for rows, the rest for what is made of them.
    """

    def __init__(self, limit_mb: float) -> None:
        self._limit = _SHARE_OF_ROWS * limit_mb * MEBIBYTE
        self._bytes = 0
        # oldest first
        self._lives: deque[weakref.ref[MetricLife]] = deque()
        # of the batch at hand, by column: ids, scores, relevance
        self._copies: tuple[list[weakref.ref[Tensor]], ...] = ([], [], [])
        self._settings: dict[Hashable, Any] = {}

    @property
    def bytes(self) -> int:
        """What is kept now."""
        return self._bytes

    def start_batch(self) -> None:
        """The rows of the last batch do not come again."""
        self._copies = ([], [], [])

    def clear(self) -> None:
        """Forget all of them."""
        self._lives.clear()
        self.start_batch()
        self._settings.clear()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def capture(self, life: MetricLife, may_wait: bool) -> None:
        """Keep the rows of a life.

        Args:
            life: Its metric lives.
            may_wait: Whether the program waits for the device anyway, so that rows may be compared and scored.
        """
        metric: Any = life.record.metric()
        columns = list(zip(_compat.local_row_states(metric), self._copies, strict=True))
        if may_wait:
            # room is made first, so that the budget holds at every moment
            new = [part for column, copies in columns for part in column if _find(part, copies) is None]
            self._make_room(sum(map(bytes_of, new)))
        kept = [[self._copy(part, copies, may_wait) for part in column] for column, copies in columns]
        life.capture((kept[0], kept[1], kept[2]), self._settings_of(metric))
        self._lives.append(weakref.ref(life))
        if may_wait:
            self._make_room(0)

    def _copy(self, part: Tensor, copies: list[weakref.ref[Tensor]], may_wait: bool) -> Tensor:
        same = _find(part, copies) if may_wait else None
        if same is not None:
            return same
        with torch.no_grad():
            copy = part.detach().clone()
        # weakly: a life that is released frees its rows
        copies.append(weakref.ref(copy))
        self._count(copy)
        return copy

    def _count(self, tensor: Tensor) -> None:
        self._bytes += bytes_of(tensor)
        # when the process ends nobody counts any more
        weakref.finalize(tensor, self._discount, bytes_of(tensor)).atexit = False

    def _discount(self, size: int) -> None:
        self._bytes -= size

    def _make_room(self, size: int) -> None:
        while self._lives and self._bytes + size > self._limit:
            life = self._lives.popleft()()
            if life is not None and not life.is_current:
                self._score(life)

    def _score(self, life: MetricLife) -> None:
        for update, rows in enumerate(zip(*life.states(), strict=True)):
            if rows[0].numel():
                scored = score_update(rows, life.metric)
                life.drop_rows(update, scored)
                for tensor in scored.tensors:
                    self._count(tensor)

    def _settings_of(self, metric: Any) -> Any:
        """A metric with the same settings and no rows, one for all that ask the same."""
        measure = measure_of(metric)
        # code of the user's may read any attribute, so that no other metric can stand for this one
        if measure is None or measure.formula == "custom":
            return _compat.detached_clone(metric)
        asks = replace(measure, metric=None), _compat.syncs_on_compute(metric), _compat.group_of(metric)
        key = (type(metric), metric.device, *asks)
        if key not in self._settings:
            self._settings[key] = _compat.detached_clone(metric)
        return self._settings[key]


def _find(part: Tensor, copies: Sequence[weakref.ref[Tensor]]) -> Tensor | None:
    living = (reference() for reference in copies)
    return next((copy for copy in living if copy is not None and _is_same(copy, part)), None)


def _is_same(one: Tensor, other: Tensor) -> bool:
    same = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
    return same and torch.equal(one, other)
