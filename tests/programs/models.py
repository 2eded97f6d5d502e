"""The networks of the corpus; their scores are positive and distinct."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .data import ITEMS, WIDTH


def tower() -> nn.Module:
    """An encoder with positive features."""
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Softplus())


class DualEncoder(nn.Module):
    """Scores questions against passages, or images against texts, by the cosine of their embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.query_tower, self.document_tower = tower(), tower()

    def encode_query(self, query: Tensor) -> Tensor:
        return functional.normalize(self.query_tower(query), dim=-1)

    def encode_document(self, document: Tensor) -> Tensor:
        return functional.normalize(self.document_tower(document), dim=-1)

    def forward(self, query: Tensor, documents: Tensor) -> Tensor:
        """Scores of shape (batch, candidates) for documents of shape (batch, candidates, features)."""
        return torch.einsum("bf,bcf->bc", self.encode_query(query), self.encode_document(documents))

    def similarity(self, query: Tensor, documents: Tensor) -> Tensor:
        """Scores of every query against every document."""
        return self.encode_query(query) @ self.encode_document(documents).T


class CrossEncoder(nn.Module):
    """Reads a question together with one passage."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Linear(2 * WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1))

    def forward(self, query: Tensor, documents: Tensor) -> Tensor:
        both = torch.cat([query[:, None].expand_as(documents), documents], dim=-1)
        return torch.sigmoid(self.head(both).squeeze(-1))


class Recommender(nn.Module):
    """Matrix factorisation of users and items."""

    def __init__(self, users: int = 64) -> None:
        super().__init__()
        self.user, self.item = nn.Embedding(users, WIDTH), nn.Embedding(ITEMS, WIDTH)

    def forward(self, user: Tensor, item: Tensor) -> Tensor:
        """The probability of a click, of the shape of ``user`` and ``item``."""
        return torch.sigmoid((self.user(user) * self.item(item)).sum(dim=-1) / 4)


class NextItem(nn.Module):
    """Scores candidates for the next item of a session."""

    def __init__(self) -> None:
        super().__init__()
        self.item = nn.Embedding(ITEMS, WIDTH)
        self.mix = nn.Linear(WIDTH, WIDTH)

    def forward(self, history: Tensor, candidates: Tensor) -> Tensor:
        session = self.mix(self.item(history).mean(dim=1))
        return torch.sigmoid(torch.einsum("bf,bcf->bc", session, self.item(candidates)))
