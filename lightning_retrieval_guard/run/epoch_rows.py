"""Which rows of a metric belong to an epoch, and not to another one or to another dataloader."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.rules.spec import Correction
from lightning_retrieval_guard.watch.metric_lives import AnyLife, Feed, MetricLife, SomeUpdates, UpdateInfo
from lightning_retrieval_guard.watch.update_context import UpdateContext

# what is known of the updates of a life, and what fed them
FedOf = Callable[[AnyLife], tuple[Sequence[UpdateInfo], Collection[Feed]]]


@dataclass(frozen=True)
class EpochRows:
    """The rows of some metric lives that belong to an epoch, and how many others these hold.

    Attributes:
        lives: The lives, with no other rows that count.
        stale: Rows of earlier epochs.
        sanity: Whether they all came from the sanity check.
        shared: Rows that another stage or dataloader fed.
    """

    lives: Sequence[AnyLife]
    stale: int = 0
    sanity: bool = True
    shared: int = 0


def epoch_rows_of(lives: Sequence[AnyLife], fed_of: FedOf, feeding: UpdateContext, dataloader: int | None) -> EpochRows:
    """What of some lives belongs to an epoch.

    Args:
        lives: The lives.
        fed_of: Finds what is known of the updates of a life.
        feeding: What feeds metrics in the epoch.
        dataloader: The dataloader that must have fed the rows; any if ``None``.
    """
    kept: list[AnyLife] = []
    stale = shared = 0
    sanity = True
    for life in lives:
        (infos, feeds), ids = fed_of(life), life.states()[0]
        # updates in compiled code are not seen, and then nothing says who fed which rows
        if not isinstance(life, MetricLife) or len(infos) != len(ids):
            kept.append(life)
            continue
        reasons = {feed: _why_not(feed, feeding, dataloader) for feed in feeds}
        # the common case needs no look at single updates
        if not any(reasons.values()):
            kept.append(life)
            continue
        chosen = []
        for update, info in enumerate(infos):
            rows = life.scored[update].rows if update in life.scored else ids[update].numel()
            reason = reasons[info.feed]
            if reason == "stale_state":
                stale += rows
                sanity = sanity and info.feed.stage == "sanity_check"
            elif reason == "foreign_state":
                shared += rows
            if reason is None:
                chosen.append(update)
        kept.append(life if len(chosen) == len(ids) else SomeUpdates(life, chosen))
    return EpochRows(kept, stale, sanity, shared)


def _why_not(feed: Feed, feeding: UpdateContext, dataloader: int | None) -> Correction | None:
    """Why rows are not of an epoch and dataloader; ``None`` for those that are."""
    if feeding.is_over(feed.epoch):
        return "stale_state" if feeding.stage != "train" else None  # a training may count on from epoch to epoch
    return "foreign_state" if feeding.is_of_another(feed, dataloader) else None
