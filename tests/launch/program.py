"""A script that logs a metric wrongly on two processes: every rank holds all rows, and they are combined again.

    python program.py STRATEGY MODE ...

Each rank tells on stderr how its run ended, whatever its launcher makes of the error.
"""

from __future__ import annotations

import json
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
        told = {"mode": self.mode, "rank": trainer.global_rank, "what": what, "value": value, "time": time.time()}
        sys.stderr.write(f"\nwitness {json.dumps(told)}\n")
        sys.stderr.flush()


def validate(mode: str, strategy: str) -> None:
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy=strategy,
        callbacks=[Witness(mode), *([] if mode == "none" else [RetrievalGuard(mode=mode)])],
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    [returned] = trainer.validate(Pairs(), verbose=False)
    print(json.dumps({"mode": mode, **returned}), flush=True)


def main(strategy: str, *modes: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for mode in modes:
        validate(mode, strategy)


if __name__ == "__main__":
    main(*sys.argv[1:])
