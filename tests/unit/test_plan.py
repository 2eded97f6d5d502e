"""Which rows count and which travel, decided from what every rank has."""

import json
from dataclasses import replace

import pytest
import torch
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from lightning_retrieval_guard.epoch.plan import Plan, find_copies, make_plan
from lightning_retrieval_guard.epoch.query_chunks import Queries
from lightning_retrieval_guard.epoch.query_ids import IdColumns
from lightning_retrieval_guard.epoch.row_facts import RowFacts

from .simulated import Update, decide, make_rank, update

A, B = update([0, 0], [0.9, 0.1], [1, 0]), update([1, 1], [0.8, 0.7], [0, 1])
C, D = update([2, 2], [0.6, 0.5], [0, 1]), update([3, 3], [0.4, 0.3], [1, 0])
OTHER_A = update([0, 0], [0.75, 0.65], [0, 1])
D_AS_B = update([1, 1], [0.4, 0.3], [1, 0])
SCORES = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
FIRST_END, LAST_END = {"is_repeated": True}, {"repeats": 0}


def joined(*updates: Update) -> Update:
    return tuple(torch.cat(parts) for parts in zip(*updates, strict=True))


AB, CD = joined(A, B), joined(C, D)
OTHER_AB = joined(OTHER_A, D_AS_B)


def plan(*ranks: list[Update], samples: list[int | None] | None = None, **options) -> Plan:
    scope = {"scope": options.pop("scope", "auto")}
    repeated = options.pop("repeated", 0)
    metric = RetrievalRecall()
    made = [
        make_rank(
            [rank_updates] if rank_updates else [],
            metric,
            len(ranks),
            ([1] * len(rank_updates) if samples is None else samples[: len(rank_updates)]),
            repeats=number - (len(ranks) - repeated) if number >= len(ranks) - repeated else None,
            is_repeated=number < repeated,
            **scope,
            **options,
        )
        for number, rank_updates in enumerate(ranks)
    ]
    return decide(made, metric, seeks_repeated=repeated > 0, **scope)


def test_whole_queries_on_their_ranks_need_no_comparing() -> None:
    decided = plan([A, B], [C, D])
    assert (decided.replicated, decided.ids_restart, decided.compares) == (False, False, False)
    assert (decided.split, decided.left_out) == (0, 0)
    assert not decided.is_ambiguous


def test_the_same_rows_on_every_rank_are_gathered_in_any_order() -> None:
    assert plan([A, B], [B, A]).replicated
    joined = tuple(torch.cat(parts) for parts in zip(B, A, strict=True))
    assert plan([A, B], [joined]).replicated
    assert not plan([A, B], [B, A]).compares


@pytest.mark.parametrize(
    "other",
    [[A], [A, C], [A, update([1, 1], [0.8, 0.7], [1, 0])], [A, update([1, 1], [0.8, 0.75], [0, 1])], [A, B, B], []],
    ids=["fewer", "other-id", "other-relevance", "other-score", "more", "none"],
)
def test_any_other_row_is_not_gathered(other: list[Update]) -> None:
    assert not plan([A, B], other).replicated


@pytest.mark.parametrize(
    ("ranks", "classes"),
    [
        ([[A], [A], [B, C], [C, B]], (0, 0, 2, 2)),
        ([[A], [B], [A], [B]], (0, 1, 0, 1)),
        ([[A], [B], [C], [A], [B], [C]], (0, 1, 2, 0, 1, 2)),
        ([[A], [A], [A], [B], [B], [B]], (0, 0, 0, 3, 3, 3)),
        ([[A, B]] * 3, (0, 0, 0)),
        ([[A], [A], [B], [C]], ()),  # two ranks that are equal by chance
        ([[A], [A], [A], [B]], ()),
        ([[A], [A], [B], [B], [C]], ()),
        ([[A], [A], [], []], ()),
        ([[A], [B], [C], [D]], ()),
        ([[], [], [], []], ()),
        ([[A], [A], [B], [update([1, 1], [0.8, 0.75], [0, 1])]], ()),
        ([[A]], ()),
    ],
    ids=str,
)
def test_ranks_fall_into_classes_of_equal_size_or_into_none(ranks: list, classes: tuple[int, ...]) -> None:
    decided = plan(*ranks)
    assert decided.classes == classes
    assert decided.counted == (sorted(set(classes)) or list(range(len(ranks))))
    assert decided.replicated is (len(set(classes)) == 1)
    assert [decided.first_like(rank) for rank in range(len(ranks))] == list(classes or range(len(ranks)))


