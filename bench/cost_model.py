"""What the end of an epoch costs on W ranks, as plain formulas: collectives, bytes and seconds.

Bytes are those that one rank hands to collectives, and those it receives. An ``all_gather`` of b bytes a rank brings
it W b; an ``all_to_all_single`` brings as many as it takes. Time is latency, transfer and scoring: a collective to
all takes log2 W latencies, ``all_to_all_single`` W - 1, and bytes pass at one bandwidth. Rows are spread evenly.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

GIB = 2**30

STATE_BYTES = 20  # what torchmetrics keeps of a row: id and relevance as int64, score as float32
SIZE_BYTES = 8  # the length of a list element, which goes ahead of it
ROW_BYTES = 16  # a row on its way: place of its query, score, relevance
QUERY_BYTES = 32  # a query on its way with its rows: id, metric life, fingerprint, numbers of rows
FRAME_BYTES = 384  # what one meeting sends for the facts, unless they are longer
FACTS_BYTES = 280  # the facts themselves, compressed
SHARE_BYTES = 4  # more facts for each rank that owns queries, compressed: how many queries and rows go there
WORD_BYTES = 8


@dataclass(frozen=True)
class Job:
    """An epoch that ends.

    Attributes:
        ranks: W, the number of ranks.
        rows: Rows of all ranks together.
        length: Rows of a query.
        updates: Updates on each rank.
        metrics: Metrics over the same rows, each a mean over queries.
        spread: Over how many ranks a split query lies.
        keep: How many rows of a query can matter: the largest ``top_k``. Its best rows travel, the rest is counted.
        hook: Whether the program logs in a hook at the end of the epoch, which takes one more frame.
    """

    ranks: int
    rows: int
    length: int = 100
    updates: int = 50
    metrics: int = 12
    spread: int = 2
    keep: int = 10
    hook: bool = False

    @property
    def own_rows(self) -> float:
        """Rows of one rank."""
        return self.rows / self.ranks

    @property
    def queries(self) -> float:
        """Queries of all ranks together."""
        return self.rows / self.length

    @property
    def own_queries(self) -> float:
        """Queries that one rank scores."""
        return self.queries / self.ranks


@dataclass(frozen=True)
class Machine:
    """What one rank and its network can do.

    Attributes:
        latency: Seconds of one message.
        bandwidth: Bytes a second into one rank.
        row_seconds: One row of all metrics together, sorted and scored; measured.
        query_seconds: One query of one metric in torchmetrics' loop; measured.
    """

    latency: float = 50e-6
    bandwidth: float = 1e9
    row_seconds: float = 1e-7
    query_seconds: float = 1e-4


@dataclass(frozen=True)
class Cost:
    """What one rank does.

    Attributes:
        calls: How often it calls each collective.
        sent: Bytes that it hands to them.
        received: Bytes that come back; at the end they are all in memory, but for the plain collection, whose
            metrics follow one another.
        scored_rows: Rows that it sorts and scores at once.
        looped_queries: Queries that it scores one after the other, counted once for each metric.
        held: Received bytes that are in memory together.
    """

    calls: Counter[str] = field(default_factory=Counter)
    sent: float = 0.0
    received: float = 0.0
    scored_rows: float = 0.0
    looped_queries: float = 0.0
    held: float = 0.0

    def seconds(self, ranks: int, machine: Machine) -> float:
        """From the end of the last step to the end of the epoch."""
        scoring = self.scored_rows * machine.row_seconds + self.looped_queries * machine.query_seconds
        return self.travel_seconds(ranks, machine) + scoring

    def travel_seconds(self, ranks: int, machine: Machine) -> float:
        """The same without scoring."""
        exchanges = self.calls["all_to_all_single"]
        messages = (self.calls.total() - exchanges) * math.log2(ranks) + exchanges * (ranks - 1)
        return messages * machine.latency + self.received / machine.bandwidth


def plain(job: Job) -> Cost:
    """Torchmetrics alone: for each update, metric and one of three lists a barrier, the size, the elements."""
    lists = 3 * job.updates * job.metrics
    sent = lists * SIZE_BYTES + job.metrics * job.own_rows * STATE_BYTES
    return Cost(
        calls=Counter(barrier=lists, all_gather=2 * lists),
        sent=sent,
        received=job.ranks * sent,
        looped_queries=job.queries * job.metrics,
        held=job.rows * STATE_BYTES,
    )


def gathered_rows(job: Job) -> Cost:
    """All rows go to all ranks, packed, once for all metrics."""
    rows = ROW_BYTES * job.own_rows
    cost = _with_frames(job, Counter(all_gather=1), rows, job.ranks * rows)
    return _scoring(cost, job.rows)


def sums(job: Job) -> Cost:
    """Ours where no rank's range of ids meets another's: facts, then sums."""
    own = _sums_bytes(job)
    return _scoring(_with_frames(job, Counter(all_gather=1), own, job.ranks * own), job.own_rows)


def records(job: Job) -> Cost:
    """Ids overlap, queries are whole: id, fingerprint, row count and values of each to the rank that owns its id."""
    record = WORD_BYTES * (3 + job.metrics) * job.own_queries
    own = _sums_bytes(job)
    calls = Counter(all_to_all_single=1, all_gather=1)
    return _scoring(_with_frames(job, calls, record + own, record + job.ranks * own), job.own_rows)


def compared(job: Job) -> Cost:
    """Ids overlap, queries are whole: a summary of each goes to all ranks, then sums."""
    own = QUERY_BYTES * job.own_queries + _sums_bytes(job)
    return _scoring(_with_frames(job, Counter(all_gather=2), own, job.ranks * own), job.own_rows)


def split_rows(job: Job) -> Cost:
    """Queries are split: rows go to the rank that owns the id, then sums."""
    pieces = job.own_queries * job.spread
    parcel = pieces * (QUERY_BYTES + ROW_BYTES * min(job.keep, job.length / job.spread))
    own = _sums_bytes(job)
    calls = Counter(all_to_all_single=1, all_gather=1)
    cost = _with_frames(job, calls, parcel + own, parcel + job.ranks * own, FACTS_BYTES + SHARE_BYTES * job.ranks)
    return _scoring(cost, job.own_rows)


def compared_split_rows(job: Job) -> Cost:
    """Queries are split: a summary of each piece goes to all ranks, rows to the owner, then sums."""
    cost = split_rows(job)
    pieces = QUERY_BYTES * job.own_queries * job.spread
    received = cost.received + job.ranks * pieces
    calls = cost.calls + Counter(all_gather=1)
    return Cost(calls, cost.sent + pieces, received, cost.scored_rows, held=received)


WAYS: dict[str, Callable[[Job], Cost]] = {
    "plain torchmetrics": plain,
    "all rows gathered once": gathered_rows,
    "ours, ids apart: sums": sums,
    "ours, ids overlap: records to owners": records,
    "ours, ids overlap: summaries to all": compared,
    "ours, split queries: rows to owners": split_rows,
    "ours, split queries: summaries to all, rows to owners": compared_split_rows,
}
OURS = {
    "apart": (sums,),
    "interleaved": (sums, records, compared),
    "shuffled": (records, compared),
    "split": (split_rows, compared_split_rows),
}
"""The ways that a layout of ids can take; which one a version takes shows in its collectives."""


def rows_in_memory(ranks: int, memory: float) -> float:
    """From how many rows a rank on an all-gather of rows no longer fits a rank's memory."""
    return memory / (ROW_BYTES * ranks)


def _sums_bytes(job: Job) -> float:
    """Three words about the queries, then a sum and four words about it for each metric."""
    return WORD_BYTES * (3 + 5 * job.metrics)


def _with_frames(job: Job, calls: Counter[str], sent: float, received: float, facts: float = FACTS_BYTES) -> Cost:
    frames = [FRAME_BYTES] * (2 if job.hook else 1)
    if facts > FRAME_BYTES:  # a first frame tells the length, a second one holds it all
        frames.append(math.ceil(facts))
    total = received + job.ranks * sum(frames)
    return Cost(calls + Counter(all_gather=len(frames)), sent + sum(frames), total, held=total)


def _scoring(cost: Cost, rows: float) -> Cost:
    return Cost(cost.calls, cost.sent, cost.received, rows, held=cost.held)
