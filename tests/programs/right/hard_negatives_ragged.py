"""Mined hard negatives, a different number for each question: a collate function lays all rows end to end.

Kind: metric object in the step
"""

from collections.abc import Callable, Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn import functional
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP

from ..data import Batch, passages
from ..models import CrossEncoder


def collate(samples: Sequence[Batch]) -> Batch:
    kept = [sample["passages"][: 3 + sample["question_id"] % 4] for sample in samples]
    sizes = torch.tensor([len(part) for part in kept])
    return {
        "passages": torch.cat(kept),
        "labels": torch.cat([sample["labels"][: len(part)] for sample, part in zip(samples, kept, strict=True)]),
        "question": torch.stack([sample["question"] for sample in samples]).repeat_interleave(sizes, dim=0),
        "question_id": torch.stack([sample["question_id"] for sample in samples]).repeat_interleave(sizes),
        "size": sizes,
    }


class HardNegatives(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.map = RetrievalMAP()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"][:, None]).squeeze(1)
        loss = functional.binary_cross_entropy(scores, batch["labels"].float(), reduction="none")
        mean_of_questions = torch.stack([part.mean() for part in loss.split(batch["size"].tolist())]).mean()
        self.map.update(scores, batch["labels"], indexes=batch["question_id"])
        self.log("val_map", self.map)
        self.log("val_loss", mean_of_questions, sync_dist=True, batch_size=len(batch["size"]))

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4, collate_fn=collate)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(HardNegatives(), verbose=False)