def test_the_classes_queries_are_compared_among_the_ranks_that_count() -> None:
    assert not plan([A], [A], [B], [B]).split
    decided = plan([A, B], [OTHER_A], [B, A], [OTHER_A], samples=[None, None])
    assert (decided.classes, decided.compares, decided.split) == ((0, 1, 0, 1), True, 1)
    restarts = plan([AB, OTHER_A], [AB, OTHER_A], [OTHER_AB], [OTHER_AB], samples=[2, 1])
    assert (restarts.classes, restarts.ids_restart, restarts.split) == ((0, 0, 2, 2), True, 0)


def test_of_classes_nothing_is_left_out() -> None:
    """Which rank had the repeated sample first is worked out from its number, which is not that of its class."""
    assert plan([A], [A], [B], [A]).classes == ()
    assert not plan([A], [A], [A], [A], repeated=1).padded


def test_one_rank_is_never_gathered_and_ranks_without_rows_neither() -> None:
    assert not plan([A, B]).replicated
    assert not plan([], []).replicated
    assert not plan([], []).has_rows


def test_minus_zero_is_zero() -> None:
    assert plan([update([0, 0], [0.0, 1.0], [1, 0])], [update([0, 0], [-0.0, 1.0], [1, 0])]).replicated


def seen_of(*ranks: list[Update], **options) -> tuple[bool, bool]:
    """Whether ids are certain to restart, and whether they may."""
    decided = plan(*ranks, **options)
    return decided.ids_restart, decided.ids_may_restart


CERTAIN, IN_DOUBT, SILENT = (True, False), (False, True), (False, False)


def test_the_ids_of_a_short_last_batch_follow_its_samples() -> None:
    assert seen_of([AB, OTHER_A], samples=[2, 1]) == CERTAIN
    assert seen_of([AB, OTHER_A], [CD, A], samples=[2, 1]) == CERTAIN
    assert seen_of([AB, OTHER_A], [], samples=[2, 1]) == CERTAIN


def test_ranges_that_overlap_follow_samples_too() -> None:
    """As do ids that count from ``n * batch_idx`` where n is the size of the batch at hand."""
    shifted = update([1, 1, 2, 2], [0.75, 0.65, 0.5, 0.4], [0, 1, 1, 0])
    assert seen_of([AB, shifted], samples=[2, 2]) == CERTAIN


def test_ids_that_are_the_same_in_batches_of_one_size_may_be_those_of_a_corpus() -> None:
    assert seen_of([AB, OTHER_AB], samples=[2, 2]) == SILENT  # as many rows a query as samples in a batch
    three = [update([0, 0, 0, 1, 1, 1], scores, [1, 0, 0, 0, 0, 1]) for scores in (SCORES, SCORES[::-1])]
    assert seen_of(three, samples=[2, 2]) == IN_DOUBT
    assert seen_of([A, OTHER_A]) == IN_DOUBT
    assert seen_of([A, A]) == SILENT  # the same query twice


