"""The distributed sampler repeated samples."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard.epoch.query_ids import IdColumns
from lightning_retrieval_guard.epoch.repeated_samples import Repeated, most_repeated, repeated_samples
from lightning_retrieval_guard.epoch.states import StateFacts, StateView
from lightning_retrieval_guard.epoch.views import KeyView, with_repeated
from lightning_retrieval_guard.findings import Severity, show_number
from tests.unit.simulated import Update, update

from .factories import PATH, at_end, facts, findings_of, source, stage, steps, the_finding

HIT, MISS = update([0, 0], [0.9, 0.1], [1, 0]), update([1, 1], [0.8, 0.7], [0, 1])
LAST = update([2, 2], [0.6, 0.5], [0, 1])


def padded(computed: float | None, **changed) -> KeyView:
    """3 queries on 2 ranks: the first one comes again at the end of rank 1."""
    ranks = [[HIT, LAST], [MISS, HIT]]
    key_facts = facts("val_mrr", kind="metric", source="recall")
    view = source(ranks, RetrievalMRR(), samples=[1, 1], repeated=1, **changed)
    return KeyView((key_facts, key_facts), view, computed=computed)


def test_a_repeated_query_counts_once() -> None:
    finding = the_finding("LRG403", stage(padded(0.75), repeated=1))
    assert finding.severity is Severity.WARNING
    assert (finding.key, finding.ranks) == ("val_mrr", (0, 1))
    assert finding.effect.reference == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert finding.text() == (
        "LRG403 padded-samples: 'val_mrr' counts 1 sample twice: the sampler repeated it to give 2 ranks the same"
        " number. Logged 0.7500, reference 0.6667."
        " Use mode='correct', a dataset whose size the world size divides, or one device for final numbers."
    )


@pytest.mark.parametrize("twice", [HIT, MISS, LAST], ids=["hit", "miss", "last"])
def test_the_number_with_the_repeated_query_is_known_before_it_is_computed(twice: Update) -> None:
    others = [one for one in (HIT, MISS, LAST) if one is not twice]
    ranks = [[twice, others[0]], [others[1], twice]]
    metric = RetrievalMRR()
    for update_of_rank in (*ranks[0], *ranks[1]):
        metric.update(update_of_rank[1], update_of_rank[2], update_of_rank[0])
    plain = float(metric.compute())
    key_facts = facts("val_mrr", kind="metric", source="recall")
    of_the_data = IdColumns(({"qid": torch.arange(3)},))
    view = source(ranks, RetrievalMRR(), samples=[1, 1], repeated=1, columns=of_the_data)
    key = KeyView((key_facts, key_facts), view, replaced=True)
    [finding] = findings_of("LRG403", stage(key, repeated=1))
    assert (finding.effect.logged, finding.effect.reference) == pytest.approx((plain, (1 + 0.5 + 0.5) / 3))
    assert (finding.severity is Severity.NOTE) == (twice is HIT)  # whose first row is relevant, however often it stands


def test_a_plain_value_keeps_its_number() -> None:
    key = KeyView((steps((1.0, 2, 2), (2.0, 2, 2), sync_dist=True, world_size=4),) * 4)
    finding = the_finding("LRG403", stage(key, repeated=3))
    assert (finding.severity, finding.effect) == (Severity.WARNING, None)
    assert "'val_loss' counts 3 samples twice: the sampler repeated them to give 4 ranks" in finding.message


@pytest.mark.parametrize("first_batch", [8.0, 2.0])
def test_how_far_a_mean_can_be_off(first_batch: float) -> None:
    """8 samples, of which one is repeated: 7 come to 32 - x, and x is no more than either batch comes to."""
    once, again = steps((2.0, 2, 2), (3.0, 2, 2), sync_dist=True), steps((5.0, 2, 2), (6.0, 2, 2), sync_dist=True)
    ranks = replace(once, first_batch=first_batch), replace(again, last_batch=12.0, last_of=0)
    [finding] = findings_of("LRG403", stage(KeyView(ranks), repeated=1))
    largest = min(first_batch, 12.0)
    worst = max(32 / 7 - 4.0, 4.0 - (32 - largest) / 7)
    assert finding.message.endswith(f"none of them negative, it is off by at most {show_number(worst)}.")
    [unknown] = findings_of("LRG403", stage(KeyView((once, again)), repeated=1))
    assert "off by" not in unknown.message


def mean_with(again: float | None, first: float | None, **words: Any) -> KeyView:
    """A plain mean of 8 samples, one of which both ranks have, as either finds it in the mean of a batch."""
    once, twice = steps((2.0, 2, 2), (3.0, 2, 2), sync_dist=True), steps((5.0, 2, 2), (6.0, 2, 2), sync_dist=True)
    ranks = replace(once, first_sample=first, **words), replace(twice, last_sample=again, last_of=0, **words)
    return KeyView(ranks, batches=(2, 2))


def test_a_mean_over_samples_counts_a_repeated_one_once() -> None:
    [key] = with_repeated([mean_with(7.5, 7.5 + 1e-6)], repeated=1)
    finding = the_finding("LRG403", stage(key, repeated=1))
    assert finding.effect is not None
    assert (finding.effect.logged, finding.effect.reference) == pytest.approx((4.0, (32 - 7.5) / 7))
    assert (finding.severity, finding.corrects) == (Severity.WARNING, "value")
    assert "mode='correct'" in finding.fix
    assert "off by" not in finding.message


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param([mean_with(7.5, 7.4)], id="another number"),
        pytest.param([mean_with(7.5, None)], id="known of one rank"),
        pytest.param([mean_with(7.5, 7.5, kind="forward")], id="of a metric"),
        pytest.param([mean_with(7.5, 7.5, equal=1)], id="weights that are no samples"),
        # a step that reorders its samples has the same hits now and then
        pytest.param([mean_with(1.0, 1.0)], id="whole numbers"),
        pytest.param([mean_with(1.0, 1.0), mean_with(7.5, 7.4, storage="other")], id="no order is shown"),
    ],
)
def test_a_mean_in_which_the_sample_is_not_found_stays(keys: list[KeyView]) -> None:
    for key in with_repeated(keys, repeated=1):
        assert not key.repeated
        finding = the_finding("LRG403", stage(key, repeated=1))
        assert (finding.effect, finding.corrects) == (None, None)


def test_a_hit_counts_once_where_another_mean_shows_the_order_of_samples() -> None:
    keys = with_repeated([mean_with(1.0, 1.0), mean_with(7.5, 7.5, storage="other")], repeated=1)
    assert [key.repeated for key in keys] == [(1.0,), (7.5,)]
    # of a loss against the rest of its batch, a sample has another share on each rank
    doubtful = [*keys, mean_with(3.0, 3.1, storage="in_batch")]
    assert [key.repeated for key in with_repeated(doubtful, repeated=1)] == [(), (7.5,), ()]


def test_a_data_set_that_repeats_samples_leaves_the_number() -> None:
    key_facts = facts("val_mrr", kind="metric", source="recall")
    key = KeyView((key_facts, key_facts), source([[HIT, LAST], [MISS, HIT]], RetrievalMRR()))
    finding = the_finding("LRG403", replace(stage(key), repeated=Repeated(1, "data set")))
    assert (finding.effect, finding.corrects) == (None, None)
    assert "counts 1 sample twice: the data set repeated it to give 2 ranks the same number." in finding.message


@pytest.mark.parametrize(
    ("edges", "samples", "repeated"),
    [
        ([["a", "b"], ["c", "a"]], [3, 3], 1),
        ([["a", "x"], ["b", "a"], ["c", "b"]], [3, 3, 3], 2),
        ([["a", "x"], ["b", "y"], ["c", "a"]], [3, 3, 3], 1),
        ([["a", "c"], ["c", "d"]], [3, 3], 0),  # not the last rank
        ([["a", "b"], ["c", "a"]], [4, 3], 0),  # not equally many
        ([["a", "b"], ["a", "a"]], [3, 3], 0),  # all begin alike
        ([["a", "b"], []], [3, 3], 0),  # samples of a rank that nobody can compare
        ([["a", "b"], ["c", "d"]], [3, 3], 0),
    ],
)
def test_what_a_data_set_repeats_is_seen(edges: list[list[str]], samples: list[int], repeated: int) -> None:
    ranks = [
        {"repeated": 0, "samples": size, "edges": rank_edges} for rank_edges, size in zip(edges, samples, strict=True)
    ]
    assert repeated_samples([ranks]) == {0: Repeated(repeated, "data set") if repeated else Repeated()}


def test_each_dataloader_has_repeated_samples_of_its_own() -> None:
    keys = [
        KeyView((steps((1.0, 4, 4), sync_dist=True, dataloader=number, storage=f"loss/{number}"),) * 2)
        for number in range(3)
    ]
    exchanges = [[{"repeated": count, "dataloader": number}] * 2 for number, count in enumerate([0, 1])]
    samples = repeated_samples([[{**message, "samples": 2} for message in messages] for messages in exchanges])
    assert samples == {0: Repeated(), 1: Repeated(1)}
    view = replace(stage(*keys), repeated=most_repeated(samples.values()), repeated_in=samples)
    assert the_finding("LRG403", view).target == "loss/1"
    assert [view.knows_reference(key) for key in keys] == [True, False, True]


def test_every_key_that_it_touches_is_named() -> None:
    plain = KeyView((steps((1.0, 2, 2), sync_dist=True),) * 2)
    end = KeyView((facts("val_own", kind="plain", in_step=False, value=1.0),) * 2)  # nobody knows what it is made of
    *shown, last = findings_of("LRG403", stage(plain, padded(0.75), end, repeated=1))
    assert [finding.key for finding in shown] == ["val_loss", "val_mrr"]
    assert (last.key, last.severity, last.corrects) == ("val_own", Severity.NOTE, None)
    assert last.message == (
        "'val_own' may count 1 sample twice: the sampler repeated it to give 2 ranks the same number. Nothing tells"
        " what it was made of."
    )


def keeps_states(problem: str = "") -> StateView:
    """A metric that keeps states, which rank 1 has fed beside the program."""
    ranks = (StateFacts("MeanMetric", PATH, 7, updates=2), StateFacts("MeanMetric", PATH, 7, updates=2, last_of=0))
    return StateView("mean", (0, 1), ranks, repeated=1, problem=problem)


def test_metrics_that_keep_states_count_it_once_where_it_is_found() -> None:
    key = KeyView((facts("val_mean", kind="metric", shows=["mean"]),) * 2)
    finding = the_finding("LRG403", stage(key, states=(keeps_states(),), repeated=1))
    assert (finding.corrects, finding.effect) == ("value", None)
    assert "mode='correct'" in finding.fix
    finding = the_finding("LRG403", stage(key, states=(keeps_states("why not"),), repeated=1))
    assert finding.corrects is None
    assert finding.message.endswith("the same number. It stays: why not.")


def test_a_program_that_leaves_the_sample_out_itself_is_right() -> None:
    data = IdColumns(({"ids": torch.tensor([0, 1, 2, 3])},))
    options = {"samples": [1, 1], "repeated": 1, "columns": data}
    once = source([[HIT, LAST], [MISS]], RetrievalMRR(), **options)
    key = KeyView((facts("val_mrr", kind="metric", source="recall"),) * 2, once, computed=0.75)
    assert not findings_of("LRG403", stage(key, repeated=1))
    assert not findings_of("LRG403", stage(world_size=2, sources=(once,), repeated=1))
    made = source([[HIT, LAST], [MISS]], RetrievalMRR(), **{**options, "columns": IdColumns(())})
    assert findings_of("LRG403", stage(replace(key, source=made), repeated=1))
    assert findings_of("LRG403", stage(world_size=2, sources=(made,), repeated=1))


def test_rows_that_all_ranks_hold_may_lack_it() -> None:
    gathered = source([[HIT, MISS, LAST]] * 2, RetrievalMRR(), samples=[1, 1, 1], repeated=1)
    key = KeyView((facts("val_mrr", kind="metric", source="recall"),) * 2, gathered, computed=0.75)
    finding = the_finding("LRG403", stage(key, repeated=1))
    assert (finding.severity, finding.corrects) == (Severity.NOTE, None)
    assert finding.message.endswith(
        "the same number. All ranks hold the same rows, and nothing tells whether the program left it out of them."
    )
    assert not findings_of("LRG403", stage(world_size=2, sources=(gathered,), repeated=1))


@pytest.mark.parametrize("shown", [{"kind": "compute", "sync_dist": True}, {"kind": "metric", "of_shard": 0.5}])
def test_what_each_rank_computes_alone_may_lack_it(shown: dict) -> None:
    """Such as a mean over a dataloader of the program's own, that every rank goes through."""
    alone = KeyView((at_end(None if "of_shard" in shown else 0.5, "hit", **shown),) * 2)
    finding = the_finding("LRG403", stage(alone, repeated=1))
    assert (finding.severity, finding.effect) == (Severity.NOTE, None)
    assert "nothing tells whether the program left it out" in finding.message
    together = KeyView((at_end(0.5, "hit", kind="compute", synced=True),) * 2)
    assert the_finding("LRG403", stage(together, repeated=1)).severity is Severity.WARNING


