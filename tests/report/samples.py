"""Reports to look at: one like those of a real run, and some that are hard to show."""

from __future__ import annotations

import linecache
import math
from collections.abc import Mapping
from dataclasses import replace

from lightning_retrieval_guard.findings import Effect, Finding, Numbers, Severity
from lightning_retrieval_guard.report.document import EpochNumbers, Report, RowCounts, RunFacts, StageCounts
from lightning_retrieval_guard.rules import REGISTRY
from lightning_retrieval_guard.rules.documentation import reason

REASONS = {code: reason(rule) or "" for code, rule in REGISTRY.items()}
EVIL = ("<script>document.title = 'broken'</script>", '"><img src=x onerror="document.title = \'broken\'">')
PATH = "src/retriever.py"
SOURCE = """\
    def validation_step(self, batch, batch_idx):
        queries, documents = self.all_gather(self(batch))
        scores = queries.flatten(0, 1) @ documents.flatten(0, 1).T
        ids = torch.arange(len(scores))[:, None].expand_as(scores)
        recall = RetrievalRecall(top_k=1)
        recall.update(scores, torch.eye(len(scores), dtype=torch.long), indexes=ids)
        self.log("val_recall@1", recall.compute(), sync_dist=True)
        self.mrr.update(*self.own_rows(batch))
        self.log("val_mrr", self.mrr)
        self.log(
            "val_loss", self.loss(batch), batch_size=64, sync_dist=True
        )
        self.log("val_margin", self.margin(scores))
"""

GATHERED = Finding(
    code="LRG201",
    rule="gathered-before-sync",
    severity=Severity.ERROR,
    key="val_recall@1",
    stage="validate",
    hook="validation_step",
    path=PATH,
    line=7,
    message="'val_recall@1' on 4 ranks holds the same 4096 rows on every rank, and torchmetrics combines them again.",
    fix="Pass each rank's own rows, or build the metric with sync_on_compute=False.",
    ranks=(0, 1, 2, 3),
    count=3,
    corrected=True,
    effect=Effect(27 / 256, 27 / 64),
)
LOSS = replace(
    GATHERED,
    code="LRG102",
    rule="constant-batch-size",
    severity=Severity.WARNING,
    key="val_loss",
    line=10,
    message="'val_loss' is logged with the loader's nominal batch_size while the batch is shorter (rank 3), so the"
    " short batch weighs as much as a full one.",
    fix="Pass the number of samples in the batch, such as batch_size=float(len(labels)).",
    ranks=(3,),
    corrected=False,
    effect=Effect(1.4382, 1.3127),
)
MARGIN = replace(
    LOSS,
    code="LRG203",
    rule="never-synced",
    severity=Severity.ERROR,
    key="val_margin",
    line=13,
    message="'val_margin' is a rank's own value, never combined over 4 ranks: the logger shows the shard of rank 0.",
    fix="Pass sync_dist=True.",
    ranks=(0, 1, 2, 3),
    effect=None,
)
UNEVEN = replace(
    GATHERED,
    code="LRG205",
    rule="uneven-updates",
    key="val_mrr",
    line=9,
    message="RetrievalMRR 'mrr' was updated 8, 8, 8, 4 times on the 4 ranks, and torchmetrics gathers every update by"
    " itself: the ranks wait for each other, or abort.",
    fix="Update it equally often on every rank, or let the guard run with mode='correct'.",
    count=1,
    effect=None,
)
NOTE = replace(
    GATHERED,
    code="LRG207",
    rule="sync-in-step",
    severity=Severity.NOTE,
    line=7,
    message="'val_recall@1' combined 4 ranks within steps 28 times; each time all ranks wait for the slowest.",
    fix="Update in the step, and log the metric object.",
    corrected=False,
    effect=None,
)
KEYS = {
    "val_recall@1": Numbers(27 / 256, 27 / 64, corrected=True),
    "val_mrr": Numbers(None, 0.5391, corrected=True),
    "val_loss": Numbers(1.4382, 1.3127),
    "val_ndcg": Numbers(0.6818, 0.6818),
    "val_margin": Numbers(-0.2188, None),
}
UNEVEN_RANKS = StageCounts(
    (512, 512, 512, 200),
    {
        "mrr": tuple(RowCounts(updates, queries) for updates, queries in [(8, 512), (8, 512), (8, 512), (4, 200)]),
        "recall": tuple(RowCounts(8, 512) for _ in range(4)),
    },
)
RUN = RunFacts(
    when="2026-01-02 03:04:05+00:00",
    command="src/train.py fit --config retriever.yaml",
    versions={"python": "3.11.7", "lightning-retrieval-guard": "0.1.0", "lightning": "2.6.6", "torchmetrics": "1.9.0"},
    epoch=3,
    global_step=384,
)