def test_relevant_rows_on_the_diagonal_show_that_ids_number_samples() -> None:
    diagonal, off = ([1, 0, 0, 0, 1, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1, 0, 1, 0])

    def batches(relevance: list[int], count: int) -> list[Update]:
        ids, scores = [0, 0, 0, 1, 1, 1, 2, 2, 2], torch.linspace(0.1, 0.9, 9)
        return [update(ids, (scores + number / 100).tolist(), relevance) for number in range(count)]

    assert seen_of(batches(diagonal, 3), samples=[3] * 3) == CERTAIN
    assert seen_of(batches(diagonal, 2), samples=[3] * 2) == SILENT  # two batches may be so by chance
    assert seen_of(batches(off, 3), samples=[3] * 3) == SILENT
    assert seen_of(batches([1, 0, 0] * 3, 3), samples=[3] * 3) == SILENT  # the first candidate of each is no diagonal


@pytest.mark.parametrize(
    ("columns", "seen"),
    [
        (IdColumns(({"qid": torch.tensor([1.0, 0.0, 2.0])},)), SILENT),
        (IdColumns(({"qid": torch.tensor([0.5, 0.0, 1.5])},)), CERTAIN),
        (IdColumns(({"qid": torch.tensor([0, 1])},), is_custom=True), CERTAIN),
        (IdColumns(({},), is_custom=True, is_opaque=True), CERTAIN),
        (IdColumns(({"qid": torch.tensor([1, 0, 2])},)), SILENT),
        (IdColumns(({"label": torch.tensor([5, 0, 2])}, {"label": torch.tensor([6])})), CERTAIN),
        (IdColumns(({"batch/qid": torch.tensor([0])}, {"batch/qid": torch.tensor([1])})), SILENT),
        (IdColumns(({"qid": torch.tensor([0, 1])}, {})), CERTAIN),
        (None, IN_DOUBT),
    ],
    ids=[
        *("floats", "no-numbers", "own-collate", "unreadable", "of-the-data", "another-column"),
        *("of-several-batches", "not-in-every-batch", "unknown"),
    ],
)
def test_ids_that_stand_in_a_column_of_the_batch_are_of_the_data(columns: IdColumns | None, seen: tuple) -> None:
    assert seen_of([AB, OTHER_A], samples=[2, 1], columns=columns) == seen


def test_gathered_ids_hold_those_of_this_rank() -> None:
    """The column has half of the ids of two ranks; a label with as few numbers has less."""
    ids = update([0, 0, 1, 1, 2, 2, 3, 3], [0.9, 0.1, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3], [1, 0, 0, 1, 0, 1, 1, 0])
    batches, short = [ids, OTHER_AB], [2, 1]
    assert seen_of(batches, batches, samples=short) == CERTAIN
    half, one = IdColumns(({"qid": torch.tensor([0, 1])},)), IdColumns(({"qid": torch.tensor([0])},))
    assert seen_of(batches, batches, samples=short, columns=half) == SILENT
    assert seen_of(batches, batches, samples=short, columns=one) == CERTAIN


@pytest.mark.parametrize("samples", [[3, 2], [1, 1], [None, 1], [2]])
def test_without_one_query_a_sample_a_query_goes_on_from_update_to_update(samples: list[int | None]) -> None:
    decided = plan([AB, OTHER_A], samples=samples)
    assert (decided.ids_restart, decided.ids_may_restart) == SILENT
    assert decided.is_ambiguous


@pytest.mark.parametrize(
    "second", [update([0], [0.75], [1]), update([0, 0], [0.75, 0.65], [0, 0])], ids=["one-row", "nothing-relevant"]
)
def test_a_query_that_may_be_a_part_hides_no_ids_that_begin_anew(second: Update) -> None:
    assert seen_of([AB, second], samples=[2, 1]) == CERTAIN
    assert seen_of([AB, second], samples=[2, 1], counted=True) == CERTAIN
    assert seen_of([AB, joined(second, update([1, 1], [0.4, 0.3], [0, 1]))], samples=[2, 2]) == SILENT
    assert seen_of([CD, update([3, 3], [0.5, 0.2], [0, 0])], samples=[2, 1]) == SILENT  # does not begin anew


