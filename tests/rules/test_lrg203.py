"""A value of this rank alone is logged as the value of the epoch."""

import math

import pytest
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.source_view import SourceView
from lightning_retrieval_guard.epoch.views import KeyView
from lightning_retrieval_guard.findings import Severity
from lightning_retrieval_guard.rules import REGISTRY
from tests.unit.simulated import update

from .factories import at_end, facts, findings_of, source, stage, steps, the_finding


def plain(first: float, second: float, **changed) -> KeyView:
    """One batch of 4 samples on rank 0, and one of 2 on rank 1."""
    options = {"world_size": 2, **changed}
    return KeyView((steps((first, 4, 4), **options), steps((second, 2, 2), **options)))


def shards(**changed) -> SourceView:
    """One query on each rank: reciprocal rank 1 on rank 0, 1/2 on rank 1."""
    return source(
        [[update([0, 0], [0.9, 0.1], [1, 0])], [update([1, 1], [0.9, 0.1], [0, 1])]], RetrievalMRR(), **changed
    )


def test_a_plain_value_shows_the_shard_of_rank_zero() -> None:
    finding = the_finding("LRG203", stage(plain(1.0, 4.0)))
    assert finding.severity is Severity.ERROR
    assert (finding.key, finding.ranks) == ("val_loss", (0, 1))
    assert finding.text() == (
        "LRG203 never-synced: 'val_loss' is a rank's own value, never combined over 2 ranks: the logger shows the shard"
        " of rank 0. Logged 1.0000, reference 2.0000. Pass sync_dist=True."
    )


def test_it_says_who_decides_by_the_key() -> None:
    finding = the_finding("LRG203", stage(plain(1.0, 4.0), monitored=frozenset({"val_loss"})))
    assert finding.message.endswith("rank 0. A checkpoint, early stopping or scheduler monitors it.")
    assert "monitors" not in the_finding("LRG203", stage(plain(1.0, 4.0), monitored=frozenset({"loss"}))).message


def test_forward_shows_the_shard_of_rank_zero() -> None:
    options = {"kind": "forward", "source": "mrr", "weight": 1.0}
    ranks = (facts("val_mrr", value=1.0, **options), facts("val_mrr", value=0.5, **options))
    finding = the_finding("LRG203", stage(KeyView(ranks, shards())))
    assert finding.severity is Severity.ERROR
    assert finding.text() == (
        "LRG203 never-synced: 'val_mrr' is a rank's own value, never combined over 2 ranks: the logger shows the shard"
        " of rank 0. Logged 1.0000, reference 0.7500. Log the metric object, built with sync_on_compute=True."
    )


def test_a_metric_object_that_must_not_combine_ranks_is_found() -> None:
    key_facts = facts("val_mrr", kind="metric", source="mrr")
    finding = the_finding("LRG203", stage(KeyView((key_facts, key_facts), shards(synchronises=False), computed=1.0)))
    assert (finding.effect.logged, finding.effect.reference) == (1.0, 0.75)
    assert finding.fix == "Log the metric object, built with sync_on_compute=True."


def test_compute_of_a_metric_that_must_not_combine_ranks_is_found() -> None:
    options = {"kind": "compute", "source": "mrr", "name": "val_mrr"}
    key = KeyView((at_end(1.0, **options), at_end(0.5, **options)), shards(synchronises=False))
    finding = the_finding("LRG203", stage(key))
    assert (finding.effect.logged, finding.effect.reference) == (1.0, 0.75)


@pytest.mark.parametrize("kind", ["compute", "forward"])
def test_the_mean_over_ranks_is_no_advice_for_a_metric_without_rows(kind: str) -> None:
    key = KeyView((at_end(0.75, kind=kind), at_end(0.5, kind=kind)))
    assert the_finding("LRG203", stage(key)).fix == "Log the metric object, built with sync_on_compute=True."
    assert the_finding("LRG203", stage(KeyView((at_end(0.75), at_end(0.5))))).fix == "Pass sync_dist=True."


def test_a_value_at_the_end_has_no_reference() -> None:
    finding = the_finding("LRG203", stage(KeyView((at_end(1.0), at_end(3.0)))))
    assert finding.severity is Severity.ERROR
    assert finding.effect is None


def test_where_rank_zero_is_right_by_chance_it_is_a_note() -> None:
    ranks = [[update([rank, rank], [0.9, 0.1], [1, 0])] for rank in range(2)]
    key_facts = facts("val_mrr", kind="metric", source="mrr")
    key = KeyView((key_facts, key_facts), source(ranks, RetrievalMRR(), synchronises=False), computed=1.0)
    assert the_finding("LRG203", stage(key)).severity is Severity.NOTE


