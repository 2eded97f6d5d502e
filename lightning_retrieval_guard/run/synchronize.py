"""How the ranks meet.

1. Every rank sends its facts in one message (``Exchange.meet``).
2. Where ids of several ranks may be the same, a summary of every query goes to all ranks.
3. What each rank has scored goes to all ranks: for a mean one sum a metric, else one value a query. With it go the rows
   of queries that turned out to lie on several ranks, and every rank scores these.

Steps 2 and 3 take one collective each for all metrics together, and each happens only where the facts call for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard.distributed.exchange import Exchange, RanksFailedError
from lightning_retrieval_guard.distributed.payload import ProtocolError, read_all
from lightning_retrieval_guard.epoch.facts import SourceFacts
from lightning_retrieval_guard.epoch.plan import Plan, make_plan
from lightning_retrieval_guard.epoch.row_facts import RowFacts
from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.views import Message
from lightning_retrieval_guard.run.metric_group import Member, MetricGroup
from lightning_retrieval_guard.run.sources import LocalSource
from lightning_retrieval_guard.settings import QueryScope

# No rank holds more rows than this, at 16 bytes a row.
_MOST_ROWS = 1 << 36
Wants = Callable[[str, Plan, Sequence[Message]], bool]


@dataclass
class Meeting:
    """What came of a meeting.

    Attributes:
        messages: Of every rank, in order of rank.
        sources: The metrics in any of them, by name.
    """

    messages: list[Message]
    sources: dict[str, SourceView]


@dataclass(frozen=True)
class RankSources:
    """The metrics of one rank, as they travel.

    Attributes:
        rows: The facts of every set of rows, each once for all metrics that share it.
        sources: Those of every metric, by its name.
    """

    rows: list[RowFacts]
    sources: dict[str, SourceFacts]

    @classmethod
    def of(cls, sources: Mapping[str, LocalSource]) -> RankSources:
        """What this rank has."""
        rows = list({id(source.rows): source.rows for source in sources.values()}.values())
        index = {id(shared): number for number, shared in enumerate(rows)}
        facts = {name: replace(source.facts, rows=index[id(source.rows)]) for name, source in sources.items()}
        return cls([shared.facts for shared in rows], facts)

    def to_payload(self) -> Message:
        """A part of a message."""
        return {
            "rows": [facts.to_payload() for facts in self.rows],
            "sources": {name: facts.to_payload() for name, facts in self.sources.items()},
        }

    @classmethod
    def from_payload(cls, message: Message, world_size: int) -> RankSources:
        """Read what ``to_payload`` wrote.

        Raises:
            ValueError: A number that sizes memory, or by which something is looked up, is out of range.
        """
        rows = [RowFacts.from_payload(facts) for facts in message["rows"]]
        sources = {name: SourceFacts.from_payload(facts) for name, facts in message["sources"].items()}
        # these numbers size memory on every rank
        if not all(0 <= facts.queries <= facts.chunks <= facts.rows <= _MOST_ROWS for facts in rows):
            raise ValueError("a number of rows or queries is out of range")
        if not all(0 <= max(facts.longest_query, facts.longest_chunk) <= facts.rows for facts in rows):
            raise ValueError("a query has more rows than there are")
        for facts in sources.values():
            group = range(world_size) if facts.group is None else facts.group
            if not (0 <= facts.rows < len(rows) and 0 <= facts.columns <= _MOST_ROWS):
                raise ValueError("a metric has rows or numbers that there are not")
            if not group or sorted({*group} & {*range(world_size)}) != [*group]:
                raise ValueError("a group has ranks that there are not")
        return cls(rows, sources)


class Synchronizer:
    """Brings what the ranks hold together."""

    def __init__(self, exchange: Exchange, scope: QueryScope, metric_named: Callable[[str], Metric | None]) -> None:
        self._exchange = exchange
        self._scope = scope
        self._metric_named = metric_named

    def sync(self, label: str, message: Message, sources: Mapping[str, LocalSource], wants: Wants) -> Meeting:
        """Compare notes with all ranks.

        Args:
            label: The point of the program; the same on all ranks.
            message: What this rank sends besides its sources; ``"repeated"`` is the number of padded samples.
            sources: The metrics of this rank that hold rows, by name.
            wants: Whether the value of a source is wanted, decided from the messages of all ranks.

        Raises:
            RanksFailedError: On all ranks, where one has failed or sent what cannot be read.
        """
        try:
            return self._sync(label, message, sources, wants)
        except ProtocolError as error:
            raise RanksFailedError(dict.fromkeys(error.reasons, f"{type(error).__name__}: {error}")) from error

    def _sync(self, label: str, message: Message, sources: Mapping[str, LocalSource], wants: Wants) -> Meeting:
        messages = self._exchange.meet(label, {**message, **RankSources.of(sources).to_payload()})
        ranks = read_all(partial(RankSources.from_payload, world_size=len(messages)), messages)
        groups = self._groups(ranks, sources, all(entry["repeated"] for entry in messages))
        self._compare([group for group in groups if group.plan.compares])
        self._combine([group for group in groups if group.choose(lambda name, plan: wants(name, plan, messages))])
        views = [view for group in groups for view in group.views()]
        return Meeting(messages, {view.name: view for view in sorted(views, key=lambda view: view.name)})

    def _groups(
        self, ranks: Sequence[RankSources], sources: Mapping[str, LocalSource], seeks_repeated: bool
    ) -> list[MetricGroup]:
        """The metrics of all ranks, those together that saw the same rows on every rank."""
        groups: dict[tuple[Any, ...], MetricGroup] = {}
        # in an order that is the same on every rank, since blocks travel one after the other
        for name in sorted({name for rank in ranks for name in rank.sources}):
            facts = {number: rank.sources[name] for number, rank in enumerate(ranks) if name in rank.sources}
            # a metric with process groups is one metric in each of them
            for combining in sorted({source.group or tuple(range(len(ranks))) for source in facts.values()}):
                members = {rank: facts[rank] for rank in combining if rank in facts}
                rows = tuple(members[rank].rows if rank in members else None for rank in combining)
                synchronises = any(source.synchronises for source in members.values())
                key = (combining, rows, synchronises)
                if key not in groups:
                    held = [
                        RowFacts() if index is None else ranks[rank].rows[index]
                        for rank, index in zip(combining, rows, strict=True)
                    ]
                    # which rank had a sample first is known by its number among all
                    seeks = seeks_repeated and len(combining) == len(ranks)
                    plan = make_plan(held, self._scope, seeks, synchronises)
                    groups[key] = MetricGroup(combining, plan, self._exchange.rank)
                local = sources.get(name)
                metric = local.metric if local is not None else self._metric_named(name)
                groups[key].add(name, Member(members, metric, local.rows if local is not None else None))
        return list(groups.values())

    def _compare(self, groups: Sequence[MetricGroup]) -> None:
        blocks = self._gather([(group.pack_summary(), group.summary_bytes) for group in groups])
        for group, parts in zip(groups, blocks, strict=True):
            group.compare([parts[rank] for rank in group.ranks])

    def _combine(self, groups: Sequence[MetricGroup]) -> None:
        blocks = self._gather([(group.pack_values(), group.block_bytes) for group in groups])
        for group, parts in zip(groups, blocks, strict=True):
            group.combine([parts[rank] for rank in group.ranks])

    def _gather(self, blocks: Sequence[tuple[Tensor, Callable[[int], int]]]) -> list[list[Tensor]]:
        """For each group the blocks of all ranks.

        Args:
            blocks: For each group this rank's block, and what gives the size of any rank's.
        """
        if not blocks:
            return []
        sizes = [[size(rank) for _, size in blocks] for rank in range(self._exchange.world_size)]
        sent = torch.cat([block for block, _ in blocks])
        if sent.numel() != sum(sizes[self._exchange.rank]):
            raise ValueError("rows of a query that lies on several ranks are gone")
        gathered = self._exchange.gather_blocks(sent, [sum(size) for size in sizes])
        parts = [whole.split(size) for whole, size in zip(gathered, sizes, strict=True)]
        return [[part[number] for part in parts] for number in range(len(blocks))]
