"""Rows are kept once, in at most 16 bytes, and the metrics go on working as torchmetrics made them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from lightning_retrieval_guard import _compat
from lightning_retrieval_guard.watch import row_store
from lightning_retrieval_guard.watch.metrics import MetricWatch

from .listening import Listener


@pytest.fixture
def watch() -> Iterator[MetricWatch]:
    watch = MetricWatch(Listener())
    watch.install()
    yield watch
    watch.uninstall()


def batch(queries: int = 4, rows: int = 6, seed: int = 0, relevance: torch.dtype = torch.int64) -> tuple[Tensor, ...]:
    """Scores, relevance and ids of a block of queries, in two dimensions."""
    generator = torch.Generator().manual_seed(seed)
    preds = torch.rand(queries, rows, generator=generator)
    target = (torch.rand(queries, rows, generator=generator) < 0.4).to(relevance)
    return preds, target, torch.arange(queries)[:, None].expand(queries, rows)


def parts(metric: Metric) -> list[Tensor]:
    return [part for column in _compat.row_states(metric) for part in column]


def held_bytes(*metrics: Metric) -> int:
    """The bytes of the memory behind the rows, each block counted once."""
    blocks = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for m in metrics for part in parts(m)}
    return sum(blocks.values())


def equal(one: Any, other: Any) -> bool:
    return all(torch.equal(a.double(), b.double()) for a, b in zip(parts(one), parts(other), strict=True))


METRICS = (RetrievalMRR, RetrievalMAP, RetrievalRecall, RetrievalNormalizedDCG)


@pytest.mark.parametrize("relevance", [torch.int64, torch.bool, torch.int32])
@pytest.mark.parametrize("inference", [False, True])
def test_separate_metrics_share_one_store(watch: MetricWatch, relevance: torch.dtype, inference: bool) -> None:
    metrics = [kind() for kind in METRICS]
    with torch.inference_mode(inference):
        for seed in range(3):
            rows = batch(seed=seed, relevance=relevance)
            for metric in metrics:
                metric.update(*rows)
            watch.start_batch()
        assert all(one is other for one, other in zip(parts(metrics[0]), parts(metrics[-1]), strict=True))
        # ids of a block are one number a query that torchmetrics spreads out
        assert held_bytes(*metrics) <= 16 * 3 * 4 * 6


def test_a_collection_shares_one_store(watch: MetricWatch) -> None:
    collection = MetricCollection([kind() for kind in METRICS])
    plain = MetricCollection([kind() for kind in METRICS])
    for seed in range(3):
        collection.update(*batch(seed=seed))
        watch.start_batch()
    assert held_bytes(*collection.values(copy_state=False)) <= 16 * 3 * 4 * 6
    watch.uninstall()
    for seed in range(3):
        plain.update(*batch(seed=seed))
    assert collection.compute() == plain.compute()


def test_other_tensors_are_kept_apart(watch: MetricWatch) -> None:
    preds, target, ids = batch()
    one, other = RetrievalMRR(), RetrievalMRR()
    one.update(preds, target, ids)
    other.update(preds, 1 - target, ids)
    assert not torch.equal(one.target[0], other.target[0])


@pytest.mark.parametrize("inference", [False, True])
def test_a_tensor_that_was_written_to_between_two_updates_is_another_one(watch: MetricWatch, inference: bool) -> None:
    with torch.inference_mode(inference):
        preds, target, ids = batch(relevance=torch.bool)
        one, other = RetrievalMRR(), RetrievalMRR()
        one.update(preds, target, ids)
        target[0] = ~target[0]
        other.update(preds, target, ids)
        assert not torch.equal(one.target[0], other.target[0])
        assert torch.equal(other.target[0].bool(), target.flatten())


def test_on_a_device_inference_tensors_are_shared_where_they_are_the_same_memory(watch: MetricWatch) -> None:
    with mock.patch.object(row_store, "may_look", return_value=False), torch.inference_mode():
        rows = batch(relevance=torch.bool)
        one, other = RetrievalMRR(), RetrievalMAP()
        one.update(*rows)
        other.update(*rows)
        assert one.target[0] is not other.target[0]
        assert one.preds[0].data_ptr() == other.preds[0].data_ptr()
        assert one.target[0].dtype == torch.int32


def test_another_ignored_value_is_another_store(watch: MetricWatch) -> None:
    rows = batch()
    one, other, third = RetrievalMRR(ignore_index=0), RetrievalMRR(), RetrievalMAP(ignore_index=0)
    for metric in (one, other, third):
        metric.update(*rows)
    assert len(one.preds[0]) < len(other.preds[0])
    assert one.preds[0] is third.preds[0]


def test_grades_that_four_bytes_cannot_hold_stay(watch: MetricWatch) -> None:
    metric = RetrievalNormalizedDCG()
    big = torch.tensor([2**40, 1])
    metric.update(torch.tensor([0.5, 0.2]), big, torch.tensor([0, 0]))
    assert torch.equal(metric.target[0], big)
    metric.update(torch.tensor([0.5, 0.2]), torch.tensor([3, 1]), torch.tensor([1, 1]))
    assert metric.target[1].dtype == torch.int32


def feed(metric: Metric, seed: int) -> Tensor | None:
    return metric(*batch(seed=seed)) if seed == 1 else metric.update(*batch(seed=seed))


def test_the_rows_are_given_back_as_torchmetrics_keeps_them(watch: MetricWatch) -> None:
    metrics, plain = [RetrievalMRR(), RetrievalMAP()], RetrievalMRR()
    rows = batch()
    for metric in metrics:
        metric.update(*rows)
    watch.uninstall()
    plain.update(*rows)
    for metric in metrics:
        assert [part.dtype for part in parts(metric)] == [part.dtype for part in parts(plain)]
    assert metrics[0].target[0] is metrics[1].target[0]


def test_everything_torchmetrics_does_with_rows_goes_on_working(watch: MetricWatch) -> None:
    metric, plain = RetrievalMRR(), RetrievalMRR()
    metric.persistent(True)
    plain.persistent(True)
    watched = [metric, RetrievalMAP()]
    values = [[feed(own, seed) for own in watched] for seed in range(3)]
    watch.uninstall()
    assert [value for value, _ in values] == [feed(plain, seed) for seed in range(3)]
    assert equal(metric, plain)
    assert metric.compute() == plain.compute()
    for name, state in plain.metric_state.items():
        assert torch.equal(torch.cat(state), torch.cat(metric.metric_state[name]).to(state[0].dtype))
    fresh = RetrievalMRR()
    fresh.persistent(True)
    fresh.load_state_dict(metric.state_dict())
    assert equal(fresh, plain)
    assert equal(pickle.loads(pickle.dumps(metric)), plain)
    assert equal(copy.deepcopy(metric), plain)
    if hasattr(metric, "merge_state"):
        other = RetrievalMRR()
        other.update(*batch(seed=9))
        metric.merge_state(other)
        plain.merge_state(other)
        assert equal(metric, plain)
    metric.reset()
    assert parts(metric) == []


@pytest.mark.parametrize(
    "rows",
    [
        (torch.rand(4), torch.ones(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)),
        (torch.rand(4), torch.ones(4, dtype=torch.int64), torch.zeros(4)),
        (torch.rand(4), torch.full((4,), 2), torch.zeros(4, dtype=torch.int64)),
        (torch.ones(4, dtype=torch.int64), torch.ones(4, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)),
        (torch.rand(0), torch.ones(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)),
    ],
    ids=["shapes", "float-ids", "relevance", "integer-scores", "empty"],
)
def test_bad_input_raises_what_torchmetrics_raises_where_it_would(watch: MetricWatch, rows: tuple[Tensor, ...]) -> None:
    metric = RetrievalMRR()
    with pytest.raises(ValueError, match=r".") as guarded:
        metric.update(*rows)
    watch.uninstall()
    with pytest.raises(ValueError, match=r".") as plain:
        RetrievalMRR().update(*rows)
    assert str(guarded.value) == str(plain.value)
    assert parts(metric) == []


def test_scores_that_are_no_number_pass_as_in_torchmetrics(watch: MetricWatch) -> None:
    metric = RetrievalMRR()
    metric.update(torch.tensor([torch.nan, 0.5]), torch.tensor([0, 1]), torch.tensor([0, 0]))
    assert metric.preds[0].isnan().any()


class Own(RetrievalMRR):
    """Its update takes something else."""

    def update(self, similarity: Tensor) -> None:
        queries, rows = similarity.shape
        ids = torch.arange(queries)[:, None].expand(queries, rows)
        super().update(similarity.flatten(), torch.eye(queries, rows).long().flatten(), ids.flatten())


def test_an_update_of_the_users_own_is_kept_as_it_comes(watch: MetricWatch) -> None:
    metric = Own()
    metric.update(torch.rand(3, 3))
    metric.update(similarity=torch.rand(3, 3))
    assert [len(column) for column in _compat.row_states(metric)] == [2, 2, 2]
    assert metric.target[0].dtype == torch.int32


def test_a_move_to_where_it_is_touches_new_rows_alone(watch: MetricWatch) -> None:
    """Lightning moves a logged metric in every log call."""
    metric = RetrievalMRR()
    looked: list[Any] = []
    plain = Tensor.to

    def counted(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        looked.append(self)
        return plain(self, *args, **kwargs)

    for seed in range(50):
        metric.update(*batch(seed=seed))
        looked.clear()
        with mock.patch.object(Tensor, "to", counted):
            assert metric.to(metric.device) is metric
        assert len(looked) == 3
    metric.reset()
    metric.update(*batch())
    looked.clear()
    with mock.patch.object(Tensor, "to", counted):
        metric.to(metric.device)
    assert len(looked) == 3


def test_a_move_to_another_device_is_made(watch: MetricWatch) -> None:
    metric = RetrievalMRR()
    metric.update(*batch())
    metric.to(torch.device("meta"))
    assert {part.device.type for part in parts(metric)} == {"meta"}
