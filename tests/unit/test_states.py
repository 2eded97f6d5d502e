"""States on their way to other ranks, how they are merged, and where that is needed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import BinaryAUROC
from torchmetrics.text import BLEUScore
from torchmetrics.wrappers import BootStrapper, MultitaskWrapper

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.epoch.states import (
    FIRST,
    LAST,
    Held,
    StateFacts,
    StateView,
    make_state_views,
    merge_states,
    pack_states,
    seek_repeated,
    unpack_states,
)
from lightning_retrieval_guard.watch.beside import BesideFeeder
from lightning_retrieval_guard.watch.metric_lives import MetricRecord
from lightning_retrieval_guard.watch.update_context import Feed, Repeats, UpdateContext

DTYPES = (
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128),
)


def travelled(**states: Any) -> dict[str, Any]:
    """States as another rank gets them."""
    received = unpack_states(pack_states({"metric": {"": Held(3, states)}}))["metric"]
    assert isinstance(received, dict)
    assert received[""].updates == 3
    return received[""].states


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0, 3), (2, 3)], ids=str)
def test_tensors_of_any_dtype_and_shape_arrive(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    sent = (torch.rand(shape) * 9).to(dtype)
    other = torch.tensor([True, False, True])  # an odd number of bytes before it
    received = travelled(other=other, sent=sent)["sent"]
    assert (received.dtype, received.shape) == (sent.dtype, sent.shape)
    assert torch.equal(received, sent)


def test_lists_of_lists_and_of_plain_things_arrive() -> None:
    masks = [((2, 3), b"\x00PY\xff"), ((1, 1), b"")]
    nested = [[torch.tensor([1, 2])], [], [torch.zeros(0)]]
    received = travelled(masks=masks, nested=nested, words=["a", 1, 2.5, None, True], named=[{"tensor": torch.ones(1)}])
    assert received["masks"] == masks
    assert received["words"] == ["a", 1, 2.5, None, True]
    assert [len(part) for part in received["nested"]] == [1, 0, 1]
    assert torch.equal(received["nested"][0][0], torch.tensor([1, 2]))
    assert torch.equal(received["named"][0]["tensor"], torch.ones(1))


def test_strided_tensors_arrive_as_they_look() -> None:
    sent = torch.arange(12).reshape(3, 4).t()[1:]
    assert torch.equal(travelled(sent=sent)["sent"], sent)


def test_a_tensor_that_two_metrics_hold_travels_once() -> None:
    held = {"": Held(1, {"preds": [torch.rand(1000)]})}
    once, twice = pack_states({"one": held}), pack_states({"one": held, "two": held})
    assert twice.numel() < once.numel() + 200


@pytest.mark.parametrize(
    ("state", "reason"),
    [(object(), "it holds a thing of type object"), (torch.eye(3).to_sparse(), "memory format")],
    ids=["object", "sparse"],
)
def test_what_cannot_travel_is_named_and_the_rest_arrives(state: Any, reason: str) -> None:
    received = unpack_states(pack_states({"bad": {"": Held(1, {"x": [state]})}, "good": {"": Held(1, {"x": 1})}}))
    assert reason in str(received["bad"])
    assert received["good"] == {"": Held(1, {"x": 1})}


# --- merging ----------------------------------------------------------------------------------------------------


def merged(reduction: Any, *ranks: tuple[int, Any]) -> Any:
    """One state of some ranks."""
    return merge_states([Held(updates, {"x": state}) for updates, state in ranks], {"x": reduction})["x"]


def test_sums_maxima_and_minima() -> None:
    one, other = torch.tensor([1, 5]), torch.tensor([3, 2])
    assert merged("sum", (1, one), (4, other)).tolist() == [4, 7]
    assert merged("max", (1, one), (4, other)).tolist() == [3, 5]
    assert merged("min", (1, one), (4, other)).tolist() == [1, 2]
    assert merged("max", (1, torch.tensor(False)), (1, torch.tensor(True))).item() is True


def test_means_are_weighted_by_updates() -> None:
    assert merged("mean", (3, torch.tensor([1.0, 2.0])), (1, torch.tensor([5.0, 6.0]))).tolist() == [2.0, 3.0]
    assert merged("mean", (1, torch.tensor(1)), (1, torch.tensor(2))).item() == 1.5
    assert merged("mean", (3, torch.tensor(1 + 1j)), (1, torch.tensor(5 + 1j))).item() == 2 + 1j


def test_lists_are_joined_in_order_of_ranks() -> None:
    ranks = (1, [torch.tensor([1])]), (3, []), (2, [torch.tensor([2, 3]), torch.tensor(4)])
    for reduction in ("cat", None):
        assert [part.tolist() for part in merged(reduction, *ranks)] == [[1], [2, 3], 4]
    assert merged(len, *ranks) == 3
    assert merged(None, (1, [("a", 1)]), (1, [("b", 2)])) == [("a", 1), ("b", 2)]


def test_a_list_that_was_joined_on_one_rank_goes_with_the_others() -> None:
    assert [part.tolist() for part in merged("cat", (1, [torch.tensor([1])]), (1, torch.tensor([2, 3])))] == [
        [1],
        [2, 3],
    ]


def test_tensors_without_reduction_are_stacked_and_functions_get_the_stack() -> None:
    ranks = (1, torch.tensor([1.0])), (1, torch.tensor([2.0]))
    assert merged(None, *ranks).tolist() == [[1.0], [2.0]]
    assert merged(lambda stack: stack.prod(0), *ranks).tolist() == [2.0]
    assert merged("cat", *ranks).tolist() == [1.0, 2.0]


def test_the_state_of_the_only_rank_that_was_fed_stays_as_it_is() -> None:
    alone = torch.tensor([1.0])
    for reduction in (None, "mean", len):
        assert merged(reduction, (2, alone)) is alone


def test_states_that_do_not_fit_together_raise() -> None:
    with pytest.raises(RuntimeError, match="stack"):
        merged("sum", (1, torch.zeros(2)), (1, torch.zeros(3)))


# --- where it is needed -----------------------------------------------------------------------------------------


def facts(updates: int, **changed: Any) -> StateFacts:
    """A metric on one rank."""
    return StateFacts("Some", "module.py", 3, updates=updates, **changed)


def view(*ranks: StateFacts | None, absent: tuple[int, ...] = ()) -> StateView:
    """The metric on all ranks."""
    return StateView("some", tuple(range(len(ranks))), ranks, absent)


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (view(facts(2), facts(1)), None),
        (view(facts(2), None), None),
        (view(facts(2), None, absent=(1,)), "absent"),
        (view(facts(2, lists=(2, 2)), facts(1, lists=(1, 1))), "lists"),
        (view(facts(2, lists=(2, 2)), facts(1, lists=(2, 2))), None),
        (view(facts(2, lists=(2, 2)), None), "lists"),
        (view(facts(2, lists=(0,)), None), None),
        (view(facts(2, holds_joined=True), facts(1, holds_joined=True)), None),
        (view(facts(2, holds_joined=True), None), "joined"),
        (view(facts(2, holds_joined=True), facts(2, lacks_joined=True)), "joined"),
        (view(facts(2), facts(2, lacks_joined=True)), None),
        (view(facts(2, averages=True), facts(2, averages=True)), None),
        (view(facts(2, averages=True), facts(1, averages=True)), "weights"),
        (view(facts(2, stacks=True), facts(1, stacks=True)), None),
        (view(facts(2, stacks=True), None), "weights"),
        (view(facts(2, lists=(2,))), None),
        (view(facts(0, lists=(2,)), None), None),
    ],
)
def test_why_torchmetrics_cannot_combine_the_ranks(seen: StateView, fault: str | None) -> None:
    assert seen.fault == fault


def test_groups_of_ranks_are_seen_by_themselves() -> None:
    ranks = [facts(2, lists=(2,), group=(0, 1)), facts(2, lists=(2,), group=(0, 1)), facts(1, group=(2, 3)), None]
    messages = [{"keys": [], "states": {} if one is None else {"some": StateFacts.to_payload(one)}} for one in ranks]
    one, other = make_state_views(messages)
    assert (one.ranks, one.fault, other.ranks, other.updates) == ((0, 1), None, (2, 3), (1, 0))


# --- repeated samples -------------------------------------------------------------------------------------------


def sent(first: Any = None, last: Any = None) -> dict[str, Held]:
    """What a rank sends beside its states."""
    inputs = {FIRST: first, LAST: last}
    return {name: Held(0, {"inputs": value}) for name, value in inputs.items() if value is not None}


SCORE = torch.tensor(0.25)


@pytest.mark.parametrize(
    ("first", "last", "reason"),
    [
        ([[SCORE, "text", 3]], [[SCORE * (1 + 1e-6), "text", 3]], ""),
        ([[SCORE]], [[SCORE * 1.1]], "the last sample of rank 1 does not have the inputs of the first of rank 0"),
        ([[SCORE]], [[SCORE], [SCORE]], "does not have"),
        ([[SCORE]], [[SCORE.double()]], "does not have"),
        ([["text"]], [["other"]], "does not have"),
        ([[{"boxes": SCORE}]], [[{"boxes": SCORE}]], ""),
        (None, [[SCORE]], "does not have"),
    ],
)
def test_a_repeated_sample_is_found_by_its_inputs(first: Any, last: Any, reason: str) -> None:
    ranks = [facts(2), facts(2, last_of=0)]
    problem = seek_repeated([sent(first), sent(last=last)], ranks, repeated=1)
    assert reason in problem if reason else not problem


def test_all_repeated_samples_must_have_been_fed() -> None:
    problem = seek_repeated([sent([[SCORE]]), sent(last=[[SCORE]])], [facts(2), facts(2, last_of=0)], repeated=2)
    assert problem == "it was fed 1 of 2 repeated samples"


# --- a metric holds other states for a moment -------------------------------------------------------------------


class Own(Metric):
    total: Tensor
    parts: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("parts", [], dist_reduce_fx=None)

    def update(self, value: Tensor) -> None:
        self.total = self.total + value
        self.parts.append(value)

    def compute(self) -> Tensor:
        return self.total + len(self.parts)


def test_a_metric_holds_its_very_own_tensors_again() -> None:
    metric = Own()
    metric.update(torch.tensor(2.0))
    total, parts = metric.total, metric.parts
    other = {"total": torch.tensor(7.0), "parts": [torch.tensor(1.0)] * 5}
    with _compat.WithStates({"": metric}, {"": (6, other)}):
        assert metric.update_count == 6
        assert metric.compute() == 12
    assert metric.total is total
    assert metric.parts is parts
    assert len(parts) == metric.update_count == 1
    assert metric.compute() == 12  # as torchmetrics caches what it has combined


def test_states_come_back_after_a_failure() -> None:
    metric = Own()
    total = metric.total
    with pytest.raises(ZeroDivisionError), _compat.WithStates({"": metric}, {"": (1, {"total": torch.ones(1)})}):
        raise ZeroDivisionError
    assert metric.total is total
    assert metric._to_sync


def test_nothing_is_blank_that_was_changed_without_an_update() -> None:
    metric = MeanMetric()
    assert _compat.is_blank(metric)
    metric.mean_value = metric.mean_value + 1
    assert not _compat.is_blank(metric)


# --- beside the program -----------------------------------------------------------------------------------------


def run(record: MetricRecord, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What belongs to a call of a metric; nothing is watched here."""
    return function(*args, **kwargs)


