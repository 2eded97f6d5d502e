"""A small dual encoder whose validation is written the way torchmetrics issue #2852 writes it, and its data."""

import zlib
from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from lightning_retrieval_guard.demo.corpus import Pair, words

BUCKETS = 2**14
PADDING = 0
SENTENCE_LENGTH = 32
CODE_LENGTH = 256
# Divisible by 1 to 8, so that no sampler repeats a sample and nothing but the logging differs.
HELD_OUT = 840
BATCH_SIZES = (120, 168)

METRICS = ("val_mrr", "val_recall@1", "val_recall@5")
DIMENSIONS = 128
TEMPERATURE = 0.05
LEARNING_RATE = 0.005

Loader = DataLoader[tuple[Tensor, ...]]


def split_pairs(pairs: Sequence[Pair], seed: int) -> tuple[TensorDataset, TensorDataset]:
    """Sets `HELD_OUT` pairs aside, chosen by `seed`.

    Returns:
        The pairs to train on and those to evaluate on: sentences int64 (N, 32) and codes int64 (N, 256).
    """
    sentences = torch.stack([hash_words(pair.sentence, SENTENCE_LENGTH) for pair in pairs])
    codes = torch.stack([hash_words(pair.code, CODE_LENGTH) for pair in pairs])
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed))
    held_out, training = order[:HELD_OUT], order[HELD_OUT:]
    return TensorDataset(sentences[training], codes[training]), TensorDataset(sentences[held_out], codes[held_out])


def hash_words(text: str, length: int) -> Tensor:
    """Returns the buckets of the first `length` words, int64 (length,), padded with 0."""
    # crc32, because Python's own hash differs from process to process.
    buckets = [zlib.crc32(word.encode()) % (BUCKETS - 1) + 1 for word in words(text)[:length]]
    return torch.tensor(buckets + [PADDING] * (length - len(buckets)))


def global_batch_size(devices: int) -> int:
    """Returns how many pairs are ranked against each other, the same on one process and on `devices`.

    A number that divides by 1 to 8 would put all held-out pairs into one batch; this way there are several.
    """
    return next(size for size in BATCH_SIZES if size % devices == 0)


class DualEncoder(LightningModule):
    """Embeds sentences and codes as the mean of their tokens' embeddings, trained to bring pairs together."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.EmbeddingBag(BUCKETS, DIMENSIONS, mode="mean", padding_idx=PADDING)

    def forward(self, tokens: Tensor) -> Tensor:
        """Embeds tokens, int64 (B, length), as unit vectors, float32 (B, DIMENSIONS)."""
        return functional.normalize(self.embedding(tokens), dim=-1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """Returns the contrastive loss, each sentence against all codes of the batch and the reverse."""
        similarity = self(batch[0]) @ self(batch[1]).T / TEMPERATURE
        target = torch.arange(len(similarity), device=self.device)
        loss = functional.cross_entropy(similarity, target) + functional.cross_entropy(similarity.T, target)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        """Logs retrieval metrics over the pairs of all processes: right on one, wrong on several.

        Every process holds all rows after `all_gather`, and `compute()` gathers them once more
        (https://github.com/Lightning-AI/torchmetrics/issues/2852).
        """
        sentences, codes = self._gathered(self(batch[0])), self._gathered(self(batch[1]))
        # A probability is positive: some retrieval metrics take a score of zero or less for a miss.
        scores = (sentences @ codes.T / TEMPERATURE).softmax(dim=1)
        target = torch.eye(len(scores), dtype=torch.bool, device=self.device)
        indexes = torch.arange(len(scores), device=self.device).unsqueeze(1).expand_as(scores)
        metrics = (RetrievalMRR(), RetrievalRecall(top_k=1), RetrievalRecall(top_k=5))
        for name, metric in zip(METRICS, metrics, strict=True):
            metric.to(self.device).update(scores.flatten(), target.flatten(), indexes=indexes.flatten())
            batch_size = len(batch[0]) * self.trainer.world_size
            self.log(name, metric.compute(), batch_size=batch_size, sync_dist=True, prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Returns Adam with a fixed learning rate."""
        return torch.optim.Adam(self.parameters(), LEARNING_RATE)

    def _gathered(self, embeddings: Tensor) -> Tensor:
        gathered = self.all_gather(embeddings)
        assert isinstance(gathered, Tensor)
        # (processes, B, DIMENSIONS), or (B, DIMENSIONS) where there is only one process
        return gathered.flatten(0, -2)
