"""Runs whose every step is drawn: what logs, updates, computes and resets, in which stage, epoch and dataloader.

Three twins follow one script, without the guard, with warn and with correct. The first two must show the same numbers.
The third must show what the model says: the rows of this epoch and dataloader, scored by torchmetrics.
"""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import Metric
from torchmetrics.retrieval import RetrievalMAP, RetrievalMRR

from lightning_retrieval_guard import Finding, RetrievalGuard, Severity

from .ranks import Ranks
from .tables import make_trainer, quiet

Stage = Literal["validate", "test", "fit"]
Step = tuple[tuple[str, str], ...]  # name of a metric, and what is done with it
Loader = tuple[Step, ...]  # a step for each batch
Rows = tuple[Tensor, Tensor, Tensor]  # scores, relevance and ids

KINDS: dict[str, type[Metric]] = {"mrr": RetrievalMRR, "map": RetrievalMAP}
names = st.sampled_from(sorted(KINDS))
steps = st.lists(st.tuples(names, st.sampled_from(["log", "update", "forward"])), max_size=3).map(tuple)
loaders = st.lists(st.lists(steps, min_size=1, max_size=3).map(tuple), min_size=1, max_size=2)
hooks = st.lists(st.tuples(names, st.sampled_from(["compute", "reset"])), max_size=3, unique=True).map(tuple)


def rows(number: int) -> Rows:
    """A query of its own whose relevant row is first, second or third."""
    scores = torch.tensor([0.5, 0.3, 0.2 + 0.2 * (number * 7 % 3)])
    return scores, torch.tensor([0, 0, 1]), torch.full((3,), number)


class Program(LightningModule):
    """Does what the script says, on one rank."""

    def __init__(self) -> None:
        super().__init__()
        self.metrics = torch.nn.ModuleDict({name: kind() for name, kind in KINDS.items()})
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.hook: Step = ()
        self.fed: set[str] = set()

    def start(self, hook: Step) -> None:
        self.hook, self.fed = hook, set()
        for metric in self.metrics.values():  # what an earlier run has left is out of the guard's sight
            metric.reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        for name, action, number in batch["steps"]:
            metric, key = self.metrics[name], f"{name}_{action}"
            if action == "forward":
                self.log(key, metric(*rows(number)[:2], indexes=rows(number)[2]), batch_size=1)
                self.fed.add(name)
            if action in ("update", "log"):
                metric.update(*rows(number)[:2], indexes=rows(number)[2])
                self.fed.add(name)
            if action == "log":
                self.log(key, metric, batch_size=1)
            if action == "compute" and name in self.fed:
                self.log(key, metric.compute(), batch_size=1)

    def on_validation_epoch_end(self) -> None:
        for name, action in self.hook:
            if action == "compute" and name in self.fed:
                self.log(f"{name}_end", self.metrics[name].compute())
            if action == "reset":
                self.metrics[name].reset()
                self.fed.discard(name)
        self.fed.clear()

    test_step, on_test_epoch_end = validation_step, on_validation_epoch_end

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Twin:
    """One way to run the script on all ranks."""

    def __init__(self, world_size: int, mode: str | None) -> None:
        self.ranks = Ranks(world_size)
        self.programs = [Program() for _ in range(world_size)]
        self.guards = [[] if mode is None else [RetrievalGuard(mode)] for _ in range(world_size)]

    def run(self, stage: Stage, script: list[list[list[dict[str, Any]]]], hook: Step, sanity: int) -> list[Any]:
        """The numbers of each rank, and the findings of this run."""

        def body(rank: int) -> tuple[dict[str, float], list[Finding]]:
            program = self.programs[rank]
            self.ranks.has(lambda: list(program.metrics.values()))
            guards = self.guards[rank]
            before = [finding for guard in guards for finding in guard.findings]
            trainer = make_trainer(self.ranks, rank, *guards, max_epochs=1, num_sanity_val_steps=sanity)
            loaders = [DataLoader(batches, batch_size=None) for batches in script[rank]]
            program.start(hook)
            if stage == "fit":
                trainer.fit(program, DataLoader([0], batch_size=None), loaders)
            else:
                getattr(trainer, stage)(program, loaders, verbose=False)
            values = {name: float(value) for name, value in trainer.callback_metrics.items()}
            return values, [finding for guard in guards for finding in guard.findings if finding not in before]

        with quiet():
            return self.ranks.run(body)


