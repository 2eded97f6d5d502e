"""Queries of one dataloader, ranked in the epoch-end hook against what their rank saw of another one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMAP

from .harness import Pool
from .ranks import on_ranks

pytestmark = pytest.mark.timeout(120)

PERSONS, WIDTH = 4, 6


def images(count: int, seed: int) -> list[dict[str, Tensor]]:
    """Images of a few persons."""
    person = torch.arange(count) % PERSONS
    noise = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))
    feature = torch.nn.functional.one_hot(person, WIDTH) + 0.7 * noise
    return [{"feature": feature[id_], "person": person[id_], "id": torch.tensor(id_)} for id_ in range(count)]


class Gallery(LightningModule):
    """A gallery and queries, each with a dataloader of its own; the gallery is that of the rank."""

    def __init__(self) -> None:
        super().__init__()
        self.map = RetrievalMAP()
        self.seen: tuple[list[Any], list[Any]] = ([], [])

    def val_dataloader(self) -> Any:
        return [DataLoader(images(24, 1), batch_size=4), DataLoader(images(16, 2), batch_size=4)]

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int, dataloader_idx: int) -> None:
        self.seen[dataloader_idx].append(batch)

    def on_validation_epoch_end(self) -> None:
        gallery, queries = (
            {name: torch.cat([batch[name] for batch in part]) for name in part[0]} for part in self.seen
        )
        self.rank_all(queries, self.of_all(gallery))
        self.log("map", self.map)

    def of_all(self, gallery: dict[str, Tensor]) -> dict[str, Tensor]:
        return gallery

    def rank_all(self, queries: dict[str, Tensor], gallery: dict[str, Tensor]) -> None:
        scores = (queries["feature"] @ gallery["feature"].T).sigmoid()
        relevant = (queries["person"][:, None] == gallery["person"]).long()
        self.map.update(scores, relevant, indexes=queries["id"][:, None].expand_as(scores))


class QueryByQuery(Gallery):
    def rank_all(self, queries: dict[str, Tensor], gallery: dict[str, Tensor]) -> None:
        for number in range(len(queries["id"])):
            super().rank_all({name: column[number : number + 1] for name, column in queries.items()}, gallery)


class Gathered(Gallery):
    """The right form."""

    def of_all(self, gallery: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: part.flatten(0, 1) for name, part in self.all_gather(gallery).items()}


@pytest.mark.parametrize("program", [Gallery, QueryByQuery])
@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_a_gallery_of_one_rank_is_found(pools: Mapping[int, Pool], program: type[Gallery], mode: str) -> None:
    plain, shown = on_ranks(pools[2], program), on_ranks(pools[2], program, mode)
    assert shown[0].numbers == pytest.approx(plain[0].numbers)
    (finding,) = shown[0].found
    assert (finding.code, finding.key, finding.effect, finding.corrected) == ("LRG305", "map", None, False)
    assert "at most 12 candidates, those of its own rank, of 24 on all ranks" in finding.message


def test_a_gathered_gallery_is_right(pools: Mapping[int, Pool]) -> None:
    (one_device,) = on_ranks(pools[1], Gathered)
    shown = on_ranks(pools[2], Gathered, "correct")
    assert shown[0].numbers == pytest.approx(one_device.numbers)
    assert not shown[0].found


class Others(Gallery):
    """Each image of one dataloader against all others of it."""

    def val_dataloader(self) -> Any:
        return DataLoader(images(22, 1), batch_size=4)

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.seen[0].append(batch)

    def on_validation_epoch_end(self) -> None:
        own = {name: torch.cat([batch[name] for batch in self.seen[0]]) for name in self.seen[0][0]}
        pool = self.of_all(own)
        for number, image in enumerate(own["id"]):
            others = {name: column[pool["id"] != image] for name, column in pool.items()}
            self.rank_all({name: column[number : number + 1] for name, column in own.items()}, others)
        self.log("map", self.map)


class OthersOfAll(Others, Gathered):
    """The right form."""


@pytest.mark.parametrize("mode", ["warn", "correct"])
def test_the_others_of_one_rank_are_found(pools: Mapping[int, Pool], mode: str) -> None:
    plain, shown = on_ranks(pools[2], Others), on_ranks(pools[2], Others, mode)
    assert shown[0].numbers == pytest.approx(plain[0].numbers)
    (finding,) = shown[0].found
    assert (finding.code, finding.key, finding.effect, finding.corrected) == ("LRG305", "map", None, False)
    assert "at most 10 candidates, those of its own rank, of 21 on all ranks" in finding.message


def test_the_others_of_all_ranks_are_right(pools: Mapping[int, Pool]) -> None:
    (one_device,) = on_ranks(pools[1], OthersOfAll)
    shown = on_ranks(pools[2], OthersOfAll, "correct")
    assert shown[0].numbers == pytest.approx(one_device.numbers)
    assert not shown[0].found


class Lists(Others):
    """As many candidates for each image as its rank saw others, one of them right, which have come with the image."""

    def on_validation_epoch_end(self) -> None:
        for image in torch.cat([batch["id"] for batch in self.seen[0]]):
            scores = torch.rand(10, generator=torch.Generator().manual_seed(int(image)))
            self.map.update(scores, torch.eye(10, dtype=torch.long)[0], indexes=torch.full((10,), int(image)))
        self.log("map", self.map)


def test_a_length_that_lists_have_by_chance_is_no_evidence(pools: Mapping[int, Pool]) -> None:
    assert not on_ranks(pools[2], Lists, "warn")[0].found