def test_the_largest_value_is_the_same_with_a_sample_twice() -> None:
    fed = keeps_states()
    largest = replace(fed, facts=tuple(replace(rank, extremes=True) for rank in fed.facts))
    key = KeyView((facts("val_max", kind="metric", shows=["mean"]),) * 2)
    assert findings_of("LRG403", stage(key, states=(fed,), repeated=1))
    assert not findings_of("LRG403", stage(key, states=(largest,), repeated=1))
    assert not findings_of("LRG403", stage(world_size=2, states=(largest,), repeated=1))
    # the mean of the values of batches is no maximum
    of_step = KeyView((facts("val_max", kind="forward", shows=["mean"], value=1.0, weight=1.0),) * 2)
    assert findings_of("LRG403", stage(of_step, states=(largest,), repeated=1))
    # it is where correct mode has the metric compute it
    assert not findings_of("LRG403", stage(replace(of_step, recomputed=2.0), states=(largest,), repeated=1))


def test_what_was_made_of_corrected_metrics_is_right() -> None:
    end = KeyView((facts("val_half", kind="plain", in_step=False, value=1.0),) * 2)
    made_of_metrics = "It does not if it was made of metrics, which count it once here."
    unknown = "Nothing tells what it was made of."

    def said(key: KeyView = end, **changed: Any) -> str:
        return findings_of("LRG403", stage(end, *([key] if key is not end else []), repeated=1, **changed))[0].message

    fed, corrected = keeps_states(), frozenset({"mean"})
    assert said(states=(fed,), corrected=corrected).endswith(made_of_metrics)
    assert said(states=(fed,)).endswith(unknown)
    assert said(states=(keeps_states("why not"),), corrected=corrected).endswith(unknown)
    assert said().endswith(unknown)
    rows = padded(0.75)
    both = frozenset({"mean", rows.first.storage})
    assert said(rows, states=(fed,), corrected=both).endswith(made_of_metrics)
    assert said(rows, states=(fed,), corrected=corrected).endswith(unknown)


