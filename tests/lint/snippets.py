"""Short modules with what is to be found in them as comments at their lines."""

from __future__ import annotations

import ast
import re
from textwrap import dedent, indent

from lightning_retrieval_guard.lint.plugin import findings

HEAD = """
import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.retrieval import *
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalMRR, RetrievalPrecision, RetrievalRecall
"""

INIT = """
def __init__(self):
    super().__init__()
    self.recall = RetrievalRecall(top_k=2)
    self.local = RetrievalRecall(top_k=2, sync_on_compute=False)
    self.mrr: RetrievalMRR = RetrievalMRR()
    self.all = MetricCollection({"map": RetrievalMAP(), "mean": MeanMetric()}).clone(prefix="val_")
    self.factor = self.trainer.world_size
    self.hit, self.mean = RetrievalHitRate(top_k=1), MeanMetric()
"""


def places(source: str, path: str = "") -> list[tuple[int, str]]:
    """Line and code of every finding."""
    found = findings(ast.parse(source), source.splitlines(keepends=True), path)
    return [(finding.line, finding.rule.code) for finding in found]


def expected(source: str) -> list[tuple[int, str]]:
    """What the comments of a source say."""
    lines = enumerate(source.splitlines(), start=1)
    return [(number, code) for number, line in lines for code in re.findall(r"LRG\d+", line.partition("# lint:")[2])]


def in_module(methods: str, base: str = "LightningModule", head: str = HEAD, init: str = INIT) -> str:
    """A class with these methods."""
    return f"{head}\n\nclass Model({base}):\n" + indent(dedent(init) + dedent(methods), "    ")


def in_step(body: str, head: str = "validation_step(self, batch, batch_idx)", **parts: str) -> str:
    """A class with this step."""
    return in_module(f"def {head}:\n" + indent(dedent(body).strip("\n"), "    ") + "\n", **parts)
