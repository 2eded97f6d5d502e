"""12 metrics from 1e6 rows: how many times faster than torchmetrics, ranx and pytrec_eval."""

from __future__ import annotations

from typing import Any

import torch

from bench import ways
from bench.declare import Bench, Figure, Line, NotMeasured, Result, Scale, at_least, attempted
from bench.rows import Rows, equal, unequal
from bench.turns import Way, medians, ratio, take_turns

FEW = 300
"""Queries that torchmetrics gets; its loop takes the same time for each, so the seconds are scaled up."""

MAKERS = {"unequal": unequal, "equal": equal}
OTHERS = {"ranx": ways.ranx, "pytrec_eval": ways.pytrec_eval}
TARGETS = {
    "unequal": {"torchmetrics": 200, "ranx": 3, "pytrec_eval": 10},
    "equal": {"torchmetrics": 500, "ranx": 6, "pytrec_eval": None},
}


def run(scale: Scale) -> Result:
    torch.set_num_threads(1)
    figures: dict[str, Figure] = {}
    data: dict[str, Any] = {}
    notes: dict[str, str] = {}
    for name, make in MAKERS.items():
        rows = make(scale.pick(10**6, 10**5))
        check_equal(rows)
        chosen, missing = _ways(rows)
        seconds = take_turns(chosen, scale.pick(7, 3))
        seconds["torchmetrics"] = [taken * rows.queries / FEW for taken in seconds["torchmetrics"]]
        data[name] = medians(seconds)
        own = seconds.pop("ours")
        figures |= {f"{name}-{other}": ratio(taken, own) for other, taken in seconds.items()}
        notes |= {f"{name}-{other}": reason for other, reason in missing.items()}
    return Result(figures, {"seconds": data}, notes)


def _ways(rows: Rows) -> tuple[dict[str, Way], dict[str, str]]:
    """What can run here, and why the rest cannot."""
    chosen: dict[str, Way] = {"ours": ways.ours(rows), "torchmetrics": ways.torchmetrics(rows.first(FEW))}
    missing: dict[str, str] = {}
    for name, way in OTHERS.items():
        made = attempted(way, rows)
        if isinstance(made, NotMeasured):
            missing[name] = str(made)
        else:
            chosen[name] = made
    return chosen, missing


def check_equal(rows: Rows) -> None:
    """A fast wrong number is worth nothing: on some queries the values must be those of torchmetrics."""
    few = rows.first(FEW)
    own, expected = ways.ours(few)(), ways.torchmetrics(few)()
    wrong = {name: (own[name], value) for name, value in expected.items() if abs(own[name] - value) > 1e-5}
    if wrong:
        raise AssertionError(f"ours and torchmetrics differ: {wrong}")


LINES = {
    f"{rows}-{other}": Line(
        f"12 metrics, {rows} lengths: faster than {other}", None if limit is None else at_least(limit)
    )
    for rows, limits in TARGETS.items()
    for other, limit in limits.items()
}
BENCH = Bench("others", LINES, run)