def test_correct_mode_is_advised_where_it_helps_and_is_not_on() -> None:
    key = KeyView((facts("val_mean", kind="metric", shows=["mean"]),) * 2)
    fed = keeps_states()
    told = replace(fed, facts=(fed.facts[0], replace(fed.facts[1], last_of=None, fed_repeated=True)))
    finding = the_finding("LRG403", stage(key, states=(told,), repeated=1))
    assert "mode='correct'" in finding.fix
    assert finding.corrects is None  # not in this run
    two = replace(told, repeated=2)  # of which it was fed one
    assert "mode='correct'" not in the_finding("LRG403", stage(key, states=(two,), repeated=2)).fix
    corrected = stage(key, states=(fed,), repeated=1, corrected=frozenset({key.first.storage}))
    assert "mode='correct'" not in the_finding("LRG403", corrected).fix
    of_step = KeyView((facts("val_mean", kind="forward", shows=["mean"], value=1.0, weight=1.0),) * 2)
    assert "mode='correct'" not in the_finding("LRG403", stage(of_step, states=(told,), repeated=1)).fix


def test_a_value_of_a_step_that_nothing_was_asked_for_stays() -> None:
    key = KeyView((facts("val_mean", kind="forward", shows=["mean"], value=1.0, weight=1.0),) * 2)
    assert the_finding("LRG403", stage(key, states=(keeps_states(),), repeated=1)).corrects is None


