"""A script that logs a metric wrongly.

On two processes every rank holds all rows, and they are combined again; on one, query ids restart in each batch.

    python program.py STRATEGY MODE ...

Each rank tells on stderr how its run ended, whatever its launcher makes of the error.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalRecall

from lightning_retrieval_guard import RetrievalGuard

PAIRS = 16


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    """Query and document embeddings, and the number of each pair."""
    generator = torch.Generator().manual_seed(5)
    queries = torch.rand(PAIRS, 4, generator=generator) - 0.5
    documents = queries + 0.4 * torch.rand(PAIRS, 4, generator=generator)
    return queries, documents, torch.arange(PAIRS)


def rows_of(queries: Tensor, documents: Tensor, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, targets and query ids of every query with every document."""
    scores = queries @ documents.T
    return scores, numbers[:, None] == numbers, numbers[:, None].expand_as(scores)


class Pairs(LightningModule):
    """Gathers the embeddings of all ranks, then lets torchmetrics gather the rows again."""

    def __init__(self) -> None:
        super().__init__()
        self.recall = RetrievalRecall(top_k=1)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        queries, documents, numbers = (self.all_gather(column).flatten(0, 1) for column in batch)
        self.recall.update(*rows_of(queries, documents, numbers))
        self.log("recall", self.recall)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*pairs()), batch_size=PAIRS)


class RestartingPairs(Pairs):
    """Numbers the queries of each batch from zero."""

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        queries, documents, numbers = batch
        self.recall.update(*rows_of(queries, documents, torch.arange(len(numbers))))
        self.log("recall", self.recall)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*pairs()), batch_size=PAIRS // 2)


class ShardedPairs(Pairs):
    """Has parameters of which each rank holds a part."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 4)

    def configure_model(self) -> None:
        from torch.distributed.fsdp import fully_shard

        fully_shard(self.layer, mesh=self.device_mesh["data_parallel"])


class Witness(Callback):
    """Writes how the run ended on this rank; `on_exception` is not called in processes that are forked or spawned."""

    def __init__(self, mode: str) -> None:
        self.mode = mode

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        evaluate = trainer.validate_loop.run

        def run() -> Any:
            try:
                return evaluate()
            except Exception as error:
                self.tell(trainer, type(error).__name__, str(error))
                time.sleep(1)  # a launcher ends the other ranks as soon as it sees one fail
                raise

        trainer.validate_loop.run = run

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.tell(trainer, "recall", float(trainer.callback_metrics["recall"]))

    def tell(self, trainer: Trainer, what: str, value: Any) -> None:
        told = {
            "mode": self.mode,
            "rank": trainer.global_rank,
            "process": os.getpid(),
            "what": what,
            "value": value,
            "time": time.time(),
        }
        sys.stderr.write(f"\nwitness {json.dumps(told)}\n")
        sys.stderr.flush()


def program_for(strategy: str) -> tuple[LightningModule, Any]:
    """A module that is wrong under a strategy, and the strategy as the Trainer takes it."""
    if strategy == "auto":
        return RestartingPairs(), strategy
    if strategy == "fully_shard":
        from lightning.pytorch.strategies import ModelParallelStrategy

        return ShardedPairs(), ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    return Pairs(), strategy


def validate(mode: str, strategy: str) -> None:
    module, made = program_for(strategy)
    trainer = Trainer(
        accelerator="cpu",
        devices=1 if strategy == "auto" else int(os.environ.get("LOCAL_WORLD_SIZE", "2")),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", "1")),  # torchrun says so
        strategy=made,
        callbacks=[Witness(mode), *([] if mode == "none" else [RetrievalGuard(mode=mode)])],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    [returned] = trainer.validate(module, verbose=False)
    print(json.dumps({"mode": mode, **returned}), flush=True)


def main(strategy: str, *modes: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for mode in modes:
        validate(mode, strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
