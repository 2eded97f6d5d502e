"""What became of a run, in a few words that are the same for any number of ranks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from distributed.harness import CaseTimeout, Outcome, Pool

from .catalogue import Fault
from .programs import FAULTY, reference

_HANGS = 4.0
"""Seconds after which a rank waits that is known to wait for ever."""
_ENDS = 60.0
_GRACE = 4.0
_RUN = f"{__package__}.programs:run"


def run_fault(pools: Mapping[int, Pool], fault: Fault, mode: str, world: int) -> str:
    """Run a fault on `world` real processes, and say what became of it."""
    waits = "wait" in fault.shown[mode]
    limit = _HANGS if waits else _ENDS
    pool = pools[world]
    pool.run(_RUN, program="Sound", mode="plain", timeout=_ENDS)  # so that starting does not count
    try:
        outcomes = pool.run(
            _RUN, case=f"{fault.program}, {mode}", program=fault.program, mode=mode, timeout=limit, grace=_GRACE
        )
    except CaseTimeout as late:
        if not waits:
            raise
        outcomes = late.outcomes
    return describe(outcomes)


def describe(outcomes: Sequence[Outcome]) -> str:
    """The faulty rank by itself where it ended in another way, then the others."""
    told = {outcome.rank: _told(outcome) for outcome in outcomes}
    found = sorted({code for outcome in outcomes if outcome.ok for code in outcome.value["codes"]})
    codes = f" ({', '.join(found)})" if found else ""
    if len(set(told.values())) == 1:
        return f"every rank {told[0]}{codes}"
    others = sorted({text for rank, text in told.items() if rank != FAULTY})
    return f"rank {FAULTY} {told[FAULTY]}; {' or '.join(['others ' + text for text in others])}{codes}"


def _told(outcome: Outcome) -> str:
    if outcome.ok:
        return _number(outcome.value)
    if outcome.status == "died":
        return "is killed" if "-9" in outcome.error else "aborts"
    if outcome.status == "killed":
        return "waits"
    return f"raises {outcome.error_types[0]}{_gist(outcome.error)}"


def _number(value: dict[str, Any]) -> str:
    if value["number"] is None:
        return "ends without a number"
    return f"logs {'the right' if value['number'] == pytest.approx(reference(), abs=1e-6) else 'a wrong'} number"


def _gist(error: str) -> str:
    """What a message of the guard says: the rule, or which rank is missing and why."""
    code = re.search(r"LRG\d+", error)
    if code is not None:
        return f" with {code.group()}"
    missing = re.search(r"rank\(s\) [\d, ]+ (did not come|left the run)|a rank was lost", error)
    if missing is None:
        return ""
    reason = re.search(r"left the run before '[^']+': (\w+)", error)
    return f": {missing.group()}" + (f" ({reason.group(1)})" if reason else "")
