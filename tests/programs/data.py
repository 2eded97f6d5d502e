"""The data sets of the corpus: small, the same in every run, and made so that no two scores tie."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset

Batch = dict[str, Tensor]

WIDTH = 8
"""Features of a question, a passage, an image or a text."""

ITEMS = 40
"""Items of the shop."""

TOPICS = 5
"""Queries that stand against a corpus."""


class Columns(Dataset[Batch]):
    """A data set given by its columns, one entry a sample."""

    def __init__(self, **columns: Tensor) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, index: int) -> Batch:
        return {name: column[index] for name, column in self.columns.items()}


class Texts(Dataset[Tensor]):
    """Sentences of different lengths, as losses of their tokens."""

    def __init__(self, count: int) -> None:
        random = _random(5)
        self.texts = [torch.rand(1 + (5 * index) % 9, generator=random) + index / 4 for index in range(count)]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> Tensor:
        return self.texts[index]


def _random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def passages(count: int, candidates: int = 6) -> Columns:
    """One question a sample, with its candidate passages, of which one or two answer it."""
    random = _random(1)
    question = torch.rand(count, WIDTH, generator=random)
    passage = torch.rand(count, candidates, WIDTH, generator=random)
    label = torch.zeros(count, candidates, dtype=torch.long)
    index = torch.arange(count)
    label[index, index % candidates] = 1
    label[index, (3 * index + 1) % candidates] = 1
    like_question = 0.5 * passage + 0.8 * question[:, None] * torch.rand(count, candidates, 1, generator=random)
    passage = torch.where(label[..., None] == 1, like_question, passage)
    return Columns(question=question, passages=passage, labels=label, question_id=index)


def graded_passages(count: int) -> Columns:
    """The same with relevance from 0 to 3."""
    columns = passages(count).columns
    grade = columns["labels"] * (1 + columns["question_id"] % 3)[:, None]
    return Columns(**{**columns, "labels": grade})


def pairs(count: int) -> Columns:
    """An image and its caption a sample."""
    random = _random(2)
    image = torch.rand(count, WIDTH, generator=random)
    text = 0.6 * image + 0.4 * torch.rand(count, WIDTH, generator=random)
    return Columns(image=image, text=text, index=torch.arange(count))


def clicks(users: int, shown: int = 6) -> Columns:
    """One user and one shown item a sample, in an order that spreads every user over batches and ranks."""
    random = _random(3)
    user = torch.arange(users).repeat_interleave(shown)
    start = torch.randint(ITEMS, (users, 1), generator=random)
    item = ((start + torch.arange(shown) * 7) % ITEMS).flatten()
    place = torch.arange(shown).repeat(users)
    clicked = ((place == user % shown) | (place == (2 * user + 3) % shown)).long()
    order = torch.randperm(users * shown, generator=random)
    return Columns(user=user[order], item=item[order], clicked=clicked[order])


def sessions(count: int, candidates: int = 7) -> Columns:
    """The last items of one user a sample, the next one, and candidates for it."""
    random = _random(4)
    history = torch.randint(ITEMS, (count, 4), generator=random)
    start = torch.randint(ITEMS, (count, 1), generator=random)
    items = (start + torch.arange(candidates) * 3) % ITEMS
    index = torch.arange(count)
    return Columns(history=history, candidates=items, next_item=items[index, index % candidates], user=index)


def corpus(documents: int) -> Columns:
    """One document a sample, with its relevance to each of `TOPICS` topics."""
    random = _random(6)
    document = torch.rand(documents, WIDTH, generator=random)
    relevant = torch.rand(documents, TOPICS, generator=random) < 0.25
    relevant[torch.arange(TOPICS), torch.arange(TOPICS)] = True
    return Columns(document=document, relevant=relevant.long(), document_id=torch.arange(documents))


def topics() -> Tensor:
    """The queries of the corpus, of shape (topics, features)."""
    return torch.rand(TOPICS, WIDTH, generator=_random(7))


def pictures(count: int, classes: int = 3) -> Columns:
    """One picture a sample, and its class."""
    random = _random(12)
    label = torch.arange(count) % classes
    centre = torch.rand(classes, WIDTH, generator=random)
    return Columns(x=centre[label] + 0.7 * torch.rand(count, WIDTH, generator=random), y=label)


def series(count: int) -> Columns:
    """One input a sample and a number to predict, which grows, so that weights show."""
    x = torch.rand(count, WIDTH, generator=_random(9))
    return Columns(x=x, y=(x.sum(dim=1) + torch.linspace(0, 3, count) ** 2))


def collate_texts(texts: Sequence[Tensor]) -> Batch:
    """Tokens of all texts in one tensor, and each text's own loss."""
    return {"tokens": torch.cat(list(texts)), "loss": torch.stack([text.mean() for text in texts])}
