"""The ways in which public programs log an evaluation, on two devices in correct mode: right, or named."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from tests.distributed.harness import Pool

from .patterns import PATTERNS, Row, rows
from .trust import DOCUMENT, render_patterns

# What correct mode cannot know. A mean of a batch cannot be taken apart; sums that a callback keeps come from nowhere.
STAYS = {"FunctionalAuroc": "LRG403", "OneQuery": "LRG306", "SumsInCallback": "LRG403"}


@pytest.fixture(scope="module")
def shown(pools: Mapping[int, Pool]) -> dict[str, Row]:
    """Every pattern, run once."""
    return rows(pools)


@pytest.mark.parametrize("name", PATTERNS)
def test_it_is_right_or_named(shown: dict[str, Row], name: str) -> None:
    row = shown[name]
    assert row.is_right == (name not in STAYS)
    assert name not in STAYS or STAYS[name] in row.found


def test_the_page_has_these_numbers(shown: dict[str, Row]) -> None:
    section = render_patterns(shown.values())
    assert DOCUMENT.read_text(encoding="utf-8").endswith(section), "run python -m tests.programs.trust"
