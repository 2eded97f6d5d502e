"""A reranker that scores one (query, passage) pair a sample, evaluated by a callback.

`wrong` computes on the pairs of its own rank, and rank 0 logs what it sees (LRG203). `right` owns a metric of the
module: the rows of a query come together again, on whichever ranks they were scored.
"""

import torch
from lightning.pytorch import Callback, LightningModule
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalMAP


class CrossEncoder(LightningModule):
    def __init__(self):
        super().__init__()
        self.head = torch.nn.Sequential(torch.nn.Linear(16, 16), torch.nn.Tanh(), torch.nn.Linear(16, 1))

    def validation_step(self, batch, batch_idx):
        queries, passages, relevant, query_ids = batch
        scores = self.head(torch.cat([queries, passages], dim=-1)).sigmoid().squeeze(-1)
        return {"scores": scores, "relevant": relevant, "ids": query_ids}


class OwnPairs(Callback):
    """Keeps what this rank scored, and computes on it."""

    def on_validation_epoch_start(self, trainer, pl_module):
        self.outputs = []

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.outputs.append(outputs)

    def on_validation_epoch_end(self, trainer, pl_module):
        scores, relevant, ids = (torch.cat([output[name] for output in self.outputs]) for name in self.outputs[0])
        metric = RetrievalMAP(sync_on_compute=False).to(scores.device)
        metric.update(scores, relevant, indexes=ids)
        pl_module.log("val_map", metric.compute())


class AllPairs(Callback):
    """Feeds a metric that belongs to the module, which moves it to the device and lets it combine the ranks."""

    def setup(self, trainer, pl_module, stage):
        pl_module.map = RetrievalMAP()

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        pl_module.map.update(outputs["scores"], outputs["relevant"], indexes=outputs["ids"])

    def on_validation_epoch_end(self, trainer, pl_module):
        pl_module.log("val_map", pl_module.map.compute())
        pl_module.map.reset()


def wrong():
    return CrossEncoder(), scored_pairs(), {"callbacks": [OwnPairs()]}


def right():
    return CrossEncoder(), scored_pairs(), {"callbacks": [AllPairs()]}


def scored_pairs():
    random = torch.Generator().manual_seed(4)
    query_ids = torch.arange(40).repeat_interleave(6)
    queries = torch.randn(40, 8, generator=random)[query_ids]
    passages = torch.randn(240, 8, generator=random)
    relevant = torch.arange(6).repeat(40) == query_ids % 6
    order = torch.randperm(240, generator=random)
    columns = (queries, passages, relevant, query_ids)
    return DataLoader(TensorDataset(*(column[order] for column in columns)), batch_size=24)
