"""What feeds metrics at a moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lightning_retrieval_guard.epoch.query_ids import Batch, IdColumns
from lightning_retrieval_guard.watch.metric_lives import Feed, MetricRecord


@dataclass(frozen=True, slots=True)
class Repeats:
    """What of the batch at hand the sampler repeats.

    Attributes:
        size: The samples in the batch.
        is_first: Whether its first sample is the last one of another rank again.
        last_of: The rank that has its last sample as its first one, if the sampler repeats it.
    """

    size: int
    is_first: bool
    last_of: int | None


@dataclass(frozen=True)
class UpdateContext:
    """What feeds metrics: the stage, the dataloader, and the samples this rank has seen of it, if certain.

    ``samples_before`` are those seen before the batch at hand, ``epoch`` is a number that no other epoch has, and
    ``is_over`` says of another one whether it began before this one and has ended. ``columns`` are those that ids can
    have come from, ``in_step`` says whether a step runs, ``repeats`` what of its batch the sampler repeats, and
    ``logs_by_dataloader`` whether metric objects are logged for each of several dataloaders.
    """

    stage: str
    epoch: int
    dataloader: int | None
    samples: int | None
    samples_before: int | None
    is_over: Callable[[int | None], bool]
    columns: IdColumns | None = None
    in_step: bool = True
    repeats: Repeats | None = None
    logs_by_dataloader: bool = False

    def feed(self, record: MetricRecord) -> tuple[Feed, Batch]:
        """A metric is updated now: what feeds it, and what is known of the batches since its update before."""
        record.fed_by.setdefault(self.stage, set()).add(self.dataloader)
        samples, source = None, (self.stage, self.dataloader)
        if self.samples is not None:
            # those since its last update by the same dataloader of the same stage
            samples = self.samples - record.samples_at_update.get(source, 0)
            record.samples_at_update[source] = self.samples
        return Feed(self.epoch, self.stage, self.dataloader), Batch(samples, self.columns, self.in_step)

    def is_of_another(self, feed: Feed, dataloader: int | None) -> bool:
        """Whether a feed is that of another stage that runs, or of another dataloader of this epoch.

        An update outside of stages belongs to whatever shows it.

        Args:
            feed: What fed a metric.
            dataloader: The dataloader of the key that shows the metric; any if ``None``.
        """
        if feed.epoch == self.epoch:
            return dataloader is not None and feed.dataloader != dataloader
        return feed.epoch is not None and not self.is_over(feed.epoch)
