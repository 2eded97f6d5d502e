"""Every fault in real processes: what becomes of the run, within seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from bench.marks import put
from tests.distributed.harness import Pool

from .catalogue import FAULTS, Fault
from .described import run_fault
from .table import DOCUMENT, table_of_faults, table_of_unusual

# Of what more ranks show: one that fails, one that is missing, one without a batch, and one that alone computes.
ON_THREE = {"RaisesInStep", "KilledInStep", "NoBatchSized", "FedAndComputedAlone"}


def case(fault: Fault, mode: str, world: int) -> Any:
    """One run; those without a guard, which show nothing of it, and most on more than two ranks are for the night."""
    is_short = mode != "plain" and (world == 2 or (world == 3 and fault.program in ON_THREE))
    return pytest.param(
        fault, mode, world, marks=() if is_short else pytest.mark.nightly, id=f"{fault.program}-{mode}-{world}"
    )


CASES = [case(fault, mode, world) for fault in FAULTS for mode in fault.shown for world in fault.worlds(mode)]


@pytest.mark.parametrize(("fault", "mode", "world"), CASES)
def test_what_becomes_of_the_run(pools: Mapping[int, Pool], fault: Fault, mode: str, world: int) -> None:
    assert run_fault(pools, fault, mode, world) == fault.shown[mode]


def test_the_page_shows_the_catalogue() -> None:
    page = DOCUMENT.read_text(encoding="utf-8")
    shown = {(fault.program, mode): text for fault in FAULTS for mode, text in fault.shown.items()}
    assert put(put(page, "faults", table_of_faults(shown)), "unusual", table_of_unusual()) == page
