"""LRG501 in real runs: numbers that cannot all be right, with no other cause in sight."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalPrecision, RetrievalRecall

from lightning_retrieval_guard import Finding, GuardError, RetrievalGuard
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch, Columns
from tests.distributed.ranks import on_ranks

from .alone import alone
from .programs import Trainable

QUERIES, ROWS = 24, 4
LOG_CALL = "# the log call"


def one_answer() -> Columns:
    """Queries with one relevant row each; all scores are distinct and positive."""
    generator = torch.Generator().manual_seed(3)
    score = (torch.randperm(QUERIES * ROWS, generator=generator).reshape(QUERIES, ROWS) + 1.0) / (QUERIES * ROWS)
    target = torch.zeros(QUERIES, ROWS, dtype=torch.int64)
    target[:, 0] = 1
    return Columns(score=score, target=target, query=torch.arange(QUERIES))


def rows_of(batch: Batch) -> tuple[Any, ...]:
    ids = batch["query"][:, None].expand_as(batch["target"])
    return batch["score"].flatten(), batch["target"].flatten(), ids.flatten()


class AsItIs(Trainable, LightningModule):
    """A grid of metrics on the same rows, logged as they are."""

    def __init__(self) -> None:
        super().__init__()
        recalls = {f"recall@{k}": RetrievalRecall(top_k=k) for k in (1, 2, 4)}
        hits = {"mrr@1": RetrievalMRR(top_k=1), "hit@1": RetrievalHitRate(top_k=1)}
        self.metrics = MetricCollection({**recalls, **hits, "precision@1": RetrievalPrecision(top_k=1)})

    def val_dataloader(self) -> Any:
        return DataLoader(one_answer(), batch_size=3)

    def changed(self, name: str, value: Any) -> Any:
        return value

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.metrics.update(*rows_of(batch))

    def on_validation_epoch_end(self) -> None:
        for name, value in self.metrics.compute().items():
            self.log(name, self.changed(name, value))  # the log call
        self.metrics.reset()


class Divided(AsItIs):
    def changed(self, name: str, value: Any) -> Any:
        return value.mul_(0.1) if name == "recall@2" else value


class Swapped(AsItIs):
    def changed(self, name: str, value: Any) -> Any:
        return value.mul_(0.5) if name == "mrr@1" else value


class Percent(AsItIs):
    """One value is made a percentage in place, which is the program's own number."""

    def changed(self, name: str, value: Any) -> Any:
        return value.mul_(100) if name == "recall@4" else value


class NoWeight(AsItIs):
    """Values of steps, with weights of nothing."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric(*rows_of(batch)), batch_size=0, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        pass


class Objects(AsItIs):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        super().validation_step(batch, batch_idx)
        self.log_dict(self.metrics)

    def on_validation_epoch_end(self) -> None:
        pass


class Forwards(AsItIs):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        for name, metric in self.metrics.items():
            self.log(name, metric(*rows_of(batch)), batch_size=3, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        pass


class Gathered(AsItIs):
    """Another rule explains it: without a sampler every rank sees all rows, and the metrics combine them again."""


def line_of(program: type) -> int:
    lines, first = inspect.getsourcelines(program)
    return first + next(number for number, line in enumerate(lines) if line.rstrip().endswith(LOG_CALL))


def found(pool: Pool | None, program: type[AsItIs], mode: str, **options: Any) -> list[Finding]:
    """The findings, which must be the same on all ranks; on one process without a pool."""
    if pool is None:
        return alone(program(), RetrievalGuard(mode=mode, **options)).findings  # type: ignore[arg-type]
    first, second = on_ranks(
        pool, program, mode, guard_options=options, use_distributed_sampler=program is not Gathered
    )
    assert first.findings == second.findings
    return first.findings


WORLD = pytest.mark.parametrize("world", [1, 2])
pytestmark = pytest.mark.timeout(90)


@WORLD
@pytest.mark.parametrize(
    ("program", "key", "text"),
    [
        (Divided, "recall@2", "both show the same rows, and recall does not fall as top_k grows from 1 to 2."),
        (Swapped, "mrr@1", "both tell whether the best row is relevant"),
    ],
)
def test_warn_names_what_is_broken(pool: Pool, world: int, program: type[AsItIs], key: str, text: str) -> None:
    [finding] = found(pool if world == 2 else None, program, "warn")
    assert (finding.code, finding.severity, finding.effect) == ("LRG501", "warning", None)
    assert (finding.path, finding.line) == (__file__, line_of(AsItIs))
    assert text in finding.message
    assert f"'{key}'" in finding.message
    assert finding.ranks == tuple(range(world))


@WORLD
def test_a_weight_of_nothing(pool: Pool, world: int) -> None:
    """The others of the epoch are the same: no number is smaller or larger than no number."""
    reported = found(pool if world == 2 else None, NoWeight, "warn")
    assert {finding.code for finding in reported if finding.severity != "note"} == {"LRG501"}
    assert {finding.key for finding in reported if "is nan, and" in finding.message} == set(AsItIs().metrics)


@WORLD
@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
@pytest.mark.parametrize("program", [AsItIs, Objects, Forwards, Percent])
def test_right_programs_are_silent(pool: Pool, world: int, mode: str, program: type[AsItIs]) -> None:
    reported = found(pool if world == 2 else None, program, mode)
    assert not [finding for finding in reported if finding.code == "LRG501"]


@pytest.mark.parametrize("options", [{}, {"ignore": ["LRG201"]}, {"select": ["LRG501"]}])
def test_what_another_rule_explains_is_silent_even_where_that_rule_is(pool: Pool, options: dict[str, Any]) -> None:
    """MRR@1 comes out right and recall@1 as half of it; the first of these is a note."""
    reported = found(pool, Gathered, "warn", **options)
    assert {finding.code for finding in reported} == (set() if options else {"LRG201"})
    explained = {finding.key: finding.severity for finding in reported}
    assert options or (explained["recall@1"], explained["mrr@1"]) == ("error", "note")


def test_corrected_numbers_are_plausible(pool: Pool) -> None:
    assert "LRG501" not in {finding.code for finding in found(pool, Gathered, "correct")}


@pytest.mark.parametrize("program", [Divided, Swapped])
def test_what_the_program_wrote_is_not_corrected(pool: Pool, program: type[AsItIs]) -> None:
    assert [(one.code, one.corrected) for one in found(pool, program, "correct")] == [("LRG501", False)]


def test_ignored_it_is_silent() -> None:
    assert not found(None, Divided, "warn", ignore=["LRG501"])


def test_strict_raises_on_one_device() -> None:
    with pytest.raises(GuardError, match=r"LRG501 implausible-value:\s+'recall@2' is 0"):
        found(None, Divided, "strict")


def test_strict_warns_on_several(pool: Pool) -> None:
    """Each rank has seen its own logged values only, and must not raise alone."""
    [finding] = found(pool, Divided, "strict")
    assert (finding.code, finding.severity) == ("LRG501", "warning")
