"""The end of an epoch with 12 metrics: collectives, bytes and time, guarded against plain."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.collected import Work, evaluate
from bench.declare import Bench, Figure, Line, Result, Scale, at_least, at_most
from bench.ranks import Call, ranks
from bench.turns import medians, ratio

WORLD_SIZES = (2, 4)
OTHER_IDS = ("shuffled", "split")


def run(scale: Scale) -> Result:
    figures: dict[str, Figure] = {}
    data: dict[str, Any] = {}
    for world_size in WORLD_SIZES:
        with ranks(world_size) as call:
            figures |= _measure(call, world_size, scale, data)
    return Result(figures, data)


def _measure(call: Call, world_size: int, scale: Scale, data: dict[str, Any]) -> dict[str, Figure]:
    work = Work(queries=scale.pick(10_000, 800), updates=scale.pick(50, 4), ids="apart")
    for mode in ("plain", "correct"):
        call(evaluate, work=Work(queries=40, updates=2, ids="apart"), mode=mode)
    seconds: dict[str, list[float]] = {"plain": [], "correct": []}
    told: dict[str, dict[str, Any]] = {}
    for _ in range(scale.pick(3, 1)):
        for mode, taken in seconds.items():
            epochs = call(evaluate, work=work, mode=mode)
            taken.append(max(epoch["end_seconds"] for epoch in epochs))
            told[mode] = epochs[0]
    _check_equal(told["correct"]["values"], told["plain"]["values"])
    others = {
        ids: call(evaluate, work=replace(work, queries=800, updates=4, ids=ids), mode="correct")[0] for ids in OTHER_IDS
    }
    kept = {mode: {key: told[mode][key] for key in ("end_collectives", "sent")} for mode in told}
    kept["plain"]["end_collectives"] = len(kept["plain"]["end_collectives"])
    data[f"W={world_size}"] = {"seconds": medians(seconds), **kept}
    return {
        **{f"{ids}-{world_size}": Figure(len(epoch["end_collectives"])) for ids, epoch in others.items()},
        **_logged_as_objects(call, world_size, scale, data),
        f"collectives-{world_size}": Figure(len(told["correct"]["end_collectives"])),
        f"bytes-{world_size}": Figure(told["correct"]["sent"]),
        f"faster-{world_size}": ratio(seconds["plain"], seconds["correct"]),
    }


def _logged_as_objects(call: Call, world_size: int, scale: Scale, data: dict[str, Any]) -> dict[str, Figure]:
    """The whole epoch where the collection is logged in every step, as the documentation of torchmetrics does."""
    work = Work(queries=scale.pick(2_000, 400), updates=scale.pick(50, 4), ids="apart", way="object")
    seconds: dict[str, list[float]] = {"plain": [], "warn": [], "correct": []}
    in_steps = 0
    for _ in range(scale.pick(3, 1)):
        for mode, taken in seconds.items():
            epochs = call(evaluate, work=work, mode=mode)
            taken.append(max(epoch["seconds"] for epoch in epochs))
            in_steps = max(in_steps, epochs[0]["step_collectives"])
    data[f"objects, W={world_size}"] = medians(seconds)
    return {
        f"object-warn-{world_size}": ratio(seconds["warn"], seconds["plain"]),
        f"object-correct-{world_size}": ratio(seconds["correct"], seconds["plain"]),
        f"object-steps-{world_size}": Figure(in_steps),
    }


def _check_equal(guarded: dict[str, float], plain: dict[str, float]) -> None:
    """Every query is whole on its rank, so the plain program is right too, and both must agree."""
    wrong = {name: (guarded[name], value) for name, value in plain.items() if abs(guarded[name] - value) > 1e-5}
    if wrong:
        raise AssertionError(f"guarded and plain differ: {wrong}")


def _lines(world_size: int) -> dict[str, Line]:
    what, objects = f"epoch end, 12 metrics, W={world_size}", f"12 metrics logged as objects, W={world_size}"
    return {
        f"collectives-{world_size}": Line(f"{what}: collectives", at_most(4), ""),
        f"bytes-{world_size}": Line(f"{what}: bytes sent by a rank", at_most(16_000), "B"),
        f"faster-{world_size}": Line(f"{what}: faster than the plain collection", at_least(50)),
        **{f"{ids}-{world_size}": Line(f"{what}, ids {ids}: collectives", at_most(4), "") for ids in OTHER_IDS},
        f"object-warn-{world_size}": Line(f"{objects}: whole epoch, warn / plain", at_most(1.05)),
        f"object-correct-{world_size}": Line(f"{objects}: whole epoch, correct / plain", at_most(0.4)),
        f"object-steps-{world_size}": Line(f"{objects}: collectives in steps", at_most(0), ""),
    }


BENCH = Bench("sync", {name: line for size in WORLD_SIZES for name, line in _lines(size).items()}, run)
