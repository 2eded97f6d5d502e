"""12 metrics at the end of an epoch, held against the least that has to be done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench import ways
from bench.declare import Bench, Figure, Line, Result, Scale, at_most
from bench.rows import Rows, equal, unequal
from bench.turns import medians, ratio, take_turns

Floor = Callable[[Rows], Callable[[], object]]


def _run(make: Callable[[int], Rows], floor: Floor, scale: Scale) -> Result:
    torch.set_num_threads(1)
    figures: dict[str, Figure] = {}
    data: dict[str, Any] = {}
    for name, count, rounds in (("1e6", scale.pick(10**6, 10**5), 9), ("1e7", scale.pick(10**7, 10**6), 5)):
        rows = make(count)
        seconds = take_turns({"ours": ways.ours(rows), "floor": floor(rows)}, scale.pick(rounds, 3))
        figures[name] = ratio(seconds["ours"], seconds["floor"])
        data[name] = medians(seconds)
    return Result(figures, {"seconds": data})


def _lines(rows: str, floor: str) -> dict[str, Line]:
    return {size: Line(f"12 metrics, {size} rows, {rows} / {floor}", at_most(1.5)) for size in ("1e6", "1e7")}


UNEQUAL = Bench(
    "unequal",
    _lines("unequal lengths, shuffled", "one sort of int64 keys"),
    lambda scale: _run(unequal, ways.key_sort, scale),
)
EQUAL = Bench(
    "equal",
    _lines("equal lengths", "one topk(10) of the 2-D block"),
    lambda scale: _run(equal, ways.block_topk, scale),
)
