"""LRG201, LRG207, LRG301 and LRG405: what is fed to metrics, and where these are."""

from __future__ import annotations

import pytest

from .snippets import INIT, expected, in_module, in_step, places

# --- LRG201 -----------------------------------------------------------------------------------------------------

GATHER = "q, d = self.all_gather(self.encode(batch))\nscores = q.flatten(0, 1) @ d.flatten(0, 1).T\n"
IDS = "ids = torch.arange(len(scores), device=self.device)[:, None].expand_as(scores)\n"
EYE = "target = torch.eye(len(scores), dtype=torch.long)\n"

GATHERED = [
    GATHER + IDS + EYE + "self.recall.update(scores, target, indexes=ids)  # lint: LRG201",
    GATHER + IDS + EYE + "m = RetrievalMAP()\nm.update(scores.float(), target, ids)  # lint: LRG201",
    GATHER + IDS + EYE + "for _ in range(2):\n    self.mrr.update(scores, target, indexes=ids)  # lint: LRG201",
    "p, t, i = (self.all_gather(torch.cat(x)) for x in self.outputs)\nself.all.update(p, t, indexes=i)  # lint: LRG201",
]

NOT_GATHERED = {
    "own queries against all documents": (
        "d = self.all_gather(batch['d']).flatten(0, 1)\nscores = batch['q'] @ d.T\n"
        + IDS.replace("len(scores)", "self.first, self.last")
        + "self.recall.update(scores, torch.eye(len(d)), indexes=ids)"
    ),
    "sync off": GATHER + IDS + EYE + "self.local.update(scores, target, indexes=ids)",
    "own part": GATHER
    + IDS
    + EYE
    + "scores = scores[self.global_rank]\nself.recall.update(scores, target, indexes=ids)",
    "one branch": (
        "scores = batch['x']\nif self.training:\n    scores = self.all_gather(scores)\n"
        "self.mrr.update(scores, scores, indexes=scores)"
    ),
    "written over": GATHER + IDS + EYE + "scores[0] = batch['x']\nself.mrr.update(scores, target, indexes=ids)",
    "a group": "x = self.all_gather(batch, group=self.group)\nself.mrr.update(x, x, indexes=x)",
    "on rank zero": GATHER + IDS + EYE + "if self.global_rank == 0:\n    self.mrr.update(scores, target, indexes=ids)",
    "copies that change nothing": GATHER + IDS + EYE + "self.hit.update(scores, target, indexes=ids)",
    "a mean": "self.mean.update(self.all_gather(batch))",
    "the value of the batch": GATHER + IDS + EYE + "v = self.recall(scores, target, indexes=ids)",
    "noise of each rank": GATHER + IDS + EYE + "self.mrr.update(scores + torch.randn(2), target, indexes=ids)",
}


# --- LRG207 and LRG301 ------------------------------------------------------------------------------------------

SCORES = "scores = self.model(batch['q'], batch['d'])\n"
UPDATE = "self.recall.update(scores, batch['y'], indexes={ids})  # lint: LRG301"