@pytest.mark.parametrize(
    "key",
    [
        plain(2.0, 2.0),
        plain(1.0, 4.0, sync_dist=True),
        plain(1.0, 4.0, rank_zero_only=True),
        plain(1.0, 4.0, synced=True, kind="compute"),
        plain(float("nan"), float("nan")),
        KeyView((steps((1.0, 4, 4)),)),
        KeyView((at_end(1.0), None)),  # not on every rank: LRG206 has it, where it is combined
        KeyView((facts("val_mrr", kind="metric", source="mrr"),) * 2, shards(), computed=0.75),
    ],
    ids=["equal", "sync-dist", "rank-zero-only", "synced", "nan", "one-rank", "absent", "metric"],
)
def test_right_programs_are_silent(key: KeyView) -> None:
    assert not findings_of("LRG203", stage(key))


def test_the_same_rows_on_every_rank_need_no_combining() -> None:
    rows = [update([0, 0], [0.9, 0.1], [1, 0])]
    key_facts = facts("val_mrr", kind="metric", source="mrr")
    key = KeyView((key_facts, key_facts), source([rows, rows], RetrievalMRR(), synchronises=False), computed=1.0)
    assert not findings_of("LRG203", stage(key))


def test_a_plain_value_of_the_training_is_no_result() -> None:
    ranks = (steps((1.0, 4, 4), world_size=2), steps((2.0, 4, 4), world_size=2))
    assert not list(REGISTRY["LRG203"].check(stage(KeyView(ranks, evaluates=False))))
    assert list(REGISTRY["LRG203"].check(stage(KeyView(ranks, evaluates=True))))


def test_a_reference_is_a_finite_number() -> None:
    key = KeyView((steps((7.0, 4, 4), world_size=2), steps((math.nan, 4, 4), world_size=2)))
    assert the_finding("LRG203", stage(key)).effect is None
    assert key.reference is None


def test_an_object_that_combines_no_ranks_is_found_by_what_these_come_to() -> None:
    options = {"kind": "metric", "value": None, "in_step": True}
    key = KeyView((facts("auroc", of_shard=0.75, **options), facts("auroc", of_shard=0.5, **options)), computed=0.75)
    finding = the_finding("LRG203", stage(key))
    assert (finding.severity, finding.effect) == (Severity.ERROR, None)
    assert finding.fix == "Build the metric with sync_on_compute=True."
    # rank 0's shard holds no sample twice
    assert not findings_of("LRG403", stage(key, repeated=1))


def test_a_metric_without_states_is_given_some() -> None:
    ranks = tuple(at_end(value, kind="compute", lacks_states=True) for value in (0.75, 0.5))
    assert the_finding("LRG203", stage(KeyView(ranks))).fix == (
        "Give the metric states with add_state(): what it keeps in attributes of its own stays on each rank."
    )


@pytest.mark.parametrize("of_shard", [0.75, None])
def test_an_object_that_is_the_same_on_all_ranks_is_right(of_shard: float | None) -> None:
    ranks = (facts("auroc", kind="metric", of_shard=0.75), facts("auroc", kind="metric", of_shard=of_shard))
    assert not findings_of("LRG203", stage(KeyView(ranks)))
    assert findings_of("LRG403", stage(KeyView(ranks), repeated=1))


@pytest.mark.parametrize(
    ("reduction", "values", "reference"),
    [
        ("sum", (12.0, 10.0), 22.0),  # a count comes to the same whatever the batches are
        ("sum", (2.5, 3.0), None),
        ("max", (3.0, 4.0), None),
        ("min", (0.5, 0.25), None),
    ],
)
def test_one_device_may_have_other_batches(
    reduction: str, values: tuple[float, float], reference: float | None
) -> None:
    key = KeyView(tuple(facts(value=value, calls=3, reduction=reduction) for value in values))
    finding = the_finding("LRG203", stage(key))
    assert finding.severity is Severity.ERROR
    assert key.reference == reference
    assert (None if finding.effect is None else finding.effect.reference) == reference
    synced = KeyView(tuple(facts(value=value, calls=3, reduction=reduction, sync_dist=True) for value in values))
    assert synced.reference == reference
    alone = KeyView((facts(value=values[0], calls=3, reduction=reduction),))
    assert alone.reference == values[0]
