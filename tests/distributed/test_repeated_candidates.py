"""A repeated sample that is a candidate of every query: leaving out its own query does not make the number right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR, RetrievalRecall

from lightning_retrieval_guard.findings import Severity

from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(120)

WIDTH, CANDIDATES = 4, 5


def samples(count: int, seed: int) -> list[dict[str, Tensor]]:
    """Queries, each with a document of its own; some documents suit another query better."""
    random = torch.Generator().manual_seed(seed)
    query = torch.randn(count, WIDTH, generator=random)
    document = query + 1.5 * torch.randn(count, WIDTH, generator=random)
    return [{"query": query[id_], "document": document[id_], "id": torch.tensor(id_)} for id_ in range(count)]


class Search(LightningModule):
    """What all of them share: queries of this rank, ranked against documents."""

    def __init__(self) -> None:
        super().__init__()
        self.mrr, self.recall = RetrievalMRR(), RetrievalRecall(top_k=1)
        self.queries: list[dict[str, Tensor]] = []
        self.documents: list[dict[str, Tensor]] = []

    def feed(self, queries: dict[str, Tensor], documents: dict[str, Tensor]) -> None:
        scores = (queries["query"] @ documents["document"].flatten(0, -2).T).sigmoid()
        relevant = queries["id"][:, None] == documents["id"].flatten()
        indexes = queries["id"][:, None].expand_as(scores)
        for metric in (self.mrr, self.recall):
            metric.update(scores, relevant.long(), indexes=indexes)

    def log_both(self) -> None:
        self.log_dict({"mrr": self.mrr, "recall": self.recall}, add_dataloader_idx=False)


def joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


class InHook(Search):
    """The documents are those of all ranks, the repeated one twice among them."""

    def val_dataloader(self) -> Any:
        return DataLoader(samples(11, 1), batch_size=4)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.queries.append(batch)

    def on_validation_epoch_end(self) -> None:
        queries = joined(self.queries)
        self.feed(queries, self.all_gather(queries))
        self.log_both()


class QueryByQuery(InHook):
    def on_validation_epoch_end(self) -> None:
        queries = joined(self.queries)
        documents = self.all_gather(queries)
        for number in range(len(queries["id"])):
            self.feed({name: column[number : number + 1] for name, column in queries.items()}, documents)
        self.log_both()


class TwoLoaders(Search):
    """Documents come from the first dataloader, queries from the second; both are padded."""

    def val_dataloader(self) -> Any:
        return [DataLoader(samples(11, 1), batch_size=4), DataLoader(samples(7, 1), batch_size=4)]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int) -> None:
        (self.queries if dataloader_idx else self.documents).append(batch)

    def on_validation_epoch_end(self) -> None:
        self.feed(joined(self.queries), self.all_gather(joined(self.documents)))
        self.log_both()


class TwoLoadersInSteps(TwoLoaders):
    """The same, scored in the steps of the second dataloader."""

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int) -> None:
        super().validation_step(batch, batch_idx, dataloader_idx)
        if dataloader_idx:
            self.feed(batch, self.all_gather(joined(self.documents)))
            self.log_both()

    def on_validation_epoch_end(self) -> None:
        """Nothing is left to do."""


@pytest.mark.parametrize("program", [InHook, QueryByQuery, TwoLoaders, TwoLoadersInSteps])
@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_number_against_repeated_documents_stays(pools: Mapping[int, Pool], program: type[Search], mode: str) -> None:
    plain, shown = on_ranks(pools[2], program), on_ranks(pools[2], program, mode)
    assert shown[0].numbers == pytest.approx(plain[0].numbers)
    found = [one for one in shown[0].findings if one.code == "LRG403"]
    assert {one.key for one in found} == {"mrr", "recall"}
    # nobody knows the number of one device
    assert all((one.severity, one.effect, one.corrected) == (Severity.WARNING, None, False) for one in found)
    assert all("among the candidates" in one.message and "correct" not in (one.fix or "") for one in found)


class OwnDocuments(InHook):
    """Each sample brings documents of its own, of which none comes twice."""

    def on_validation_epoch_end(self) -> None:
        ids = joined(self.queries)["id"]
        scores = torch.rand(11, CANDIDATES, generator=torch.Generator().manual_seed(5))[ids]
        relevant = (torch.arange(CANDIDATES) == ids[:, None] % CANDIDATES).long()
        for metric in (self.mrr, self.recall):
            metric.update(scores, relevant, indexes=ids[:, None].expand_as(scores))
        self.log_both()


def test_a_number_against_own_documents_is_corrected(pools: Mapping[int, Pool]) -> None:
    (one_device,) = on_ranks(pools[1], OwnDocuments)
    for rank in on_ranks(pools[2], OwnDocuments, "correct"):
        assert rank.numbers == pytest.approx(one_device.numbers)