RESTARTING = [
    SCORES + UPDATE.format(ids="torch.arange(len(scores))[:, None].expand_as(scores)"),
    SCORES + UPDATE.format(ids="torch.arange(0, scores.shape[0]).repeat_interleave(4).to(self.device)"),
    SCORES + UPDATE.format(ids="torch.repeat_interleave(torch.arange(scores.size(0)), 4)"),
    SCORES + "n, k = scores.shape\n" + UPDATE.format(ids="torch.arange(n).unsqueeze(1).expand(n, k)"),
    "scores = (self.q(batch) * self.d(batch)).sum(dim=-1)\n" + UPDATE.format(ids="torch.arange(len(scores))"),
    "scores = batch.get('scores')\n" + UPDATE.format(ids="torch.arange(len(scores))"),
    "x, y = batch\nscores = F.normalize(self(x)) @ self.documents.T\n" + UPDATE.format(ids="torch.arange(len(scores))"),
    "scores = self.model(batch.q).sigmoid() / 0.1\nids = torch.arange(len(scores))\n" + UPDATE.format(ids="ids"),
    SCORES + "self.recall(scores, batch['y'], torch.arange(len(scores)))  # lint: LRG301",
    SCORES + "v = self.mrr(scores, scores, indexes=torch.arange(len(scores)))  # lint: LRG301\nself.log('m', self.mrr)",
    SCORES + UPDATE.format(ids="torch.full(scores.shape, batch_idx)"),
    SCORES + UPDATE.format(ids="torch.full_like(scores, fill_value=batch_idx)"),
    SCORES + UPDATE.format(ids="torch.tensor([batch_idx] * 4)"),
    SCORES + UPDATE.format(ids="torch.arange(len(scores)) + batch_idx * 8"),
    SCORES + "ids = torch.arange(len(scores))\nids += 8\n" + UPDATE.format(ids="ids"),
    SCORES + "m = RetrievalMRR()\nm.update(scores, scores, indexes=torch.arange(len(scores)))  # lint: LRG301\n"
    "self.log('m', m.compute())  # lint: LRG207",
    "m = RetrievalMRR().to(self.device)\nm.update(*batch)\nself.log('m', m.compute())  # lint: LRG207",
]

IN_STEP = [
    "self.mrr.update(*batch)\nself.log('m', self.mrr.compute())  # lint: LRG207",
    "self.mrr(*batch)\nvalue = self.mrr.compute()  # lint: LRG207\nself.log('m', value, prog_bar=True)",
    "self.all.update(*batch)\nself.log_dict(self.all.compute())  # lint: LRG207",
    "for metric in (self.mrr, self.hit):\n    self.log('m', metric.compute())  # lint: LRG207",
]
NOT_IN_EVERY_STEP = {
    "now and then": "if batch_idx % 100 == 0:\n    self.log('m', self.mrr.compute())",
    "on rank zero and elsewhere": "if self.global_rank == 0:\n    x = self.mrr.compute()\nself.log('m', self.mrr)",
    "sync off in a step": "self.local.update(*batch)\nx = self.local.compute()",
    "no retrieval": "self.mean.update(batch)\nself.log('m', self.mean.compute())",
}

GROWING = {
    "ids of the data": SCORES + UPDATE.format(ids="batch['id']"),
    "an offset": SCORES + UPDATE.format(ids="torch.arange(len(scores)) + self.first"),
    "an offset of the rank": SCORES + UPDATE.format(ids="torch.arange(len(scores)) + self.global_rank * 1000"),
    "a start": SCORES + UPDATE.format(ids="torch.arange(self.seen, self.seen + len(scores))"),
    "an offset added later": SCORES + "ids = torch.arange(len(scores))\nids += self.first\n" + UPDATE.format(ids="ids"),
    "an offset added in place": SCORES + "ids = torch.arange(len(scores))\nids.add_(8)\n" + UPDATE.format(ids="ids"),
    "topics": "scores = self.similarity(self.topics, batch['d'])\n" + UPDATE.format(ids="torch.arange(len(scores))"),
    "as many as topics": SCORES + UPDATE.format(ids="torch.arange(self.n_topics)"),
    "documents by topics": "scores = self.model(batch['d']).T\n" + UPDATE.format(ids="torch.arange(len(scores))"),
    "reset in the step": SCORES + UPDATE.format(ids="torch.arange(len(scores))") + "\nself.recall.reset()",
    "once in an epoch": SCORES + "if batch_idx == 0:\n    " + UPDATE.format(ids="torch.arange(len(scores))"),
    "ids of the value of the batch": SCORES
    + "self.log('r', self.recall(scores, scores, torch.arange(len(scores))), sync_dist=True)",
    "a rank of its own": SCORES + UPDATE.replace("recall", "local").format(ids="torch.full(scores.shape, batch_idx)"),
    "the index of the loader": SCORES + UPDATE.format(ids="torch.full(scores.shape, self.index)"),
    "a mask": SCORES + UPDATE.format(ids="torch.arange(len(scores))[batch['keep']]"),
    "an unknown metric": SCORES + UPDATE.replace("recall", "other").format(ids="torch.arange(len(scores))"),
    "made in the step, sync off": (
        SCORES
        + "m = RetrievalMRR(sync_on_compute=False)\nm.update(scores, scores, torch.arange(len(scores)))\nm.compute()"
    ),
    "another metric of the step": "m = MeanMetric()\nm.update(batch)\nself.log('m', m.compute())",
}


