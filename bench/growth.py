"""Time against the number of rows: ours must grow no faster than the rows; with the others, the points of a figure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench import ways
from bench.declare import Bench, Figure, Line, NotMeasured, Result, Scale, at_most, attempted
from bench.rows import Rows, unequal
from bench.turns import Way, medians, take_turns

CURVES: dict[str, Callable[[Rows], Way]] = {
    "ours": ways.ours,
    "floor": ways.key_sort,
    "ranx": ways.ranx,
    "pytrec_eval": ways.pytrec_eval,
    "torchmetrics": ways.torchmetrics,
}
LONGEST = {"torchmetrics": 10**5}
"""Beyond this many rows a way is left out: it would take minutes."""


def run(scale: Scale) -> Result:
    torch.set_num_threads(1)
    sizes = [10**power for power in range(4, scale.pick(8, 7))]
    points: dict[str, list[tuple[int, float]]] = {}
    for size in sizes:
        rows = unequal(size)
        seconds = medians(take_turns(_ways(rows, size), scale.pick(5, 3)))
        for name, taken in seconds.items():
            points.setdefault(name, []).append((len(rows), taken))
    return Result(_figures(points), {"points": points})


def _ways(rows: Rows, size: int) -> dict[str, Way]:
    """Those that can run; the figure goes without the others."""
    fitting = {name: way for name, way in CURVES.items() if size <= LONGEST.get(name, size)}
    made = {name: attempted(way, rows) for name, way in fitting.items()}
    return {name: way for name, way in made.items() if not isinstance(way, NotMeasured)}


def _figures(points: dict[str, Any]) -> dict[str, Figure]:
    if "ours" not in points:
        return {}
    each = {rows: seconds / rows for rows, seconds in points["ours"][1:]}
    smallest, *_, largest = each
    return {"growth": Figure(each[largest] / each[smallest])}


LINES = {"growth": Line("12 metrics, unequal lengths: time a row at 1e7 rows / at 1e5", at_most(1.6))}
BENCH = Bench("growth", LINES, run)
