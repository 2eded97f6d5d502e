"""One epoch of one stage that runs now, and the document that follows from it."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.facts import ComputeCall
from lightning_retrieval_guard.epoch.repeated_samples import most_repeated, repeated_samples
from lightning_retrieval_guard.epoch.row_facts import RowFacts
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.states import StateView
from lightning_retrieval_guard.epoch.views import (
    EpochView,
    KeyView,
    Message,
    flattened_of,
    order_of_reductions,
    unregistered_of,
)
from lightning_retrieval_guard.report.document import RowCounts, StageCounts
from lightning_retrieval_guard.run.sources import LocalSource
from lightning_retrieval_guard.run.states import LocalStates
from lightning_retrieval_guard.watch.stage import StageRecord


class RunningEpoch:
    """What this rank has seen of one epoch of one stage, and what the ranks exchanged of it.

    Attributes:
        record: What this rank has seen.
        keys: The keys of all ranks, up to the last exchange.
        sources: The metrics of all ranks, by name.
        local: The metrics of this rank, by name.
        states: The metrics that keep states and that any rank has fed.
        local_states: Those of this rank, by name.
        skipped: Whether this rank has no batch and skips the whole loop.
        computed: Metrics that this rank has computed after the batches, where the guard supplied the value.
        exchanges: The messages of all ranks, for every exchange.
        installed: The storage keys whose number was replaced.
        left: Log calls and metrics whose numbers stay with the program.
        plain: Metrics that Lightning computes as without a guard, because numbers that show them are left.
        ordered: Whether the keys were put in one order.
        is_complete: Whether nothing can be logged any more.
    """

    def __init__(self, stage: str, number: int, running: Set[int]) -> None:
        self.record = StageRecord(stage, number, running)
        self.keys: list[KeyView] = []
        self.sources: dict[str, SourceView] = {}
        self.local: dict[str, LocalSource] = {}
        self.states: list[StateView] = []
        self.local_states: dict[str, LocalStates] = {}
        self.skipped = False
        self.computed: dict[str, ComputeCall] = {}
        self.exchanges: list[list[Message]] = []
        self.installed: set[str] = set()
        self.left: set[str] = set()
        self.plain: set[str] = set()
        self.ordered = False
        self.is_complete = False

    @property
    def orders(self) -> tuple[tuple[str, ...], ...]:
        """For every rank the keys that Lightning combines, in order over all exchanges."""
        return tuple(
            tuple(storage for message in messages for storage in order_of_reductions(message))
            for messages in zip(*self.exchanges, strict=True)
        )

    @property
    def computed_alone(self) -> list[ComputeCall]:
        """What some of the ranks that have had a batch computed and others did not."""
        calls: dict[str, ComputeCall] = {}
        ranks = {rank: message for rank, message in enumerate(self.exchanges[-1]) if message["batches"]}
        for rank, message in ranks.items():
            for entry in message.get("computed", ()):
                call = ComputeCall(**entry)
                earlier = calls.get(call.target, call)
                calls[call.target] = replace(earlier, ranks=(*earlier.ranks, rank))
        return [call for call in calls.values() if call.syncs and len(call.ranks) < len(ranks)]

    @property
    def supplied(self) -> set[str]:
        """The names of metrics whose value the guard has supplied to any rank."""
        return {entry["name"] for message in self.exchanges[-1] for entry in message.get("computed", ())}

    @property
    def may_ignore(self) -> bool:
        """Whether a rule may be ignored at any log call, as far as all ranks report."""
        return any(message["ignores"] for messages in self.exchanges[-1:] for message in messages)

    @property
    def runs_on_all_ranks(self) -> bool:
        """Whether every rank is known to have had a batch: the loop is skipped where there is none."""
        # before the first exchange nobody knows who has a batch
        return bool(self.exchanges) and all(message["batches"] for message in self.exchanges[-1])

    @property
    def may_go_on(self) -> bool:
        """Whether anything can be logged since the last exchange, which all ranks know from it."""
        return not self.exchanges or any(message["more"] for message in self.exchanges[-1])

    @property
    def counts(self) -> StageCounts:
        """What each rank saw of the stage up to the last exchange."""
        metrics: dict[str, tuple[RowCounts, ...]] = {}
        for messages in self.exchanges:
            for name in sorted({name for message in messages for name in message["sources"]}):
                # metrics of steps go by the key that shows them
                metrics[name.removeprefix("key:")] = tuple(_row_counts(message, name) for message in messages)
        return StageCounts(tuple(message["samples"] for message in self.exchanges[-1]), metrics)

    def view(self, world_size: int) -> EpochView:
        """The document, as far as the ranks have exchanged facts.

        Args:
            world_size: The number of ranks.
        """
        last = self.exchanges[-1] if self.exchanges else []
        repeated = repeated_samples(self.exchanges)
        return EpochView(
            stage=self.record.stage,
            world_size=world_size,
            keys=tuple(self.keys),
            sources=tuple(self.sources.values()),
            states=tuple(self.states),
            orders=self.orders,
            batches=tuple(message["batches"] for message in last),
            repeated=most_repeated(repeated.values()),
            repeated_in=repeated,
            monitored=frozenset(key for message in last for key in message["monitored"]),
            unregistered=tuple(unregistered_of(self.exchanges)),
            computed_alone=tuple(self.computed_alone) if last else (),
            flattened=tuple(flattened_of(self.exchanges)),
            gathers_updates=_compat.UNEVEN_LISTS.shown_by("torchmetrics"),
            corrected=frozenset(self.installed),
            is_complete=self.is_complete or not self.may_go_on,
        )


def _row_counts(message: Message, name: str) -> RowCounts:
    source = message["sources"].get(name)
    if source is None:
        return RowCounts()
    facts = RowFacts.from_payload(message["rows"][source["rows"]])
    return RowCounts(facts.updates, facts.queries)
