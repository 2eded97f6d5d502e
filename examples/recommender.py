"""A sequential recommender: the next item of a session, among twenty candidates.

`wrong` logs what `forward()` of the metric returns, so the logger shows the sessions of rank 0 alone (LRG203). `right`
updates the metric and logs the metric itself, and Lightning combines the ranks at the end of the epoch.
"""

import torch
from lightning.pytorch import LightningModule
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalHitRate

ITEMS = 100


class Recommender(LightningModule):
    def __init__(self):
        super().__init__()
        self.items = torch.nn.Embedding(ITEMS, 16)
        self.session = torch.nn.GRU(16, 16, batch_first=True)
        self.hit_rate = RetrievalHitRate(top_k=5)

    def rank(self, batch):
        history, candidates, bought, session_ids = batch
        state = self.session(self.items(history))[0][:, -1]
        scores = torch.einsum("bf,bcf->bc", state, self.items(candidates)).sigmoid()
        return scores, candidates == bought[:, None], session_ids[:, None].expand_as(scores)


class Wrong(Recommender):
    def validation_step(self, batch, batch_idx):
        scores, target, ids = self.rank(batch)
        self.log("val_hit_rate@5", self.hit_rate(scores, target, indexes=ids))


class Right(Recommender):
    def validation_step(self, batch, batch_idx):
        scores, target, ids = self.rank(batch)
        self.hit_rate.update(scores, target, indexes=ids)
        self.log("val_hit_rate@5", self.hit_rate)


def wrong():
    return Wrong(), sessions()


def right():
    return Right(), sessions()


def sessions():
    random = torch.Generator().manual_seed(3)
    history = torch.randint(ITEMS, (96, 6), generator=random)
    candidates = torch.stack([torch.randperm(ITEMS, generator=random)[:20] for _ in range(96)])
    bought = candidates[torch.arange(96), torch.randint(20, (96,), generator=random)]
    return DataLoader(TensorDataset(history, candidates, bought, torch.arange(96)), batch_size=24)
