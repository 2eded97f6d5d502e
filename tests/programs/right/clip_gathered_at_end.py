"""A CLIP-like model: embeddings are kept, gathered once at the end, and ranked both ways as one large matrix.

Kind: outputs concatenated at the end
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalRecall

from ..data import Batch, pairs
from ..models import DualEncoder


class ImageText(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = DualEncoder()
        self.outputs: list[tuple[Tensor, Tensor]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        image, text = self.model.encode_query(batch["image"]), self.model.encode_document(batch["text"])
        self.outputs.append((image, text))

    def on_validation_epoch_end(self) -> None:
        image, text = (torch.cat(part) for part in zip(*self.outputs, strict=True))
        self.outputs.clear()
        image, text = self.all_gather(image).flatten(0, -2), self.all_gather(text).flatten(0, -2)
        similarity = image @ text.T
        for name, scores in (("i2t", similarity), ("t2i", similarity.T)):
            recall = RetrievalRecall(top_k=1, sync_on_compute=False)
            ids = torch.arange(len(scores))[:, None].expand_as(scores)
            recall.update(scores, torch.eye(len(scores), dtype=torch.long), indexes=ids)
            self.log(f"val_{name}_recall@1", recall.compute())

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(pairs(24), batch_size=5)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(ImageText(), verbose=False)
