"""A key that shows metrics of other settings from step to step has no one value over its rows."""

from __future__ import annotations

from typing import Any

import pytest
from torchmetrics.retrieval import RetrievalRecall

from tests.distributed.evaluate import guards, make_trainer, recorded_warnings
from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch

from .ways import Way

pytestmark = pytest.mark.timeout(60)
STEPS = 4


class Alternating(Way):
    """The cut-off is another one in every other step, on the ranks named."""

    def __init__(self, ranks: tuple[int, ...]) -> None:
        super().__init__(STEPS, split=False)
        self.ranks = ranks

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        cut_off = 1 + batch_idx % 2 if self.global_rank in self.ranks else 1
        metric = RetrievalRecall(top_k=cut_off, sync_on_compute=False)
        metric.update(*self.rows(batch))
        self.log("recall", metric.compute(), batch_size=self.size, sync_dist=True)


def run(ranks: tuple[int, ...], mode: str) -> dict[str, Any]:
    """Validate on this rank."""
    guard = guards(mode, {})
    with recorded_warnings():
        [returned] = make_trainer(guard, False).validate(Alternating(ranks), verbose=False)
    return {**returned, "codes": [finding.code for guard_of_run in guard for finding in guard_of_run.findings]}


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
@pytest.mark.parametrize("ranks", [(0, 1), (0,), (1,)], ids=["on-all", "on-the-first", "on-the-second"])
def test_the_plain_number_stays(pool: Pool, ranks: tuple[int, ...], mode: str) -> None:
    plain, guarded = (
        [outcome.value for outcome in pool.run(f"{__name__}:run", case=f"{ranks}, {used}", ranks=ranks, mode=used)]
        for used in ("none", mode)
    )
    assert [returned["codes"] for returned in guarded] == [[], []]
    assert [returned["recall"] for returned in guarded] == [returned["recall"] for returned in plain]
    assert 0 < plain[0]["recall"] < 1
