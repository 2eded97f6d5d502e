"""What became of a run, in a few words that are the same for any number of ranks."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest

from tests.distributed.harness import CaseTimeout, Outcome, Pool

from .catalogue import WAITS, Fault
from .programs import reference

_HANGS = 3.0
"""Seconds after which a rank waits that is known to wait for ever."""
_ENDS = 60.0
_GRACE = 4.0
_GRACE_OF_HANGS = 1.5
_RUN = f"{__package__}.programs:run"


def run_fault(pools: Mapping[int, Pool], fault: Fault, mode: str, world: int) -> str:
    """Run a fault on `world` real processes, and say what became of it."""
    waits = WAITS in fault.shown[mode]
    limit, grace = (_HANGS, _GRACE_OF_HANGS) if waits else (_ENDS, _GRACE)
    pool = pools[world]
    pool.run(_RUN, program="Sound", mode="plain", timeout=_ENDS)  # so that starting does not count
    try:
        outcomes = pool.run(
            _RUN, case=f"{fault.program}, {mode}", program=fault.program, mode=mode, timeout=limit, grace=grace
        )
    except CaseTimeout as late:
        if not waits:
            raise
        outcomes = late.outcomes
    return describe(outcomes, fault.rank)


def describe(outcomes: Sequence[Outcome], rank: int) -> str:
    """One rank by itself where it ended in another way than the others, and what was found."""
    text_of_rank = {outcome.rank: _text_of(outcome) for outcome in outcomes}
    all_codes = sorted({code for outcome in outcomes if outcome.ok for code in outcome.value["codes"]})
    codes = f" ({', '.join(all_codes)})" if all_codes else ""
    if len(set(text_of_rank.values())) == 1:
        return f"all: {text_of_rank[rank]}{codes}"
    others = sorted({text for number, text in text_of_rank.items() if number != rank})
    return f"rank {rank}: {text_of_rank[rank]}; others: {' or '.join(others)}{codes}"


def _text_of(outcome: Outcome) -> str:
    if outcome.ok:
        return _number(outcome.value["number"])
    if outcome.status == "died":
        return "killed" if "-9" in outcome.error else "aborted"
    if outcome.status == "killed":
        return WAITS
    return f"{outcome.error_types[0]}{_gist(outcome.error)}"


def _number(number: float | None) -> str:
    if number is None:
        return "no number"
    return f"{'right' if number == pytest.approx(reference(), abs=1e-6) else 'wrong'} number"


def _gist(error: str) -> str:
    """What a message of the guard says: the rule, or which rank is missing and why."""
    code = re.search(r"LRG\d+", error)
    if code is not None:
        return f", {code.group()}"
    left = re.search(r"(rank\(s\) [\d, ]+ left the run) before '[^']+': (\w+)", error)
    if left is not None:
        return f", {left.group(1)} ({left.group(2)})"
    # whether the others saw it come depends on who was first
    return ", a rank did not come" if re.search("did not come|a rank was lost", error) else ""
