"""What random tables have brought to light, one program each."""

from __future__ import annotations

import pytest
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from lightning_retrieval_guard import GuardError, Severity
from lightning_retrieval_guard.findings import Effect

from .oracle import averaged, merged
from .tables import Case, Made, Sample, Scope, Table, Way

MRR = Made(RetrievalMRR, ())
SKIPPING = Made(RetrievalMRR, (("empty_target_action", "skip"),))
HIT: Sample = ((0, 0.9, 1), (0, 0.1, 0))
MISS: Sample = ((0, 0.8, 0), (0, 0.7, 1))
NOTHING: Sample = ((1, 0.6, 0),)
OTHER: Sample = ((1, 0.6, 0), (1, 0.5, 1))


def program(
    *samples: Sample, way: Way, owner: tuple[int, ...], world_size: int = 2, scope: Scope = "auto", **options: object
) -> Case:
    table = {"deal": "shards", "batch_size": 1, "cut": "batch", "ids": "given"} | options
    metric, sync_dist = table.pop("metric", MRR), bool(table.pop("sync_dist", False))
    return Case(Table(samples, world_size, owner=owner, **table), metric, (way,), sync_dist, scope)


RECALL = Made(RetrievalRecall, (("top_k", 1),))
RANKED: list[Sample] = [
    tuple((query, 0.9 - 0.1 * index, int(index == answer)) for index in range(3))
    for query, answer in enumerate([0, 1, 2, 0, 1, 2])
]


@pytest.mark.parametrize("way", ["object", "end"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_pairs_of_ranks_that_hold_the_same_rows_count_once(way: Way, split: bool) -> None:
    """Tensor parallel 2 x data parallel 2: plain divides recall by two."""
    samples = RANKED if not split else [part for whole in RANKED for part in (whole[:2], whole[2:])]
    owner = tuple(index % 2 for index in range(len(samples)))
    case = program(*samples, way=way, owner=owner, world_size=4, deal="pairs", metric=RECALL, sync_dist=True)
    plain, wanted = case.run()[0].values[way], merged(RECALL, case.table.once)
    assert (plain, wanted) == (pytest.approx(1 / 6), pytest.approx(1 / 3))
    for shown in case.run("correct"):
        assert shown.values[way] == pytest.approx(wanted)
    for mode in ("warn", "correct"):
        [finding] = case.run(mode)[0].about(way)
        assert (finding.code, finding.severity) == ("LRG201", Severity.ERROR)
        # what torchmetrics would make of rows of which this rank holds but a part is not worked out
        assert finding.effect == (None if mode == "correct" else Effect(pytest.approx(plain), pytest.approx(wanted)))
    assert {type(shown.error) for shown in case.run("strict")} == {GuardError}


@pytest.mark.parametrize("batches", [1, 2])
def test_metrics_made_in_one_step_a_rank_count_as_those_made_in_many(batches: int) -> None:
    """One batch on each rank: the same id on both is no more one query than it is in the next batch."""
    single: Sample = ((0, 0.05, 0),)
    case = program(*(HIT, single) * batches, way="step", owner=(0, 1) * batches)
    [finding] = case.run("warn")[0].about("step")
    assert finding.effect == Effect(1.0, 0.5)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_value_of_what_may_be_parts_of_queries_stays(world_size: int) -> None:
    owner = tuple(index % world_size for index in range(2))
    case = program(
        HIT, MISS, way="step", owner=owner, world_size=world_size, cut="halves", metric=SKIPPING, sync_dist=True
    )
    for shown in case.run("correct"):
        assert shown.values["step"] == pytest.approx(averaged(SKIPPING, case.table.once))
        assert not shown.findings


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_ranks_that_disagree_are_told_of_beside_one_without_a_batch(mode: str) -> None:
    shown = program(HIT, NOTHING, way="forward", owner=(0, 1), world_size=3).run(mode)
    assert [finding.code for finding in shown[0].about("forward")] == ["LRG203"]
    assert shown[0].values == {"forward": 1.0 if mode == "warn" else 0.5}


def test_rank_zero_speaks_without_a_batch_of_its_own() -> None:
    shown = program(HIT, NOTHING, way="forward", owner=(1, 2), world_size=3).run("warn")
    assert [finding.code for finding in shown[0].about("forward")] == ["LRG203"]


def test_strict_reaches_a_rank_without_a_batch_before_the_others_wait_for_it() -> None:
    for shown in program(HIT, OTHER, way="forward", owner=(0, 0), sync_dist=True).run("strict"):
        assert isinstance(shown.error, GuardError)
        assert "LRG206" in str(shown.error)


def test_correct_goes_on_without_a_rank_without_a_batch() -> None:
    first, second = program(HIT, OTHER, way="forward", owner=(0, 0), sync_dist=True).run("correct")
    assert (first.values, first.error, second.values, second.error) == ({"forward": 0.75}, None, {}, None)


def test_means_of_batches_are_told_of_where_all_ranks_hold_all_rows() -> None:
    largest = Made(RetrievalRecall, (("top_k", 1), ("aggregation", "max")))
    case = program(HIT, OTHER, way="forward", owner=(0, 0), deal="copies", metric=largest)
    [finding] = case.run("correct")[0].about("forward")
    assert (finding.code, finding.severity, finding.corrected) == ("LRG302", Severity.ERROR, True)


@pytest.mark.parametrize("way", ["forward", "step"])
def test_means_of_batches_are_told_of_where_the_scope_was_declared(way: Way) -> None:
    samples = (HIT, NOTHING, ((2, 0.4, 0), (2, 0.3, 1)), OTHER)
    case = program(*samples, way=way, owner=(0,) * 4, world_size=1, batch_size=3, metric=SKIPPING, scope="batch")
    [shown] = case.run("warn")
    assert [finding.code for finding in shown.about(way)] == ["LRG302"]
