"""What one rank reports of the rows of a metric, before any row travels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.candidates import list_others, list_samples, list_shard
from lightning_retrieval_guard.epoch.facts import to_payload
from lightning_retrieval_guard.epoch.query_chunks import Queries, QueryChunks, are_full, cut_chunks, join_chunks, mix
from lightning_retrieval_guard.epoch.query_ids import (
    Batch,
    IdFacts,
    are_of_data,
    first_source,
    is_diagonal,
    look_at_ids,
)
from lightning_retrieval_guard.epoch.repeated_samples import NO_SAMPLES, SampleFacts, describe_samples, edge_of
from lightning_retrieval_guard.epoch.row_table import QueryKeys, RowTable
from lightning_retrieval_guard.settings import QueryScope

# few ranks are compared, and JSON writes each digit
_HASH_BITS = 32
_SAMPLES = {"first_samples", "last_samples"}
_IN_ORDER = 64  # rows whose order stands for that of all

# How many times the ids of one update all updates must hold for ids that come from the data.
_MANY_MORE = 1.5


@dataclass(frozen=True)
class RowFacts(IdFacts):
    """Counts and evidence of one rank's rows.

    Attributes:
        updates: Updates since the last reset.
        rows: Rows held.
        queries: Distinct query ids, counted once per metric life.
        chunks: Distinct pairs of update and query id.
        id_min: Smallest query id.
        id_max: Largest query id.
        id_step: A number that divides the difference of any two ids; zero for a single id.
        fingerprint: Of all rows; independent of their order.
        ordered_fingerprint: Of some rows in their order, by which equal scores are ranked: it shows whether ranks with
            the same rows have them in the same order.
        longest_query: The most rows of any query.
        longest_chunk: The most rows of any query in one update.
        ids_unique: Whether every id stands in one update only.
        restarts: Queries that stand in several updates with different rows, or with any, if the updates were folded.
        spanning: Queries that are certain to go on from update to update: together the updates hold many more ids than
            any of them, as they would not if ids counted from zero in each, and some update, also of another metric
            life, holds no relevant row of the query while another does.
        whole_in_batches: Whether the rows of every query lie in one batch of one metric life, if in several updates.
            Not looked for where one life spans the epoch.
        one_query_a_sample: Every batch holds as many queries as samples, each with two rows or more and one relevant
            row or more. The updates of a batch count as one, and an update stands for all batches since the one before.
        one_query_a_global_sample: The same for the samples of all ranks together.
        queries_a_sample: How many queries every batch holds for each sample, whether or not they have a relevant row;
            zero where that differs, or is more than one in batches of one size and not on their diagonals. Also one
            where the program counted the queries of each batch, and left out some samples here and there.
        sizes_vary: Whether the number of samples varies, and that of the queries with it.
        queries_in_batches: Distinct pairs of batch and query id, where several updates are of one batch.
        parted_in_batches: Whether a query then stands in several updates of a batch.
        is_diagonal: Whether the one relevant row of each query stands on the diagonal of its batch, where that tells.
        lists_samples: Whether each query of a batch has exactly as many rows as the batch has samples, or outside of
            steps as this rank saw samples of a dataloader, or had candidates for them.
        lists_others: Whether each query has, outside of steps, one row less than this rank saw samples of a dataloader,
            and there is one for each of these, so that every sample is ranked against the others.
        lists_repeated: Whether each query has as many rows as all ranks saw samples of a dataloader, repeated ones
            among them, or a multiple. Not looked for unless a sample was repeated.
        in_steps: Whether any update came in a step.
        repeats: The rank that had the last sample of this rank first, where the sampler repeated it.
        first_samples: The samples of the first batch, where another rank repeats one of them.
        last_samples: The samples of the last batch, where one of them is repeated.
        last_batch: The first update of the last batch then.
        ids_of_data: Whether a column of the batches held all ids, where this rank has a sample that is repeated.
        single_life: Whether the rows stem from one metric life that spans the epoch.
        rows_dropped: Whether rows of some updates were not kept.
        lacks_values: Whether they are missing although nothing but the rows would tell their value.
        lacks_rows: Whether a query whose rows were dropped goes on in another update.
        one_answer: Whether every query is known to have exactly one relevant row, of relevance one, with a score above
            zero that no other row of the query has. Not looked for unless metrics can be compared by it.
    """

    updates: int = 0
    rows: int = 0
    queries: int = 0
    chunks: int = 0
    id_min: int = 0
    id_max: int = -1
    id_step: int = 0
    fingerprint: int = 0
    ordered_fingerprint: int = 0
    longest_query: int = 0
    longest_chunk: int = 0
    ids_unique: bool = False
    restarts: int = 0
    spanning: int = 0
    whole_in_batches: bool = False
    one_query_a_sample: bool = True
    one_query_a_global_sample: bool = True
    queries_a_sample: int = 0
    sizes_vary: bool = False
    queries_in_batches: int = 0
    parted_in_batches: bool = False
    is_diagonal: bool = False
    lists_samples: bool = False
    lists_others: bool = False
    lists_repeated: bool = False
    in_steps: bool = True
    repeats: int | None = None
    first_samples: SampleFacts = NO_SAMPLES
    last_samples: SampleFacts = NO_SAMPLES
    last_batch: int = 0
    ids_of_data: bool = False
    single_life: bool = True
    one_answer: bool = False
    rows_dropped: bool = False
    lacks_values: bool = False
    lacks_rows: bool = False

    def to_payload(self) -> dict[str, Any]:
        """A form that JSON can hold."""
        message = to_payload(self)
        return {**message, **{name: to_payload(message[name]) for name in _SAMPLES & message.keys()}}

    @classmethod
    def from_payload(cls, message: dict[str, Any]) -> RowFacts:
        """Read what ``to_payload`` wrote."""
        return cls(**{**message, **{name: SampleFacts(**message[name]) for name in _SAMPLES & message.keys()}})


def gather_facts(
    table: RowTable | None,
    batches: Sequence[Batch],
    world_size: int,
    scope: QueryScope = "auto",
    repeats: int | None = None,
    is_repeated: bool = False,
    pools: Sequence[int] = (),
    shards: Sequence[int] = (),
    single_life: bool = True,
    seek_answer: bool = False,
    count: int = 0,
) -> tuple[RowFacts, QueryChunks | None]:
    """The facts of a table.

    Args:
        table: The rows, or ``None``.
        batches: What is known of the batches of every update.
        world_size: The number of ranks.
        count: The batches that this rank has seen.
        scope: What the user declared about query ids; where that is anything, the samples tell nothing.
        repeats: As in ``RowFacts``.
        is_repeated: Whether another rank repeats the first sample of this one.
        pools: How many samples all ranks saw together, repeated ones included, of each dataloader that can have given
            the candidates.
        shards: How many samples this rank saw of each such dataloader, where the updates came in no step.
        single_life: As in ``RowFacts``.
        seek_answer: Whether to look for ``one_answer``.
    """
    if table is None:
        return RowFacts(single_life=single_life), None
    dropped = bool(table.scored)
    last = None if repeats is None else edge_of(batches, table.updates, last=True)
    sampled = _all_sizes([batch.samples for batch in batches], table.updates)
    starts = _starts_of_batches(table, sampled)
    most = None if sampled is None else world_size * (sampled if starts is None else _of_batch(sampled, starts))
    # ids of an update, and updates that were scored by themselves, need the updates kept apart
    chunks = cut_chunks(table, may_fold=scope != "batch" and not dropped, most=most)
    queries, query_of_chunk = join_chunks(chunks)
    restarts = chunks.met if chunks.folded else _count_restarts(chunks, query_of_chunk)
    # a look at the ids takes long, and matters only where they can number samples
    may_restart = scope == "auto" and (restarts > 0 or world_size > 1 or not single_life)
    distinct, counted = queries.query.unique_consecutive().numel(), queries.query.numel()
    # ids that count from zero in each update would be no more than those of the widest
    advancing = distinct > _MANY_MORE * chunks.widest
    go_on = not single_life and (restarts > 0 or advancing)
    by_batch = None if starts is None or not (may_restart or go_on) else _join_updates(table, starts)
    most = None if most is None or starts is None else most[starts]
    joined = None if by_batch is None else cut_chunks(by_batch, may_fold=True, most=most)
    if not may_restart or starts is None or sampled is None or by_batch is None or joined is None:
        in_batches = _facts_of_batches(table, chunks, batches, sampled, world_size, may_restart, count)
    else:
        of_batch = _join_batches(batches, starts)
        in_batches = {
            **_facts_of_batches(by_batch, joined, of_batch, sampled[starts], world_size, True, count),
            "queries_in_batches": joined.query.numel(),
            "parted_in_batches": chunks.folded or joined.query.numel() < chunks.query.numel(),
        }
    in_batches["lists_samples"] |= list_shard(table, queries, shards)
    facts = RowFacts(
        updates=table.updates,
        rows=int(chunks.rows.sum()),
        queries=counted,
        ids_unique=distinct == counted and (not chunks.met if chunks.folded else chunks.query.numel() == counted),
        chunks=chunks.query.numel(),
        **in_batches,
        lists_others=list_others(queries, shards),
        lists_repeated=any(bool((queries.rows % pool == 0).all()) for pool in pools),
        in_steps=any(batch.in_step for batch in batches),
        **_range(queries.query),
        # with the life, or the same rows in another life would look the same
        fingerprint=int(mix(queries.fingerprint ^ mix(queries.life)).sum()),
        ordered_fingerprint=_ordered_fingerprint(table) if world_size > 1 else 0,
        longest_query=_longest(queries.rows),
        longest_chunk=_longest(chunks.rows),
        restarts=restarts,
        spanning=chunks.parted + _count_parted(queries) if advancing else 0,
        whole_in_batches=go_on and joined is not None and _are_whole(joined),
        repeats=repeats,
        first_samples=describe_samples(table, batches, last=False) if is_repeated else NO_SAMPLES,
        last_samples=NO_SAMPLES if last is None else describe_samples(table, batches, last=True),
        last_batch=0 if last is None else last.start,
        ids_of_data=(is_repeated or repeats is not None) and are_of_data(chunks, batches, world_size),
        single_life=single_life and not dropped,
        one_answer=seek_answer and _has_one_answer(table, queries),
        rows_dropped=dropped,
        lacks_values=any(scored.values is None for scored in table.scored.values()),
        lacks_rows=dropped and _goes_on(table, chunks, query_of_chunk),
    )
    return facts, chunks


def _facts_of_batches(
    table: RowTable,
    chunks: QueryChunks,
    batches: Sequence[Batch],
    sampled: Tensor | None,
    world_size: int,
    may_restart: bool,
    count: int,
) -> dict[str, Any]:
    """What batches show of queries and their ids, where each came in one update."""
    queries = torch.bincount(chunks.update, minlength=table.updates)
    full = not chunks.folded and are_full(chunks.rows, chunks.relevant)
    whole = full and _same(queries, sampled)
    whole_of_all = full and sampled is not None and _same(queries, sampled * world_size)
    # rows of a query each to itself are no lists that a batch has made
    may_number = may_restart and not chunks.folded and bool((chunks.rows > 1).any())
    each, varies = _queries_a_sample(queries, sampled) if may_number else (0, False)
    # as many samples in every batch show nothing of several queries each: there may be as many in each
    each = each if each <= 1 or varies or is_diagonal(table, queries, each) else 0
    # samples without a relevant row may have been left out before the others were counted
    some = False
    if sampled is not None and may_number and first_source(chunks, batches) == "counted":
        some = full and bool((queries <= sampled * world_size).all())
        if not each and queries.unique().numel() > 1 and bool((queries <= sampled).all()):
            each, varies = 1, True
    may_number = may_number and (whole_of_all or some or each > 0)
    ids = look_at_ids(chunks, batches, count, world_size) if may_number else IdFacts()
    lists_samples = list_samples(table, chunks, sampled)
    return {
        **vars(ids),
        "one_query_a_sample": whole,
        "one_query_a_global_sample": whole_of_all,
        "queries_a_sample": each,
        "sizes_vary": varies,
        "is_diagonal": (ids.ids_consecutive or lists_samples) and is_diagonal(table, queries, max(each, 1)),
        "lists_samples": lists_samples,
    }


def _queries_a_sample(queries: Tensor, sampled: Tensor | None) -> tuple[int, bool]:
    """By which number the samples of all batches are multiplied, zero if it is none, and whether they vary."""
    if sampled is None or not bool((sampled > 0).all()):
        return 0, False
    factor, varies = int(queries[0] // sampled[0]), sampled.unique().numel() > 1
    return (factor if _same(queries, sampled * factor) else 0), varies


def _starts_of_batches(table: RowTable, sampled: Tensor | None) -> Tensor | None:
    """Which updates are the first of a batch, bool of shape ``(updates,)``; ``None`` where all are or it is not known.

    An update after which no sample came is of the same batch as the one before.
    """
    if sampled is None or table.scored or not bool((sampled[1:] == 0).any()):
        return None
    starts = torch.ones_like(table.lives, dtype=torch.bool)
    starts[1:] = (sampled[1:] != 0) | (table.lives[1:] != table.lives[:-1])
    return starts


def _of_batch(sampled: Tensor, starts: Tensor) -> Tensor:
    """For each update the samples of its batch."""
    return sampled[starts][starts.cumsum(0) - 1]


def _join_updates(table: RowTable, starts: Tensor) -> RowTable:
    """The same rows, with the updates of each batch as one."""
    lasts = starts.roll(-1)
    return replace(table, ends=table.ends[lasts.to(table.ends.device)], lives=table.lives[lasts])


def _join_batches(batches: Sequence[Batch], starts: Tensor) -> list[Batch]:
    """What is known of each batch."""
    joined: list[Batch] = []
    for batch, is_first in zip(batches, starts.tolist(), strict=True):
        if is_first:
            joined.append(batch)
        else:
            joined[-1] = replace(joined[-1], source=joined[-1].source if joined[-1].source == batch.source else None)
    return joined


def _has_one_answer(table: RowTable, queries: Queries) -> bool:
    if table.scored or not bool((queries.relevant == 1).all()):
        return False
    target, number = table.target, QueryKeys(table, ids_restart=False).of_rows()
    relevant = target > 0
    relevant_number, order = number[relevant].sort()
    score = table.preds[relevant][order]
    # more rows with the score of a relevant one than relevant ones: some query has a tie
    same = table.preds == score[torch.searchsorted(relevant_number, number)]
    is_plain = ((target == 0) | (target == 1)).all() & (score > 0).all()
    return bool(is_plain & (same.sum() == score.numel()))


def _all_sizes(samples: Sequence[int | None], updates: int) -> Tensor | None:
    if len(samples) != updates or any(size is None for size in samples):
        return None
    return torch.tensor(samples, dtype=torch.int64)


def _same(counts: Tensor, wanted: Tensor | None) -> bool:
    return wanted is not None and bool((counts == wanted).all())


def _count_restarts(chunks: QueryChunks, query_of_chunk: Tensor) -> int:
    again = query_of_chunk[1:] == query_of_chunk[:-1]
    differs = chunks.fingerprint[1:] != chunks.fingerprint[:-1]
    return int(query_of_chunk[1:][again & differs].unique().numel())


def _are_whole(batches: QueryChunks) -> bool:
    """Whether no query goes on in another batch, or without a relevant row in another metric life."""
    queries, query_of_chunk = join_chunks(batches)
    met = batches.met if batches.folded else _count_restarts(batches, query_of_chunk)
    return met == 0 and _count_parted(queries) == 0


def _goes_on(table: RowTable, chunks: QueryChunks, query_of_chunk: Tensor) -> bool:
    """Whether a query of an update whose rows were dropped stands in another update too."""
    again = torch.bincount(query_of_chunk)[query_of_chunk] > 1
    return bool(torch.isin(chunks.update[again], torch.tensor(list(table.scored))).any())


def _longest(rows: Tensor) -> int:
    return int(rows.max()) if rows.numel() else 0


def _range(ids: Tensor) -> dict[str, Any]:
    """Smallest and largest of ascending ids."""
    return {"id_min": int(ids[0]), "id_max": int(ids[-1]), "id_step": _step(ids)} if ids.numel() else {}


def _count_parted(queries: Queries) -> int:
    """Ids of which some metric life holds no relevant row while another one does."""
    ids, id_of_query = queries.query.unique_consecutive(return_inverse=True)
    has_hit = queries.relevant > 0
    hits, misses = (torch.zeros_like(ids).index_add_(0, id_of_query, part.long()) for part in (has_hit, ~has_hit))
    return int(((hits > 0) & (misses > 0)).sum())


def _step(ids: Tensor) -> int:
    """The greatest common divisor of the differences of ascending ids."""
    if int(ids[-1]) - int(ids[0]) >= 2**63:  # a difference that int64 cannot hold
        return 1
    steps = ids.diff()
    # torch has no gcd of a whole tensor, so halves are folded onto each other
    while steps.numel() > 1:
        half = (steps.numel() + 1) // 2
        folded = steps[:half].clone()
        folded[: steps.numel() - half] = torch.gcd(steps[: steps.numel() - half], steps[half:])
        steps = folded
    return abs(int(steps[0])) if steps.numel() else 0


def _ordered_fingerprint(table: RowTable) -> int:
    # from all over the table: ranks that were gathered in another order differ nearly everywhere
    rows = torch.linspace(0, len(table) - 1, min(len(table), _IN_ORDER), dtype=torch.float64).long()
    chosen = rows.to(table.query.device)
    # the position goes into the hash of each row, so that another order has another sum
    hashes = mix(rows)
    for column in (table.query, table.preds, table.target):
        hashes = mix(hashes ^ column[chosen].double().view(torch.int64).cpu())
    return int(hashes.sum()) >> (64 - _HASH_BITS) & ((1 << _HASH_BITS) - 1)
