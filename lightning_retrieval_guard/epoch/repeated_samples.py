"""The sample that a distributed sampler repeated: found by what the metric was fed for it on both ranks.

The sampler says which rank had the sample first, as its first one, and which has it again, as its last one. Where a
sample is one query or one row, each of the two ranks describes those of that batch. A description that both share is
the sample's: up to rounding, since a model may round otherwise in another batch.
"""

from __future__ import annotations

from base64 import b85decode, b85encode
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_retrieval_guard.epoch.query_ids import Batch
from lightning_retrieval_guard.epoch.row_table import RowTable

# of a batch that is larger only these samples are described, the first or the last ones
_MOST_SAMPLES = 256
# how far a sum of scores may be off, as a share of the sum of their absolute values
_ROUNDING = 1e-5
_COARSE_ROUNDING = 4.0  # in units of the smallest step of a dtype that is coarser than float32
_IDS, _SUMS = 3, 4


@dataclass(frozen=True)
class SampleFacts:
    """What a rank tells of the samples of one batch; nothing where a sample is neither one query nor one row.

    Attributes:
        kind: ``"query"`` or ``"row"``.
        ids: Of each sample the query id, and of its rows the number and the number of relevant ones, as text.
        sums: Of each sample sums over its scores and relevance, as text.
        rounding: How far the sums may be off.
    """

    kind: str = ""
    ids: str = ""
    sums: str = ""
    rounding: float = _ROUNDING


NO_SAMPLES = SampleFacts()


def describe_samples(table: RowTable, batches: Sequence[Batch], last: bool) -> SampleFacts:
    """Describe the samples of the first or the last batch that a table holds.

    Args:
        table: The rows.
        batches: What is known of the batches behind every update.
        last: Whether to describe the last batch.
    """
    updates = edge_of(batches, table.updates, last)
    samples = None if updates is None else batches[updates.start].samples
    if updates is None or not samples or any(update in table.scored for update in updates):
        return NO_SAMPLES
    rows = table.rows_of(updates)
    query = table.query[rows].long().cpu()
    ids, of = query.unique(return_inverse=True)
    if ids.numel() == samples and int(table.segments[updates.start]) == int(table.segments[updates.stop - 1]):
        order = torch.full_like(ids, query.numel()).scatter_reduce(0, of, torch.arange(query.numel()), "amin").argsort()
        return _describe("query", table, rows, ids, of, _chosen(order, last))
    if query.numel() == samples:
        places = torch.arange(query.numel())
        return _describe("row", table, rows, query, places, _chosen(places, last))
    return NO_SAMPLES


def edge_of(batches: Sequence[Batch], updates: int, last: bool) -> range | None:
    """The updates of the first or the last batch: one that came with samples, and those that followed without."""
    if len(batches) != updates or any(batch.samples is None for batch in batches):
        return None
    starts = [update for update, batch in enumerate(batches) if batch.samples]
    if not starts or starts[0] != 0:
        return None
    if last:
        return range(starts[-1], updates)
    return range(starts[1] if len(starts) > 1 else updates)


def _chosen(order: Tensor, last: bool) -> Tensor:
    return order[-_MOST_SAMPLES:] if last else order[:_MOST_SAMPLES]


def _describe(kind: str, table: RowTable, rows: slice, ids: Tensor, of: Tensor, chosen: Tensor) -> SampleFacts:
    scores, relevance = table.preds[rows].double().cpu(), table.target[rows].double().cpu()
    counts = [torch.bincount(part, minlength=ids.numel()) for part in (of, of[relevance > 0])]
    columns = (scores, scores.abs(), scores * scores, scores * relevance)
    sums = torch.stack([torch.zeros(ids.numel(), dtype=torch.float64).index_add_(0, of, own) for own in columns])
    step = torch.finfo(table.preds.dtype).eps if table.preds.dtype.is_floating_point else 0.0
    coarse = step > torch.finfo(torch.float32).eps
    return SampleFacts(
        kind=kind,
        ids=_as_text(torch.stack([ids, *counts])[:, chosen]),
        sums=_as_text(sums[:, chosen]),
        rounding=_COARSE_ROUNDING * step if coarse else _ROUNDING,
    )


def rows_of_sample(table: RowTable, facts: SampleFacts, sample: int, update: int) -> Tensor:
    """Which rows of a table are those of a sample of its last batch, bool of shape ``(rows,)``.

    Args:
        table: The rows.
        facts: The samples of the last batch.
        sample: Its place among them.
        update: The first update of the batch.
    """
    rows = table.rows_of(range(update, table.updates))
    chosen = torch.zeros_like(table.query, dtype=torch.bool)
    if facts.kind == "query":
        chosen[rows] = table.query[rows] == int(_ids(facts)[0, sample])
    else:
        chosen[rows.stop - _ids(facts).shape[1] + sample] = True
    return chosen


def find_repeated(first: SampleFacts, last: SampleFacts, ids_restart: bool) -> int | None:
    """Which of the last samples of one rank is one of the first samples of another; ``None`` if none or several are.

    Args:
        first: The samples of the first batch of the rank that had the sample first.
        last: Those of the last batch of the rank that has it again.
        ids_restart: Whether query ids say nothing.
    """
    if not first.kind or not last.kind:
        return None
    skipped = 1 if ids_restart else 0
    one, other = (_ids(facts)[skipped:] for facts in (first, last))
    same = (one[:, :, None] == other[:, None]).all(dim=0)
    one_sums, other_sums = _sums(first), _sums(last)
    # scores, their absolute values, their squares, and those of relevant rows, each by what it is made of
    scale = torch.stack([one_sums[1], one_sums[1], one_sums[2], one_sums[1]])[:, :, None]
    rounding = max(first.rounding, last.rounding)
    apart = (one_sums[:, :, None] - other_sums[:, None]).abs()
    same &= (apart <= rounding * scale).all(dim=0)
    matches = same.nonzero()
    return int(matches[0, 1]) if len(matches) == 1 else None


def _as_text(numbers: Tensor) -> str:
    return b85encode(numbers.contiguous().numpy().tobytes()).decode()


def _ids(facts: SampleFacts) -> Tensor:
    return torch.frombuffer(bytearray(b85decode(facts.ids)), dtype=torch.int64).reshape(_IDS, -1)


def _sums(facts: SampleFacts) -> Tensor:
    return torch.frombuffer(bytearray(b85decode(facts.sums)), dtype=torch.float64).reshape(_SUMS, -1)
