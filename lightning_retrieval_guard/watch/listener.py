"""What the watches ask and report while a program runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from lightning_retrieval_guard.watch.suppressions import Suppressions

if TYPE_CHECKING:
    from lightning_retrieval_guard.watch.keys import KeyRecord
    from lightning_retrieval_guard.watch.metric_lives import MetricRecord
    from lightning_retrieval_guard.watch.stage import StageRecord
    from lightning_retrieval_guard.watch.update_context import Feed, Given, UpdateContext

P = ParamSpec("P")
T = TypeVar("T")


class WatchListener(Protocol):
    """Answers the watches on log calls, on metrics and on functionals."""

    suppressions: Suppressions

    @property
    def world_size(self) -> int:
        """The number of ranks."""

    @property
    def routes(self) -> bool:
        """Whether the guard supplies the values of retrieval metrics."""

    @property
    def in_step(self) -> bool:
        """Whether a batch has begun since the ranks last met."""

    def stage(self) -> StageRecord | None:
        """The stage that runs now."""

    def hook(self) -> str | None:
        """The Lightning hook that runs now."""

    def feeding(self) -> UpdateContext | None:
        """What feeds metrics at this moment, or ``None`` outside of stages."""

    def is_outer(self, feed: Feed) -> bool:
        """Whether a feed is that of an epoch of another stage, which goes on after the stage that runs now."""

    def protect(self, action: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """Run a part of the guard that must not bring the run down, and give what it returns if it comes to that."""

    def logged(self, key: KeyRecord) -> None:
        """A log call was taken in."""

    def may_drop_stale(self, record: MetricRecord) -> bool:
        """Whether a metric may be made to forget what it holds of earlier epochs."""

    def move_to_module_device(self, record: MetricRecord, given: Given) -> None:
        """Before an update: move the metric to where it is needed."""

    def compute(self, record: MetricRecord, plain: Callable[[], Any]) -> tuple[Any, bool]:
        """Compute the metric, and say whether the value combines all ranks."""

    def forward(self, record: MetricRecord, plain: Callable[[], Any]) -> tuple[Any, bool]:
        """Run ``forward`` of the metric, and say whether the value combines all ranks."""
