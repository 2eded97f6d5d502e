"""From the rows of all ranks to one number, along a plan."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.retrieval.facts import join_pieces
from lightning_retrieval_guard.retrieval.plan import Plan, QueryKey
from lightning_retrieval_guard.retrieval.rows import Pieces, RowTable, cut_pieces
from lightning_retrieval_guard.retrieval.scoring import EmptyQueryError, aggregate_lives, score_queries

_HEAD = 3  # scored queries, rows, whether scoring failed
_ROW_FIELDS = 4  # metric life, id, score, relevance
_BYTES = 8


@dataclass(frozen=True)
class Outcome:
    """The value of one metric over all ranks.

    Attributes:
        value: A number, or for a metric that only its own ``compute()`` can score whatever that returns; ``None``
            where there was nothing to score or scoring failed.
        error: What scoring raised, on this rank or another.
    """

    value: Any = None
    error: Exception | None = None


class LocalRows:
    """The rows of one metric on this rank that count under a plan."""

    def __init__(
        self, metric: Metric | None, table: RowTable | None, pieces: Pieces | None, plan: Plan, rank: int
    ) -> None:
        self.metric = metric
        self.plan = plan
        self.rank = rank
        self.table, self.pieces = _leave_out_repeated(table, pieces, plan, rank)

    def summary(self) -> Tensor:
        """The queries of this rank, int64 of shape ``(4, queries)``: life, id, fingerprint, number of rows."""
        if self.pieces is None:
            return torch.zeros(4, 0, dtype=torch.int64)
        queries = join_pieces(self.pieces)
        return torch.stack([queries.segment, queries.query, queries.fingerprint, queries.rows])

    def with_plan(self, plan: Plan) -> LocalRows:
        """The same rows under a plan that was completed."""
        same = copy(self)
        same.plan = plan
        return same

    def outcome(self, copies: int = 1) -> Outcome:
        """The value where this rank's rows are all there is.

        Args:
            copies: How often each row counts; torchmetrics counts gathered rows once for each rank.
        """
        if self.metric is None or self.table is None or self.pieces is None:
            return Outcome()
        try:
            if not _compat.scores_by_query(self.metric):
                return Outcome(_opaque_value(self.metric, self._numbered(self.table, self.pieces, 0)))
            sizes, lives = self._groups(self.pieces)
            order = self.pieces.order.repeat_interleave(copies)
            values, lives = _score(self.metric, self.table, order, sizes * copies, lives)
            return Outcome(aggregate_lives(self.metric, values, lives))
        except Exception as error:  # the metric's own code: its error belongs to whoever asks for the value
            return Outcome(error=error)

    def block(self, size: int) -> Tensor:
        """What this rank sends: values of its whole queries and the rows of split ones, uint8 of shape ``(size,)``."""
        head = torch.zeros(_HEAD, dtype=torch.int64)
        parts: list[Tensor] = [head]
        if self.metric is not None and self.table is not None and self.pieces is not None:
            whole, travelling = self._share_out(self.metric, self.pieces)
            try:
                values, marks = self._own_scores(self.metric, self.table, self.pieces, whole)
            except Exception:  # every rank must answer; the error comes up again where the value is asked for
                head[2] = 1
                values, marks = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
            rows = self._rows_to_send(self.table, self.pieces, travelling)
            head[0], head[1] = values.numel(), rows.shape[1]
            parts += [values.view(torch.int64), marks, rows.reshape(-1)]
        packed = torch.cat(parts).contiguous().view(torch.uint8)
        block = torch.zeros(size, dtype=torch.uint8)
        block[: packed.numel()] = packed
        return block

    def combine(self, blocks: Sequence[Tensor]) -> Outcome:
        """The value from the blocks of all ranks, the same on every rank."""
        values, marks, rows, failed = _read_blocks(blocks)
        if failed:
            return Outcome(error=self._scoring_error(failed))
        try:
            return Outcome(self._combine(values, marks, _table_of(rows, self.table)))
        except Exception as error:  # the metric's own code: its error belongs to whoever asks for the value
            return Outcome(error=error)

    def _combine(self, values: Tensor, marks: Tensor, table: RowTable | None) -> Any:
        if self.metric is None:  # this rank never met the metric, so it can add up but not score
            return float(values.sum() / marks.sum()) if table is None and self.plan.mean else None
        if self.plan.opaque:
            return None if table is None else _opaque_value(self.metric, table)
        more, lives = torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.int64)
        if table is not None:
            pieces = cut_pieces(table)
            queries = join_pieces(pieces)
            more, lives = _score(self.metric, table, pieces.order, queries.rows, queries.segment)
        if self.plan.mean:
            count = int(marks.sum()) + more.numel()
            return float(values.sum() + more.sum()) / count if count else 0.0
        return aggregate_lives(self.metric, torch.cat([values, more]), torch.cat([marks, lives]))

    # --- parts ------------------------------------------------------------------------------------------------

    def _groups(self, pieces: Pieces) -> tuple[Tensor, Tensor]:
        if self.plan.restarting:
            return pieces.rows, pieces.segment
        queries = join_pieces(pieces)
        return queries.rows, queries.segment

    def _share_out(self, metric: Metric, pieces: Pieces) -> tuple[Tensor, Tensor]:
        """Masks over the pieces: those this rank scores, and those whose rows it sends."""
        here = ~_among(pieces, {key for key, owner in self.plan.duplicates.items() if owner != self.rank})
        if not _compat.scores_by_query(metric):
            return torch.zeros_like(here), here
        split = _among(pieces, self.plan.split)
        return here & ~split, split

    def _own_scores(self, metric: Metric, table: RowTable, pieces: Pieces, whole: Tensor) -> tuple[Tensor, Tensor]:
        """Values and lives of the queries of this rank; for a mean their sum and their number."""
        sizes, lives = self._groups(pieces)
        of_group = torch.arange(sizes.numel()) if self.plan.restarting else join_pieces(pieces).of_piece
        mask = torch.zeros(sizes.numel(), dtype=torch.bool)
        mask[of_group[whole]] = True
        order = pieces.order[whole.to(pieces.of_row.device)[pieces.of_row]]
        values, lives = _score(metric, table, order, sizes[mask], lives[mask])
        if not self.plan.mean or _compat.aggregation_of(metric) != "mean" or not values.numel():
            return values, lives
        return values.sum().reshape(1), torch.tensor([values.numel()])

    def _rows_to_send(self, table: RowTable, pieces: Pieces, travelling: Tensor) -> Tensor:
        sent = self._numbered(table, pieces, self.rank)
        mask = travelling.to(pieces.of_row.device)[pieces.of_row]
        chosen = sent.take(pieces.order[mask])
        numbers = [chosen.segment, chosen.query]
        reals = [chosen.preds.double().view(torch.int64), chosen.target.double().view(torch.int64)]
        return torch.stack([*numbers, *reals]).cpu()

    def _numbered(self, table: RowTable, pieces: Pieces, rank: int) -> RowTable:
        """The table with ids that keep the queries of updates apart, where ids restart."""
        if not self.plan.restarting:
            return table
        query = torch.empty_like(table.query)
        query[pieces.order] = pieces.of_row + sum(facts.pieces for facts in self.plan.facts[:rank])
        return RowTable(table.segment, table.update, query, table.preds, table.target, table.updates)

    def _scoring_error(self, failed: Sequence[int]) -> Exception:
        own = self.outcome().error if self.rank in failed else None
        if own is not None:
            return own
        ranks = ", ".join(map(str, failed))
        if self.metric is not None and getattr(self.metric, "empty_target_action", None) == "error":
            wanted = "negative" if _compat.needs_irrelevant_row(self.metric) else "positive"
            return EmptyQueryError(
                f"`compute` method was provided with a query with no {wanted} target. (rank {ranks})"
            )
        return RuntimeError(f"{type(self.metric).__name__} could not score the queries of rank {ranks}.")


def block_sizes(plan: Plan, summaries: Sequence[Tensor]) -> list[int]:
    """The bytes that each rank sends under a plan; every rank can tell, so nobody has to ask.

    Args:
        plan: The completed plan.
        summaries: The queries of every rank where they were compared, else nothing.
    """
    sizes = []
    for rank, facts in enumerate(plan.facts):
        scored = 0 if plan.opaque else min(facts.pieces, 1) if plan.mean else facts.pieces
        rows = facts.rows if plan.opaque else 0
        if summaries and plan.split and not plan.opaque:
            keys = zip(*summaries[rank].tolist(), strict=True)
            rows = sum(count for life, query, _, count in keys if (life, query) in plan.split)
        sizes.append(_BYTES * (_HEAD + 2 * scored + _ROW_FIELDS * rows))
    return sizes


def _leave_out_repeated(
    table: RowTable | None, pieces: Pieces | None, plan: Plan, rank: int
) -> tuple[RowTable | None, Pieces | None]:
    if table is None or pieces is None or plan.drop == "nothing" or not plan.facts[rank].ends_repeated:
        return table, pieces
    keep = torch.ones_like(table.query, dtype=torch.bool)
    if plan.drop == "row":
        keep[-1] = False
    else:
        last = (table.query == table.query[-1]) & (table.update == table.update[-1])
        keep = ~last
    kept = table.take(keep)
    return (kept, cut_pieces(kept)) if len(kept) else (None, None)


def _score(metric: Metric, table: RowTable, order: Tensor, sizes: Tensor, lives: Tensor) -> tuple[Tensor, Tensor]:
    """Values and metric lives of the scored queries."""
    values, positions = score_queries(metric, table.preds[order], table.target[order], sizes.tolist())
    return values, lives[positions]


def _opaque_value(metric: Metric, table: RowTable) -> Any:
    lives = table.segment.unique()
    if lives.numel() == 1:
        return _compat.compute_on_rows(metric, table.query, table.preds, table.target)
    total, queries = 0.0, 0
    for life in lives:
        own = table.take(table.segment == life)
        count = own.query.unique().numel()
        total += float(_compat.compute_on_rows(metric, own.query, own.preds, own.target)) * count
        queries += count
    return total / queries


def _among(pieces: Pieces, keys: Collection[QueryKey]) -> Tensor:
    if not keys:
        return torch.zeros_like(pieces.query, dtype=torch.bool)
    pairs = zip(pieces.segment.tolist(), pieces.query.tolist(), strict=True)
    return torch.tensor([pair in keys for pair in pairs])


def _read_blocks(blocks: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    values, marks, rows, failed = [], [], [], []
    for rank, block in enumerate(blocks):
        numbers = block.contiguous().clone().view(torch.int64)
        scored, sent, bad = numbers[:_HEAD].tolist()
        if bad:
            failed.append(rank)
        body = numbers[_HEAD:]
        values.append(body[:scored].view(torch.float64))
        marks.append(body[scored : 2 * scored])
        rows.append(body[2 * scored : 2 * scored + _ROW_FIELDS * sent].reshape(_ROW_FIELDS, sent))
    return torch.cat(values), torch.cat(marks), torch.cat(rows, dim=1), failed


def _table_of(rows: Tensor, like: RowTable | None) -> RowTable | None:
    if not rows.shape[1]:
        return None
    preds, target = rows[2].view(torch.float64), rows[3].view(torch.float64)
    graded = bool((target != target.round()).any())
    return RowTable(
        segment=rows[0],
        update=torch.zeros_like(rows[0]),
        query=rows[1],
        preds=preds.to(like.preds.dtype if like is not None else torch.float32),
        target=target.to(like.target.dtype) if like is not None else target if graded else target.long(),
        updates=1,
    )
