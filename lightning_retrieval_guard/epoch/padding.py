"""The samples that came again, so that each rank has as many: a sampler says so, those of a data set are seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Repeated:
    """Samples that were repeated, so that each rank has the same number.

    Attributes:
        count: How many, over all ranks.
        by: What repeated them.
    """

    count: int = 0
    by: Literal["sampler", "data set"] = "sampler"


NOT_REPEATED = Repeated()


def repeated_samples(exchanges: Sequence[Sequence[Mapping[str, Any]]]) -> dict[int, Repeated]:
    """For each dataloader the samples that came again: a sampler says so, those of a data set are seen."""
    repeated: dict[int, Repeated] = {}
    for messages in exchanges:
        # a rank that has not seen all of its samples reports none, and then nothing is known of any
        count = min(message["repeated"] for message in messages)
        of_exchange = Repeated(count) if count else Repeated(_repeated_by_data_set(messages), "data set")
        dataloader = max(message.get("dataloader", 0) for message in messages)
        repeated[dataloader] = most_repeated([repeated.get(dataloader, NOT_REPEATED), of_exchange])
    return repeated


def most_repeated(repeated: Iterable[Repeated]) -> Repeated:
    """Those that are most."""
    return max(repeated, key=lambda samples: samples.count, default=NOT_REPEATED)


def _repeated_by_data_set(messages: Sequence[Mapping[str, Any]]) -> int:
    """How many of the last ranks end on the first samples of the first ranks, in their order."""
    edges = [message.get("edges", ()) for message in messages]
    if len(edges) < 2 or not all(edges) or len({message["samples"] for message in messages}) > 1:
        return 0
    firsts, lasts = zip(*edges, strict=True)
    if len(set(firsts)) < len(firsts):  # ranks that begin alike have more in common than one sample
        return 0
    return next((count for count in range(len(edges) - 1, 0, -1) if lasts[-count:] == firsts[:count]), 0)