def test_a_metric_that_no_key_shows_is_named_at_its_update() -> None:
    finding = the_finding("LRG403", stage(world_size=2, states=(keeps_states(),), repeated=1), line=7)
    assert (finding.key, finding.hook, finding.corrects) == ("mean", "update", "value")
    assert finding.message.startswith("MeanMetric 'mean' counts 1 sample twice")
    assert not findings_of("LRG403", stage(world_size=2, states=(keeps_states("why not"),), repeated=1))


def test_samples_that_are_not_found_still_count_and_have_no_reference() -> None:
    other = update([0, 0], [0.7, 0.6], [1, 0])
    view = source([[HIT, LAST], [MISS, other]], RetrievalMRR(), samples=[1, 1], repeated=1)
    key = KeyView((facts("val_mrr", kind="metric", source="recall"),) * 2, view, computed=0.75)
    finding = the_finding("LRG403", stage(key, repeated=1))
    assert (finding.severity, finding.effect, finding.corrects) == (Severity.WARNING, None, None)
    assert "mode='correct'" not in finding.fix
    assert not stage(key, repeated=1).knows_reference(key)
    assert stage(padded(0.75), repeated=1).knows_reference(padded(0.75))


def test_without_effect_it_is_a_note() -> None:
    assert the_finding("LRG403", stage(padded(2 / 3), repeated=1)).severity is Severity.NOTE


def test_no_padding_is_silent() -> None:
    assert not findings_of("LRG403", stage(padded(0.75), repeated=0))


def test_an_epoch_without_log_calls_is_silent() -> None:
    assert not findings_of("LRG403", stage(world_size=2, repeated=1))


def test_correct_mode_is_no_advice_for_a_plain_value() -> None:
    view = stage(KeyView((steps((1.0, 4, 4)), steps((1.0, 4, 4)))), repeated=1)
    finding = the_finding("LRG403", view)
    assert finding.fix == "Use a dataset whose size the world size divides, or one device for final numbers."


def test_nobody_knows_the_reference_of_a_plain_value_with_repeated_samples() -> None:
    key = KeyView((steps((1.0, 4, 4), world_size=2), steps((2.0, 4, 4), world_size=2)))
    view = stage(key, repeated=1, corrected=frozenset({key.first.storage}))
    assert the_finding("LRG203", view).effect is None
    assert the_finding("LRG203", view).corrected
    assert not the_finding("LRG403", view).corrected
    assert the_finding("LRG203", stage(key)).effect is not None