def test_counted_ids_of_batches_of_one_size_may_be_those_of_a_corpus() -> None:
    """Not in doubt where each query has a row for each sample: all documents of a batch against every topic."""
    again = update([0, 0, 0, 1, 1], SCORES[:5], [0, 0, 0, 1, 0])
    assert seen_of([AB, again], samples=[2, 2], counted=True) == IN_DOUBT
    assert seen_of([AB, again], samples=[2, 2]) == SILENT
    assert seen_of([AB, update([0, 0, 1, 1], SCORES[:4], [0, 0, 0, 1])], samples=[2, 2], counted=True) == SILENT


def test_a_row_a_sample_is_no_list() -> None:
    rows = [update([0, 1], [0.9, 0.3], [1, 0]), update([0], [0.8], [0])]
    assert seen_of(rows, samples=[2, 1], counted=True) == SILENT


def test_one_rank_without_the_evidence_is_enough() -> None:
    assert seen_of([AB, OTHER_A], [CD, AB], samples=[2, 1]) == SILENT


def test_gathered_rows_are_judged_by_the_samples_of_all_ranks() -> None:
    gathered = [AB, OTHER_AB, update([0, 0, 1, 1, 2, 2, 3, 3], [0.9, 0.1] * 4, [1, 0] * 4)]
    decided = plan(gathered, gathered, samples=[1, 1, 2])
    assert decided.replicated
    assert decided.ids_restart


def test_ids_that_restart_on_each_rank_are_seen_when_queries_are_compared() -> None:
    decided = plan([AB], [OTHER_A], samples=[2])
    assert not decided.ids_restart  # the second rank has one query for two samples
    decided = plan([A, B], [OTHER_A, D_AS_B], counted=True)
    assert decided.compares
    assert decided.ids_restart  # as many ids as samples, in two batches, on both ranks
    assert not decided.split


def test_ids_that_were_seen_to_be_counted_restart_for_certain() -> None:
    """Else the data may hold each question twice, which a sampler deals to two ranks."""
    assert seen_of([A, B], [OTHER_A, D_AS_B]) == IN_DOUBT
    assert seen_of([A, B], [OTHER_A, D_AS_B], in_steps=False) == CERTAIN
    assert seen_of([A, OTHER_A], counted=True) == CERTAIN
    assert seen_of([A, A], counted=True) == SILENT  # the same query twice
    assert seen_of([AB, OTHER_AB], samples=[2, 2], counted=True) == SILENT  # as for a corpus that is dealt over batches


def test_the_ids_of_one_batch_on_each_rank_may_restart() -> None:
    assert seen_of([A], [OTHER_A]) == IN_DOUBT


def test_ids_of_the_hook_number_the_samples_of_all_batches() -> None:
    """Unless each query has as many rows as the rank saw samples: it may be one of all ranks, on a part of a corpus."""
    lists = update([0, 0, 0, 1, 1, 1], SCORES, [1, 0, 0, 0, 0, 1])
    others = update([0, 0, 0, 1, 1, 1], SCORES[::-1], [1, 0, 0, 0, 0, 1])
    options = {"samples": [2], "in_steps": False}
    assert seen_of([lists], [others], count=2, **options) == CERTAIN
    assert seen_of([lists], [others], count=1, **options) == IN_DOUBT
    assert seen_of([AB], [OTHER_AB], count=2, **options) == SILENT


@pytest.mark.parametrize(("scope", "restarting"), [("global", False), ("batch", True), ("auto", True)])
def test_a_declared_scope_overrides_the_evidence(scope: str, restarting: bool) -> None:
    assert plan([AB, OTHER_A], [CD, A], scope=scope, samples=[2, 1]).ids_restart is restarting
    assert plan([A, B], [OTHER_A, D_AS_B], scope=scope, counted=True).ids_restart is restarting


def test_a_query_over_two_ranks_is_split() -> None:
    decided = plan([A, B], [OTHER_A, D], samples=[2, 2])
    assert decided.compares
    assert decided.split == 1
    assert decided.is_ambiguous


