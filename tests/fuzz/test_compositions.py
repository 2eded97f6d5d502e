"""Random compositions of metrics, fed in random ways: the value of one device, or the plain one with a finding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from hypothesis import given
from hypothesis import strategies as st
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR, RetrievalRecall
from torchmetrics.wrappers import MinMaxMetric

from lightning_retrieval_guard import GuardError, RetrievalGuard
from lightning_retrieval_guard.settings import Mode

from .tables import Shown, Table, run_on_ranks, tensors
from .test_tables import is_any, is_serious, misses_a_key

Kind = Literal["single", "own update", "collection", "two collections", "composition", "min and max", "in a metric"]


class Halved(RetrievalMRR):
    """An `update()` of its own, which changes no order."""

    def update(self, preds: Tensor, target: Tensor, indexes: Tensor) -> None:
        super().update(preds / 2, target, indexes)


class Outer(Metric):
    """A metric of a program's own that holds another one."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.inner = RetrievalMRR()

    def update(self, preds: Tensor, target: Tensor, indexes: Tensor) -> None:
        self.inner.update(preds, target, indexes)

    def compute(self) -> Tensor:
        return self.inner.compute()

    def reset(self) -> None:
        super().reset()
        self.inner.reset()


def members() -> dict[str, Metric]:
    return {"mrr": RetrievalMRR(), "map": RetrievalMAP(), "recall": RetrievalRecall(top_k=1)}


MAKERS: dict[Kind, Callable[[], Any]] = {
    "single": RetrievalMRR,
    "own update": Halved,
    "collection": lambda: MetricCollection(members()),
    "two collections": lambda: MetricCollection(members()),
    "composition": lambda: 0.5 * RetrievalMRR() + 0.5 * RetrievalRecall(top_k=1),
    "min and max": lambda: MinMaxMetric(RetrievalMRR()),
    "in a metric": Outer,
}


class Program(LightningModule):
    """Feeds a composition in each step, and logs it at the end; the second collection has rows of its own."""

    def __init__(self, composition: Composition, rank: int) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.metric = MAKERS[composition.kind]()
        self.other = MAKERS["collection"]() if composition.kind == "two collections" else None
        self.batches = composition.table.updates(rank)
        self.turns = composition.turns

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        for update in self.batches[batch_idx]:
            ids, scores, relevance = tensors(update.rows[::-1] if self.turns else update.rows)
            self.metric.update(scores, relevance, indexes=ids)
            if self.other is not None:
                self.other.update(1 - scores, relevance, indexes=ids)

    def on_validation_epoch_end(self) -> None:
        for name, metric in (("value", self.metric), ("other", self.other)):
            if metric is not None:
                value = metric.compute()
                values: Mapping[str, Any] = value if isinstance(value, dict) else {"": value}
                self.log_dict({f"{name}{part}": one for part, one in values.items()})
                metric.reset()


@dataclass(frozen=True)
class Composition:
    """What is fed with which table.

    Attributes:
        kind: What is fed.
        table: Of whole queries, one a sample.
        turns: Whether the program turns the order of the samples in a batch round.
    """

    kind: Kind
    table: Table
    turns: bool

    @property
    def alone(self) -> Composition:
        """The same with one device that has each sample once, under its own id."""
        table = replace(self.table, world_size=1, deal="copies", ids="given")
        return replace(self, table=table)

    def run(self, mode: Mode | None = None) -> list[Shown]:
        """What each rank shows, without the guard where no mode is given."""
        return run_on_ranks(
            self.table, lambda rank: Program(self, rank), lambda: [] if mode is None else [RetrievalGuard(mode)]
        )


@st.composite
def compositions(draw: st.DrawFn) -> Composition:
    world_size = draw(st.integers(1, 3))
    count = draw(st.integers(2, 9))
    sizes = [draw(st.integers(2, 4)) for _ in range(count)]
    order = iter(draw(st.permutations(range(sum(sizes)))))
    samples = []
    for query, size in enumerate(sizes):
        answer = draw(st.integers(0, size - 1))
        scores = [(next(order) + 1) / (sum(sizes) + 1) for _ in range(size)]
        samples.append(tuple((query, score, int(index == answer)) for index, score in enumerate(scores)))
    table = Table(
        samples=tuple(samples),
        world_size=world_size,
        deal=draw(st.sampled_from(["sampler", "sampler", "shards"])),
        owner=tuple(draw(st.integers(0, world_size - 1)) for _ in samples),
        batch_size=draw(st.integers(1, 4)),
        cut="batch",
        ids=draw(st.sampled_from(["given", "given", "of batch", "of rank"])),
    )
    return Composition(draw(st.sampled_from(get_args(Kind))), table, draw(st.booleans()))


@given(composition=compositions())
def test_correct_logs_the_number_of_one_device_or_the_plain_one_with_a_finding(composition: Composition) -> None:
    plain, corrected, [alone] = composition.run(), composition.run("correct"), composition.alone.run()
    assert alone.error is None
    if misses_a_key(corrected):
        return
    for before, shown in zip(plain, corrected, strict=True):
        if shown.error is not None:
            assert before.error is not None, shown.error  # torchmetrics cannot combine these ranks
            continue
        for name, value in shown.values.items():
            if is_any(value, [alone.values[name]]):
                continue
            # where the plain run breaks off, nothing shows what it would have logged
            stays = before.error is not None or is_any(value, [before.values[name]])
            assert stays, f"{name}: {value}, neither {alone.values} nor {before.values}"
            findings = corrected[0].findings or not knows(composition)
            assert findings, f"{name}: {value} is not {alone.values[name]}, and no finding"


def knows(composition: Composition) -> bool:
    """Whether the guard looks into what is fed: what a program's own metric holds belongs to that."""
    return composition.kind not in ("in a metric", "min and max")


@given(composition=compositions(), mode=st.sampled_from(["warn", "strict"]))
def test_the_other_modes_change_nothing(composition: Composition, mode: Mode) -> None:
    plain, guarded = composition.run(), composition.run(mode)
    raised = [isinstance(shown.error, GuardError) for shown in guarded]
    assert len(set(raised)) == 1
    if raised[0]:
        assert mode == "strict"
        return
    for before, shown in zip(plain, guarded, strict=True):
        assert type(shown.error) is type(before.error)
        assert shown.values == before.values


@given(composition=compositions())
def test_right_programs_are_silent(composition: Composition) -> None:
    """Ids of the data, and ranks that share the samples evenly."""
    table = replace(composition.table, deal="sampler", ids="given", world_size=min(2, composition.table.world_size))
    right = replace(composition, table=replace(table, samples=table.samples[: len(table.samples) // 2 * 2]))
    [first, *_] = right.run("warn")
    assert first.error is None
    assert not [finding for finding in first.findings if is_serious(finding)]


def test_torch_makes_the_numbers_of_the_compositions() -> None:
    """The makers give metrics that differ, so that a mix-up shows."""
    rows = torch.tensor([0, 0, 1, 1]), torch.tensor([0.9, 0.1, 0.2, 0.8]), torch.tensor([1, 0, 1, 0])
    values = {}
    for kind, make in MAKERS.items():
        metric = make()
        metric.update(rows[1], rows[2], indexes=rows[0])
        values[kind] = metric.compute()
    assert float(values["single"]) == float(values["in a metric"]) == 0.75
    assert float(values["composition"]) == 0.625
