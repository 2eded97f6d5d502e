"""Random tables of rows, dealt to ranks, and the program that logs a retrieval metric of them."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal
from unittest import mock

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.connectors import callback_connector
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler, Subset
from torchmetrics import Metric

from lightning_retrieval_guard import Finding, RetrievalGuard
from lightning_retrieval_guard.settings import Mode

from .ranks import Ranks, SimulatedStrategy

Row = tuple[int, float, int]  # query, score, relevance
Sample = tuple[Row, ...]
Rows = tuple[Tensor, Tensor, Tensor]  # ids, scores and relevance, each of shape (rows,)
Deal = Literal["shards", "sampler", "copies", "pairs"]
Cut = Literal["batch", "sample", "halves", "relevant"]
Ids = Literal["given", "of batch", "of rank"]
Way = Literal["object", "end", "forward", "step"]
Scope = Literal["auto", "global", "batch"]


def tensors(rows: Sequence[Row]) -> Rows:
    columns = list(zip(*rows, strict=True))
    return torch.tensor(columns[0]), torch.tensor(columns[1]), torch.tensor(columns[2])


@dataclass(frozen=True)
class Update:
    """One update.

    Attributes:
        rows: With the ids that the program gives.
        samples: The samples that came in since the update before.
        batch: The samples of the batch.
    """

    rows: tuple[Row, ...]
    samples: int
    batch: int


@dataclass(frozen=True)
class Table:
    """Samples, who gets them, and how they reach the metric.

    Attributes:
        samples: Of one row or more each.
        world_size: The number of ranks.
        deal: Each rank a shard of its own, of any size; what `DistributedSampler` gives it; or everything.
            Or each pair of ranks a shard, as under tensor parallelism.
        owner: The rank, or the pair of ranks, of each sample, where these have shards.
        batch_size: Samples in a batch.
        cut: One update a batch, one a sample, two of any rows, or one where anything is relevant.
        ids: As the rows have them, the place of the sample in its batch, or its place among those of the rank.
    """

    samples: tuple[Sample, ...]
    world_size: int
    deal: Deal
    owner: tuple[int, ...]
    batch_size: int
    cut: Cut
    ids: Ids

    def dealt(self, rank: int) -> list[int]:
        """The samples that a rank gets, in order."""
        if self.deal == "sampler":
            return list(DistributedSampler(self.samples, self.world_size, rank, shuffle=False))
        shard = rank // 2 if self.deal == "pairs" else rank
        return [index for index in range(len(self.samples)) if self.deal == "copies" or self.owner[index] == shard]

    def loader(self, rank: int) -> DataLoader[Any]:
        # the batch holds ids that are given with the data, where a sample has one
        given = [{"query": sample[0][0]} if self.ids == "given" else {} for sample in self.samples]
        data: Any = [{"sample": index, **column} for index, column in enumerate(given)]
        if self.deal == "sampler":
            sampler = DistributedSampler(self.samples, self.world_size, rank, shuffle=False)
            return DataLoader(data, self.batch_size, sampler=sampler)
        return DataLoader(Subset(data, self.dealt(rank)), self.batch_size)

    @property
    def repeated(self) -> int:
        """The samples that the sampler repeats."""
        return -len(self.samples) % self.world_size if self.deal == "sampler" else 0

    def updates(self, rank: int) -> list[list[Update]]:
        """The updates of each batch of a rank."""
        dealt, skipped, batches = self.dealt(rank), 0, []
        for start in range(0, len(dealt), self.batch_size):
            batch = dealt[start : start + self.batch_size]
            first, *others = self.cut_batch(batch, start) or [None]
            batches.append([] if first is None else [replace(first, samples=first.samples + skipped), *others])
            skipped = 0 if first is not None else skipped + len(batch)
        return batches

    def cut_batch(self, batch: Sequence[int], before: int) -> list[Update]:
        """The updates of a batch, before which the rank has seen a number of samples."""
        named = [self._named(sample, index, before) for index, sample in enumerate(batch)]
        size = len(batch)
        rows = tuple(row for sample in named for row in sample)
        if self.cut == "sample":
            parts = named
        elif self.cut == "halves" and len(rows) > 1:
            parts = [rows[::2], rows[1::2]]
        else:
            parts = [rows] if self.cut != "relevant" or any(row[2] for row in rows) else []
        return [Update(part, 0 if index else size, size) for index, part in enumerate(parts)]

    def _named(self, sample: int, index: int, before: int) -> tuple[Row, ...]:
        if self.ids == "given":
            return self.samples[sample]
        return tuple((index + (before if self.ids == "of rank" else 0), *row[1:]) for row in self.samples[sample])

    @cached_property
    def once(self) -> list[Update]:
        """The updates of all ranks, without the samples that came before."""
        if self.deal == "copies":
            return [update for batch in self.updates(0) for update in batch]
        if self.repeated:
            return [update for batch in self._without_repeats() for update in batch]
        ranks = range(0, self.world_size, 2 if self.deal == "pairs" else 1)
        return [update for rank in ranks for batch in self.updates(rank) for update in batch]

    def _without_repeats(self) -> Iterator[list[Update]]:
        seen: set[int] = set()
        for rank in range(self.world_size):
            dealt = self.dealt(rank)
            for start in range(0, len(dealt), self.batch_size):
                new = [sample for sample in dealt[start : start + self.batch_size] if sample not in seen]
                seen.update(new)
                if new:  # only the last sample of a rank is a repeated one, so places in the batch stay what they are
                    yield self.cut_batch(new, start)


@dataclass(frozen=True)
class Made:
    """A metric to be made."""

    kind: type[Metric]
    arguments: tuple[tuple[str, Any], ...]

    def __call__(self, **arguments: Any) -> Metric:
        return self.kind(**dict(self.arguments), **arguments)


class Program(LightningModule):
    """Logs a metric of the rows in each of the given ways."""

    def __init__(self, table: Table, rank: int, metric: Made, ways: Sequence[Way], sync_dist: bool) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.metric, self.ways, self.sync_dist = metric, ways, sync_dist
        self.held = torch.nn.ModuleDict({f"of_{way}": metric() for way in ways if way != "step"})
        self.batches = table.updates(rank)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        for update in self.batches[batch_idx]:
            ids, scores, relevance = tensors(update.rows)
            size = len(batch["sample"])
            for way in self.ways:
                if way == "step":
                    made = self.metric(sync_on_compute=False)
                    made.update(scores, relevance, indexes=ids)
                    self.log("step", made.compute(), batch_size=size, sync_dist=self.sync_dist)
                elif way == "forward":
                    value = self.held["of_forward"](scores, relevance, indexes=ids)
                    self.log("forward", value, batch_size=size, sync_dist=self.sync_dist)
                else:
                    self.held[f"of_{way}"].update(scores, relevance, indexes=ids)
        if "object" in self.ways:
            self.log("object", self.held["of_object"])

    def on_validation_epoch_end(self) -> None:
        if "end" in self.ways:
            self.log("end", self.held["of_end"].compute())
            self.held["of_end"].reset()


@dataclass
class Shown:
    """What a rank shows of a run."""

    values: dict[str, float] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    error: Exception | None = None

    def about(self, way: Way) -> list[Finding]:
        """The findings about what was logged in a way."""
        return [finding for finding in self.findings if finding.key in (way, f"held.of_{way}")]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the words of Lightning and of the guard, and without a search for plug-ins at every Trainer."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),
        mock.patch.object(callback_connector, "_load_external_callbacks", return_value=[]),
    ):
        warnings.simplefilter("ignore")
        yield
    logger.setLevel(level)


def make_trainer(ranks: Ranks, rank: int, *callbacks: Callback, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=1,
        strategy=SimulatedStrategy(ranks, rank),
        callbacks=list(callbacks),
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )


def run_on_ranks(
    table: Table, make_module: Callable[[int], LightningModule], make_guards: Callable[[], list[RetrievalGuard]]
) -> list[Shown]:
    """What each rank shows of the validation of its module over its part of a table."""
    ranks = Ranks(table.world_size)

    def body(rank: int) -> Shown:
        module = make_module(rank)
        ranks.has(lambda: [part for part in module.modules() if isinstance(part, Metric)])
        guards = make_guards()
        trainer, shown = make_trainer(ranks, rank, *guards), Shown()
        try:
            trainer.validate(module, table.loader(rank), verbose=False)
        except Exception as error:  # the test judges it
            shown.error = error
        shown.values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown.findings = [finding for guard in guards for finding in guard.findings]
        return shown

    with quiet():
        return ranks.run(body)


@dataclass(frozen=True)
class Case:
    """A table, and what a program logs of it."""

    table: Table
    metric: Made
    ways: tuple[Way, ...]
    sync_dist: bool
    scope: Scope = "auto"

    def run(self, mode: Mode | None = None) -> list[Shown]:
        """What each rank shows, without the guard where no mode is given."""
        return run_on_ranks(
            self.table,
            lambda rank: Program(self.table, rank, self.metric, self.ways, self.sync_dist),
            lambda: [] if mode is None else [RetrievalGuard(mode, query_scope=self.scope)],
        )