def test_the_repeated_query_is_found_on_both_ranks_and_left_out() -> None:
    decided = plan([A, C], [B, A], repeated=1)
    assert (decided.padded, decided.left_out, decided.split) == (((1, 0),), 1, 0)
    assert plan([A, C], [B, A]).left_out == 0


def test_its_scores_may_be_rounded_otherwise_and_its_batch_be_sorted() -> None:
    rounded = update([0, 0], [0.9000001, 0.1], [1, 0])
    first, last = joined(B, A), joined(rounded, D)
    decided = plan([first, CD], [update([7, 7], [0.3, 0.2], [1, 0]), last], repeated=1, samples=[2, 2])
    assert decided.padded == ((1, 0),)


@pytest.mark.parametrize(
    "last",
    [
        update([0, 0], [0.91, 0.1], [1, 0]),
        update([0, 0], [0.9, 0.1], [0, 1]),
        update([5, 5], [0.9, 0.1], [1, 0]),
        update([0, 0, 0], [0.9, 0.1, 0.0], [1, 0, 0]),
    ],
    ids=["other-score", "other-relevance", "other-id", "more-rows"],
)
def test_what_is_not_found_is_left_alone(last: Update) -> None:
    of_the_data = IdColumns(({"qid": torch.arange(6)},))
    assert plan([A, C], [B, last], repeated=1, columns=of_the_data).left_out == 0


@pytest.mark.parametrize(("pools", "left_out"), [((), 1), ((4,), 1), ((2,), 0), ((1,), 0), ((4, 2), 0)])
def test_a_candidate_of_every_query_is_left_alone(pools: tuple[int, ...], left_out: int) -> None:
    """Each query has two rows: all samples of a dataloader, or as many for each of them."""
    assert plan([A, C], [B, A], repeated=1, pools=pools).left_out == left_out


def test_where_each_sample_is_several_rows_it_is_as_many() -> None:
    """A document is a row of each of two topics."""
    first = update([0, 1] * 3, [0.9, 0.3, 0.2, 0.8, 0.4, 0.7], [1, 0, 0, 0, 0, 1])
    other = update([0, 1] * 3, [0.1, 0.35, 0.25, 0.85, 0.45, 0.75], [1, 0, 0, 0, 0, 1])
    ends = (([first], [3], FIRST_END), ([other, update([0, 1], [0.9, 0.3], [1, 0])], [3, 1], LAST_END))
    ranks = [make_rank([rank_updates], RetrievalMRR(), 2, samples, **end) for rank_updates, samples, end in ends]
    assert decide(ranks, RetrievalMRR(), seeks_repeated=True).padded == ((1, 0),)
    assert len(ranks[1].local.table) == 6


def test_several_that_it_may_be_are_left_alone() -> None:
    rows = update([0, 0], [0.9, 0.9], [1, 1])  # two samples, each a row: nobody knows which of them came again
    assert plan([rows], [rows, update([1, 1], [0.3, 0.2], [1, 0])][::-1], samples=[2, 2], repeated=1).left_out == 0


def test_a_query_that_the_data_hold_twice_is_not_the_repeated_one() -> None:
    """It stands on both ranks, but not where the sampler has put the repeated sample."""
    decided = plan([A, B, C], [B, D, A], repeated=1)
    assert (decided.padded, decided.split) == (((2 - 1, 0),), 1)
    assert plan([A, B, C], [B, D, update([9, 9], [0.2, 0.1], [1, 0])], repeated=1).left_out == 0


def test_where_each_sample_is_a_row_it_is_one_row() -> None:
    first, last = update([0, 1], [0.9, 0.3], [1, 0]), update([1, 0], [0.6, 0.9], [1, 1])
    ranks = [
        make_rank([rank_updates], RetrievalMRR(), 2, [2], **end)
        for rank_updates, end in (([first], FIRST_END), ([last], LAST_END))
    ]
    decided = decide(ranks, RetrievalMRR(), seeks_repeated=True)
    assert decided.padded == ((1, 1),)
    assert ranks[1].local.table.query.tolist() == [1]


