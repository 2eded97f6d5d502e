"""The page that tells of faults: `python -m tests.faults.table` writes it from runs on two processes."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from distributed.conftest import Pools

from .catalogue import FAULTS
from .described import run_fault
from .unusual import UNUSUAL

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
MODES = ("plain", "warn", "correct", "strict")

_TOP = """\
# Reliability

A guard sits in runs that cost more than what it guards. This page tells what becomes of a run when something fails, as
run: each fault is injected in real processes (gloo, CPU), and `python -m tests.faults.table` writes the page from what
happened on two of them. Tests run the column `correct` on 2, 3 and 4.

## What holds

- **A failure of the guard does not bring the run down.** It says so once ([LRG901](rules/LRG901-guard-disabled.md)),
  writes the report with all that it has found, and the run goes on as without it. Strict mode raises instead.
- **Ranks decide together.** A rank on which the guard fails writes why to the store and closes its end of the guard's
  group; the others get an error at once, wherever they wait for it, read why, and step aside too. In the modes
  `correct` and `strict` nothing is done before all ranks have said that they can do it: numbers are replaced on every
  rank or on none, and an error is raised on every rank or on none. That costs one byte a rank at each meeting.
- **Nobody is left waiting by the guard.** A rank that leaves the run by an exception or Ctrl-C says so in the same way,
  and the others end with an error that names rank and cause, as soon as they come to where ranks meet. Alone, they
  would wait for the time-out of the process group, half an hour unless you say otherwise.
- **The guard joins only where it can.** Ranks tell each other in the store whether they are ready before anything
  else; where one is not, all step aside.
- **A value that a rank has handed out stays.** Between the end of the batches and the end of the epoch's hooks the
  ranks do not meet. If the guard fails on one of them in between, `compute()` still returns there what it returns on
  the others; at the end of the hooks all step aside. Step values of metrics that combine ranks in each step stay the
  rank's own in the epoch in which the guard failed.

## Faults

The modes `warn` and `strict` are shown where they differ from the run alone and from `correct`. *waits for ever* means:
until the time-out of the process group, or until the launcher ends it.

"""

_UNUSUAL = """
## Unusual input and runs

The guard changes nothing: the number is the one without a guard, or the same exception is raised, in `warn` and in
`correct`. Tests compare them on 2, 3 and 4 processes. *wrong* means another number than that of all rows as they are,
which is to be expected where rows are changed or left out.

"""

_END = """
Not run here, because it needs an accelerator: states that move between devices within an epoch.
"""


def rows_of_faults(shown: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """The rows of the first table.

    Args:
        shown: By program and mode what became of the run.
    """
    for fault in FAULTS:
        cells = [shown.get((fault.program, mode), "") for mode in MODES]
        yield f"| {' | '.join([fault.what, *cells])} |"


def rows_of_unusual() -> Iterator[str]:
    """The rows of the second table."""
    for unusual in UNUSUAL.values():
        yield f"| {unusual.what} | {unusual.plain} | the same |"


def main() -> int:
    """Run the faults on two processes and write the page."""
    pools = Pools()
    try:
        shown = {
            (fault.program, mode): run_fault(pools, fault, mode, world=2) for fault in FAULTS for mode in fault.shown
        }
    finally:
        for pool in pools.values():
            pool.close()
    lines = [
        f"| fault | {' | '.join(MODES)} |",
        "|---|---|---|---|---|",
        *rows_of_faults(shown),
    ]
    unusual = ["| what | alone | under a guard |", "|---|---|---|", *rows_of_unusual()]
    page = _TOP + "\n".join(lines) + "\n" + _UNUSUAL + "\n".join(unusual) + "\n" + _END
    DOCUMENT.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