AT_END = "on_validation_epoch_end(self)"
FOUND = [
    *(in_step(body, head=AT_END).replace("batch", "self.batch") for body in GATHERED),
    *map(in_step, RESTARTING),
    *map(in_step, IN_STEP),
]
SILENT = {**NOT_GATHERED, **NOT_IN_EVERY_STEP, **GROWING}


@pytest.mark.parametrize("source", FOUND)
def test_it_is_found(source: str) -> None:
    assert places(source) == expected(source) != []


@pytest.mark.parametrize("body", SILENT.values(), ids=SILENT)
def test_it_is_silent(body: str) -> None:
    assert places(in_step(body)) == []


@pytest.mark.parametrize("body", IN_STEP)
def test_metrics_that_combine_ranks_elsewhere_are_silent(body: str) -> None:
    assert places(in_step(body, head="on_validation_epoch_end(self, batch)")) == []
    assert places(in_step(body, base="object")) == []


@pytest.mark.parametrize("head", ["on_validation_epoch_end(self)", "score(self, batch, batch_idx)"])
def test_ids_outside_of_a_step_are_silent(head: str) -> None:
    assert places(in_step(RESTARTING[0], head=head)) == []


def test_a_reset_between_epochs_says_nothing() -> None:
    source = in_step(RESTARTING[0]) + "\n    def on_validation_epoch_end(self):\n        self.recall.reset()\n"
    assert places(source) == expected(source) != []
    elsewhere = source.replace("on_validation_epoch_end", "on_validation_batch_end")
    assert places(elsewhere) == []


# --- LRG405 -----------------------------------------------------------------------------------------------------

HELD = [
    'self.held = {"mrr": RetrievalMRR(), "map": RetrievalMAP()}  # lint: LRG405',
    "self.held = [RetrievalRecall(top_k=k) for k in (1, 5)]  # lint: LRG405",
    'self.held = {"val": {k: RetrievalRecall(top_k=k) for k in (1, 5)}}  # lint: LRG405',
    "self.held = RetrievalMRR(), MeanMetric()  # lint: LRG405",
]
STEP = """
def validation_step(self, batch, batch_idx):
    for metric in self.held.values():
        metric.update(*batch)

def on_validation_epoch_end(self):
    self.held["mrr"].compute()
    self.log_dict({name: metric.compute() for name, metric in self.held.items()})
"""
ELSEWHERE = {
    "registered": "self.list = nn.ModuleList(self.held)",
    "registered by name": "self.add_module('m', self.held['mrr'])",
    "one as an attribute": "self.mrr_ = self.held['mrr']",
    "moved": "[m.to(self.device) for m in self.held]",
    "set again": "self.held = nn.ModuleDict()",
}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("base", ["LightningModule", "nn.Module"])
def test_metrics_in_a_plain_container_are_found(held: str, base: str) -> None:
    source = in_module(STEP, init=f"{INIT}    {held}\n", base=base)
    assert places(source) == expected(source) != []


NOT_HELD = [
    *(f"self.held = {{'mrr': RetrievalMRR()}}\n    {line}" for line in ELSEWHERE.values()),
    'self.held = nn.ModuleDict({"m": RetrievalMRR()})',
    "self.held = [self.mrr, self.recall]",
    "self.held = []",
    "self.held = [RetrievalMRR(), self.mrr]",
]


@pytest.mark.parametrize("held", NOT_HELD)
def test_metrics_that_are_also_elsewhere_are_silent(held: str) -> None:
    assert places(in_module(STEP, init=f"{INIT}    {held}\n")) == []


@pytest.mark.parametrize("base", ["Callback", "Base", "object"])
def test_other_classes_are_silent(base: str) -> None:
    assert places(in_module(STEP, init=f"{INIT}    {HELD[0]}\n", base=base)) == []
