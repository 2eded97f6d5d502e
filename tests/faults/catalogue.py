"""The faults, and what becomes of the run: alone, and under a guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WORLDS = (2, 3, 4)

RIGHT = "all: right number"
WAITS = "waits for ever"


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        program: One of ``programs.py``.
        what: For the page.
        shown: By mode what becomes of the run, in the words of ``describe``; "plain" is without a guard.
        rank: The rank that the fault is on, or that the others miss.
        several: Whether more than two ranks show the same; else chance decides what collectives meet.
    """

    program: str
    what: str
    shown: Mapping[str, str]
    rank: int = 1
    several: bool = True

    def worlds(self, mode: str) -> tuple[int, ...]:
        """The numbers of ranks to run; the mode that does most runs on all."""
        return WORLDS if mode == "correct" and self.several else WORLDS[:1]


def _left(error: str, cause: str = "") -> str:
    return f"rank 1: {error}; others: GuardError, rank(s) 1 left the run ({cause or error})"


_MISSED = "rank 1: killed; others: GuardError, a rank did not come"
_LATE = "all: GuardError, a rank did not come"

FAULTS = [
    Fault(
        "NoBatchSized",
        "a rank without a batch, sized loader",
        {
            "plain": f"rank 1: no number; others: {WAITS}",
            "correct": "rank 1: no number; others: right number (LRG205)",
            "strict": "all: GuardError, LRG205",
        },
    ),
    Fault(
        "NoBatchIterable",
        "a rank without a batch, iterable loader",
        {
            "plain": f"rank 1: no number; others: {WAITS}",
            "correct": "rank 1: no number; others: right number (LRG205)",
            "strict": "all: GuardError, LRG205",
        },
    ),
    Fault(
        "Uneven",
        "ranks with different numbers of batches",
        {
            "plain": "rank 1: RuntimeError; others: aborted",
            "correct": "all: right number (LRG205)",
            "strict": "all: GuardError, LRG205",
        },
    ),
    Fault(
        "RaisesInStep",
        "an exception in `validation_step` on one rank",
        {"plain": f"rank 1: OnPurpose; others: {WAITS}", "correct": _left("OnPurpose"), "strict": _left("OnPurpose")},
    ),
    Fault(
        "RaisesInUpdate",
        "an exception in `update` on one rank",
        {"plain": f"rank 1: ValueError; others: {WAITS}", "correct": _left("ValueError")},
    ),
    Fault(
        "RaisesInCompute",
        "an exception in `compute` on one rank",
        {"plain": "rank 1: OnPurpose; others: right number", "correct": "rank 1: OnPurpose; others: right number"},
    ),
    Fault(
        "KilledInStep", "a rank killed in a step", {"plain": "rank 1: killed; others: RuntimeError", "correct": _MISSED}
    ),
    Fault(
        "KilledInExchange",
        "a rank killed where ranks exchange",
        {"plain": "rank 1: killed; others: RuntimeError", "correct": _MISSED},
    ),
    Fault(
        "Sleeps",
        "a rank later than the guard's time-out",
        {"plain": RIGHT, "warn": "all: right number (LRG901)", "correct": _LATE},
    ),
    Fault("Interrupted", "Ctrl-C on every rank", {"plain": "all: SystemExit", "correct": "all: SystemExit"}),
    Fault(
        "InterruptedAlone",
        "Ctrl-C on one rank",
        {"plain": f"rank 1: SystemExit; others: {WAITS}", "correct": _left("SystemExit", "KeyboardInterrupt")},
    ),
    Fault(
        "GuardFails",
        "the guard itself fails on one rank",
        {
            "plain": RIGHT,
            "warn": "all: right number (LRG901)",
            "correct": "all: right number (LRG901)",
            "strict": "all: GuardError, LRG901",
        },
    ),
    Fault(
        "GuardFailsEverywhere",
        "the guard itself fails on every rank",
        {
            "plain": RIGHT,
            "warn": "all: right number (LRG901)",
            "correct": "all: right number (LRG901)",
            "strict": "all: GuardError, LRG901",
        },
    ),
    Fault(
        "ComputedAlone",
        "a metric computed on rank zero alone",
        {
            "plain": f"rank 0: {WAITS}; others: no number",
            "correct": "rank 0: right number; others: no number (LRG204)",
            "strict": "all: GuardError, LRG204",
        },
        rank=0,
    ),
    Fault(
        "FedAndComputedAlone",
        "a metric fed and computed on rank zero alone",
        {"plain": f"rank 0: {WAITS}; others: no number", "correct": "all: GuardError, LRG204"},
        rank=0,
    ),
    Fault(
        "MissingKey",
        "a key that one rank does not log",
        {
            "plain": f"rank 1: right number; others: {WAITS}",
            "correct": "all: GuardError, LRG206",
            "strict": "all: GuardError, LRG206",
        },
    ),
    Fault(
        "MissingKeySilenced",
        "the same, and LRG206 is ignored",
        {"plain": f"rank 1: right number; others: {WAITS}", "correct": f"rank 1: right number; others: {WAITS}"},
        several=False,
    ),
    Fault(
        "OtherOrder",
        "keys in another order on one rank",
        {
            "plain": "all: wrong number",
            "warn": "all: wrong number (LRG206)",
            "correct": "all: right number (LRG206)",
            "strict": "all: GuardError, LRG206",
        },
    ),
    Fault(
        "WeightSilencedAlone",
        "a wrong batch size, LRG102 silenced on one rank alone",
        {"plain": RIGHT, "correct": "all: right number (LRG102)", "strict": "all: GuardError, LRG102"},
    ),
]