@pytest.mark.parametrize("samples", [[3, 3], [None, None]])
def test_a_sample_that_is_neither_a_query_nor_a_row_is_not_sought(samples: list) -> None:
    assert plan([AB, CD], [CD, AB], samples=samples, repeated=1).left_out == 0


def test_only_a_rank_that_ends_on_a_repeated_sample_leaves_it_out() -> None:
    metric = RetrievalMRR()
    ends = (([A, B], FIRST_END), ([C, A], LAST_END))
    ranks = [make_rank([rank_updates], metric, 2, [1, 1], **end) for rank_updates, end in ends]
    decided = decide(ranks, metric, seeks_repeated=True)
    assert decided.left_out == 1
    assert [len(rank.local.table) for rank in ranks] == [4, 2]
    assert ranks[1].local.table.query.tolist() == [2, 2]


def test_ids_that_restart_say_nothing_of_the_repeated_sample() -> None:
    again = update([1, 1], [0.9, 0.1], [1, 0])  # the first sample of the first rank, under the number that is due
    decided = plan([A, D_AS_B], [update([0, 0], [0.6, 0.5], [0, 1]), again], repeated=1, counted=True)
    assert decided.ids_restart
    assert decided.padded == ((1, 0),)


def test_ranks_without_rows_leave_the_decision_to_the_others() -> None:
    decided = plan([AB, OTHER_A], [], samples=[2, 1])
    assert decided.ids_restart
    assert decided.uneven
    assert decided.has_rows
    assert not decided.compares


def compared(*facts: RowFacts, synchronises: bool = True) -> bool:
    distinct = [replace(rank_facts, fingerprint=number + 1) for number, rank_facts in enumerate(facts)]
    return make_plan(distinct, "auto", False, synchronises).compares


def test_ids_that_do_not_overlap_are_not_compared() -> None:
    facts = [RowFacts(rows=2, id_min=0, id_max=4, id_step=1), RowFacts(rows=2, id_min=5, id_max=9, id_step=1)]
    assert not compared(*facts)
    assert compared(facts[0], replace(facts[1], id_min=4))


@pytest.mark.parametrize(
    ("first", "second", "apart"),
    [
        ([0, 4, 8], [2, 6], True),
        ([0, 4, 8], [1, 3, 5], True),
        ([0, 4, 8], [1, 2, 3], False),
        ([0, 4, 8], [1, 5, 9], True),
        ([0, 6], [2, 6], False),
        ([-3, 1, 5], [-1, 3], True),
        ([-3, 1, 5], [-1, 1], False),
        ([7], [7], False),
        ([0, 2, 4], [3], True),
        ([0, 3, 4], [2], False),
        ([-(2**62), 2**62 + 4], [-(2**62) + 2, 2**62], False),
    ],
)
def test_ids_that_interleave_in_equal_steps_are_not_compared(first: list, second: list, apart: bool) -> None:
    facts = []
    for ids in (first, second):
        rows = update(ids, [0.5] * len(ids), [1] * len(ids))
        facts.append(make_rank([[rows]], RetrievalRecall(), 2).facts)
    assert compared(*facts) is not apart


def test_ids_further_apart_than_int64_can_tell_are_compared() -> None:
    low, high = -(2**62) - 1, 2**62
    assert plan([update([low, high], [0.9, 0.1], [1, 0])], [update([high], [0.4], [1])]).compares


