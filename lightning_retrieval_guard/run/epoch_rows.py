"""Which rows of a metric belong to an epoch, and not to another one or to another dataloader."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.run.shared_rows import Lives
from lightning_retrieval_guard.watch.metric_lives import AnyLife, Feed, MetricLife, SomeUpdates, UpdateInfo
from lightning_retrieval_guard.watch.update_context import UpdateContext

# what is known of the updates of a life, and what fed them
FedOf = Callable[[AnyLife], tuple[Sequence[UpdateInfo], Collection[Feed]]]


@dataclass(frozen=True)
class Part:
    """The rows of some metric lives that belong to an epoch, and how many others these hold.

    Attributes:
        lives: The lives, with no other rows that count.
        stale: Rows of earlier epochs.
        sanity: Whether they all came from the sanity check.
        shared: Rows that another stage or dataloader fed.
    """

    lives: Lives
    stale: int = 0
    sanity: bool = True
    shared: int = 0


def part_of(
    lives: Lives, fed_of: FedOf, feeding: UpdateContext, dataloader: int | None, keeps: Callable[[AnyLife, str], bool]
) -> Part:
    """What of some lives belongs to an epoch.

    Args:
        lives: The lives.
        fed_of: Finds what is known of the updates of a life.
        feeding: What feeds metrics in the epoch.
        dataloader: The dataloader that must have fed the rows; any if ``None``.
        keeps: Whether the rows that a rule is about belong to it all the same, because the rule may not speak.
    """
    kept: list[AnyLife] = []
    stale = shared = 0
    sanity = True
    for life in lives:
        (infos, feeds), ids = fed_of(life), life.states()[0]
        if not isinstance(life, MetricLife) or len(infos) != len(ids):
            kept.append(life)
            continue
        codes = {feed: _rule_against(feed, feeding, dataloader) for feed in feeds}
        if not any(codes.values()):
            kept.append(life)
            continue
        own = []
        for update, info in enumerate(infos):
            rows = life.scored[update].rows if update in life.scored else ids[update].numel()
            code = codes[info.feed]
            if code == "LRG401":
                stale += rows
                sanity = sanity and info.feed.stage == "sanity_check"
            elif code == "LRG404":
                shared += rows
            if code is None or keeps(life, code):
                own.append(update)
        kept.append(life if len(own) == len(ids) else SomeUpdates(life, own))
    return Part(kept, stale, sanity, shared)


def _rule_against(feed: Feed, feeding: UpdateContext, dataloader: int | None) -> str | None:
    """The rule that says why rows are not of an epoch and dataloader; ``None`` for those that are."""
    if feeding.is_over(feed.epoch):
        return "LRG401" if feeding.stage != "train" else None  # a training may count on from epoch to epoch
    return "LRG404" if feeding.is_of_another(feed, dataloader) else None
