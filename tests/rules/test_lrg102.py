"""The nominal weight for a batch that is shorter."""

import pytest

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity

from .factories import findings_of, stage, steps, the_finding

SHORT = steps((1.0, 64, 64), (3.0, 16, 64), nominal=64)
TRUE = steps((1.0, 64, 64), (3.0, 16, 16), nominal=64)


def test_a_short_last_batch_weighs_as_much_as_a_full_one() -> None:
    finding = the_finding("LRG102", stage(KeyView((SHORT,))))
    assert finding.severity is Severity.WARNING
    assert finding.ranks == (0,)
    assert (finding.effect.logged, finding.effect.reference) == (2.0, pytest.approx((64 + 48) / 80))
    assert finding.text() == (
        "LRG102 constant-batch-size: 'val_loss' is logged with the loader's nominal batch_size while the batch is"
        " shorter (rank 0), so the short batch weighs as much as a full one. Logged 2.0000, reference 1.4000."
        " Pass the number of samples in the batch, such as batch_size=float(len(labels))."
    )


def test_it_names_the_ranks_with_a_short_batch() -> None:
    full = steps((1.0, 64, 64), (3.0, 64, 64), world_size=3, nominal=64)
    short = steps((1.0, 64, 64), (3.0, 16, 64), world_size=3, nominal=64)
    finding = the_finding("LRG102", stage(KeyView((full, short, short))))
    assert finding.ranks == (1, 2)
    assert "(ranks 1 and 2)" in finding.message
    # where a sample counts twice, nobody knows what one device would have logged
    assert finding.effect is not None
    assert the_finding("LRG102", stage(KeyView((full, short, short)), repeated=1)).effect is None


def test_half_a_batch_on_two_ranks_is_this_rule_when_the_full_batches_have_their_own_size() -> None:
    key_facts = steps((1.0, 8, 8), (3.0, 4, 8), world_size=2, nominal=8)
    assert findings_of("LRG102", stage(KeyView((key_facts, key_facts))))
    assert not findings_of("LRG101", stage(KeyView((key_facts, key_facts))))


def test_equal_values_make_it_a_note() -> None:
    key_facts = steps((1.0, 64, 64), (1.0, 16, 64), nominal=64)
    assert the_finding("LRG102", stage(KeyView((key_facts,)))).severity is Severity.NOTE


@pytest.mark.parametrize(
    "key_facts",
    [
        TRUE,
        steps((1.0, 64, 64), (3.0, 64, 64), nominal=64),  # the last batch is full
        steps((1.0, 64, 100), (3.0, 16, 64), nominal=64),  # another unit, the nominal size by chance
        steps((1.0, None, 64), (3.0, None, 64)),
        steps((1.0, 64, 64), (3.0, 16, 64), nominal=64, reduction="max"),
    ],
    ids=["true", "full", "other-unit", "unknown", "max"],
)
def test_right_programs_are_silent(key_facts) -> None:
    assert not findings_of("LRG102", stage(KeyView((key_facts,))))
