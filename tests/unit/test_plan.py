"""Which rows count and which travel, decided from what every rank has."""

import json
from dataclasses import replace

import pytest
import torch
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from lightning_retrieval_guard.epoch.packing import Summary
from lightning_retrieval_guard.epoch.plan import Plan, find_copies, make_plan
from lightning_retrieval_guard.epoch.row_facts import RowFacts

from .simulated import Update, decide, make_rank, update

A, B = update([0, 0], [0.9, 0.1], [1, 0]), update([1, 1], [0.8, 0.7], [0, 1])
C, D = update([2, 2], [0.6, 0.5], [0, 1]), update([3, 3], [0.4, 0.3], [1, 0])
OTHER_A = update([0, 0], [0.75, 0.65], [0, 1])


def plan(*ranks: list[Update], samples: list[int | None] | None = None, **options) -> Plan:
    told = {key: options.pop(key) for key in ("scope", "repeated") if key in options}
    ends = options.pop("ends_repeated", ())
    metric = RetrievalRecall()
    made = [
        make_rank(
            [own] if own else [],
            metric,
            len(ranks),
            ([1] * len(own) if samples is None else samples[: len(own)]),
            ends_repeated=number in ends,
            scope=told.get("scope", "auto"),
            **options,
        )
        for number, own in enumerate(ranks)
    ]
    return decide(made, metric, **told)


def test_whole_queries_on_their_ranks_need_no_comparing() -> None:
    found = plan([A, B], [C, D])
    assert (found.replicated, found.ids_restart, found.drop_padded, found.compares) == (False, False, "nothing", False)
    assert (found.split, found.duplicates, found.left_out) == (0, 0, 0)
    assert not found.is_ambiguous


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
    found = plan(*ranks)
    assert found.classes == classes
    assert found.counted == (sorted(set(classes)) or list(range(len(ranks))))
    assert found.replicated is (len(set(classes)) == 1)
    assert [found.first_like(rank) for rank in range(len(ranks))] == list(classes or range(len(ranks)))


def test_the_classes_queries_are_compared_among_the_ranks_that_count() -> None:
    assert not plan([A], [A], [B], [B]).split
    found = plan([A, B], [OTHER_A], [B, A], [OTHER_A], samples=[None, None])
    assert (found.classes, found.compares, found.split) == ((0, 1, 0, 1), True, 1)
    restarts = plan([A], [A], [OTHER_A], [OTHER_A])
    assert (restarts.classes, restarts.ids_restart, restarts.split) == ((0, 0, 2, 2), True, 0)


def test_of_classes_nothing_is_dropped() -> None:
    """Whether a rank ends on a repeated sample is worked out from its number, which is not that of its class."""
    assert plan([A], [A], [B], [B], repeated=1, ends_repeated=(2, 3)).drop_padded == "nothing"


def test_one_rank_is_never_gathered_and_ranks_without_rows_neither() -> None:
    assert not plan([A, B]).replicated
    assert not plan([], []).replicated
    assert not plan([], []).has_rows


def test_minus_zero_is_zero() -> None:
    assert plan([update([0, 0], [0.0, 1.0], [1, 0])], [update([0, 0], [-0.0, 1.0], [1, 0])]).replicated


def test_an_id_in_two_updates_restarts_where_each_sample_is_one_query() -> None:
    assert plan([A, OTHER_A]).ids_restart
    assert plan([A, OTHER_A], [C, D]).ids_restart
    assert not plan([A, A]).ids_restart


@pytest.mark.parametrize("samples", [[2, 2], [1, 2], [None, 1], [1]])
def test_without_the_evidence_a_query_is_split_over_updates(samples: list[int | None]) -> None:
    found = plan([A, OTHER_A], samples=samples)
    assert not found.ids_restart
    assert found.is_ambiguous


@pytest.mark.parametrize(
    "second", [update([0], [0.75], [1]), update([0, 0], [0.75, 0.65], [0, 0])], ids=["one-row", "nothing-relevant"]
)
def test_a_query_that_is_no_whole_query_is_no_evidence(second: Update) -> None:
    assert not plan([A, second]).ids_restart


def test_one_rank_without_the_evidence_is_enough_to_doubt() -> None:
    two_queries = tuple(torch.cat(parts) for parts in zip(C, D, strict=True))
    assert not plan([A, OTHER_A], [two_queries]).ids_restart


