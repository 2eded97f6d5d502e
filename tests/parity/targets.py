"""Targets as people write them, and targets that cannot be run."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytorch_lightning
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, SequentialSampler, TensorDataset
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from lightning_retrieval_guard import RetrievalGuard

NUMBERS = torch.arange(48.0)


def rank() -> int:
    return int(os.environ["RANK"])


def world_size() -> int:
    return int(os.environ["WORLD_SIZE"])


class Mean(LightningModule):
    """Logs the mean of what it is fed, times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.rand(()))

    def validation_step(self, batch: list[Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        self.log("mean", self.weight * batch[0].mean(), sync_dist=True)

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test_mean", self.weight * batch[0].mean(), sync_dist=True)


def loader(count: int = 48, batch_size: int = 8, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(NUMBERS[:count]), batch_size, **options)


def mean() -> Any:
    return Mean(), loader()


# --- what may be returned -------------------------------------------------------------------------------------


class WithLoader(Mean):
    def val_dataloader(self) -> DataLoader[Any]:
        return loader()


class Data(LightningDataModule):
    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [loader(), loader(24, 4)]


def module_alone() -> Any:
    return WithLoader()


def module_and_none() -> Any:
    return WithLoader(), None


def datamodule() -> Any:
    return Mean(), Data()


def trainer_arguments() -> Any:
    return Mean(), loader(), {"limit_val_batches": 2}


def given_guard() -> Any:
    return Shard(), loader(), {"callbacks": RetrievalGuard("strict", ignore=["LRG203"], log_findings=True)}


class OtherPackage(pytorch_lightning.LightningModule):
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("mean", batch[0].mean(), sync_dist=True)


def other_package() -> Any:
    return OtherPackage(), loader()


def workers() -> Any:
    return Mean(), loader(num_workers=1)


class ManyKindsOfState(Mean):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("empty", torch.empty(0))
        self.register_buffer("flags", torch.tensor([True, False, True]))
        self.register_buffer("bfloat", torch.rand(3, 2, dtype=torch.bfloat16).T)

    def get_extra_state(self) -> Any:
        return {"pid": os.getpid()}

    def set_extra_state(self, state: Any) -> None:
        assert state == {"pid": os.getpid()}

    def on_validation_epoch_end(self) -> None:
        self.log("weight", self.weight, sync_dist=True)
        self.log("bfloat", self.bfloat[1].sum().double(), sync_dist=True)


def unequal_weights() -> Any:
    """Every process would make other weights by itself."""
    torch.manual_seed(os.getpid())
    return ManyKindsOfState(), loader()


# --- numbers that differ --------------------------------------------------------------------------------------


class Shard(LightningModule):
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("shard", batch[0].mean())


def shard() -> Any:
    return Shard(), loader()


class Unexplained(LightningModule):
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("world", float(world_size()), sync_dist=True)
        if world_size() == 1:
            self.log("only_on_one", 1.0)


def unexplained() -> Any:
    return Unexplained(), loader()


def shuffled() -> Any:
    return Unexplained(), loader(shuffle=True)


class Odd(LightningModule):
    """NaN and infinity on every number of processes, and a key of rank zero alone."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("nan", float("nan"), sync_dist=True)
        self.log("infinite", float("inf"), sync_dist=True)
        self.log("of_rank_zero", 1.0, rank_zero_only=True)


def odd() -> Any:
    return Odd(), loader()


class GatheredPool(LightningModule):
    """Ranks each pair among all pairs that the processes hold in this step."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        queries, documents = (self.all_gather(part).flatten(0, 1) for part in batch)
        best = (queries @ documents.T).argmax(dim=1)
        self.log("accuracy", (best == torch.arange(len(best))).float().mean(), sync_dist=True)


def gathered_pool() -> Any:
    random = torch.Generator().manual_seed(3)
    queries = torch.randn(48, 8, generator=random)
    documents = queries + torch.randn(48, 8, generator=random)
    return GatheredPool(), DataLoader(TensorDataset(queries, documents), batch_size=12)


class Retriever(LightningModule):
    """Gathers the rows of all ranks, and lets torchmetrics gather them once more."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        queries, documents = (self.all_gather(part).flatten(0, 1) for part in batch)
        scores = (queries @ documents.T / 10).sigmoid()  # no two are equal
        ids = torch.arange(len(scores))[:, None].expand_as(scores)
        for name, metric in {"mrr": RetrievalMRR(top_k=1), "recall": RetrievalRecall(top_k=1)}.items():
            metric.update(scores, torch.eye(len(scores), dtype=torch.bool), indexes=ids)
            self.log(name, metric.compute(), sync_dist=True)


def retriever() -> Any:
    return Retriever(), gathered_pool()[1]


# --- what cannot be run ---------------------------------------------------------------------------------------

not_callable = 3


def needs_arguments(config: str, *, size: int) -> Any:
    return config, size


def no_module() -> Any:
    return loader(), Mean()


def number() -> Any:
    return 3


def too_many() -> Any:
    return Mean(), loader(), {}, None


def bad_data() -> Any:
    return Mean(), "data"


def bad_trainer_arguments() -> Any:
    return Mean(), loader(), [1]


def own_arguments() -> Any:
    return Mean(), loader(), {"accelerator": "gpu", "devices": 8}


def two_packages() -> Any:
    return Mean(), pytorch_lightning.LightningDataModule()


def raising() -> Any:
    raise LookupError("no such data set")


def without_numbers() -> Any:
    module = Mean()
    module.more = torch.nn.Linear(1, 1, device="meta")
    return module, loader()


def other_weights() -> Any:
    module = Mean()
    if world_size() == 2:
        module.more = torch.nn.Linear(1, 1)
    return module, loader()


def needs_gpu() -> Any:
    return Mean().cuda(), loader()


class Silent(LightningModule):
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        pass


def silent() -> Any:
    return Silent(), loader()


def odd_batch() -> Any:
    return Mean(), [loader(), loader(48, 6)]


class Pairs(BatchSampler):
    def __iter__(self) -> Iterator[list[int]]:
        yield from ([index, index + 1] for index in range(0, 48, 2))


def custom_batches() -> Any:
    return Mean(), DataLoader(TensorDataset(NUMBERS), batch_sampler=Pairs(SequentialSampler(NUMBERS), 2, False))


class Batches(IterableDataset[Any]):
    def __iter__(self) -> Iterator[list[Tensor]]:
        yield from ([part] for part in NUMBERS.split(8))


def whole_batches() -> Any:
    return Mean(), DataLoader(Batches(), batch_size=None)


class Plain:
    def __iter__(self) -> Iterator[list[Tensor]]:
        yield from Batches()


def no_loader() -> Any:
    return Mean(), Plain()


def other_loaders() -> Any:
    return Mean(), [loader()] * world_size()


class Misbehaving(LightningModule):
    """Does something on the last rank of two."""

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("mean", batch[0].mean(), sync_dist=True)
        if rank() == 1:
            self.misbehave()

    def misbehave(self) -> None:
        raise NotImplementedError


class Dying(Misbehaving):
    def misbehave(self) -> None:
        os.abort()


class Raising(Misbehaving):
    def misbehave(self) -> None:
        raise ArithmeticError("on rank one")


class Hanging(Misbehaving):
    def misbehave(self) -> None:
        time.sleep(600)


class HangsAtOnce(LightningModule):
    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        time.sleep(600)


def dying() -> Any:
    return Dying(), loader()


def raising_on_one() -> Any:
    return Raising(), loader()


def hanging() -> Any:
    return Hanging(), loader()


def hangs_at_once() -> Any:
    return HangsAtOnce(), loader()
