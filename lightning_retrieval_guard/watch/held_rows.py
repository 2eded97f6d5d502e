"""Rows that the guard alone keeps alive, because no metric may hold them when the epoch ends."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.scored_updates import score_update
from lightning_retrieval_guard.ranking.measures import measure_of
from lightning_retrieval_guard.watch.metric_lives import KeptStates, MetricLife

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
        # of the batch at hand
        self._copies: list[weakref.ref[Tensor]] = []
        self._settings: dict[Hashable, Any] = {}

    @property
    def bytes(self) -> int:
        """What is kept now."""
        return self._bytes

    def start_batch(self) -> None:
        """The rows of the last batch do not come again."""
        self._copies.clear()

    def clear(self) -> None:
        """Forget all of them."""
        self._lives.clear()
        self._copies.clear()
        self._settings.clear()

    def capture(self, life: MetricLife, may_wait: bool) -> None:
        """Keep the rows of a life.

        Args:
            life: Its metric lives.
            may_wait: Whether the program waits for the device anyway, so that rows may be compared and scored.
        """
        metric: Any = life.record.metric()
        rows = _compat.local_row_states(metric)
        if may_wait:
            self._make_room(self._size_of(rows))
        ids, preds, target = ([self._copy(part, may_wait) for part in column] for column in rows)
        life.capture((ids, preds, target), self._settings_of(metric))
        self._lives.append(weakref.ref(life))
        if may_wait:
            self._make_room(0)

    def _size_of(self, rows: KeptStates) -> int:
        """The bytes that the copies will take."""
        return sum(_size(part) for column in rows for part in column if self._find(part) is None)

    def _copy(self, part: Tensor, may_wait: bool) -> Tensor:
        known = self._find(part) if may_wait else None
        if known is not None:
            return known
        with torch.no_grad():
            copy = part.detach().clone()
        self._copies.append(weakref.ref(copy))
        self._count(copy)
        return copy

    def _find(self, part: Tensor) -> Tensor | None:
        copies = (reference() for reference in self._copies)
        return next((copy for copy in copies if copy is not None and _is_same(copy, part)), None)

    def _count(self, tensor: Tensor) -> None:
        self._bytes += _size(tensor)
        weakref.finalize(tensor, self._discount, _size(tensor)).atexit = False

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
        if measure is None or measure.formula == "own":
            return _compat.detached_clone(metric)
        asks = replace(measure, metric=None), _compat.syncs_on_compute(metric), _compat.group_of(metric)
        key = (type(metric), metric.device, *asks)
        if key not in self._settings:
            self._settings[key] = _compat.detached_clone(metric)
        return self._settings[key]


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _is_same(one: Tensor, other: Tensor) -> bool:
    same = one.shape == other.shape and one.dtype == other.dtype and one.device == other.device
    return same and torch.equal(one, other)
