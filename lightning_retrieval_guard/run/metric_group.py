"""Metrics that saw the same rows on every rank: what they send, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard.distributed.payload import ProtocolError
from lightning_retrieval_guard.epoch.combine import Joined, LocalRows, combined
from lightning_retrieval_guard.epoch.facts import SourceFacts, SourceView
from lightning_retrieval_guard.epoch.packing import QUERY_BYTES, PackedQueries, Summary, packed_bytes
from lightning_retrieval_guard.epoch.plan import Plan, Scope, Verdict, compare_queries
from lightning_retrieval_guard.epoch.row_facts import owner_of
from lightning_retrieval_guard.epoch.values import Outcome, Sum
from lightning_retrieval_guard.run.shared_rows import SharedRows

_WORD_BYTES = 8
_NO_LIMIT = torch.iinfo(torch.int64).max
# a few rows go to everyone along with the values, which saves a collective
_FEW_BYTES = 16 * 1024
_HEAD = 3  # queries on several ranks with identical rows, with different rows, and the rows of the longest query


@dataclass(frozen=True)
class Member:
    """One metric: what the ranks told that have it, by rank, and what this rank has of it."""

    told: Mapping[int, SourceFacts]
    metric: Metric | None
    rows: SharedRows | None

    @property
    def mean(self) -> bool:
        """Whether the value is a mean over queries."""
        return all(own.mean for own in self.told.values())


class MetricGroup:
    """Metrics whose rows travel together.

    Args:
        ranks: The ranks that combine, ascending.
        plan: What follows from the facts.
        rank: This rank, one of them or not.
    """

    def __init__(self, ranks: Sequence[int], plan: Plan, rank: int) -> None:
        self.ranks = tuple(ranks)
        self.plan = plan
        self._rank = rank
        self._members: dict[str, Member] = {}
        self._wanted: list[str] = []
        self._verdict: Verdict | None = None
        self._joined: Joined | None = None
        self._outcomes: dict[str, Outcome] = {}

    def add(self, name: str, member: Member) -> None:
        """Take in one metric."""
        self._members[name] = member

    @cached_property
    def local(self) -> LocalRows:
        """This rank's rows."""
        rows = next((member.rows for member in self._members.values() if member.rows is not None), None)
        metrics = {name: member.metric for name, member in self._members.items()}
        table, pieces = (rows.table, rows.pieces) if rows is not None and self._takes_part else (None, None)
        return LocalRows(metrics, table, pieces, self.plan, self._place if self._takes_part else 0)

    @property
    def _takes_part(self) -> bool:
        return self._rank in self.ranks

    @property
    def _place(self) -> int:
        return self.ranks.index(self._rank)

    def choose(self, wants: Callable[[str, Plan], bool]) -> bool:
        """Note the metrics whose value is wanted; says whether anything must travel for them."""
        apart = not self.plan.gathered or self.plan.first_counts
        travels = apart and len(self.ranks) > 1 and self.plan.has_rows and not self.plan.lacks_rows
        self._wanted = [name for name in self._members if travels and wants(name, self.plan)]
        return bool(self._wanted)

    # --- comparing queries ------------------------------------------------------------------------------------

    def summary_bytes(self, rank: int) -> int:
        """The size of a rank's summary, as every rank can tell."""
        if rank not in self.ranks:
            return 0
        return self.plan.facts[self.ranks.index(rank)].queries * QUERY_BYTES

    def summary(self) -> Tensor:
        """The queries of this rank, uint8; filled up where the plan has left one out."""
        if not self._takes_part:
            return torch.zeros(0, dtype=torch.uint8)
        own = self.local.summary.words
        words = torch.zeros(4, self.plan.facts[self._place].queries, dtype=torch.int64)
        words[:, : own.shape[1]] = own
        return words.reshape(-1).view(torch.uint8)

    def compare(self, blocks: Sequence[Tensor], scope: Scope) -> None:
        """Complete the plan from the queries of all members."""
        words = [block.clone().view(torch.int64).reshape(4, -1) for block in blocks]
        summaries = [Summary(own[:, Summary(own).rows > 0]) for own in words]
        wrong = {
            rank: "its queries have more rows than it has"
            for rank, own, facts in zip(self.ranks, summaries, self.plan.facts, strict=True)
            if int(own.rows.sum()) > facts.rows
        }
        if wrong:
            raise ProtocolError(wrong)
        self.plan, self._verdict = compare_queries(self.plan, summaries, scope)
        self.local = self.local.with_plan(self.plan)

    # --- rows to their owners ---------------------------------------------------------------------------------

    @property
    def sends_rows(self) -> bool:
        """Whether rows travel to owners."""
        return self.plan.compare == "rows" or (self._has_split and not self._shows_rows)

    @property
    def _has_split(self) -> bool:
        return self._verdict is not None and self.plan.split > 0 and not self.plan.restarting

    @property
    def _shows_rows(self) -> bool:
        """Whether the rows of split queries are so few that every rank may score all of them."""
        return self._has_split and sum(packed_bytes(*self._split_of(rank)) for rank in self.ranks) <= _FEW_BYTES

    @cached_property
    def _split_sizes(self) -> list[list[list[int]]]:
        """For every holder and owner the split queries and their rows, as far as these can matter."""
        assert self._verdict is not None
        split, size = self._verdict.split, len(self.ranks)
        limits = torch.tensor([_NO_LIMIT if facts.keep is None else facts.keep for facts in self.plan.facts])
        holder, owner, rows = self._verdict.rank[split], self._verdict.owner[split], self._verdict.rows[split]
        columns = torch.stack([torch.ones_like(rows), rows.minimum(limits[holder])], dim=1)
        sums = torch.zeros(size * size, 2, dtype=torch.int64).index_add(0, holder * size + owner, columns)
        return sums.reshape(size, size, 2).tolist()

    def _split_of(self, one: int) -> tuple[int, int]:
        """The split queries and their rows on one rank."""
        queries, rows = zip(*self._split_sizes[self.ranks.index(one)], strict=True)
        return sum(queries), sum(rows)

    def _size(self, one: int, other: int) -> tuple[int, int]:
        """Queries and rows that one rank sends to another."""
        if one not in self.ranks or other not in self.ranks:
            return 0, 0
        sender, owner = self.ranks.index(one), self.ranks.index(other)
        if self._verdict is None:
            return self.plan.facts[sender].shares[owner]
        queries, rows = self._split_sizes[sender][owner]
        return queries, rows

    def packed_bytes(self, one: int, other: int) -> int:
        """The bytes that one rank sends to another."""
        return packed_bytes(*self._size(one, other))

    def parcel(self, rank: int) -> Tensor:
        """What this rank sends to another, uint8."""
        if not self._takes_part or rank not in self.ranks:
            return torch.zeros(0, dtype=torch.uint8)
        summary = self.local.summary
        if self._verdict is not None:
            verdict = self._verdict.of(self._place)
            chosen = verdict.split & (verdict.owner == self.ranks.index(rank))
        else:
            chosen = owner_of(summary.query, summary.segment, len(self.ranks)) == self.ranks.index(rank)
        keep = self.plan.facts[self._place].keep
        return self.local.parcel(chosen, keep).pack(*self._size(self._rank, rank))

    def receive(self, blocks: Sequence[Tensor]) -> None:
        """Take in what all ranks have sent here."""
        if self._takes_part:
            sizes = [self._size(one, self._rank) for one in self.ranks]
            parcels = [PackedQueries.unpack(blocks[one], *size) for one, size in zip(self.ranks, sizes, strict=True)]
            self._joined = self.local.join(parcels)

    # --- values to all ----------------------------------------------------------------------------------------

    @property
    def _is_open(self) -> bool:
        """Whether it shows only now if identical rows of several ranks stem from repeated samples."""
        return self.plan.compare == "rows" and self.plan.repeated > 0

    @property
    def _ways(self) -> int:
        """In how many ways each rank tells its values: whether identical rows count once may still be open."""
        return 2 if self._is_open else 1

    def _limit(self, place: int) -> int:
        """The most queries that a rank can have scored."""
        facts = self.plan.facts[place]
        if self.plan.compare == "rows":
            return sum(own.shares[place][0] for own in self.plan.facts)
        if self.plan.restarting:
            return facts.pieces
        owned = 0 if self._verdict is None else sum(sizes[place][0] for sizes in self._split_sizes)
        return facts.queries + owned

    @property
    def _lows(self) -> bool:
        """Whether any rank holds a relevant row with a score of zero or less, so that its effect travels too."""
        return any(facts.low for facts in self.plan.facts)

    def _width(self, name: str) -> int:
        columns = max(own.columns for own in self._members[name].told.values())
        return columns or 2 * self.plan.longest

    def _words(self, place: int) -> list[int]:
        """The words of the parts of a rank's block."""
        limit, lows = self._limit(place), self._lows
        sizes = [Sum.words(self._members[name].mean, self._width(name), limit, lows) for name in self._wanted]
        return [_HEAD, *(size for size in sizes for _ in range(self._ways))]

    def block_bytes(self, rank: int) -> int:
        """The size of a rank's block, as every rank can tell."""
        if rank not in self.ranks:
            return 0
        shown = packed_bytes(*self._split_of(rank)) if self._shows_rows else 0
        return _WORD_BYTES * sum(self._words(self.ranks.index(rank))) + shown

    def block(self) -> Tensor:
        """What this rank has scored, uint8."""
        if not self._takes_part:
            return torch.zeros(0, dtype=torch.uint8)
        limit = self._limit(self._place)
        sums = [
            own.pack(self._members[name].mean, limit, self._lows) for name in self._wanted for own in self._sums(name)
        ]
        words = torch.cat([self._head(), *sums]).view(torch.uint8)
        return torch.cat([words, self._shown()]) if self._shows_rows else words

    def _shown(self) -> Tensor:
        assert self._verdict is not None
        split, keep = self._verdict.of(self._place).split, self.plan.facts[self._place].keep
        return self.local.parcel(split, keep).pack(*self._split_of(self._rank))

    def _head(self) -> Tensor:
        longest = self.local.longest_counted
        if self._joined is None:
            return torch.tensor([0, 0, longest])
        joined = self._joined
        return torch.tensor([joined.identical, joined.different, max(longest, joined.longest)])

    def _sums(self, name: str) -> list[Sum]:
        """What this rank made of its queries; twice where it is open how often identical rows count."""
        mean, width = self._members[name].mean, self._width(name)
        own: list[Sum] = []
        if self.plan.compare != "rows":
            counted = None if self._verdict is None or self.plan.restarting else self._verdict.of(self._place).counts
            scored = self.local.sums(name, mean, width, counted)
            heard = not self.plan.first_counts or self._place == 0
            own.append(scored if heard else replace(Sum.nothing(mean, width), failed=scored.failed))
        if self._joined is None:
            return [Sum.join(own, mean, width)] * self._ways
        joined = [self._joined.scored(once).sums(name, mean, width) for once in (False, True)[: self._ways]]
        return [Sum.join([*own, part], mean, width) for part in joined]

    def combine(self, blocks: Sequence[Tensor]) -> None:
        """Arrive at the values, from what every member has scored."""
        words = [self._words(place) for place in range(len(self.ranks))]
        sizes = [_WORD_BYTES * sum(own) for own in words]
        parts = [
            block[:size].clone().view(torch.int64).split(own)
            for block, size, own in zip(blocks, sizes, words, strict=True)
        ]
        heads = torch.stack([own[0] for own in parts])
        if self.plan.compare == "rows":
            identical, different = heads[:, :2].sum(dim=0).tolist()
            self.plan = self.plan.with_shared(identical, different)
            self.local.plan = self.plan
        if not self._takes_part:
            return
        shown = self._join_shown([block[size:] for block, size in zip(blocks, sizes, strict=True)])
        longest = max(int(heads[:, 2].max()), shown.longest if shown is not None else 0)
        way = 1 if self._is_open and self.plan.duplicates else 0
        for number, name in enumerate(self._wanted):
            mean, width = self._members[name].mean, self._width(name)
            sums = [Sum.unpack(own[1 + self._ways * number + way], mean, width, self._lows) for own in parts]
            if shown is not None and name not in self.local.panel.measures:
                continue  # a rank that never met the metric cannot score the rows
            if shown is not None:
                sums.append(shown.scored(once=False).sums(name, mean, width))
            self._outcomes[name] = combined(self.local, name, sums, mean, longest)

    def _join_shown(self, blocks: Sequence[Tensor]) -> Joined | None:
        """The split queries whose rows went to everyone, where this rank has the metrics to score them."""
        if not self._shows_rows:
            return None
        sizes = [self._split_of(rank) for rank in self.ranks]
        return self.local.join([PackedQueries.unpack(block, *size) for block, size in zip(blocks, sizes, strict=True)])

    # --- what came of it --------------------------------------------------------------------------------------

    def views(self) -> list[SourceView]:
        """The metrics as this rank's rules see them; nothing where it takes no part."""
        return [self._view(name, member) for name, member in self._members.items()] if self._takes_part else []

    def _view(self, name: str, member: Member) -> SourceView:
        first = member.told[min(member.told)]
        return SourceView(
            name=name,
            metric=first.metric,
            path=first.path,
            line=first.line,
            synced_in_steps=max(own.synced_in_steps for own in member.told.values()),
            synchronises=any(own.synchronises for own in member.told.values()),
            shown_by_forward=any(own.shown_by_forward for own in member.told.values()),
            mean=member.mean,
            stale=sum(own.stale for own in member.told.values()),
            sanity=all(own.sanity for own in member.told.values() if own.stale),
            dropped=any(own.dropped for own in member.told.values()),
            shared=sum(own.shared for own in member.told.values()),
            plan=self.plan,
            local=self.local,
            combined=self._outcomes.get(name),
            suppressed=[own.suppressed for own in member.told.values()],
        )
