"""Timing ways of doing the same thing by turns, so that all of them see the same machine."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

from bench.declare import Figure

Way = Callable[[], object]
Seconds = Mapping[str, Sequence[float]]


def take_turns(ways: Mapping[str, Way], rounds: int) -> dict[str, list[float]]:
    """Seconds of every way in every round, after one call of each that warms up; every other round runs backwards."""
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            seconds[name].append(clocked(ways[name]))
    return seconds


def clocked(way: Way) -> float:
    """Seconds of one call, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        begun = time.perf_counter()
        way()
        return time.perf_counter() - begun
    finally:
        gc.enable()


def ratio(above: Sequence[float], below: Sequence[float]) -> Figure:
    """The ratio of neighbours, round by round."""
    return summary([one / other for one, other in zip(above, below, strict=True)])


def summary(values: Sequence[float]) -> Figure:
    """The median and the middle half."""
    if len(values) < 3:
        return Figure(statistics.median(values), min(values), max(values))
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Figure(middle, low, high)


def medians(seconds: Seconds) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}
