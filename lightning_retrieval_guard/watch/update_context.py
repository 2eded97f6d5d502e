"""What feeds metrics at a moment of a run, and what with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from lightning_retrieval_guard.epoch.query_ids import Batch, IdColumns

if TYPE_CHECKING:
    from lightning_retrieval_guard.watch.metric_lives import MetricRecord
    from lightning_retrieval_guard.watch.torch_functions import IdSources

Source = tuple[str | None, int | None]


class Feed(NamedTuple):
    """What fed a metric.

    Attributes:
        epoch: The epoch; ``None`` outside of stages.
        stage: Its stage.
        dataloader: The dataloader at hand, where there are several.
    """

    epoch: int | None = None
    stage: str | None = None
    dataloader: int | None = None

    @property
    def source(self) -> Source:
        """The same in every epoch."""
        return self.stage, self.dataloader


OUTSIDE_STAGES = Feed()


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
    """What feeds metrics, the same for a whole batch.

    Attributes:
        feed: The epoch, which has a number that no other epoch has, its stage and its dataloader.
        samples: The samples that this rank has seen of the dataloader, if certain.
        samples_before: Those seen before the batch at hand, or outside of batches before the epoch.
        is_over: Says of another epoch whether it began before this one and has ended.
        columns: Where in the batch ids can have come from.
        in_step: Whether a step runs.
        repeats: What of the batch the sampler repeats.
        id_sources: Knows ids that were counted from zero, and those that were made of the batch.
        logs_by_dataloader: Whether metric objects are logged for each of several dataloaders.
    """

    feed: Feed
    samples: int | None
    samples_before: int | None
    is_over: Callable[[int | None], bool]
    columns: IdColumns | None = None
    in_step: bool = True
    repeats: Repeats | None = None
    id_sources: IdSources | None = None
    logs_by_dataloader: bool = False

    def batch_of(self, record: MetricRecord, ids: Any) -> Batch:
        """What is known of the batches of an update that happens now.

        Args:
            record: Of a metric that keeps rows.
            ids: The query ids.
        """
        samples, dataloader = None, self.feed.source
        if self.samples is not None:
            # those since its last update by the same dataloader of the same stage
            samples = self.samples - record.samples_at_update.get(dataloader, 0)
            record.samples_at_update[dataloader] = self.samples
        source = None if self.id_sources is None else self.id_sources.of(ids)
        return Batch(samples, self.columns, self.in_step, source)

    def has_none_of(self, feeds: Iterable[Feed]) -> bool:
        """Whether all of these feeds are those of other stages."""
        return all(feed.stage not in (None, self.feed.stage) for feed in feeds)

    def is_outer(self, feed: Feed) -> bool:
        """Whether a feed is that of another epoch, which goes on after this one."""
        return feed.epoch not in (None, self.feed.epoch) and not self.is_over(feed.epoch)

    def is_of_another(self, feed: Feed, dataloader: int | None) -> bool:
        """Whether a feed is that of another stage that runs, or of another dataloader of this epoch.

        An update outside of stages belongs to whatever shows it.

        Args:
            feed: What fed a metric.
            dataloader: The dataloader of the key that shows the metric; any if ``None``.
        """
        if feed.epoch == self.feed.epoch:
            return dataloader is not None and feed.dataloader != dataloader
        return self.is_outer(feed)


class Given(NamedTuple):
    """The arguments of an update; rows and ids are those of a retrieval metric, as torchmetrics names its arguments."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def rows(self) -> int | None:
        """The number of rows, where they came as a tensor."""
        preds = self._argument("preds", 0)
        return preds.numel() if isinstance(preds, Tensor) else None

    @property
    def ids(self) -> Any:
        """The query ids."""
        return self._argument("indexes", 2)

    def _argument(self, name: str, index: int) -> Any:
        return self.kwargs.get(name, self.args[index] if index < len(self.args) else None)
