"""In-batch contrastive evaluation, as in CLIP: each image looks for its text among all texts of the global batch.

`wrong` gathers the embeddings and lets the metric gather the rows once more (LRG201). `right` switches the second
gathering off, and needs no `batch_size`: every rank logs the same value.
"""

import torch
from lightning.pytorch import LightningModule
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall


class Clip(LightningModule):
    def __init__(self, **metric_options):
        super().__init__()
        self.image_tower, self.text_tower = torch.nn.Linear(32, 16), torch.nn.Linear(32, 16)
        self.text_tower.load_state_dict(self.image_tower.state_dict())
        self.metric_options = metric_options

    def validation_step(self, batch, batch_idx):
        images = functional.normalize(self.image_tower(batch[0]), dim=-1)
        texts = functional.normalize(self.text_tower(batch[1]), dim=-1)
        # Of shape (ranks, batch, 16) on several devices, and (batch, 16) on one.
        images, texts = self.all_gather(images).flatten(0, -2), self.all_gather(texts).flatten(0, -2)
        scores = (images @ texts.T + 1) / 2  # above zero: recall leaves relevant rows at or below zero out
        ids = torch.arange(len(scores), device=scores.device)
        metrics = {"mrr@1": RetrievalMRR(top_k=1, **self.metric_options)}
        metrics["recall@1"] = RetrievalRecall(top_k=1, **self.metric_options)
        metrics["recall@5"] = RetrievalRecall(top_k=5, **self.metric_options)
        for name, metric in metrics.items():
            metric.update(scores, ids[:, None] == ids, indexes=ids[:, None].expand_as(scores))
            self.log(f"val_{name}", metric.to(self.device).compute(), sync_dist=True)


def wrong():
    return Clip(), pairs()


def right():
    return Clip(sync_on_compute=False), pairs()


def pairs():
    random = torch.Generator().manual_seed(1)
    images = torch.randn(96, 32, generator=random)
    texts = images + 1.5 * torch.randn(96, 32, generator=random)
    return DataLoader(TensorDataset(images, texts), batch_size=48)
