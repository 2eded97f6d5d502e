"""The cost model against what was counted: collectives and bytes of small epochs, for every layout of ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from bench.collected import IDS, WAYS, Work, evaluate
from bench.cost_model import OURS, Cost, Job, plain
from bench.declare import Bench, Figure, Line, Result, Scale, at_most
from bench.ranks import Call, ranks

WORLD_SIZES = (2, 4)
METRICS = 12
Way = Callable[[Job], Cost]


def run(scale: Scale) -> Result:
    checked: list[dict[str, Any]] = []
    for world_size in WORLD_SIZES:
        with ranks(world_size) as call:
            checked += _checked(call, world_size, scale)
    off = max(abs(row["collectives"] - row["model_collectives"]) for row in checked)
    furthest = max((row["bytes"] / row["model_bytes"] for row in checked), key=lambda ratio: max(ratio, 1 / ratio))
    return Result({"collectives": Figure(off), "bytes": Figure(furthest)}, {"checked": checked})


def _checked(call: Call, world_size: int, scale: Scale) -> list[dict[str, Any]]:
    checked = []
    for ids in IDS:
        for way in WAYS:
            work = Work(queries=scale.pick(2000, 400), updates=5, ids=ids, length=40, way=way)
            checked.append(_compared(call, work, "correct", world_size, OURS[ids]))
    work = Work(queries=200, updates=5, ids="apart")
    return [*checked, _compared(call, work, "plain", world_size, [plain])]


def _compared(call: Call, work: Work, mode: str, world_size: int, ways: Sequence[Way]) -> dict[str, Any]:
    """What rank zero did beside the way that calls the same collectives; where none does, beside the first."""
    epoch = call(evaluate, work=work, mode=mode)[0]
    calls = Counter(epoch["end_collectives"])
    costs = {way.__name__: way(_job(work, world_size)) for way in ways}
    name = next((name for name, cost in costs.items() if cost.calls == calls), ways[0].__name__)
    cost = costs[name]
    return {
        "program": f"{mode}, {WAYS[work.way]}, ids {work.ids}, W={world_size}",
        "way": name,
        "collectives": calls.total(),
        "model_collectives": cost.calls.total(),
        "calls": dict(calls),
        "bytes": epoch["sent"],
        "model_bytes": cost.sent,
    }


def _job(work: Work, world_size: int) -> Job:
    return Job(
        ranks=world_size,
        rows=work.rows,
        length=work.length,
        updates=work.updates,
        metrics=METRICS,
        spread=world_size,
        hook=work.way == "hook",
    )


LINES = {
    "collectives": Line("cost model: collectives, furthest from those counted", at_most(0), ""),
    "bytes": Line("cost model: bytes sent, counted / model, furthest from 1", at_most(1.1)),
}
BENCH = Bench("model", LINES, run)