@pytest.mark.parametrize(("limit", "is_kept"), [(10_000, True), (1_000, False)])
def test_what_goes_beside_a_metric_stays_within_its_limit(limit: float, is_kept: bool) -> None:
    metric = BinaryAUROC()
    record = MetricRecord(weakref.ref(metric), is_rows=False, created_in_hook=None)
    record.feeds[Feed(1, "validate", 0)] = 1
    second = UpdateContext(Feed(1, "validate", 1), None, None, lambda epoch: False, logs_by_dataloader=True)
    feeder = BesideFeeder(limit, run)
    for _ in range(20):  # 12 bytes a sample
        inputs = torch.rand(10), torch.ones(10, dtype=torch.long)
        feeder.take(record, second, (inputs, {}))
    assert record.beside is not None
    assert bool(record.beside.states) == is_kept
    assert record.beside.problem == ("" if is_kept else "its states take more than max_held_mb")


@pytest.mark.parametrize(("limit", "is_kept"), [(10_000, True), (1_000, False)])
def test_what_another_stage_makes_a_metric_lose_stays_within_the_limit(limit: float, is_kept: bool) -> None:
    metric = BinaryAUROC()
    record = MetricRecord(weakref.ref(metric), is_rows=False, created_in_hook=None)
    training = Feed(1, "train")
    record.feeds[training] = 1
    metric.update(torch.rand(200), torch.ones(200, dtype=torch.long))  # 12 bytes a sample
    BesideFeeder(limit, run).set_aside(record, [training])
    assert record.outer is not None
    assert bool(record.outer.states) == is_kept