def over_epochs(keys: Mapping[str, Numbers], count: int = 1) -> dict[str, tuple[EpochNumbers, ...]]:
    """Numbers that grow to those given."""
    return {name: tuple(_epoch(number, count, last) for number in range(count)) for name, last in keys.items()}


def _epoch(number: int, count: int, last: Numbers) -> EpochNumbers:
    share = (number + 1) / count
    logged, reference = (None if value is None else value * share for value in (last.logged, last.reference))
    return EpochNumbers("validate", number, 128 * number, Numbers(logged, reference, last.corrected))


FINDINGS = (GATHERED, UNEVEN, LOSS, MARGIN, NOTE)
EVEN_RANKS = {"validate": StageCounts((512,) * 4, {"recall": (RowCounts(8, 512),) * 4})}
LIKE_A_RUN = Report("correct", 4, FINDINGS, over_epochs(KEYS, 4), {"validate": UNEVEN_RANKS}, REASONS, RUN)
GATHERED_TWICE = replace(GATHERED, corrected=False, world_size=2)
TWENTY = {f"val_recall@{k}": Numbers(k / 40, k / 20) for k in range(1, 21)}
ONE_FAULT = Report(
    "warn",
    4,
    tuple(
        replace(GATHERED, key=key, corrected=False, world_size=2, effect=Effect(*pair[:2]))
        for key, pair in TWENTY.items()
    ),
    over_epochs({**TWENTY, "val_mrr": Numbers(0.5, 0.5), "val_loss": Numbers(1.4, None)}, 3),
    EVEN_RANKS,
    REASONS,
    RUN,
)

ODD_NUMBERS = {
    "both missing": Numbers(None, None),
    "no reference": Numbers(0.5, None),
    "not logged": Numbers(None, 0.5),
    "NaN": Numbers(math.nan, 0.5),
    "both NaN": Numbers(math.nan, math.nan),
    "infinite": Numbers(math.inf, -math.inf),
    "negative": Numbers(-0.75, 0.25),
    "both negative": Numbers(-3.0, -1.5),
    "above one": Numbers(1.75, 1.0),
    "huge": Numbers(1.7e308, -1.7e308),
    "tiny": Numbers(5e-324, -5e-324),
    "zero": Numbers(0.0, 0.0),
}
HARD = Report(
    "warn",
    2,
    (
        *(replace(LOSS, key=key, path=key, message=key, fix=key, hook=key, stage=key) for key in EVIL),
        replace(MARGIN, key="k" * 300, path=f"/very/{'long' * 60}/path.py", message="m" * 500, fix="f" * 300),
        replace(MARGIN, key="", code="LRG901", rule="guard-disabled", ranks=(), path="<unknown>", line=1),
        replace(MARGIN, key="精度/\u202eright to left\u0000\udc80"),
    ),
    over_epochs({**ODD_NUMBERS, **dict.fromkeys(EVIL, Numbers(0.25, 0.5)), "k" * 300: Numbers(0.1, 0.2)}, 2),
    {
        EVIL[0]: StageCounts((None, 5), {EVIL[1]: (RowCounts(), RowCounts(3, 5)), "m" * 200: (RowCounts(),) * 2}),
        "test": StageCounts((0, 0)),
    },
    REASONS,
    replace(RUN, command=" ".join(EVIL) + "x" * 500),
)
MANY = Report(
    "warn",
    64,
    tuple(replace((GATHERED, LOSS, MARGIN, NOTE)[n % 4], key=f"key {n}", line=n % 13 + 1) for n in range(200)),
    over_epochs({f"key {n}": Numbers(n / 200, 0.5) for n in range(200)}),
    {"train": StageCounts(tuple(100 - 20 * (rank == 7) if rank != 40 else 0 for rank in range(64)))},
    REASONS,
)
NOTHING = Report("warn", 1)
STOPPED = replace(ONE_FAULT, mode="strict", stopped=("LRG201",), history={})
REPORTS = {
    "like a run": LIKE_A_RUN,
    "one fault": ONE_FAULT,
    "stopped": STOPPED,
    "hard": HARD,
    "many": MANY,
    "nothing": NOTHING,
}


def keep_source() -> None:
    """Makes the source of the findings one that can be read."""
    linecache.cache[PATH] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), PATH)
