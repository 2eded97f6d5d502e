"""Recall of 96 image-text pairs: right on one device, wrong on two.

python examples/two_devices.py --devices 2
"""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalRecall

from lightning_retrieval_guard import RetrievalGuard


class Clip(LightningModule):
    def validation_step(self, batch, batch_idx):
        images, texts = (self.all_gather(part).flatten(0, -2) for part in batch)
        scores = (images @ texts.T).sigmoid()
        ids = torch.arange(len(scores), device=self.device)
        for k in (1, 5):
            recall = RetrievalRecall(top_k=k).to(self.device)
            recall.update(scores, ids[:, None] == ids, indexes=ids[:, None].expand_as(scores))
            self.log(f"val_recall@{k}", recall.compute(), sync_dist=True)


def pairs(batch_size):
    random = torch.Generator().manual_seed(0)
    images = torch.randn(96, 16, generator=random)
    texts = images + 2 * torch.randn(96, 16, generator=random)
    return DataLoader(TensorDataset(images, texts / 16), batch_size)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--accelerator", default="auto")
    parser.add_argument("--mode", default="warn", choices=["warn", "correct", "strict"])
    options = parser.parse_args()
    trainer = Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        callbacks=[RetrievalGuard(options.mode)],
        logger=False,
        enable_progress_bar=False,
    )
    trainer.validate(Clip(), pairs(batch_size=48 // options.devices))
