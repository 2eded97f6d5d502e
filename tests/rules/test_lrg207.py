"""A metric combines ranks in every step."""

import pytest

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from tests.unit.simulated import update

from .factories import facts, findings_of, source, stage, the_finding


def in_steps(times: int, ranks: int = 2) -> KeyView:
    updates = [[update([rank, rank], [0.9, 0.1], [1, 0])] for rank in range(ranks)]
    key_facts = facts("val_recall", kind="metric", source="recall")
    return KeyView((key_facts,) * ranks, source(updates, synced_in_steps=times), computed=1.0)


@pytest.mark.parametrize(("times", "said"), [(1, "1 time;"), (40, "40 times;")])
def test_it_is_a_note_that_counts(times: int, said: str) -> None:
    finding = the_finding("LRG207", stage(in_steps(times)))
    assert finding.severity is Severity.NOTE
    assert finding.effect is None
    assert finding.ranks == (0, 1)
    assert finding.text() == (
        f"LRG207 sync-in-step: 'val_recall' combined 2 ranks within steps {said} each time all ranks wait for the"
        " slowest. Update in the step, and log the metric object."
    )


@pytest.mark.parametrize("key", [in_steps(0), in_steps(40, ranks=1), KeyView((facts(value=1.0, weight=1.0),) * 2)])
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG207", stage(key))