@pytest.mark.parametrize("is_kept", [True, False])
def test_the_limit_is_one_for_all_stages(is_kept: bool) -> None:
    metric, samples = BinaryAUROC(), (torch.rand(200), torch.ones(200, dtype=torch.long))
    record = MetricRecord(weakref.ref(metric), is_rows=False, created_in_hook=None)
    training = Feed(1, "train")
    record.feeds[training] = 1
    metric.update(*samples)
    feeder = BesideFeeder(4_000, run)  # 2,400 bytes a stage
    feeder.set_aside(record, [training])
    assert record.outer is not None
    feeder.start_stage([record.outer] if is_kept else [])
    feeder.take(record, UpdateContext(Feed(2, "validate"), None, None, lambda epoch: False), (samples, {}))
    assert record.beside is not None
    assert bool(record.beside.problem) == is_kept


class Weighted(Metric):
    """Takes whatever it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, values: Any, other: Any = None, scale: float = 2.0, **more: Any) -> None:
        self.total = self.total + torch.as_tensor(values).sum()

    def compute(self) -> Tensor:
        return self.total


def problem_of(metric: Metric, *args: Any, size: int = 3, **kwargs: Any) -> str:
    """Why nothing is known of a metric without the last sample of its batch."""
    record = MetricRecord(weakref.ref(metric), is_rows=False, created_in_hook=None)
    context = UpdateContext(Feed(1, "validate"), None, None, lambda epoch: False, repeats=Repeats(size, False, 0))
    BesideFeeder(1e6, run).take(record, context, (args, kwargs))
    assert record.beside is not None
    assert bool(record.beside.problem) or size == 1 or bool(record.beside.states)
    return record.beside.problem


EACH = torch.rand(3)
WORDS = ["a b", "a c", "b c"]


@pytest.mark.parametrize(
    ("metric", "args", "kwargs"),
    [
        (MeanMetric(), (EACH,), {}),
        (MeanMetric(), (EACH, torch.ones(3)), {}),
        (MeanMetric(), (EACH, 1.0), {}),
        (MeanMetric(), (EACH,), {"weight": 1.0}),
        (BinaryAUROC(), (EACH, torch.ones(3, dtype=torch.long)), {}),
        (BLEUScore(), (WORDS, [[words] for words in WORDS]), {}),
        (MultitaskWrapper({"a": MeanMetric()}), ({"a": EACH}, {"a": torch.ones(3)}), {}),
        (Weighted(), (EACH, None, 2.0), {}),
        (Weighted(), (EACH,), {"real": True, "mode": "all", "step": 4, "other": [EACH, EACH, EACH]}),
    ],
)
def test_settings_go_with_what_has_one_entry_a_sample(metric: Metric, args: Any, kwargs: Any) -> None:
    assert not problem_of(metric, *args, **kwargs)


@pytest.mark.parametrize(
    ("metric", "args", "kwargs", "what"),
    [
        (Weighted(), (torch.tensor(0.4), EACH), {}, "a Tensor of shape ()"),
        (Weighted(), (0.4, EACH), {}, "a float"),
        (Weighted(), (EACH, None, 3.0), {}, "a float"),
        (Weighted(), (EACH,), {"more": torch.ones(5, 2)}, "a Tensor of shape (5, 2)"),
        (Weighted(), (EACH,), {"more": {"mean": torch.tensor(0.4)}}, "a Tensor of shape ()"),
        (Weighted(), (EACH,), {"more": [0.5, 0.5]}, "a list"),
        (MeanMetric(), (0.4, torch.ones(3)), {}, "a float"),
        (MeanMetric(), (EACH, 3.0), {}, "a float"),
        (MeanMetric(), (torch.tensor(0.4), torch.ones(3)), {}, "a Tensor of shape ()"),
    ],
)
def test_what_may_hold_the_sample_is_a_problem(metric: Metric, args: Any, kwargs: Any, what: str) -> None:
    assert problem_of(metric, *args, **kwargs) == f"it was updated with {what} too, which may hold the sample"


def test_of_a_batch_of_one_sample_nothing_is_left() -> None:
    assert not problem_of(Weighted(), torch.ones(1), torch.tensor(0.4), size=1)


class Noisy(Weighted):
    """Adds noise to what it is given."""

    def update(self, values: Any, other: Any = None, scale: float = 2.0, **more: Any) -> None:
        super().update(values + torch.rand(len(values)), other, scale, **more)


@pytest.mark.parametrize("metric", [Noisy(), BootStrapper(MeanMetric(), num_bootstraps=3)])
def test_another_random_draw_is_no_correction(metric: Metric) -> None:
    before = torch.random.get_rng_state()
    assert problem_of(metric, EACH) == "its update draws random numbers, which would be others without the sample"
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_same_samples_are_drawn_for_one_dataloader_alone() -> None:
    metric, alone = Noisy(), Noisy()
    record = MetricRecord(weakref.ref(metric), is_rows=False, created_in_hook=None)
    record.feeds[Feed(1, "validate", 0)] = 1
    second = UpdateContext(Feed(1, "validate", 1), None, None, lambda epoch: False, logs_by_dataloader=True)
    torch.manual_seed(5)
    BesideFeeder(1e6, run).take(record, second, ((EACH,), {}))
    alone.update(EACH)
    assert record.beside is not None
    assert not record.beside.problem
    assert record.beside.states[""].states["total"] == alone.total


class Averaged(Weighted):
    """Has torchmetrics take the mean of a state over ranks."""

    def __init__(self) -> None:
        super().__init__()
        self.add_state("mean", torch.tensor(0.0), dist_reduce_fx="mean")


@pytest.mark.parametrize("size", [1, 3])
def test_nothing_tells_how_a_mean_of_ranks_weighs_samples(size: int) -> None:
    what = "it has states that are averaged over ranks, and nothing tells how a sample weighs in them"
    assert problem_of(Averaged(), EACH[:size], size=size) == what