def test_a_query_without_an_answer_in_one_part_goes_on_where_another_has_it() -> None:
    """In another metric life, and in another update of the same one: each counts."""
    first = update([0, 0, 1, 1], [0.9, 0.1, 0.8, 0.2], [0, 0, 1, 0])
    second = update([0, 0, 2, 2], [0.7, 0.3, 0.6, 0.4], [1, 0, 1, 0])
    third, fourth = update([3, 3, 4, 4], [0.9, 0.1, 0.8, 0.2], [0, 0, 1, 0]), update([3], [0.5], [1])

    def spanning(*lives: list[Update]) -> int:
        return make_rank(list(lives), RetrievalRecall(), 1, [None] * sum(map(len, lives))).facts.spanning

    assert spanning([first], [second], [third]) == 1
    assert spanning([first, second, third]) == 1
    assert spanning([first], [second], [third, fourth]) == 2


def test_parts_of_queries_in_one_batch_are_whole_in_it() -> None:
    """A step may feed candidates and answers by two updates, or chunks of candidates."""
    negatives, positives = update([0, 0, 1, 1], [0.9, 0.1, 0.8, 0.2], [0, 0, 0, 0]), update([0, 1], [0.5, 0.6], [1, 1])
    others = [(ids + 2, scores, relevance) for ids, scores, relevance in (negatives, positives)]

    def whole(*lives: list[Update], samples: list[int | None]) -> bool:
        facts = make_rank(list(lives), RetrievalRecall(), 1, samples).facts
        assert facts.spanning
        return facts.whole_in_batches

    assert whole([negatives, positives], others, samples=[2, 0, 2, 0])
    assert not whole([negatives, positives], others, samples=[2, 2, 2, 2])
    assert not whole([negatives, positives], others, samples=[2, 0, None, 0])
    assert not whole([negatives, positives], others, samples=[2, 0, 2, 1])
    # another part of query 2, with a relevant row, in another batch of the same life
    assert not whole([negatives, positives], [*others, update([2, 2], [0.3, 0.4], [1, 0])], samples=[2, 0, 2, 0, 1])
    # in another life
    assert not whole([negatives], [positives, *others], samples=[2, 0, 2, 0])
    # no relevant row of query 1 in the second life, which has two batches
    again = update([1, 1], [0.3, 0.4], [0, 0])
    assert not whole([negatives, positives], [*others, again], samples=[2, 0, 2, 0, 1])


@pytest.mark.parametrize(
    ("facts", "split", "spanning"),
    [({}, 0, True), ({"whole_in_batches": True}, 0, False), ({"whole_in_batches": True}, 1, True)],
)
def test_queries_go_on_in_another_batch_unless_each_is_whole_in_one(facts: dict, split: int, spanning: bool) -> None:
    plan = Plan((RowFacts(rows=4, spanning=1, **facts), RowFacts()), split=split)
    assert (plan.spans_updates, plan.spans_batches) == (True, spanning)


@pytest.mark.parametrize(
    ("second", "column", "is_shown"),
    [
        ([[3, 3], [5, 5]], [1, 3, 5, 7], True),
        ([[3, 3], [1, 1]], [1, 3, 5, 7], False),  # the first query of the other rank
        ([[3, 3], [5, 5]], [90], False),  # ids that the program made may be new ones for the same sample
    ],
)
def test_ids_of_the_data_show_that_no_sample_was_fed_twice(
    second: list[list[int]], column: list[int], is_shown: bool
) -> None:
    ranks = [
        make_rank(
            [[update(ids, [0.9, 0.1], [0, 1]) for ids in updates]],
            RetrievalRecall(),
            2,
            samples=[1, 1],
            columns=IdColumns(({"ids": torch.tensor(column)},)),
            **options,
        )
        for updates, options in (([[1, 1], [7, 7]], {"is_repeated": True}), (second, {"repeats": 0}))
    ]
    assert decide(ranks, RetrievalRecall(), seeks_repeated=True).has_no_repeated is is_shown


def test_values_that_nobody_combines_are_not_compared() -> None:
    facts = RowFacts(rows=2, id_min=0, id_max=4, single_life=False)
    assert not compared(facts, facts, synchronises=False)
    assert compared(facts, facts)


