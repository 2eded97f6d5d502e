"""What one device would have logged of a table, by torchmetrics alone, and what the samples tell of its ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from .tables import Made, Row, Scope, Table, Update, Way, tensors


def merged(metric: Made, updates: Iterable[Update]) -> float:
    """The value where rows with the same id belong together."""
    single = metric()
    for update in updates:
        ids, scores, relevance = tensors(update.rows)
        single.update(scores, relevance, indexes=ids)
    return float(single.compute())


def apart(metric: Made, updates: Sequence[Update]) -> float:
    """The value where each update has queries of its own."""
    shift = 1 + 2 * max(abs(row[0]) for update in updates for row in update.rows)
    return merged(metric, [_moved(update, shift * index) for index, update in enumerate(updates)])


def _moved(update: Update, by: int) -> Update:
    return replace(update, rows=tuple((row[0] + by, *row[1:]) for row in update.rows))


def averaged(metric: Made, updates: Sequence[Update]) -> float:
    """The mean of the values of single updates, by the sizes of their batches."""
    values = [merged(metric, [update]) * update.batch for update in updates]
    return sum(values) / sum(update.batch for update in updates)


def meets(table: Table) -> bool:
    """Whether an id stands in two updates with different rows."""
    seen: dict[int, frozenset[Row]] = {}
    for update in table.once:
        for query in {row[0] for row in update.rows}:
            rows = frozenset(row for row in update.rows if row[0] == query)
            if seen.setdefault(query, rows) != rows:
                return True
    return False


def may_restart(table: Table) -> bool:
    """Whether the samples leave open that ids restart: one whole query each, under ids that the batch does not hold."""
    given = table.ids == "given" and all(len({row[0] for row in sample}) == 1 for sample in table.samples)
    return has_one_query_a_sample(table) and meets(table) and not given


def tells_restart(table: Table) -> bool:
    """Whether the ids of a rank's updates are ranges that differ and overlap, so that they number its samples."""
    return table.ids == "of batch" and may_restart(table) and any(map(_overlap, _ranks(table)))


def _overlap(updates: Sequence[Update]) -> bool:
    return len({len({row[0] for row in update.rows}) for update in updates}) > 1


def has_one_query_a_sample(table: Table, *, made_in_step: bool = False) -> bool:
    """Whether every update holds one whole query for each sample that came in since the update before.

    A metric that was made in the step knows of the samples of its batch alone.
    """
    return all(_is_whole(update, made_in_step) for updates in _ranks(table) for update in updates)


def _ranks(table: Table) -> list[list[Update]]:
    return [[update for batch in table.updates(rank) for update in batch] for rank in range(table.world_size)]


def _is_whole(update: Update, made_in_step: bool) -> bool:
    rows = Counter(row[0] for row in update.rows)
    relevant = Counter(row[0] for row in update.rows if row[2])
    samples = update.batch if made_in_step else update.samples
    return len(rows) == samples and all(rows[query] >= 2 and relevant[query] for query in rows)


def expected(table: Table, metric: Made, way: Way, scope: Scope) -> list[float]:
    """What one device would have logged; several numbers where nothing tells which of them it is.

    A value of single updates stays the mean of them where an id comes again and nothing tells why, or where a metric
    that was made in a step may have seen parts of queries.
    """
    counted = [table.once]
    if table.repeated:
        counted.append([update for updates in _ranks(table) for update in updates])
    restarts = scope == "batch" or (scope == "auto" and tells_restart(table))
    together = apart if restarts or way == "step" else merged
    values = [together(metric, updates) for updates in counted]
    if scope == "auto" and may_restart(table) and not restarts:
        values += [apart(metric, updates) for updates in counted]
    whole = way == "forward" or (way == "step" and has_one_query_a_sample(table, made_in_step=True))
    if way in ("forward", "step") and not restarts and (meets(table) or not whole):
        values += [averaged(metric, updates) for updates in counted]
    return values
