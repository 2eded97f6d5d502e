"""Code search: outputs of the steps are concatenated at the end, fed to the metric, and the metric is logged.

Kind: outputs concatenated at the end
"""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from ..data import Batch, passages
from ..models import CrossEncoder


class CodeSearch(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.mrr = RetrievalMRR()
        self.validation_outputs: list[dict[str, Tensor]] = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        scores = self.model(batch["question"], batch["passages"])
        ids = batch["question_id"][:, None].expand_as(scores)
        self.validation_outputs.append({"preds": scores, "target": batch["labels"], "indexes": ids})

    def on_validation_epoch_end(self) -> None:
        outputs = {key: torch.cat([out[key] for out in self.validation_outputs]) for key in ("preds", "target")}
        self.mrr.update(**outputs, indexes=torch.cat([out["indexes"] for out in self.validation_outputs]))
        self.log("val_mrr", self.mrr)
        self.validation_outputs.clear()

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(20), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(CodeSearch(), verbose=False)
