"""A language model whose batch starts with a flat tensor of tokens: Lightning takes their number for the batch size.

Kind: one for each other rule
Right form: text_loss
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader

from ..data import Batch, Texts, collate_texts


class LanguageModel(LightningModule):
    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("val_loss", batch["loss"].mean(), sync_dist=True)  # expect: LRG103

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(Texts(22), batch_size=4, collate_fn=collate_texts)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(LanguageModel(), verbose=False)
