"""The HTML report of a run on two ranks tells what each of them saw."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Subset

from lightning_retrieval_guard import RetrievalGuard
from tests.distributed.evaluate import make_trainer, recorded_warnings
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch, queries

from .programs import Right

BATCH = 6


class Uneven(Right):
    """As many queries as the rank is told, in one dataloader or spread over two."""

    def __init__(self, held: list[int], loaders: int) -> None:
        super().__init__()
        self.held, self.loaders = held, loaders
        self.allow_zero_length_dataloader_with_multiple_devices = True

    def val_dataloader(self) -> Any:
        first = sum(self.held[: self.global_rank])
        mine = range(first, first + self.held[self.global_rank])
        data = queries(sum(self.held), empty=False)
        parts = [Subset(data, mine[part :: self.loaders]) for part in range(self.loaders)]
        return [DataLoader(part, batch_size=BATCH) for part in parts]

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        super().validation_step(batch, batch_idx)


def evaluate(held: list[int], loaders: int, report: str) -> None:
    """Validate on this rank."""
    guard = RetrievalGuard(mode="correct", report=report)
    trainer = make_trainer([guard], False, use_distributed_sampler=False)
    with recorded_warnings():
        trainer.validate(Uneven(held, loaders), verbose=False)


def rows_of_ranks(page: str) -> dict[str, list[list[str]]]:
    """For each sentence about ranks the rows of its table, or its own words where the ranks are even."""
    result = {}
    for sentence, rest in re.findall(
        r'<p class="evenness">(.*?)</p>(.*?)(?=<p class="evenness">|</section>)', page, re.S
    ):
        title, _, words = " ".join(re.sub("<[^>]*>", "", sentence).split()).partition(": ")
        name, _, words = words.partition(": ")
        rows = re.findall('<tr><th scope="row">(.*?)</tr>', rest, re.S)
        cells = [re.findall(r"(?:^|<td[^>]*>)(\d+|not known)", row) for row in rows]
        result[f"{title}: {name}"] = cells or [[words]]
    return result


HALF = [["0", "24", "2", "12"], ["1", "12", "1", "6"]]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("held", "loaders", "rows"),
    [
        ([12, 12], 1, [["12 samples on every rank; 2 updates on every rank; 12 queries on every rank."]]),
        ([18, 5], 1, [["0", "18", "3", "18"], ["1", "5", "1", "5"]]),
        ([18, 0], 1, [["0", "18", "3", "18"], ["1", "0", "0", "0"]]),
        ([24, 12], 2, [["0", "24", "4", "24"], ["1", "12", "2", "12"]]),
    ],
    ids=["even", "uneven", "empty", "loaders"],
)
def test_samples_updates_and_queries_of_each_rank(
    pool: Pool, tmp_path: Path, held: list[int], loaders: int, rows: list[list[str]]
) -> None:
    path = tmp_path / "report.html"
    case = f"{held} in {loaders}"
    outcomes = pool.run(f"{__name__}:evaluate", case=case, held=held, loaders=loaders, report=str(path))
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    page = path.read_text(encoding="utf-8")
    shown = rows_of_ranks(page)
    assert shown.pop("validate: metric") == rows
    # one metric for two dataloaders: the second one shows the half that is its own
    assert shown == ({"validate: metric of dataloader 1": HALF} if loaders == 2 else {})
    assert ("uneven" in page.partition("What each rank saw")[2]) == (held[0] != held[1])
