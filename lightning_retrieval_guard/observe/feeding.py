"""What feeds metrics at a moment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Feeding:
    """What feeds metrics: the stage, the dataloader, and the samples this rank has seen of it, if certain.

    ``samples_before`` are those seen before the batch at hand, ``epoch`` is a number that no other epoch has, and
    ``is_over`` tells of another one whether it began before this one and has ended.
    """

    stage: str
    epoch: int
    dataloader: int | None
    samples: int | None
    samples_before: int | None
    is_over: Callable[[int | None], bool]
