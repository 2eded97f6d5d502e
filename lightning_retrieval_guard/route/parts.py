"""Which rows of a metric belong to an epoch, and not to another one or to another dataloader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lightning_retrieval_guard.observe.segments import Life, Segment, SomeRows, UpdateInfo
from lightning_retrieval_guard.observe.stage import StageRecord
from lightning_retrieval_guard.route.row_sets import Lives

InfosOf = Callable[[Life], Sequence[UpdateInfo]]


@dataclass(frozen=True)
class Part:
    """The rows of some metric lives that belong to an epoch, and how many others these hold.

    Attributes:
        lives: The lives, with no other rows.
        stale: Rows of earlier epochs.
        sanity: Whether they all came from the sanity check.
        shared: Rows that another stage or dataloader fed.
    """

    lives: Lives
    stale: int = 0
    sanity: bool = True
    shared: int = 0


def part_of(lives: Lives, infos_of: InfosOf, stage: StageRecord, dataloader: int | None) -> Part:
    """What of some lives belongs to an epoch.

    Args:
        lives: The lives.
        infos_of: Finds what is known of the updates of a life.
        stage: The epoch.
        dataloader: The dataloader that must have fed the rows; any if ``None``.
    """
    kept: list[Life] = []
    stale = shared = 0
    sanity = True
    for life in lives:
        infos, ids = infos_of(life), life.states()[0]
        if not isinstance(life, Segment) or len(infos) != len(ids):
            kept.append(life)
            continue
        own = []
        for update, info in enumerate(infos):
            rows = life.known[update].rows if update in life.known else ids[update].numel()
            if stage.is_over(info.epoch):
                stale += rows
                sanity = sanity and info.stage == "sanity_check"
            elif info.epoch not in (None, stage.epoch) or (dataloader is not None and info.dataloader != dataloader):
                shared += rows
            else:
                own.append(update)
        kept.append(life if len(own) == len(ids) else SomeRows(life, own))
    return Part(kept, stale, sanity, shared)
