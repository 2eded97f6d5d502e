"""Integer weights whose mean over ranks is floored."""

import pytest

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity

from .factories import findings_of, stage, steps, the_finding


def seven_samples(*totals: int, as_type: type = int, value: float = 1.0, **changed) -> KeyView:
    """A constant over 7 samples, one a batch, with the right batch sizes."""
    options = {"world_size": len(totals), "sync_dist": True, **changed}
    return KeyView(tuple(steps(*[(value, 1, as_type(1))] * total, **options) for total in totals))


@pytest.mark.parametrize(
    ("totals", "logged"), [((4, 3), 1.1667), ((3, 2, 2), 1.1667), ((2, 2, 2, 1), 1.75)], ids=["2", "3", "4"]
)
def test_the_constant_one_is_logged_too_large(totals: tuple[int, ...], logged: float) -> None:
    finding = the_finding("LRG104", stage(seven_samples(*totals)))
    assert finding.severity is Severity.ERROR
    assert finding.ranks == tuple(range(len(totals)))
    assert finding.effect.logged == pytest.approx(logged, abs=5e-5)
    assert finding.effect.reference == 1.0


def test_the_message_gives_the_totals_and_the_fix() -> None:
    assert the_finding("LRG104", stage(seven_samples(2, 2, 2, 1))).text() == (
        "LRG104 floored-batch-size: 'val_loss' has batch sizes that sum to 2, 2, 2, 1 on the ranks, and Lightning"
        " floors their integer mean, which inflates the epoch value. Logged 1.7500, reference 1.0000."
        " Pass a float, such as batch_size=float(len(labels))."
    )


def test_where_a_sample_counts_twice_no_number_is_that_of_one_device() -> None:
    finding = the_finding("LRG104", stage(seven_samples(4, 3), repeated=1))
    assert (finding.severity, finding.effect) == (Severity.ERROR, None)


def test_without_a_value_nothing_is_inflated() -> None:
    assert the_finding("LRG104", stage(seven_samples(4, 3, value=0.0))).severity is Severity.NOTE


@pytest.mark.parametrize(
    "key",
    [
        seven_samples(7),
        seven_samples(4, 4),
        seven_samples(4, 3, 2),  # unequal, and yet their mean is an integer
        seven_samples(4, 3, as_type=float),
        seven_samples(4, 3, sync_dist=False),
        seven_samples(4, 3, rank_zero_only=True),
        seven_samples(4, 3, reduction="sum"),
        seven_samples(4, 3, in_step=False),
    ],
    ids=["one-rank", "equal", "whole-mean", "float", "not-reduced", "rank-zero-only", "sum", "at-end"],
)
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG104", stage(key))


def test_the_factor_world_size_hides_it() -> None:
    rank_facts = [steps(*[(1.0, 1, 2)] * total, world_size=2, sync_dist=True) for total in (4, 3)]
    assert not findings_of("LRG104", stage(KeyView(tuple(rank_facts))))


def test_a_value_logged_once_in_the_last_of_many_batches_has_no_reference() -> None:
    key = KeyView(tuple(steps((1.0, size, size), world_size=2, sync_dist=True) for size in (4, 3)), batches=(5, 5))
    finding = the_finding("LRG104", stage(key))
    assert (finding.effect, finding.corrects) == (None, None)
    assert key.reference is None
    assert KeyView(key.facts, batches=(1, 1)).reference == 1.0
