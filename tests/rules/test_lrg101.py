"""A weight that is the world size times the samples of the rank."""

import pytest

from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity

from .factories import facts, findings_of, stage, steps, the_finding

WARNING, NOTE = Severity.WARNING, Severity.NOTE


def nominal_times_two(**changed) -> KeyView:
    """8 and 2 samples on each of 2 ranks, all with the weight 16."""
    options = {"world_size": 2, "nominal": 8, "sync_dist": True, **changed}
    return KeyView((steps((1.0, 8, 16), (2.0, 2, 16), **options),) * 2)


def test_nominal_size_times_world_size_weighs_a_short_batch_as_a_full_one() -> None:
    finding = the_finding("LRG101", stage(nominal_times_two()))
    assert finding.severity is WARNING
    assert finding.key == "val_loss"
    assert finding.hook == "validation_step"
    assert finding.ranks == (0, 1)
    assert finding.effect.logged == pytest.approx(1.5)
    assert finding.effect.reference == pytest.approx((8 * 1.0 + 2 * 2.0) / 10)
    assert finding.text() == (
        "LRG101 batch-size-times-world-size: 'val_loss' is logged with a batch_size of 2 times the samples in this"
        " rank's batch, on 2 ranks. Logged 1.5000, reference 1.2000."
        " Pass the number of samples in this rank's own batch, such as batch_size=float(len(labels))."
    )


def cancelling(names_devices: bool) -> KeyView:
    key_facts = steps((1.0, 8, 16), (2.0, 2, 4), world_size=2, nominal=8, sync_dist=True, names_devices=names_devices)
    return KeyView((key_facts, key_facts))


def test_a_factor_that_cancels_warns_where_the_source_names_the_devices() -> None:
    finding = the_finding("LRG101", stage(cancelling(names_devices=True)))
    assert (finding.severity, finding.effect) == (WARNING, None)
    assert finding.message.endswith(
        " The factor cancels as long as it is the same in every batch; with a shorter last batch it does not."
    )


def test_a_factor_that_cancels_is_else_a_note_without_numbers() -> None:
    finding = the_finding("LRG101", stage(cancelling(names_devices=False)))
    assert (finding.severity, finding.effect) == (NOTE, None)
    assert "cancels" not in finding.message


def two_views(names_devices: bool) -> KeyView:
    """Two views a sample on two ranks: the weight counts the views."""
    shapes = ((4, 3), (4, 3))
    logged = [(1.0, 4, 8), (2.0, 1, 8)]
    key_facts = steps(*logged, world_size=2, nominal=4, shapes=shapes, sync_dist=True, names_devices=names_devices)
    return KeyView((key_facts, key_facts))


def test_a_number_that_the_batch_explains_is_only_a_note() -> None:
    finding = the_finding("LRG101", stage(two_views(names_devices=False)))
    assert (finding.severity, finding.effect) == (NOTE, None)


def test_the_source_text_overrides_what_the_batch_explains() -> None:
    assert the_finding("LRG101", stage(two_views(names_devices=True))).severity is WARNING


def test_one_rank_whose_batch_explains_nothing_decides() -> None:
    explained, other = two_views(names_devices=False).facts[0], nominal_times_two().facts[0]
    assert the_finding("LRG101", stage(KeyView((explained, other)))).severity is NOTE
    assert the_finding("LRG101", stage(KeyView((other, other)))).severity is WARNING


@pytest.mark.parametrize(
    "key_facts",
    [
        steps((1.0, 8, 8), (2.0, 2, 2), world_size=2, nominal=8, sync_dist=True),
        steps((1.0, 8, 137), (2.0, 2, 41), world_size=2, nominal=8, sync_dist=True),  # token counts
        steps((1.0, 8, 137), (2.0, 2, 4), world_size=2, nominal=8, sync_dist=True),  # one of them by chance
        steps((1.0, None, 16), (2.0, None, 4), world_size=2, sync_dist=True),  # samples unknown
        steps((1.0, 2, 4), world_size=2, nominal=4, sync_dist=True),  # only a short batch: it is the nominal size
        facts(value=1.0, reduction="sum", sync_dist=True),
    ],
    ids=["true", "tokens", "tokens-by-chance", "unknown", "short-only", "sum"],
)
def test_right_programs_are_silent(key_facts) -> None:
    assert not findings_of("LRG101", stage(KeyView((key_facts, key_facts))))


def test_one_device_is_silent() -> None:
    assert not findings_of("LRG101", stage(KeyView((steps((1.0, 8, 8), (2.0, 2, 2), nominal=8),))))
