"""Metrics that saw the same rows on every rank: what they send, and what comes of it.

1. ``pack_summary`` on every rank, ``compare`` what came: which queries lie on several ranks.
2. ``choose`` the metrics whose value is wanted.
3. ``pack_values`` on every rank, ``combine`` what came: the sums or values of the queries that are whole on a rank, and
   the rows of those that are split, which every rank scores.
4. ``views`` for the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard.distributed.payload import ProtocolError
from lightning_retrieval_guard.epoch.combine import LocalRows, Scored, combined, score_split
from lightning_retrieval_guard.epoch.facts import MergedHow, SourceFacts
from lightning_retrieval_guard.epoch.plan import ComparedQueries, Plan, compare_queries
from lightning_retrieval_guard.epoch.query_chunks import QUERY_BYTES, ROW_BYTES, PackedQueries, Queries
from lightning_retrieval_guard.epoch.source_view import SourceView, make_source_view
from lightning_retrieval_guard.epoch.values import MetricOutcome, Sum
from lightning_retrieval_guard.run.epoch_rows import SharedRows

_WORD_BYTES = 8
# A dtype travels as its index in this list; it decides in which precision split queries are scored.
_DTYPES = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
)
_NO_ROWS = -1
_BY_WEIGHT: tuple[MergedHow, ...] = ("rows", "update", "setting")


@dataclass(frozen=True)
class Member:
    """One metric: the facts of the ranks that have it, by rank, and what this rank has of it."""

    facts: Mapping[int, SourceFacts]
    metric: Metric | None
    rows: SharedRows | None

    @property
    def mean(self) -> bool:
        """Whether the value is a mean over queries."""
        return all(facts.mean for facts in self.facts.values())

    @property
    def columns(self) -> int:
        """The numbers in the value of one query; zero for a curve that is as long as the longest query."""
        return max(facts.columns for facts in self.facts.values())

    def view(self, name: str, plan: Plan, local: LocalRows, combined: MetricOutcome | None) -> SourceView:
        """The metric as rules see it.

        Args:
            name: Its name.
            plan: Which rows count.
            local: This rank's rows.
            combined: The value over all ranks, where rows or sums have travelled for it.
        """
        ranks = list(self.facts.values())
        first = self.facts[min(self.facts)]
        seen = {facts.merged_how for facts in ranks}
        return make_source_view(
            name=name,
            metric=first.metric,
            path=first.path,
            line=first.line,
            synced_in_steps=max(facts.synced_in_steps for facts in ranks),
            synchronises=any(facts.synchronises for facts in ranks),
            shown_by_forward=any(facts.shown_by_forward for facts in ranks),
            syncs_itself=any(facts.syncs_itself for facts in ranks),
            mean=self.mean,
            stale=sum(facts.stale for facts in ranks),
            sanity=all(facts.sanity for facts in ranks if facts.stale),
            dropped=any(facts.dropped for facts in ranks),
            shared=sum(facts.shared for facts in ranks),
            elsewhere=all(facts.elsewhere for facts in ranks),
            lost=sum(facts.lost for facts in ranks),
            merged=max(facts.merged for facts in ranks),
            merged_how=next((how for how in _BY_WEIGHT if how in seen), ""),
            plan=plan,
            local=local,
            combined=combined,
            suppressed=[facts.suppressed for facts in ranks],
        )


@dataclass(frozen=True)
class ValueHead:
    """What a rank sends before its values.

    Attributes:
        longest: The most rows of any query that it counts by itself.
        preds: The dtype of its scores, as an index in ``_DTYPES``.
        target: The dtype of its relevance.
    """

    longest: int
    preds: int = _NO_ROWS
    target: int = _NO_ROWS

    WORDS = 3

    @classmethod
    def of(cls, local: LocalRows) -> ValueHead:
        """What this rank sends."""
        if local.table is None:
            return cls(local.longest_counted)
        dtypes = local.table.preds.dtype, local.table.target.dtype
        return cls(local.longest_counted, *map(_DTYPES.index, dtypes))

    def pack(self) -> Tensor:
        """As int64 words."""
        return torch.tensor([self.longest, self.preds, self.target])


@dataclass(frozen=True)
class ValueBlock:
    """What a rank sends for the values: a head, what it made of its queries, and the rows of split ones."""

    head: ValueHead
    sums: dict[str, Sum]
    rows: PackedQueries


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
        # None where this rank takes no part
        self._index = self.ranks.index(rank) if rank in self.ranks else None
        self._members: dict[str, Member] = {}
        self._wanted: list[str] = []
        self._compared: ComparedQueries | None = None
        self._outcomes: dict[str, MetricOutcome] = {}

    def add(self, name: str, member: Member) -> None:
        """Take in one metric."""
        self._members[name] = member

    @cached_property
    def local(self) -> LocalRows:
        """This rank's rows."""
        # all members saw the same rows
        rows = next((member.rows for member in self._members.values() if member.rows is not None), None)
        metrics = {name: member.metric for name, member in self._members.items()}
        if rows is None or self._index is None:
            return LocalRows(metrics, None, None, self.plan, self._index or 0)
        return LocalRows(metrics, rows.table, rows.chunks, self.plan, self._index)

    def _counted_index(self, rank: int) -> int | None:
        index = self.ranks.index(rank) if rank in self.ranks else None
        return index if index in self.plan.counted else None

    def choose(self, wants: Callable[[str, Plan], bool]) -> bool:
        """Note the metrics whose value is wanted; says whether anything must travel for them."""
        # ranks with the same rows in the same order have the same value without a word
        apart = not self.plan.replicated or self.plan.first_counts
        travels = apart and len(self.ranks) > 1 and self.plan.has_rows and not self.plan.lacks_rows
        self._wanted = [name for name in self._members if travels and wants(name, self.plan)]
        return bool(self._wanted)

    # --- comparing queries ------------------------------------------------------------------------------------

    def summary_bytes(self, rank: int) -> int:
        """The size of a rank's summary, as every rank can tell."""
        index = self._counted_index(rank)
        return 0 if index is None else self.plan.facts[index].queries * QUERY_BYTES

    def pack_summary(self) -> Tensor:
        """The queries of this rank, uint8; filled up where the plan has left one out."""
        queries = self.summary_bytes(self._rank) // QUERY_BYTES
        return self.local.queries.pack(queries) if queries else torch.zeros(0, dtype=torch.uint8)

    def compare(self, blocks: Sequence[Tensor]) -> None:
        """Complete the plan from the queries of all members.

        Raises:
            ProtocolError: A summary has more rows than the facts of its rank.
        """
        summaries = [Queries.unpack(block) for block in blocks]
        wrong = {
            rank: "its queries have more rows than it has"
            for rank, summary, facts in zip(self.ranks, summaries, self.plan.facts, strict=True)
            if int(summary.rows.sum()) > facts.rows
        }
        if wrong:
            raise ProtocolError(wrong)
        self.plan, self._compared = compare_queries(self.plan, summaries)
        self.local = self.local.with_plan(self.plan)

    @cached_property
    def _split(self) -> ComparedQueries | None:
        """The queries whose rows travel."""
        return None if self._compared is None or not self.plan.split else self._compared.of(self._compared.split)

    # --- values to all ----------------------------------------------------------------------------------------

    def _limit(self, index: int) -> int:
        """The most queries that a rank can have scored."""
        facts = self.plan.facts[index]
        return facts.chunks if self.plan.ids_restart else facts.queries

    def _width(self, name: str) -> int:
        # a curve without a cut-off has precision and recall at every rank of the longest query
        return self._members[name].columns or 2 * self.plan.longest

    def _sizes(self, index: int) -> list[int]:
        """The bytes of the parts of a rank's block: the head, what each metric made of its queries, rows."""
        limit = self._limit(index)
        words = [Sum.words(self._members[name].mean, self._width(name), limit) for name in self._wanted]
        rows = 0 if self._split is None else int(self._split.rows[self._split.rank == index].sum())
        return [*(_WORD_BYTES * size for size in (ValueHead.WORDS, *words)), ROW_BYTES * rows]

    def block_bytes(self, rank: int) -> int:
        """The size of a rank's block, as every rank can tell."""
        index = self._counted_index(rank)
        return 0 if index is None else sum(self._sizes(index))

    def pack_values(self) -> Tensor:
        """What this rank has scored, uint8; read by ``_unpack_values``."""
        index = self._counted_index(self._rank)
        if index is None:
            return torch.zeros(0, dtype=torch.uint8)
        limit = self._limit(index)
        mine = None if self._compared is None else self._compared.of(self._compared.rank == index)
        counted = None if mine is None or self.plan.ids_restart else mine.counts
        sums = []
        for name in self._wanted:
            mean = self._members[name].mean
            sums.append(self.local.sums(name, mean, self._width(name), counted).pack(mean, limit))
        words = torch.cat([ValueHead.of(self.local).pack(), *sums]).view(torch.uint8)
        if mine is None or self._split is None:
            return words
        return torch.cat([words, self.local.packed(mine.split).pack()])

    def _unpack_values(self, index: int, block: Tensor) -> ValueBlock:
        head, *sums, rows = block.split(self._sizes(index))
        return ValueBlock(
            ValueHead(*_words(head).tolist()),
            {
                name: Sum.unpack(_words(part), self._members[name].mean, self._width(name))
                for name, part in zip(self._wanted, sums, strict=True)
            },
            PackedQueries.unpack(rows),
        )

    def combine(self, blocks: Sequence[Tensor]) -> None:
        """Arrive at the values, from what every member has scored."""
        if self._index is None:
            return
        counted = self.plan.counted
        ranks = {index: self._unpack_values(index, blocks[index]) for index in counted}
        split, longest = self._score_split(list(ranks.values()))
        longest = max(longest, *(block.head.longest for block in ranks.values()))
        for name in self._wanted:
            if split is None or name in split.values:  # a rank that never met the metric cannot score rows
                sums = {index: block.sums[name] for index, block in ranks.items()}
                mean, width = self._members[name].mean, self._width(name)
                self._outcomes[name] = combined(self.local, name, sums, split, mean, width, longest)

    def _score_split(self, blocks: Sequence[ValueBlock]) -> tuple[Scored | None, int]:
        if self._split is None:
            return None, 0
        heads = [block.head for block in blocks]
        preds, target = _joint_dtype([head.preds for head in heads]), _joint_dtype([head.target for head in heads])
        return score_split(self.local.scorer, self._split, [block.rows for block in blocks], preds, target)

    # --- what came of it --------------------------------------------------------------------------------------

    def views(self) -> list[SourceView]:
        """The metrics as this rank's rules see them; nothing where it takes no part."""
        if self._index is None:
            return []
        return [
            member.view(name, self.plan, self.local, self._outcomes.get(name)) for name, member in self._members.items()
        ]


def _words(block: Tensor) -> Tensor:
    return block.clone().view(torch.int64)


def _joint_dtype(indexes: Sequence[int]) -> torch.dtype:
    """The dtype that torch gives rows of several ranks when they are joined."""
    return reduce(torch.promote_types, [_DTYPES[index] for index in indexes if index != _NO_ROWS])
