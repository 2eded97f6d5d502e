"""The tables of faults in the page on reliability: `python -m tests.faults.table` writes them from runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.marks import put
from tests.distributed.harness import Pools

from .catalogue import FAULTS
from .described import run_fault
from .unusual import UNUSUAL

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
MODES = ("plain", "warn", "correct", "strict")


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


def table_of_faults(shown: Mapping[tuple[str, str], str]) -> str:
    """The first table."""
    return "\n".join([f"| fault | {' | '.join(MODES)} |", "|---|---|---|---|---|", *rows_of_faults(shown)])


def table_of_unusual() -> str:
    """The second table."""
    return "\n".join(["| what | alone | under a guard |", "|---|---|---|", *rows_of_unusual()])


def main() -> int:
    """Run the faults on two processes and write the tables."""
    pools = Pools()
    try:
        shown = {
            (fault.program, mode): run_fault(pools, fault, mode, world=2) for fault in FAULTS for mode in fault.shown
        }
    finally:
        pools.close()
    page = put(DOCUMENT.read_text(encoding="utf-8"), "faults", table_of_faults(shown))
    DOCUMENT.write_text(put(page, "unusual", table_of_unusual()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
