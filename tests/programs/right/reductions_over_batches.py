"""Counts and extremes over batches and ranks, and a loss weighed by tokens on purpose.

Kind: no retrieval
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from ..data import Batch, Texts, collate_texts


class LanguageModel(LightningModule):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        tokens = batch["tokens"]
        self.log("val_tokens", float(len(tokens)), reduce_fx="sum", sync_dist=True, batch_size=len(batch["loss"]))
        self.log("val_worst", tokens.max(), reduce_fx="max", sync_dist=True, batch_size=len(batch["loss"]))
        self.log("val_token_loss", tokens.mean(), sync_dist=True, batch_size=float(len(tokens)))

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(Texts(22), batch_size=4, collate_fn=collate_texts)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(LanguageModel(), verbose=False)