def test_gathered_rows_are_judged_by_the_samples_of_all_ranks() -> None:
    batch = tuple(torch.cat(parts) for parts in zip(A, B, strict=True))
    again = tuple(torch.cat(parts) for parts in zip(OTHER_A, update([1, 1], [0.77, 0.66], [1, 0]), strict=True))
    found = plan([batch, again], [batch, again])
    assert found.replicated
    assert found.ids_restart


def test_ids_that_restart_on_each_rank_are_seen_when_queries_are_compared() -> None:
    found = plan([A], [OTHER_A])
    assert found.compares
    assert found.ids_restart
    assert not found.split


@pytest.mark.parametrize(("scope", "restarting"), [("global", False), ("batch", True), ("auto", True)])
def test_a_declared_scope_overrides_the_evidence(scope: str, restarting: bool) -> None:
    assert plan([A, OTHER_A], [B, C], scope=scope).ids_restart is restarting
    assert plan([A], [OTHER_A], scope=scope).ids_restart is restarting


def test_a_query_over_two_ranks_is_split() -> None:
    found = plan([A, B], [OTHER_A, D], samples=[2, 2])
    assert found.compares
    assert found.split == 1
    assert found.is_ambiguous


def test_a_repeated_query_is_left_out() -> None:
    found = plan([B, A], [C, A], repeated=1, samples=[3, 3])
    assert (found.duplicates, found.left_out, found.split) == (1, 1, 0)


def test_more_identical_queries_than_were_repeated_are_the_users_own() -> None:
    found = plan([A, B, C], [A, B, D], samples=[3, 3, 3], repeated=1)
    assert (found.duplicates, found.split) == (0, 2)
    assert plan([A, B], [C, A], samples=[2, 2]).split == 1


@pytest.mark.parametrize(
    ("ranks", "samples", "drop"),
    [
        ([[A, B], [C, D]], [1, 1], "query"),
        ([[update([0], [0.9], [1])], [update([0], [0.8], [0])]], [1], "row"),
        ([[A, B], [C, D]], [2, 2], "row"),
        ([[A, B], [C, D]], [3, 3], "nothing"),
        ([[A, B], [C, D]], [None, None], "nothing"),
    ],
)
def test_what_a_padded_rank_leaves_out(ranks: list, samples: list, drop: str) -> None:
    assert plan(*ranks, samples=samples, repeated=1).drop_padded == drop
    assert plan(*ranks, samples=samples, repeated=0).drop_padded == "nothing"


def test_only_a_rank_that_ends_on_a_repeated_sample_leaves_it_out() -> None:
    metric = RetrievalMRR()
    ranks = [make_rank([own], metric, 2, [1, 1], ends_repeated=end) for own, end in (([A, B], False), ([C, D], True))]
    found = decide(ranks, metric, repeated=1)
    assert found.left_out == 1
    assert [len(rank.local.table) for rank in ranks] == [4, 2]
    assert ranks[1].local.table.query.tolist() == [2, 2]


def test_gathered_rows_are_not_dropped() -> None:
    assert plan([A, B], [A, B], repeated=1, ends_repeated=(1,)).drop_padded == "nothing"


def test_ranks_without_rows_leave_the_decision_to_the_others() -> None:
    found = plan([A, OTHER_A], [])
    assert found.ids_restart
    assert found.uneven
    assert found.has_rows
    assert not found.compares


def compared(*facts: RowFacts, synchronises: bool = True) -> bool:
    told = [replace(own, fingerprint=number + 1) for number, own in enumerate(facts)]
    return make_plan(told, "auto", 0, synchronises).compares


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
    told = []
    for ids in (first, second):
        rows = update(ids, [0.5] * len(ids), [1] * len(ids))
        told.append(make_rank([[rows]], RetrievalRecall(), 2).facts)
    assert compared(*told) is not apart


def test_ids_further_apart_than_int64_can_tell_are_compared() -> None:
    low, high = -(2**62) - 1, 2**62
    assert plan([update([low, high], [0.9, 0.1], [1, 0])], [update([high], [0.4], [1])]).compares


