"""A key that shows metrics of other settings from step to step has no one value over its rows."""

from __future__ import annotations

from functools import partial

import pytest
from torchmetrics.retrieval import RetrievalRecall

from tests.distributed.harness import Pool
from tests.distributed.programs.data import Batch
from tests.distributed.ranks import on_ranks

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


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
@pytest.mark.parametrize("ranks", [(0, 1), (0,), (1,)], ids=["on-all", "on-the-first", "on-the-second"])
def test_the_plain_number_stays(pool: Pool, ranks: tuple[int, ...], mode: str) -> None:
    plain, guarded = (on_ranks(pool, partial(Alternating, ranks), used) for used in ("none", mode))
    assert [shown.findings for shown in guarded] == [[], []]
    assert [shown.numbers for shown in guarded] == [shown.numbers for shown in plain]
    assert 0 < plain[0].numbers["recall"] < 1
