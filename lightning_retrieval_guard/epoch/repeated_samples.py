"""Samples that came again, so that each rank has as many: how many, and which, found by what a metric was fed for them.

A distributed sampler says which rank had the sample first, as its first one, and which has it again, as its last one.
Where the rows of a batch fall into those of its samples, each of the two ranks describes the samples of that batch. A
description that both share is the sample's: up to rounding, since a model may round otherwise in another batch.
"""

from __future__ import annotations

from base64 import b85decode, b85encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.query_chunks import mix
from lightning_retrieval_guard.epoch.query_ids import Batch
from lightning_retrieval_guard.epoch.row_table import RowTable

# of a batch that is larger only these samples are described, the first or the last ones
_MOST_SAMPLES = 256
# how far a sum of scores may be off, as a share of the sum of their absolute values
ROUNDING = 1e-5
_COARSE_ROUNDING = 4.0  # in units of the smallest step of a dtype that is coarser than float32
_COUNTS, _IDS, _SUMS = 2, 3, 4


@dataclass(frozen=True, slots=True)
class Repeated:
    """Samples that were repeated, so that each rank has the same number.

    Attributes:
        count: How many, over all ranks.
        by: What repeated them.
    """

    count: int = 0
    by: Literal["sampler", "data set"] = "sampler"


NOT_REPEATED = Repeated()


def repeated_samples(exchanges: Sequence[Sequence[Mapping[str, Any]]]) -> dict[int, Repeated]:
    """For each dataloader the samples that came again: a sampler says so, those of a data set are seen."""
    repeated: dict[int, Repeated] = {}
    for messages in exchanges:
        # a rank that has not seen all of its samples reports none, and then nothing is known of any
        count = min(message["repeated"] for message in messages)
        of_exchange = Repeated(count) if count else Repeated(_repeated_by_data_set(messages), "data set")
        dataloader = max(message.get("dataloader", 0) for message in messages)
        repeated[dataloader] = most_repeated([repeated.get(dataloader, NOT_REPEATED), of_exchange])
    return repeated


def most_repeated(repeated: Iterable[Repeated]) -> Repeated:
    """Those that are most."""
    return max(repeated, key=lambda samples: samples.count, default=NOT_REPEATED)


def _repeated_by_data_set(messages: Sequence[Mapping[str, Any]]) -> int:
    """How many of the last ranks end on the first samples of the first ranks, in their order."""
    edges = [message.get("edges", ()) for message in messages]
    if len(edges) < 2 or not all(edges) or len({message["samples"] for message in messages}) > 1:
        return 0
    firsts, lasts = zip(*edges, strict=True)
    if len(set(firsts)) < len(firsts):  # ranks that begin alike have more in common than one sample
        return 0
    return next((count for count in range(len(edges) - 1, 0, -1) if lasts[-count:] == firsts[:count]), 0)


# --- which sample it is ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SampleFacts:
    """What a rank reports of the samples of one batch; nothing where its rows do not fall into samples.

    Attributes:
        samples: The number of samples in the batch.
        ids: Of each described sample the number of rows, of relevant ones, and a hash of their query ids, as text.
        sums: Of each of them sums over its scores and relevance, as text.
        rounding: How far the sums may be off.
    """

    samples: int = 0
    ids: str = ""
    sums: str = ""
    rounding: float = ROUNDING


NO_SAMPLES = SampleFacts()


def describe_samples(table: RowTable, batches: Sequence[Batch], last: bool) -> SampleFacts:
    """Describe the samples of the first or the last batch that a table holds.

    Args:
        table: The rows.
        batches: What is known of the batches of every update.
        last: Whether to describe the last batch.
    """
    updates = edge_of(batches, table.updates, last)
    samples = None if updates is None else batches[updates.start].samples
    if updates is None or not samples or any(update in table.scored for update in updates):
        return NO_SAMPLES
    sample_of_row = _samples_of(table, updates, samples)
    if sample_of_row is None:
        return NO_SAMPLES
    rows, chosen = table.rows_of(updates), _chosen(samples, last)
    query = mix(table.query[rows].long().cpu())
    # candidates that are masked out have scores of minus infinity
    scores = table.preds[rows].double().cpu().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    relevance = table.target[rows].double().cpu()
    counts = [torch.bincount(part, minlength=samples) for part in (sample_of_row, sample_of_row[relevance > 0])]
    ids = torch.zeros(samples, dtype=torch.int64).index_add_(0, sample_of_row, query)
    columns = (scores, scores.abs(), scores * scores, scores * relevance)
    zeros = torch.zeros(samples, dtype=torch.float64)
    sums = torch.stack([zeros.index_add(0, sample_of_row, column) for column in columns])
    step = torch.finfo(table.preds.dtype).eps if table.preds.dtype.is_floating_point else 0.0
    coarse = step > torch.finfo(torch.float32).eps
    return SampleFacts(
        samples=samples,
        ids=_as_text(torch.stack([*counts, ids])[:, chosen]),
        sums=_as_text(sums[:, chosen]),
        rounding=_COARSE_ROUNDING * step if coarse else ROUNDING,
    )


