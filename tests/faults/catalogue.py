"""The faults, and what becomes of the run: alone, and under a guard in each mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

WORLDS = (2, 3, 4)

RIGHT = "the right number on every rank"
WRONG = "a wrong number on every rank"
ONE_RIGHT = "the right number; the rank that has nothing logs none"
ALL_WAIT = "rank 0 waits for ever"
OTHERS_WAIT = "it ends; the others wait for ever"
LEFT = "it ends with its own error; the others with one that names rank and cause"
KILLED = "the others end with one that says which rank did not come"
LOST = "the others end with one that says that a rank was lost"


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes:
        program: One of ``programs.py``.
        what: For the page.
        shown: By mode what becomes of the run, in the words of ``describe``; "plain" is without a guard.
    """

    program: str
    what: str
    shown: Mapping[str, str]

    def worlds(self, mode: str) -> tuple[int, ...]:
        """The numbers of ranks to run: what a mode does with more than two shows in the one that does most."""
        return WORLDS if mode == "correct" else WORLDS[:1]
