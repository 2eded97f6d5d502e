"""LRG101 to LRG104: plain values that are averaged with the wrong weight."""

from __future__ import annotations

from typing import Any, ClassVar

from torch.utils.data import DataLoader, Dataset, Subset

from .base import Program
from .data import Batch, Texts, collate_texts
from .shards import LossProgram


class NominalTimesWorldSize(LossProgram):
    """LRG101, on one rank LRG102: the last batch is short and gets the weight of a full one."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        size = self.nominal * self.trainer.world_size
        self.log("loss", batch["loss"].mean(), prog_bar=True, batch_size=size, sync_dist=True)


class NominalTimesWorldSizeInline(LossProgram):
    """The same with the product in the call."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        loss = batch["loss"].mean()
        self.log("loss", loss, True, batch_size=self.nominal * self.trainer.world_size, sync_dist=True)


class GlobalConstant(LossProgram):
    """The batch size over all ranks as a number."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, batch_size=12, sync_dist=True)


class Nominal(LossProgram):
    """LRG102: the loader's batch size."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, batch_size=self.nominal, sync_dist=True)


class TrueTimesWorldSize(LossProgram):
    """Harmless: the factor is the same in every batch, and cancels."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        size = len(batch["loss"]) * self.trainer.world_size
        self.log("loss", batch["loss"].mean(), prog_bar=True, batch_size=size, sync_dist=True)


class TrueSize(LossProgram):
    """The right form: the samples in this rank's batch."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, batch_size=len(batch["loss"]), sync_dist=True)


class TextProgram(Program):
    """Texts of different lengths, their tokens in one flat tensor."""

    def dataset(self) -> Dataset[Any]:
        return Texts()

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.dataset(), batch_size=self.nominal, collate_fn=collate_texts)


class Guessed(TextProgram):
    """LRG103: Lightning takes the number of tokens for the number of texts."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, sync_dist=True)


class Told(TextProgram):
    """The right form of it."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, batch_size=len(batch["loss"]), sync_dist=True)


class TokenWeights(TextProgram):
    """Right: a mean over tokens, weighed by tokens."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        tokens = batch["token_loss"]
        self.log("loss", tokens.mean(), prog_bar=True, batch_size=len(tokens), sync_dist=True)


class UnequalTotals(LossProgram):
    """An own split without repeated samples, in which ranks have unequally many."""

    trainer_options: ClassVar[dict[str, Any]] = {"use_distributed_sampler": False}
    count = 11

    def val_dataloader(self) -> DataLoader[Any]:
        indexes = range(self.global_rank, self.count, self.trainer.world_size)
        return DataLoader(Subset(self.dataset(), indexes), batch_size=2)


class Floored(UnequalTotals, TrueSize):
    """LRG104: right batch sizes, whose mean over ranks Lightning rounds down."""


class FlooredInferred(UnequalTotals):
    """LRG104 with the batch sizes that Lightning infers."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self.log("loss", batch["loss"].mean(), prog_bar=True, sync_dist=True)