def _samples_of(table: RowTable, updates: range, samples: int) -> Tensor | None:
    """For every row of a batch the sample that it is of, int64 on the CPU; ``None`` where rows do not show it.

    A sample is one query, or else as many neighbouring rows as any other.
    """
    query = table.query[table.rows_of(updates)].cpu()
    ids, query_of_row = query.unique(return_inverse=True)
    # the same id in two metric lives stands for two queries
    if ids.numel() == samples and int(table.lives[updates.start]) == int(table.lives[updates.stop - 1]):
        rows = torch.arange(query.numel())
        first = torch.full_like(ids, query.numel(), dtype=torch.int64).scatter_reduce(0, query_of_row, rows, "amin")
        return first.argsort().argsort()[query_of_row]  # in the order in which they came
    if query.numel() and query.numel() % samples == 0:
        return torch.arange(samples).repeat_interleave(query.numel() // samples)
    return None


def edge_of(batches: Sequence[Batch], updates: int, last: bool) -> range | None:
    """The updates of the first or the last batch: one that came with samples, and those that followed without."""
    if len(batches) != updates or any(batch.samples is None for batch in batches):
        return None
    starts = [update for update, batch in enumerate(batches) if batch.samples]
    # rows that came before the first batch are of no known sample
    if not starts or starts[0] != 0:
        return None
    if last:
        return range(starts[-1], updates)
    return range(starts[1] if len(starts) > 1 else updates)


def _chosen(samples: int, last: bool) -> slice:
    return slice(max(samples - _MOST_SAMPLES, 0), samples) if last else slice(min(samples, _MOST_SAMPLES))


def rows_of_sample(table: RowTable, facts: SampleFacts, sample: int, update: int) -> Tensor:
    """Which rows of a table are those of a sample of its last batch, bool of shape ``(rows,)``.

    Args:
        table: The rows.
        facts: The samples of the last batch.
        sample: Its index among those that are described.
        update: The first update of the batch.
    """
    updates = range(update, table.updates)
    sample_of_row = _samples_of(table, updates, facts.samples)
    # the plan names only samples that were described
    assert sample_of_row is not None
    chosen = torch.zeros_like(table.query, dtype=torch.bool)
    is_of_sample = sample_of_row == _chosen(facts.samples, last=True).start + sample
    chosen[table.rows_of(updates)] = is_of_sample.to(chosen.device)
    return chosen


def find_repeated(first: SampleFacts, last: SampleFacts, ids_restart: bool) -> int | None:
    """Which of the last samples of one rank is one of the first samples of another; ``None`` if none or several are.

    Args:
        first: The samples of the first batch of the rank that had the sample first.
        last: Those of the last batch of the rank that has it again.
        ids_restart: Whether query ids say nothing.
    """
    if not first.samples or not last.samples:
        return None
    one, other = (_ids(facts)[: _COUNTS if ids_restart else _IDS] for facts in (first, last))
    same = (one[:, :, None] == other[:, None]).all(dim=0)
    one_sums, other_sums = _sums(first), _sums(last)
    # scores, their absolute values, their squares, and those of relevant rows, each by what it is made of
    scale = torch.stack([one_sums[1], one_sums[1], one_sums[2], one_sums[1]])[:, :, None]
    rounding = max(first.rounding, last.rounding)
    apart = (one_sums[:, :, None] - other_sums[:, None]).abs()
    same &= (apart <= rounding * scale).all(dim=0)
    matches = same.nonzero()
    # of two that are alike nothing says which it is
    return int(matches[0, 1]) if len(matches) == 1 else None


def _as_text(numbers: Tensor) -> str:
    return b85encode(numbers.contiguous().numpy().tobytes()).decode()


def _ids(facts: SampleFacts) -> Tensor:
    return torch.frombuffer(bytearray(b85decode(facts.ids)), dtype=torch.int64).reshape(_IDS, -1)


def _sums(facts: SampleFacts) -> Tensor:
    return torch.frombuffer(bytearray(b85decode(facts.sums)), dtype=torch.float64).reshape(_SUMS, -1)
