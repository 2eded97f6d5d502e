"""A dense retriever: each question comes with eight passages, and the data set numbers the questions.

`wrong` numbers the questions of each batch from zero, so questions of different batches merge (LRG301). `right` takes
the number from the data set.
"""

import torch
from lightning.pytorch import LightningModule
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.retrieval import RetrievalMRR, RetrievalNormalizedDCG


class DenseRetriever(LightningModule):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(16, 16)
        self.metrics = MetricCollection(
            {"mrr": RetrievalMRR(), "ndcg@3": RetrievalNormalizedDCG(top_k=3)}, prefix="val_"
        )

    def validation_step(self, batch, batch_idx):
        questions, passages, relevant, question_ids = batch
        similarity = functional.cosine_similarity(self.encoder(questions)[:, None], self.encoder(passages), dim=-1)
        ids = self.ids(question_ids)[:, None].expand_as(similarity)
        self.metrics.update((similarity + 1) / 2, relevant, indexes=ids)
        self.log_dict(self.metrics)


class Wrong(DenseRetriever):
    def ids(self, question_ids):
        return torch.arange(len(question_ids), device=self.device)


class Right(DenseRetriever):
    def ids(self, question_ids):
        return question_ids


def wrong():
    return Wrong(), questions()


def right():
    return Right(), questions()


def questions():
    random = torch.Generator().manual_seed(2)
    question_ids = torch.arange(1000, 1090)
    relevant = torch.arange(8) == question_ids[:, None] % 8
    questions = torch.randn(90, 16, generator=random)
    passages = torch.randn(90, 8, 16, generator=random) + 0.5 * questions[:, None] * relevant[..., None]
    return DataLoader(TensorDataset(questions, passages, relevant, question_ids), batch_size=20)
