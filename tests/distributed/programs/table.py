"""Every program of the matrix: its name, what it is, what is to be found, and on which world sizes."""

from __future__ import annotations

from . import programs
from .base import ComputedAtEnd, Entry, ObjectLogged, wrong

WRONG: dict[str, Entry] = {
    "gathered-object": wrong(programs.GatheredObject, "LRG201", right=ObjectLogged),
    "sync-off": wrong(programs.SyncOff, "LRG203", right=ComputedAtEnd),
    "sync-off-every": wrong(programs.SyncOffEvery, "LRG203", right=programs.EveryObject, worlds=(2,)),
    "arange-object": wrong(programs.ArangeObject, "LRG301", on=(1, 2, 3), right=programs.DatasetIds),
    "arange-ignored": wrong(programs.ArangeIgnored, "LRG301", on=(1, 2, 3), right=programs.DatasetIds),
    "no-mean-forward": wrong(programs.NoMeanForward, "LRG302", on=(1, 2, 3), right=programs.NoMeanObject),
    "class-running": wrong(programs.ClassRunning, "LRG402", on=(1, 2, 3), right=programs.ClassObject, asks=True),
    "nominal": wrong(programs.Nominal, "LRG102", on=(1, 2, 3), right=programs.TrueSize),
}

RIGHT: dict[str, Entry] = {
    "object": Entry(ObjectLogged),
    "object-error": Entry(programs.DatasetIds),
    "split-rows": Entry(programs.SplitRows),
    "repeated-queries": Entry(programs.RepeatedQueries),
    "sync-off-averaged": Entry(programs.SyncOffAveraged),
    "on-step": Entry(programs.OnStep),
    "sync-on-step": Entry(programs.SyncOnStep, notes=frozenset({"LRG207"})),
    "gathered": Entry(programs.Gathered),
    "true-times-world-size": Entry(programs.TrueTimesWorldSize, right=programs.TrueSize, advice=frozenset({"LRG101"})),
    "sum-states-forward": Entry(programs.SumStatesForward, right=programs.SumStates),
    "uneven-sum-states": Entry(programs.UnevenSumStates),
}

PROGRAMS: dict[str, Entry] = WRONG | RIGHT
EVERY: dict[str, Entry] = PROGRAMS | {"empty-queries": Entry(programs.EmptyQueries)}
