"""What metrics still hold of epochs that are over."""

from __future__ import annotations

from collections.abc import Iterable

from torchmetrics import Metric

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.watch.metric_lives import Dropped, MetricRecord
from lightning_retrieval_guard.watch.update_context import UpdateContext


def may_be_stale(metric: Metric, stage: str) -> bool:
    """Whether a metric is meant to start anew in each epoch of a stage.

    A training may count on from epoch to epoch, and aggregators and wrappers may hold the best value of a run.
    """
    kept = ("torchmetrics.aggregation", "torchmetrics.wrappers")
    module = type(metric).__module__
    is_torchmetrics = module.startswith("torchmetrics.") and not module.startswith(kept)
    return stage != "train" and (is_torchmetrics or _compat.is_rows_metric(metric))


def drop_stale(
    record: MetricRecord, feeding: UpdateContext, row_records: Iterable[tuple[Metric, MetricRecord]]
) -> None:
    """Make a metric forget what it was fed in earlier epochs, before the first update of another one.

    Args:
        record: The metric.
        feeding: What is about to feed it.
        row_records: The living metrics that keep rows: members of a compute group share them, and lose them together.
    """
    metric = record.metric()
    if metric is None or not may_be_stale(metric, feeding.stage):
        return
    if not all(feeding.is_over(feed.epoch) for feed in record.feeds):
        return
    if not record.is_rows and metric.update_count != sum(record.feeds.values()):
        return  # updates in compiled code are not seen
    count, sharers = sum(record.feeds.values()), [(metric, record)]
    if record.is_rows:
        ids = _compat.row_states(metric)[0]
        count = sum(part.numel() for part in ids)
        sharers = [(other, sharer) for other, sharer in row_records if _compat.row_states(other)[0] is ids]
    dropped = Dropped(feeding.epoch, count, all(feed.stage == "sanity_check" for feed in record.feeds))
    for other, sharer in sharers:
        other.reset()
        sharer.dropped = dropped
        if other is not metric:
            _compat.share_rows(metric, other)
