"""Signed similarities in metrics that look at the order alone, and in one whose relevant rows are all above zero.

Kind: metric object in the step
"""

from collections.abc import Callable

from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMRR, RetrievalNormalizedDCG

from ..data import Batch, passages
from ..models import CrossEncoder


class SignedReranker(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.model = CrossEncoder()
        self.hit, self.ndcg, self.mrr = RetrievalHitRate(top_k=1), RetrievalNormalizedDCG(), RetrievalMRR()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.model(batch["question"], batch["passages"]).logit()
        ids = batch["question_id"][:, None].expand_as(logits)
        self.hit.update(logits, batch["labels"], indexes=ids)
        self.ndcg.update(logits, batch["labels"], indexes=ids)
        self.mrr.update(logits.where(batch["labels"] == 0, logits.abs()), batch["labels"], indexes=ids)
        self.log_dict({"val_hit@1": self.hit, "val_ndcg": self.ndcg, "val_mrr_of_margin": self.mrr})

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(passages(22), batch_size=4)


def main(make_trainer: Callable[..., Trainer]) -> None:
    make_trainer().validate(SignedReranker(), verbose=False)