def test_a_query_without_an_answer_in_one_part_goes_on_where_another_has_it() -> None:
    """In another metric life, and in another update of the same one: each counts."""
    first = update([0, 0, 1, 1], [0.9, 0.1, 0.8, 0.2], [0, 0, 1, 0])
    second = update([0, 0, 2, 2], [0.7, 0.3, 0.6, 0.4], [1, 0, 1, 0])
    third, fourth = update([3, 3, 4, 4], [0.9, 0.1, 0.8, 0.2], [0, 0, 1, 0]), update([3], [0.5], [1])

    def spans(*lives: list[Update]) -> int:
        return make_rank(list(lives), RetrievalRecall(), 1, [None] * sum(map(len, lives))).facts.spans

    assert spans([first], [second], [third]) == 1
    assert spans([first, second, third]) == 1
    assert spans([first], [second], [third, fourth]) == 2


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
    _, shared, identical, first = find_copies(Summary.of(query, life, same, same, same))
    assert shared.tolist() == [False, True, True, False]
    assert identical.all()
    assert first.tolist() == [True, True, False, True]


@pytest.mark.parametrize(
    ("first", "second", "scope", "restarting", "spans", "ambiguous"),
    [
        ({}, {}, "auto", False, False, False),
        ({"restarts": 2}, {}, "auto", False, False, True),
        ({}, {"restarts": 2}, "auto", False, False, True),
        ({"restarts": 2, "spans": 1}, {}, "auto", False, True, False),
        ({"restarts": 2}, {"spans": 1}, "auto", False, True, False),
        ({"restarts": 2}, {}, "global", False, True, False),
        ({}, {}, "global", False, False, False),
        ({"restarts": 2, "spans": 1}, {}, "auto", True, False, False),
        ({"restarts": 2}, {}, "global", True, False, False),
    ],
)
def test_what_is_known_of_ids_that_come_again(
    first: dict, second: dict, scope: str, restarting: bool, spans: bool, ambiguous: bool
) -> None:
    plan = Plan((RowFacts(**first), RowFacts(**second)), ids_restart=restarting, scope=scope)
    assert (plan.spans_updates, plan.is_ambiguous) == (spans, ambiguous)


@pytest.mark.parametrize(("updates", "uneven"), [((2, 2), False), ((2, 3), True), ((2, 2, 0), True)])
def test_ranks_that_updated_unequally_often_are_uneven(updates: tuple[int, ...], uneven: bool) -> None:
    assert Plan(tuple(RowFacts(updates=own) for own in updates)).uneven is uneven


@pytest.mark.parametrize(
    ("properties", "longest"),
    [({"ids_restart": True}, 3), ({}, 7), ({"compares": True}, 12), ({"compares": True, "classes": (0, 0)}, 5)],
)
def test_the_longest_query(properties: dict, longest: int) -> None:
    """Where queries may lie on several ranks, their parts come together."""
    facts = (RowFacts(longest_query=5, longest_piece=3), RowFacts(longest_query=7, longest_piece=2))
    assert Plan(facts, **properties).longest == longest


@pytest.mark.parametrize(
    ("gathered", "arrangements", "counts"), [(True, (4, 4), False), (True, (4, 6), True), (False, (4, 6), False)]
)
def test_the_first_rank_counts_where_others_have_its_rows_in_another_order(
    gathered: bool, arrangements: tuple[int, int], counts: bool
) -> None:
    facts = tuple(RowFacts(arrangement=own) for own in arrangements)
    assert Plan(facts, (0, 0) if gathered else ()).first_counts is counts


def test_rows_that_differ_from_rank_to_rank_are_judged_by_the_samples_of_their_rank() -> None:
    """As many queries as all ranks have samples do not tell that ids restart, if the ranks hold different rows."""
    batch = tuple(torch.cat(parts) for parts in zip(A, B, strict=True))
    others = tuple(torch.cat(parts) for parts in zip(OTHER_A, update([1, 1], [0.77, 0.66], [1, 0]), strict=True))
    found = plan([batch], [others])
    assert (found.compares, found.replicated, found.ids_restart) == (True, False, False)


def test_a_plan_takes_nothing_for_granted() -> None:
    facts = (RowFacts(),)
    assert Plan(facts) == Plan(facts, (), False, "nothing", 0, False, 0, 0, 0, "auto")
