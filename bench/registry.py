"""Every bench, in the order of the table."""

from __future__ import annotations

from bench import growth, issue_2852, lint, log_calls, memory, others, scoring, states, sync
from bench.declare import Bench

_IN_ORDER = (
    scoring.UNEQUAL,
    scoring.EQUAL,
    others.BENCH,
    growth.BENCH,
    memory.BENCH,
    sync.BENCH,
    issue_2852.BENCH,
    states.BENCH,
    log_calls.BENCH,
    lint.BENCH,
)
BENCHES: dict[str, Bench] = {bench.name: bench for bench in _IN_ORDER}