class Lives(RuleBasedStateMachine):
    """Stages in any order, by one program that keeps its metrics."""

    @initialize(world_size=st.integers(1, 2))
    def start(self, world_size: int) -> None:
        self.world_size = world_size
        self.made = 0
        self.plain, self.warned, self.corrected = (Twin(world_size, mode) for mode in (None, "warn", "correct"))

    @rule(stage=st.sampled_from(["validate", "test", "fit"]), script=loaders, hook=hooks, sanity=st.integers(0, 1))
    def run(self, stage: Stage, script: list[Loader], hook: Step, sanity: int) -> None:
        numbered = [self._number(script) for _ in range(self.world_size)]
        if stage == "fit" and sanity and any(action == "reset" for _, action in hook):
            return  # without a guard Lightning breaks off there, where the metric is logged
        plain = self.plain.run(stage, numbered, hook, sanity)
        warned = self.warned.run(stage, numbered, hook, sanity)
        corrected = self.corrected.run(stage, numbered, hook, sanity)
        assert [values for values, _ in warned] == [values for values, _ in plain]
        wanted = expected(numbered, hook)
        for values, _ in corrected:
            assert values == pytest.approx(wanted, abs=1e-6), (values, wanted)
        if self.world_size == 1 and len(script) == 1 and stage != "fit":
            assert not [finding for finding in corrected[0][1] if finding.severity is not Severity.NOTE]
        codes = {finding.code for finding in corrected[0][1]}
        assert "LRG901" not in codes
        assert "LRG401" not in codes or (stage == "fit" and sanity)
        assert "LRG404" not in codes or len(script) > 1

    def _number(self, script: list[Loader]) -> list[list[dict[str, Any]]]:
        """The script of one rank, with rows that no other step has."""
        numbered = []
        for loader in script:
            batches = []
            for step in loader:
                self.made += len(step)
                batches.append({"steps": [(*one, self.made - index) for index, one in enumerate(step)]})
            numbered.append(batches)
        return numbered


def expected(ranks: list[list[list[dict[str, Any]]]], hook: Step) -> dict[str, float]:
    """The numbers of the model."""
    numbers_by_key: dict[str, float] = {}
    several = len(ranks[0]) > 1
    fed: dict[str, list[int]] = {}
    for loader in range(len(ranks[0])):
        logged: dict[str, list[int]] = {}
        keys: dict[str, list[int]] = {}
        for batch in (batch for rank in ranks for batch in rank[loader]):
            for name, action, number in batch["steps"]:
                if action != "compute":
                    logged.setdefault(name, []).append(number)
                    fed.setdefault(name, []).append(number)
        for batch in (batch for rank in ranks for batch in rank[loader]):
            for name, action, number in batch["steps"]:
                if action == "forward":
                    keys.setdefault(f"{name}_forward", []).append(number)
                if action == "log":
                    keys[f"{name}_log"] = logged[name]
        for key, numbers in keys.items():
            numbers_by_key[f"{key}/dataloader_idx_{loader}" if several else key] = score(key[:3], numbers)
    for name, action in hook:
        if action == "compute" and name in fed:
            numbers_by_key[f"{name}_end"] = score(name, fed[name])
        if action == "reset":
            fed.pop(name, None)
    return numbers_by_key


def score(name: str, numbers: list[int]) -> float:
    metric = KINDS[name]()
    for number in numbers:
        metric.update(*rows(number)[:2], indexes=rows(number)[2])
    return float(metric.compute())


# a run of three twins takes as long as some tables
profile = settings()
Lives.TestCase.settings = settings(profile, max_examples=max(8, profile.max_examples // 20), stateful_step_count=4)
TestLives = Lives.TestCase
