"""One epoch of one stage."""

from __future__ import annotations

from collections.abc import Set

from lightning_retrieval_guard.epoch.facts import SourceView
from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.run import judge
from lightning_retrieval_guard.run.sources import LocalSource
from lightning_retrieval_guard.run.synchronize import Message
from lightning_retrieval_guard.watch.stage import StageRecord


class Epoch:
    """What this rank has seen in one epoch of one stage, and what the ranks told each other of it."""

    def __init__(self, stage: str, number: int, running: Set[int]) -> None:
        self.record = StageRecord(stage, number, running)
        self.keys: list[KeyView] = []
        self.sources: dict[str, SourceView] = {}
        self.local: dict[str, LocalSource] = {}
        self.meetings: list[list[Message]] = []

    @property
    def orders(self) -> list[list[str]]:
        """For every rank the keys that Lightning combines, in order over all meetings."""
        return [
            [storage for message in messages for storage in judge.order_of_reductions(message)]
            for messages in zip(*self.meetings, strict=True)
        ]

    @property
    def runs_on_all_ranks(self) -> bool:
        """Whether every rank is known to have had a batch: the loop is skipped where there is none."""
        return bool(self.meetings) and all(message["batches"] for message in self.meetings[-1])

    @property
    def may_go_on(self) -> bool:
        """Whether anything can be logged since the ranks met; they all know, because they told each other."""
        return not self.meetings or any(message["more"] for message in self.meetings[-1])