def test_facts_survive_a_message() -> None:
    facts = RowFacts(updates=3, rows=7, id_min=-2, fingerprint=-(2**62))
    assert RowFacts.from_payload(json.loads(json.dumps(facts.to_payload()))) == facts
    assert RowFacts().to_payload() == {}


def test_an_id_of_another_metric_life_is_another_query() -> None:
    query, life = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 1, 1, 1])
    same = torch.ones(4, dtype=torch.int64)
    _, shared, identical = find_copies(Queries(query, life, same, same, same))
    assert shared.tolist() == [False, True, True, False]
    assert identical.all()


@pytest.mark.parametrize(
    ("first", "second", "scope", "restarting", "spanning", "ambiguous"),
    [
        ({}, {}, "auto", False, False, False),
        ({"restarts": 2}, {}, "auto", False, False, True),
        ({}, {"restarts": 2}, "auto", False, False, True),
        ({"restarts": 2, "spanning": 1}, {}, "auto", False, True, False),
        ({"restarts": 2}, {"spanning": 1}, "auto", False, True, False),
        ({"restarts": 2}, {}, "global", False, True, False),
        ({}, {}, "global", False, False, False),
        ({"restarts": 2, "spanning": 1}, {}, "auto", True, False, False),
        ({"restarts": 2}, {}, "global", True, False, False),
    ],
)
def test_what_is_known_of_ids_that_come_again(
    first: dict, second: dict, scope: str, restarting: bool, spanning: bool, ambiguous: bool
) -> None:
    plan = Plan((RowFacts(**first), RowFacts(**second)), ids_restart=restarting, scope=scope)
    assert (plan.spans_updates, plan.is_ambiguous) == (spanning, ambiguous)


@pytest.mark.parametrize(("updates", "uneven"), [((2, 2), False), ((2, 3), True), ((2, 2, 0), True)])
def test_ranks_that_updated_unequally_often_are_uneven(updates: tuple[int, ...], uneven: bool) -> None:
    assert Plan(tuple(RowFacts(updates=count) for count in updates)).uneven is uneven


@pytest.mark.parametrize(
    ("properties", "longest"),
    [({"ids_restart": True}, 3), ({}, 7), ({"compares": True}, 12), ({"compares": True, "classes": (0, 0)}, 5)],
)
def test_the_longest_query(properties: dict, longest: int) -> None:
    """Where queries may lie on several ranks, their parts come together."""
    facts = (RowFacts(longest_query=5, longest_chunk=3), RowFacts(longest_query=7, longest_chunk=2))
    assert Plan(facts, **properties).longest == longest


@pytest.mark.parametrize(
    ("gathered", "fingerprints", "counts"), [(True, (4, 4), False), (True, (4, 6), True), (False, (4, 6), False)]
)
def test_the_first_rank_counts_where_others_have_its_rows_in_another_order(
    gathered: bool, fingerprints: tuple[int, int], counts: bool
) -> None:
    facts = tuple(RowFacts(ordered_fingerprint=fingerprint) for fingerprint in fingerprints)
    assert Plan(facts, (0, 0) if gathered else ()).first_counts is counts


def test_rows_that_differ_from_rank_to_rank_are_judged_by_the_samples_of_their_rank() -> None:
    """As many queries as all ranks have samples do not tell that ids restart, if the ranks hold different rows."""
    batch = tuple(torch.cat(parts) for parts in zip(A, B, strict=True))
    others = tuple(torch.cat(parts) for parts in zip(OTHER_A, update([1, 1], [0.77, 0.66], [1, 0]), strict=True))
    decided = plan([batch], [others])
    assert (decided.compares, decided.replicated, decided.ids_restart, decided.ids_may_restart) == (
        True,
        False,
        False,
        False,
    )


def test_a_plan_takes_nothing_for_granted() -> None:
    facts = (RowFacts(),)
    assert Plan(facts) == Plan(facts, (), False, False, (), False, 0, 0, "auto")
