"""Fits over three epochs, and logs 20 keys that are wrong from the second on: `program.py tqdm|rich|none`."""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalRecall

from lightning_retrieval_guard import GuardWarning, RetrievalGuard

FIRST_WRONG_EPOCH = 1
BARS = {"tqdm": TQDMProgressBar, "rich": RichProgressBar}


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.recalls = MetricCollection({f"recall@{k:02}": RetrievalRecall(top_k=k) for k in range(1, 21)})

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return (self.weight * batch[0]).mean()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        scores, numbers = batch
        if self.current_epoch >= FIRST_WRONG_EPOCH:
            numbers = torch.arange(len(numbers))
        target = torch.zeros_like(scores, dtype=torch.long)
        target[:, 0] = 1
        self.recalls.update(scores, target, indexes=numbers[:, None].expand_as(scores))
        self.log_dict(self.recalls)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def _loader(self) -> DataLoader[Any]:
        scores = torch.rand(60, 40, generator=torch.Generator().manual_seed(1))
        return DataLoader(TensorDataset(scores, torch.arange(60)), batch_size=8)

    train_dataloader = val_dataloader = _loader


def main(bar: str) -> None:
    warnings.simplefilter("ignore")
    warnings.simplefilter("default", GuardWarning)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    callbacks: list[Callback] = [RetrievalGuard(), *([] if bar == "none" else [BARS[bar](leave=True)])]
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=3,
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=bar != "none",
    )
    trainer.fit(Module())


if __name__ == "__main__":
    main(sys.argv[1])
