"""Which rows count, and what must travel, decided from data that every rank has."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.query_chunks import Queries
from lightning_retrieval_guard.epoch.repeated_samples import find_repeated
from lightning_retrieval_guard.epoch.row_facts import RowFacts
from lightning_retrieval_guard.settings import QueryScope


@dataclass(frozen=True)
class Plan:
    """How the rows of all ranks become one number.

    Attributes:
        facts: What each rank reported.
        classes: For every rank the first of those that hold the same rows, where the ranks fall into classes of equal
            size that do; else empty. One rank of each class counts.
        ids_restart: Ids restart, so each update keeps its queries to itself.
        ids_may_restart: Ids look as if they restarted, and nothing shows it, so that no reference is known.
        padded: The repeated samples that were found: for each the rank that leaves it out, and its index among the last
            samples of that rank.
        compares: Whether the ranks exchange a summary of every query, because some may lie on several of them.
        split: Queries whose rows lie on several ranks.
        merged: Queries of several ranks that have the same id, where ids are declared to be those of an update.
        scope: What the user declared about query ids.
    """

    facts: tuple[RowFacts, ...]
    classes: tuple[int, ...] = ()
    ids_restart: bool = False
    ids_may_restart: bool = False
    padded: tuple[tuple[int, int], ...] = ()
    compares: bool = False
    split: int = 0
    merged: int = 0
    scope: QueryScope = "auto"

    @property
    def with_rows(self) -> list[RowFacts]:
        """What the ranks report that have rows, in order of rank."""
        return [facts for facts in self.facts if facts.rows]

    @property
    def replicated(self) -> bool:
        """Whether all ranks hold the same rows, so that each may count them."""
        return len(set(self.classes)) == 1

    @property
    def counted(self) -> list[int]:
        """The ranks whose rows count: the first of each class, or all."""
        return sorted(set(self.classes)) or list(range(len(self.facts)))

    @property
    def queries_a_sample(self) -> int:
        """How many queries each sample has in every batch; zero where that differs or does not show."""
        return _queries_a_sample(self.with_rows, self.replicated)

    @property
    def first_counts(self) -> bool:
        """Whether ranks hold the same rows in different orders, so that equal scores are ranked as on the first."""
        return self.replicated and len({facts.ordered_fingerprint for facts in self.facts}) > 1

    def first_like(self, rank: int) -> int:
        """The rank that counts the rows which a rank holds."""
        return self.classes[rank] if self.classes else rank

    @property
    def left_out(self) -> int:
        """Samples that the plan counts once although the sampler repeated them."""
        return len(self.padded)

    @property
    def lists_repeated(self) -> bool:
        """Whether a repeated sample is a candidate of every query, where it would stay without a query of its own."""
        return any(facts.lists_repeated for facts in self.facts)

    @property
    def has_no_repeated(self) -> bool:
        """Whether ids of the data, none of which stands on two ranks, show that the program feeds no sample twice."""
        again = [facts for facts in self.facts if facts.repeats is not None]
        pairs = [one for facts in again for one in (facts, self.facts[facts.repeats or 0])]
        unknown = self.classes or self.ids_restart or self.ids_may_restart or self.split or self.padded
        if unknown or not pairs or not all(facts.ids_of_data for facts in pairs):
            return False
        return self.compares or not _may_share(self.with_rows)

    @property
    def is_ambiguous(self) -> bool:
        """Whether an id stands in several updates or on several ranks, and nothing tells why."""
        return self._meets and not self.spans_updates

    @property
    def spans_updates(self) -> bool:
        """Whether queries are certain to go on from one update to another."""
        if self.ids_restart:
            return False
        return any(facts.spanning for facts in self.facts) or (self.scope == "global" and self._meets)

    @property
    def spans_batches(self) -> bool:
        """Whether they are certain to go on in another batch or another metric life, or on another rank."""
        whole = self.split == 0 and all(facts.whole_in_batches for facts in self.with_rows)
        return self.spans_updates and not whole

    @property
    def keeps_whole(self) -> bool:
        """Whether the rows of every query are certain to have come in one update."""
        ranks = self.with_rows
        apart = self.compares or not _may_share(ranks)
        unique = apart and not self.split and all(facts.ids_unique for facts in ranks)
        numbered = self.queries_a_sample == 1 and all(facts.ids_consecutive for facts in ranks)
        return self.ids_restart or unique or (numbered and _follow_samples(ranks))

    @property
    def _meets(self) -> bool:
        return not self.ids_restart and (self.split > 0 or any(facts.restarts for facts in self.facts))

    @property
    def uneven(self) -> bool:
        """Whether the ranks updated unequally often."""
        return len({facts.updates for facts in self.facts}) > 1

    @property
    def has_rows(self) -> bool:
        """Whether any rank holds a row."""
        return bool(self.with_rows)

    @property
    def merges(self) -> bool:
        """Whether torchmetrics merges queries, since their ids restart."""
        return self.ids_restart and (self.merged > 0 or any(facts.restarts for facts in self.facts))

    @property
    def lacks_rows(self) -> bool:
        """Whether the value depends on rows that were not kept."""
        if any(facts.lacks_values for facts in self.facts):
            return True
        parted = not self.ids_restart and (self.split > 0 or any(facts.lacks_rows for facts in self.facts))
        return parted and any(facts.rows_dropped for facts in self.facts)

    @property
    def pool_of_rank(self) -> bool:
        """Whether each query was ranked against the samples of its rank only, outside of steps.

        A query that lies on several ranks is ranked against those of all of them, unless its id stands for several.
        """
        pools = [facts.lists_samples or facts.lists_others for facts in self.with_rows if not facts.in_steps]
        alone = len(self.facts) > 1 and not self.classes and (self.ids_restart or not self.split)
        return alone and bool(pools) and all(pools) and len(pools) == len(self.with_rows)

    @property
    def longest(self) -> int:
        """The most rows that any query can have."""
        if self.ids_restart:
            return max(facts.longest_chunk for facts in self.facts)
        lengths = [self.facts[rank].longest_query for rank in self.counted]
        # a query may have its longest part on every rank
        return sum(lengths) if self.compares else max(lengths)


def make_plan(facts: Sequence[RowFacts], scope: QueryScope, seeks_repeated: bool, synchronises: bool) -> Plan:
    """Decide what can be decided from the facts alone.

    Args:
        facts: Of every rank, in order of rank.
        scope: What the user declared about query ids.
        seeks_repeated: Whether the sampler repeated samples and all of them have come.
        synchronises: Whether the program lets the metric combine ranks.
    """
    plan = Plan(tuple(facts), _classes_of(facts), scope=scope)
    with_rows = plan.with_rows
    counted = [facts[rank] for rank in plan.counted if facts[rank].rows]
    seen = judge_ids(with_rows, plan.replicated) if any(rank_facts.restarts for rank_facts in with_rows) else "no"
    restarts = scope == "batch" or (scope == "auto" and seen == "yes")
    perhaps = scope == "auto" and seen == "perhaps"
    plan = replace(plan, ids_restart=restarts, ids_may_restart=perhaps)
    if seeks_repeated and not plan.classes and not plan.lists_repeated:
        restart = "yes" if restarts else judge_ids(with_rows, False, on_ranks=True) if scope == "auto" else "no"
        # where ids may merge queries, a number without the repeated sample is no better than one with it
        plan = replace(plan, padded=() if restart == "perhaps" else _find_padded(facts, restart == "yes"))
    # where nothing combines ranks, parts of a query matter only to a metric that lives through the epoch
    joins = synchronises or any(rank_facts.single_life for rank_facts in with_rows)
    # ids of an update may still be unique, and then nothing is wrong with them
    compares = not plan.replicated and (not restarts or scope == "batch")
    return replace(plan, compares=compares and joins and _may_share(counted))


def _classes_of(facts: Sequence[RowFacts]) -> tuple[int, ...]:
    """For every rank the first with the same rows, if as many ranks, and more than one, hold each set of rows.

    Ranks that are equal among others that are not may be so by chance, and are taken as they are.
    """
    contents = [(rank_facts.rows, rank_facts.fingerprint) for rank_facts in facts]
    sizes = set(Counter(contents).values())
    if len(sizes) != 1 or sizes == {1} or not all(rank_facts.rows for rank_facts in facts):
        return ()
    return tuple(map(contents.index, contents))


def judge_ids(ranks: Sequence[RowFacts], replicated: bool, on_ranks: bool = False) -> Literal["yes", "perhaps", "no"]:
    """Whether ids that come again number the samples of a batch or of a rank, and so stand for other queries there.

    Args:
        ranks: What those report that have rows.
        replicated: Whether all of them have the same.
        on_ranks: Whether ids come again on another rank.
    """
    each = _queries_a_sample(ranks, replicated)
    consecutive = all(facts.ids_consecutive for facts in ranks)
    # all ranks run the same program: what was made on one of them was made on all
    origins, counted = {facts.ids_origin for facts in ranks}, all(facts.ids_counted for facts in ranks)
    if not consecutive or (origins == {"data"} and not counted):
        return "no"
    again = all(facts.ids_same for facts in ranks)
    if not each:
        # the same queries would be as many in every batch
        anew = all(facts.ids_begin_anew for facts in ranks) and (not again or len({one.id_max for one in ranks}) > 1)
        goes_on = all(_is_range(facts) and not facts.ids_begin_anew for facts in ranks)
        of_rank = on_ranks and goes_on and len({facts.id_min for facts in ranks}) == 1
        return "perhaps" if counted and (anew or of_rank) else "no"
    overlap = any(facts.ids_overlap for facts in ranks)
    # a collate function sees one batch, and cannot count on from the one before
    may_count_on = origins != {"collated"}
    diagonal = all(facts.is_diagonal for facts in ranks) and (may_count_on or again)
    counts_on = on_ranks and may_count_on and _count_on_ranks(ranks)
    in_hook = not any(facts.in_steps for facts in ranks)
    # every query against every sample may be one of all ranks, against this rank's share of a corpus
    lists = all(facts.lists_samples for facts in ranks)
    one_pool = lists and in_hook and len({(facts.id_min, facts.id_max) for facts in ranks}) == 1
    on_ranks = counts_on and not one_pool
    again = again and not lists
    if not (overlap or diagonal or on_ranks or again):
        return "perhaps" if counts_on and counted else "no"
    # queries without a relevant row may be parts of queries of the epoch, unless ids begin anew and follow the samples
    is_shown = _follow_samples(ranks) or (counted and on_ranks and in_hook)
    if not _are_full(ranks, replicated) and not is_shown:
        return "perhaps" if counted or on_ranks else "no"
    # nothing tells the parts of one query from different queries with the same id; and several for each sample may be
    # those of all ranks
    if each > 1 or any(facts.parted_in_batches for facts in ranks):
        return "perhaps"
    if counted:
        return "yes"
    # data in which each question comes twice, dealt to two ranks, looks as if it were counted on them
    proof = overlap or diagonal or (on_ranks and in_hook)
    return "yes" if (proof and "made" in origins) or (overlap and origins & {"collated", "opaque"}) else "perhaps"


def _count_on_ranks(ranks: Sequence[RowFacts]) -> bool:
    """Whether ids look as if every rank had counted its samples, or those of its batch."""
    ranges = {(facts.id_min, facts.id_max) for facts in ranks}
    # a single id in each update is always a range, so all of them together must be one
    ranges_show = all(facts.chunks > facts.updates or _is_range(facts) for facts in ranks)
    advance = all(facts.ids_number_samples for facts in ranks) and ranges_show
    again = all(facts.ids_same for facts in ranks)
    return advance or (again and len(ranges) > 1)


def _is_range(facts: RowFacts) -> bool:
    return facts.queries == facts.id_max - facts.id_min + 1


def _follow_samples(ranks: Sequence[RowFacts]) -> bool:
    """Whether batches vary in size, and ids were seen to be counted, or begin anew in each."""
    numbered = all(facts.ids_counted for facts in ranks) or all(facts.ids_begin_anew for facts in ranks)
    return numbered and any(facts.sizes_vary for facts in ranks)


def _are_full(ranks: Sequence[RowFacts], replicated: bool) -> bool:
    """Whether each sample has one query in every batch, with a relevant row and another row."""
    return all(facts.one_query_a_sample or (replicated and facts.one_query_a_global_sample) for facts in ranks)


def _queries_a_sample(ranks: Sequence[RowFacts], replicated: bool) -> int:
    """How many queries each sample has in every batch; zero where that differs or does not show."""
    if _are_full(ranks, replicated):
        return 1
    factors = {facts.queries_a_sample for facts in ranks}
    each = factors.pop() if len(factors) == 1 else 0
    return 1 if replicated and each == len(ranks) else each


def _find_padded(facts: Sequence[RowFacts], ids_restart: bool) -> tuple[tuple[int, int], ...]:
    """For each rank whose last sample another had first: which of its samples that is, if just one can be."""
    candidates = (
        (rank, find_repeated(facts[rank_facts.repeats].first_samples, rank_facts.last_samples, ids_restart))
        for rank, rank_facts in enumerate(facts)
        if rank_facts.repeats is not None
    )
    return tuple((rank, sample) for rank, sample in candidates if sample is not None)


def _may_share(ranks: Sequence[RowFacts]) -> bool:
    """Whether an id can stand on two ranks: not where ranges are apart, nor where ids interleave in equal steps."""
    return any(_may_meet(one, other) for one, other in combinations(ranks, 2))


def _may_meet(one: RowFacts, other: RowFacts) -> bool:
    if one.id_min > other.id_max or other.id_min > one.id_max:
        return False
    # the ids of each rank lie on a grid; two grids meet where their offset is a multiple of this
    step = math.gcd(one.id_step, other.id_step)
    return step == 0 or (one.id_min - other.id_min) % step == 0


@dataclass(frozen=True)
class ComparedQueries:
    """What the summaries of all ranks report of every query on every rank; one entry for each.

    Attributes:
        rank: Who holds it, int64 of shape ``(entries,)``.
        number: The number of the query among those of all ranks, in ascending order of life and id, int64 of the same
            shape.
        life: Its metric life, int64 of the same shape.
        rows: The number of its rows on that rank, int64 of the same shape.
        split: Whether rows of several ranks must come together, bool of the same shape.
    """

    rank: Tensor
    number: Tensor
    life: Tensor
    rows: Tensor
    split: Tensor

    @property
    def counts(self) -> Tensor:
        """Whether the rank that holds it counts it by itself, bool of the same shape."""
        return ~self.split

    def of(self, entries: Tensor) -> ComparedQueries:
        """The entries that a mask selects; those of one rank are in the order of its queries."""
        columns = (self.rank, self.number, self.life, self.rows, self.split)
        return ComparedQueries(*(column[entries] for column in columns))


def compare_queries(plan: Plan, ranks: Sequence[Queries]) -> tuple[Plan, ComparedQueries]:
    """Decide the rest from the queries of every rank.

    Args:
        plan: What was decided so far.
        ranks: The queries of every rank, in order of rank; none of one that does not count.
    """
    rank_of_entry = torch.cat([torch.full_like(queries.query, rank) for rank, queries in enumerate(ranks)])
    everything = Queries.join(ranks)
    number, shared, identical = find_copies(everything)
    # the same rows on several ranks say nothing of what ids stand for
    different = shared & ~identical
    none = torch.zeros_like(shared)
    if plan.scope == "batch":
        # the user has said that no query goes on, so none is split, whatever ids meet
        plan, split = replace(plan, merged=number[shared].unique().numel()), none
    else:
        asks = plan.scope == "auto" and bool(different.any())
        restart = judge_ids(plan.with_rows, False, on_ranks=True) if asks else "no"
        if restart == "yes":
            merged = number[different].unique().numel()
            plan, split = replace(plan, ids_restart=True, ids_may_restart=False, merged=merged), none
        else:
            perhaps = plan.ids_may_restart or restart == "perhaps"
            plan, split = replace(plan, ids_may_restart=perhaps, split=number[shared].unique().numel()), shared
    return plan, ComparedQueries(rank_of_entry, number, everything.life, everything.rows, split)


def find_copies(queries: Queries) -> tuple[Tensor, Tensor, Tensor]:
    """For every entry: the number of its query, whether others hold it too, and with the same rows."""
    query, life, fingerprint = queries.query, queries.life, queries.fingerprint
    if not query.numel():
        none = torch.zeros(0, dtype=torch.bool)
        return query, none, none
    # grouping pairs is many times slower than grouping ids
    keys, dim = (torch.stack([life, query]), 1) if bool(life.any()) else (query, None)
    _, number = keys.unique(dim=dim, return_inverse=True)
    size = int(number.max()) + 1
    shared = torch.bincount(number)[number] > 1
    low = torch.zeros(size, dtype=torch.int64).scatter_reduce(0, number, fingerprint, "amin", include_self=False)
    high = torch.zeros(size, dtype=torch.int64).scatter_reduce(0, number, fingerprint, "amax", include_self=False)
    # all fingerprints are one where the least and the greatest are
    return number, shared, (low == high)[number]
