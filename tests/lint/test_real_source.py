"""Patterns of public projects, each in several spellings, and right twins of each that stay silent."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent, indent

import pytest

from lightning_retrieval_guard.lint.source import _read

from .snippets import HEAD, expected, in_module, places

INIT = """
def __init__(self, world_size=1):
    super().__init__()
    metrics = MetricCollection({"mrr": RetrievalMRR(), "recall": RetrievalRecall(top_k=2)})
    self.val_metrics = metrics.clone(prefix="val_")
    self.train_metrics = metrics.clone(prefix="train_")
    self.val_mrr, self.test_mrr = RetrievalMRR(), RetrievalMRR()
    self.local = RetrievalMRR(sync_on_compute=False)
    self.by_loader = nn.ModuleList([RetrievalMRR() for _ in range(2)])
    self.by_stage = nn.ModuleDict({"val": RetrievalMRR(), "test": RetrievalMRR()})
    self.made = self.make_metrics("made")
    self.world_size = world_size
    self.seen = []
    self.kept = {key: [] for key in ("scores", "y", "sizes")}

def make_metrics(self, prefix):
    return MetricCollection([RetrievalMRR(), RetrievalMAP()], prefix=prefix)
"""
FUNCTIONAL = """
from torch_geometric.utils import to_dense_batch
from torchmetrics.functional import pairwise_cosine_similarity
from torchmetrics.functional.retrieval import retrieval_normalized_dcg, retrieval_reciprocal_rank
"""


def module(body: str, **parts: str) -> str:
    return in_module(body, init=INIT, head=HEAD + FUNCTIONAL, **parts)


def step(body: str, head: str = "validation_step(self, batch, batch_idx)") -> str:
    return module(f"def {head}:\n" + indent(dedent(body).strip("\n"), "    ") + "\n")


def epoch_end(body: str, seen: str) -> str:
    keep = f"def validation_step(self, batch, batch_idx):\n    scores = self.model(batch['q'])\n    {seen}\n"
    return module(
        keep + "def on_validation_epoch_end(self):\n" + indent(dedent(body).strip("\n"), "    ") + "\n" + HELPERS
    )


HELPERS = """
def _collect(self, seen, key):
    return torch.cat([own[key] for own in seen])

def _keep(self, kept, values):
    for key in kept.keys():
        kept[key].append(values.get(key, []))
    return kept

def _of(self, kept, key):
    if key not in kept.keys():
        raise AttributeError(key)
    return torch.cat([own for own in kept[key]])

def _scored(self, batch):
    y, mask = to_dense_batch(batch["y"], batch["of"])
    sizes = torch.tensor([torch.where(mask[n])[0].shape[0] for n in range(mask.shape[0])])
    return torch.cat([y[n][mask[n]] for n in range(mask.shape[0])], dim=0), sizes

def _gathered(self, seen, key):
    return self.all_gather(torch.cat([own[key] for own in seen])).flatten(0, 1)
"""
SEEN = "self.seen.append({'s': scores, 'y': batch['y'], 'n': batch['n']})"
CAT = "s = torch.cat([o['s'] for o in self.seen])\ny = torch.cat([o['y'] for o in self.seen])\n"

AT_EPOCH_END = {
    "a helper and keywords through a dict": epoch_end(
        CAT + "n = self._collect(self.seen, 'n')\nids = torch.arange(n.shape[0]).repeat_interleave(n)\n"
        "self.val_metrics(s, y, **{'indexes': ids})  # lint: LRG301\nself.log_dict(self.val_metrics)",
        SEEN,
    ),
    "an expanded column, by position": epoch_end(
        CAT + "i = torch.arange(len(s))[:, None].expand_as(s)\nself.val_mrr.update(s, y, i)  # lint: LRG301\n"
        "self.log('mrr', self.val_mrr.compute())",
        SEEN,
    ),
    "tuples": epoch_end(
        "s = torch.cat([a for a, b in self.seen])\nids = torch.arange(s.size(0)).unsqueeze(1).expand(s.shape)\n"
        "self.made.update(s, s, indexes=ids)  # lint: LRG301\nself.log_dict(self.made.compute())",
        "self.seen.append((scores, batch['y']))",
    ),
    "a dictionary of lists, filled with locals()": epoch_end(
        "n = torch.cat([own for own in self.kept['sizes']])\nids = torch.arange(n.shape[0]).repeat_interleave(n)\n"
        "self.val_metrics(n, n, indexes=ids)  # lint: LRG301\nself.log_dict(self.val_metrics)",
        "y, sizes = batch['y'], batch['n']\n    self.kept = self._keep(self.kept, locals())",
    ),
    "lists under keys of a configuration": epoch_end(
        "n = self._of(self.kept, 'sizes')\nids = torch.arange(n.shape[0]).repeat_interleave(n)\n"
        "self.val_metrics(self._of(self.kept, 'y'), n, **{'indexes': ids})  # lint: LRG301\n"
        "self.log_dict(self.val_metrics)",
        "y, sizes = self._scored(batch)\n    self.kept = self._keep(kept=self.kept, values=locals())",
    ).replace('for key in ("scores", "y", "sizes")', "for key in self.hparams.outputs['val']"),
    "a metric made at the end": epoch_end(
        CAT + "m = RetrievalMRR()\nm.update(s, y, indexes=torch.arange(len(s)))  # lint: LRG301\n"
        "self.log('m', m.compute())",
        SEEN,
    ),
    "a dictionary that makes its lists": epoch_end(
        "s = torch.cat(self.held['s'])\nself.val_mrr.update(s, s, torch.arange(len(s)))  # lint: LRG301\n"
        "self.log('m', self.val_mrr)",
        "self.held['s'].append(scores)",
    )
    .replace("import torch", "import torch\nfrom collections import defaultdict", 1)
    .replace("self.seen = []", "self.seen, self.held = [], defaultdict(list)"),
    "outputs of old hooks": module(
        "def validation_epoch_end(self, outputs):\n    n = torch.cat([o['n'] for o in outputs])\n"
        "    ids = torch.arange(n.shape[0]).repeat_interleave(n)\n    self.val_mrr(n, n, indexes=ids)  # lint: LRG301\n"
        "    self.log('m', self.val_mrr)\n"
    ),
}
RIGHT_AT_EPOCH_END = {
    "ids of the data": epoch_end(CAT + "self.val_mrr.update(s, y, indexes=self._collect(self.seen, 'n'))", SEEN),
    "a metric that does not sync": epoch_end(CAT + "self.local.update(s, y, indexes=torch.arange(len(s)))", SEEN),
    "an offset of the rank": epoch_end(
        CAT + "ids = torch.arange(len(s)) + self.global_rank * 1000000\nself.val_mrr.update(s, y, indexes=ids)", SEEN
    ),
    "topics, which every rank has": epoch_end(CAT + "self.val_mrr.update(s, y, torch.arange(self.topics))", SEEN),
    "gathered by a helper that is not known": epoch_end(
        "n = self.sizes(self.kept, 'sizes')\nids = torch.arange(n.shape[0]).repeat_interleave(n)\n"
        "self.val_metrics(n, n, indexes=ids)\nself.log_dict(self.val_metrics)",
        "y, sizes = self._scored(batch)\n    self.kept = self._keep(self.kept, locals())",
    ),
    "one device": epoch_end(CAT + "self.val_mrr.update(s, y, indexes=torch.arange(len(s)))", SEEN)
    + "\n\ntrainer = Trainer(devices=1)\n",
    "a test for the number of processes": epoch_end(
        CAT + "assert self.trainer.world_size == 1\nself.val_mrr.update(s, y, indexes=torch.arange(len(s)))", SEEN
    ),
    "a helper that is not known": epoch_end(
        "n = self.collect_all(self.seen)\nself.val_mrr.update(n, n, indexes=torch.arange(len(n)))", SEEN
    ),
}

SHARDS = {
    "in the call": step("self.log('mrr', self.val_mrr(batch['s'], batch['y'], indexes=batch['qid']))  # lint: LRG203"),
    "a collection and a constant weight": step(
        "s, y, q = batch\nvalues = self.val_metrics(s, y, indexes=q)\n"
        "self.log_dict(values, batch_size=1)  # lint: LRG203 LRG302"
    ),
    "renamed": step(
        "values = self.made(*batch)\nself.log_dict({f'x/{k}': v for k, v in values.items()})  # lint: LRG203"
    ),
    "one of a collection": step(
        "v = self.made(*batch)['RetrievalMAP']\nself.log('x', v, on_epoch=True)  # lint: LRG203"
    ),
    "by a method": module(
        "def validation_step(self, batch, i):\n    self._log(self.val_mrr(*batch))\n"
        "def _log(self, value):\n    self.log('mrr', value)  # lint: LRG203\n"
    ),
    "at the end of the epoch": epoch_end(CAT + "self.log('m', self.val_mrr(s, y, y))  # lint: LRG203", SEEN),
    "to the logger": epoch_end(
        CAT + "v = self.val_mrr(s, y, indexes=y)\nself.logger.log_metrics({'m': v, 'epoch': 1})  # lint: LRG203", SEEN
    ),
}
SHARDS |= {
    "by hand": epoch_end(CAT + "self.log('mrr', (1 / s).mean())  # lint: LRG203", SEEN),
    "by hand, as a number": epoch_end(CAT + "self.log('hit', (s <= 3).float().mean().item())  # lint: LRG203", SEEN),
    "by hand, beside a barrier": epoch_end(CAT + "dist.barrier()\nself.log('mrr', s.mean())  # lint: LRG203", SEEN),
    "by hand, from outputs": module(
        "def validation_epoch_end(self, outputs):\n    values = [o['mrr'] for o in outputs]\n"
        "    self.log('mrr', sum(values) / len(values), prog_bar=True)  # lint: LRG203\n"
    ),
}
RIGHT_SHARDS = {
    "by hand, synced": epoch_end(CAT + "self.log('mrr', (1 / s).mean(), sync_dist=True)", SEEN),
    "by hand, gathered": epoch_end(CAT + "self.log('mrr', (1 / self.all_gather(s)).mean())", SEEN),
    "by hand, by a helper that may gather": epoch_end(CAT + "self.log('mrr', self.reduce_mean(s))", SEEN),
    "by hand, rank zero's is wanted": epoch_end(CAT + "self.log('mrr', s.mean(), rank_zero_only=True)", SEEN),
    "by hand, summed in place": epoch_end(
        CAT + "hits = (s > 0).sum()\ndist.all_reduce(hits)\nself.log('hits', hits)", SEEN
    ),
    "by hand, gathered in place": epoch_end(
        CAT + "parts = [torch.empty_like(s), torch.empty_like(s)]\nwork = dist.all_gather(parts, s, async_op=True)\n"
        "work.wait()\nself.log('mrr', torch.cat(parts).mean())",
        SEEN,
    ),
    "by hand, summed by a helper": epoch_end(CAT + "utils.all_reduce_(s)\nself.log('mrr', s.mean())", SEEN),
    "by hand, a loss": epoch_end(CAT + "self.log('val_loss', s.mean())", SEEN),
    "by hand, no data": epoch_end(CAT + "self.log('epoch', float(self.current_epoch))", SEEN),
    "synced": step("self.log('mrr', self.val_mrr(*batch), sync_dist=True)"),
    "synced by position": step("self.log('mrr', self.val_mrr(*batch), 0, 1, False, True, 'mean', False, True)"),
    "of the step, by position": step("self.log('mrr', self.val_mrr(*batch), True, True, True, False)"),
    "perhaps synced": step("self.log('mrr', self.val_mrr(*batch), sync_dist=self.sync)"),
    "of the step": step("self.log('mrr', self.val_mrr(*batch), on_step=True, on_epoch=False)"),
    "of the training": step("self.log('mrr', self.val_mrr(*batch))", head="training_step(self, batch, batch_idx)"),
    "the object": step("self.val_mrr(*batch)\nself.log('mrr', self.val_mrr)"),
    "of gathered rows": step("s = self.all_gather(batch)\nself.log('mrr', self.val_mrr(s, s, indexes=s))"),
    "combined in the step": step("m = RetrievalMRR(dist_sync_on_step=True)\nself.log('mrr', m(*batch))"),
    "reduced in place": step("v = self.val_mrr(*batch)\ndist.all_reduce(v)\nself.log('mrr', v / 2)"),
    "reduced by hand": step("v = self.trainer.strategy.reduce(self.val_mrr(*batch))\nself.log('mrr', v)"),
    "combined, to the logger": epoch_end("self.logger.log_metrics({'m': self.val_mrr.compute()})", SEEN),
}

OFFSETS = {
    "the batch's own size": step(
        "scores = self.model(batch)\nn = len(batch)\n"
        "ids = torch.arange(n * batch_idx, n * (batch_idx + 1))[:, None].expand_as(scores)\n"
        "self.val_mrr.update(scores, batch['y'], indexes=ids)  # lint: LRG301"
    ),
    "a start and an end": step(
        "s = batch['s']\nfirst = batch_idx * s.shape[0]\n"
        "self.val_mrr.update(s, s, torch.arange(first, first + s.shape[0]))  # lint: LRG301"
    ),
    "added": step("s = batch['s']\nself.made.update(s, s, torch.arange(len(s)) + 64 * batch_idx)  # lint: LRG301"),
    "filled": step("s = batch['s']\nself.val_mrr.update(s, s, torch.ones_like(s) * batch_idx)  # lint: LRG301"),
}
RIGHT_OFFSETS = {
    "the batch of all ranks": step(
        "s = batch['s']\nfirst = (batch_idx * self.world_size + self.global_rank) * 64\n"
        "self.val_mrr.update(s, s, torch.arange(first, first + len(s)))"
    ),
    "not combined": step("s = batch['s']\nself.local.update(s, s, torch.arange(len(s)) + 64 * batch_idx)"),
    "once": step("s = batch['s']\nif batch_idx == 0:\n    self.val_mrr.update(s, s, torch.arange(len(s)))"),
    "of the data": step("s = batch['s']\nself.val_mrr.update(s, s, batch['first'] + torch.arange(len(s)))"),
}

FEED = "s = self.model(batch)\nids = torch.arange(len(s))\n"
HOLDERS = {
    "a list": step(
        FEED + "self.by_loader[dataloader_idx].update(s, s, indexes=ids)  # lint: LRG301",
        head="validation_step(self, batch, batch_idx, dataloader_idx=0)",
    ),
    "a dictionary": step(FEED + 'self.by_stage["val"](s, s, indexes=ids)  # lint: LRG301'),
    "a name": module(
        "def validation_step(self, batch, batch_idx):\n    return self._shared_step(batch, batch_idx, 'val')\n"
        "def _shared_step(self, batch, i, stage):\n    s = self.model(batch)\n    ids = torch.arange(len(s))\n"
        "    getattr(self, f'{stage}_mrr')(s, s, indexes=ids)  # lint: LRG301\n"
        "    self.by_stage[stage](s, s, ids)  # lint: LRG301\n"
    ),
    "a loop": step(
        FEED + "for name, metric in self.val_metrics.items():\n    metric.update(s, s, indexes=ids)  # lint: LRG301\n"
        "    self.log(name, metric)"
    ),
    "a counted loop": step(
        FEED + "for i, m in enumerate(self.by_loader):\n    m.update(s, s, indexes=ids)  # lint: LRG301"
    ),
    "a loop over a list": step(FEED + "for m in self.by_loader:\n    m.update(s, s, ids)  # lint: LRG301"),
    "a helper that builds": step(FEED + "self.made.update(s, s, indexes=ids)  # lint: LRG301"),
    "ids of a method": module(
        "def validation_step(self, batch, batch_idx):\n    s = self(batch)\n"
        "    self.val_mrr.update(s, s, indexes=self.ids(s))  # lint: LRG301\n"
        "def ids(self, x):\n    return torch.arange(x.size(0), device=x.device)[:, None].expand_as(x)\n"
    ),
}
RIGHT_HOLDERS = {
    "one of them does not sync": step(
        "for m in (self.local, self.local):\n    m.update(batch, batch, torch.full((4,), batch_idx))"
    ),
    "ids of a method": module(
        "def validation_step(self, batch, batch_idx):\n    s = self(batch)\n"
        "    self.val_mrr.update(s, s, indexes=self.ids(batch))\n"
        "def ids(self, batch):\n    return batch['id'][:, None].expand_as(batch['y'])\n"
    ),
    "a list of something else": step(FEED + "self.layers[0].update(s, s, indexes=ids)"),
    "a name that is not known": step(FEED + "getattr(self, batch['name'])(s, s, indexes=ids)"),
    "another stage": module(
        "def validation_step(self, batch, batch_idx):\n    self._step(batch, 'val')\n"
        "def _step(self, batch, stage):\n    s = self.model(batch)\n    if stage == 'test':\n"
        "        self.val_mrr.update(s, s, indexes=torch.arange(len(s)))\n"
    ),
}

WEIGHT = "self.log('l', batch.mean(), batch_size={size}, sync_dist=True)  # lint: LRG101"
WEIGHTS = {
    "a parameter": step(WEIGHT.format(size="len(batch) * self.world_size")),
    "a name": step("n = self.world_size * len(batch)\n" + WEIGHT.format(size="n")),
    "a method": module(
        "def validation_step(self, batch, batch_idx):\n    " + WEIGHT.format(size="self._size(batch)") + "\n"
        "def _size(self, batch):\n    return batch.shape[0] * self.world_size\n"
    ),
}
RIGHT_WEIGHTS = {
    "divided": step("self.log('l', batch.mean(), batch_size=self.total // self.world_size, sync_dist=True)"),
    "a parameter that is no number of devices": step("self.log('l', batch.mean(), batch_size=8 * self.width)"),
    "gathered rows that copies do not change": step(
        "s = self.all_gather(batch)\nm = RetrievalHitRate(top_k=1)\nm.update(s, s, indexes=s)\n"
        "self.log('l', batch.mean(), batch_size=8 * self.world_size)"
    ),
}

BATCHES = {
    "a product": step(
        "q, d = self.encode(batch)\nscores = q @ d.T\ny = torch.eye(len(scores))\n"
        "self.log('n', retrieval_normalized_dcg(scores, y), sync_dist=True)  # lint: LRG306"
    ),
    "mm": step(
        "s = torch.mm(self.q(batch), self.d(batch).t())\nretrieval_reciprocal_rank(s.sigmoid(), s > 0)  # lint: LRG306"
    ),
    "pairs": step(
        "s = pairwise_cosine_similarity(*batch)\nretrieval_reciprocal_rank(preds=s, target=s)  # lint: LRG306"
    ),
    "einsum": step("s = torch.einsum('qd,kd->qk', *batch)\nretrieval_reciprocal_rank(s, s)  # lint: LRG306"),
}
RIGHT_BATCHES = {
    "each query": step(
        "s = self.q(batch) @ self.d(batch).T\n"
        "v = [retrieval_reciprocal_rank(a, b) for a, b in zip(s, batch['y'])]\n"
        "self.log('n', torch.stack(v).mean(), sync_dist=True)"
    ),
    "one query": step("s = (self.q(batch) @ self.d(batch).T)[0]\nretrieval_reciprocal_rank(s, s > 0)"),
    "perhaps one query": step("for q in batch['q']:\n    retrieval_reciprocal_rank(q @ batch['d'].T, batch['y'])"),
    "flat": step("s = (self.q(batch) @ self.d(batch).T).flatten()\nretrieval_reciprocal_rank(s, s > 0)"),
}

CALLBACK = """
class Evaluate(Callback):
    def __init__(self):
        {store}
        self.seen = []
{body}
"""
CALLBACKS = {
    "fed in the batch hook": (
        "self.mrr = RetrievalMRR()  # lint: LRG405",
        "def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):\n"
        "    s = outputs['s']\n    self.mrr.update(s, batch['y'], indexes=torch.arange(len(s)))  # lint: LRG301",
    ),
    "fed at the end": (
        "self.mrr = RetrievalMRR()  # lint: LRG405",
        "def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):\n"
        "    self.seen.append(outputs)\n"
        "def on_validation_epoch_end(self, trainer, pl_module):\n    s = torch.cat([o['s'] for o in self.seen])\n"
        "    ids = torch.arange(len(s))\n    self.mrr.update(s, s, indexes=ids)  # lint: LRG301\n"
        "    pl_module.log('mrr', self.mrr.compute())",
    ),
    "its value to the logger": (
        "self.mrr = RetrievalMRR()  # lint: LRG405",
        "def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):\n"
        "    trainer.logger.log_metrics({'m': self.mrr(outputs, batch['y'], indexes=batch['q'])})  # lint: LRG203",
    ),
}
RIGHT_CALLBACKS = {
    "moved": (
        "self.mrr = RetrievalMRR()",
        "def setup(self, trainer, pl_module, stage):\n    self.mrr.to(pl_module.device)\n"
        "def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):\n"
        "    self.mrr.update(*batch)",
    ),
    "the module's": (
        "self.mrr = None",
        "def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):\n"
        "    pl_module.mrr.update(*batch)",
    ),
    "combined": (
        "self.mrr = None",
        "def on_validation_epoch_end(self, trainer, pl_module):\n"
        "    trainer.logger.log_metrics({'m': pl_module.mrr.compute()})",
    ),
}


def in_callback(case: tuple[str, str]) -> str:
    return HEAD + CALLBACK.format(store=case[0], body=indent(case[1], "    "))


FOUND = {
    **{f"LRG301 at the end: {name}": source for name, source in AT_EPOCH_END.items()},
    **{f"LRG203: {name}": source for name, source in SHARDS.items()},
    **{f"LRG301 with an offset: {name}": source for name, source in OFFSETS.items()},
    **{f"LRG301 by {name}": source for name, source in HOLDERS.items()},
    **{f"LRG101: {name}": source for name, source in WEIGHTS.items()},
    **{f"LRG306: {name}": source for name, source in BATCHES.items()},
    **{f"a callback: {name}": in_callback(source) for name, source in CALLBACKS.items()},
}
SILENT = {
    **{f"LRG301 at the end: {name}": source for name, source in RIGHT_AT_EPOCH_END.items()},
    **{f"LRG203: {name}": source for name, source in RIGHT_SHARDS.items()},
    **{f"LRG301 with an offset: {name}": source for name, source in RIGHT_OFFSETS.items()},
    **{f"LRG301 by {name}": source for name, source in RIGHT_HOLDERS.items()},
    **{f"LRG101: {name}": source for name, source in RIGHT_WEIGHTS.items()},
    **{f"LRG306: {name}": source for name, source in RIGHT_BATCHES.items()},
    **{f"a callback: {name}": in_callback(source) for name, source in RIGHT_CALLBACKS.items()},
}


@pytest.mark.parametrize("source", FOUND.values(), ids=FOUND)
def test_it_is_found_at_its_line(source: str) -> None:
    assert places(source) == expected(source) != []


@pytest.mark.parametrize("source", SILENT.values(), ids=SILENT)
def test_its_right_twin_is_silent(source: str) -> None:
    assert places(source) == []


BASE = """
import torch
from lightning.pytorch import LightningModule

class Base(LightningModule):
    def __init__(self):
        super().__init__()
        self.seen = []

    def collect(self, key):
        return torch.cat([own[key] for own in self.seen])
"""
MODEL = """
class Model(Base):
    def __init__(self):
        super().__init__()
        self.mrr = RetrievalMRR()

    def validation_step(self, batch, batch_idx):
        self.seen.append({"s": self(batch)})

    def on_validation_epoch_end(self):
        s = self.collect("s")
        self.mrr.update(s, s, indexes=torch.arange(len(s)))  # lint: LRG301
        self.log("mrr", self.mrr)
"""


@pytest.mark.parametrize("imported", ["from ..base import Base", "from own.base import Base", "from own import Base"])
def test_a_base_class_of_another_file_is_followed(tmp_path: Path, imported: str) -> None:
    source = f"import torch\nfrom torchmetrics.retrieval import RetrievalMRR\n{imported}\n{MODEL}"
    (tmp_path / "own" / "models").mkdir(parents=True)
    (tmp_path / "own" / "__init__.py").write_text("from .base import Base\n")
    path = tmp_path / "own" / "models" / "model.py"
    (tmp_path / "own" / "base.py").write_text(BASE)
    assert places(source, str(path)) == expected(source)
    assert places(source) == []
    (tmp_path / "own" / "base.py").write_text(BASE.replace("torch.cat(", "self.all_gather("))
    _read.cache_clear()
    assert [code for _, code in places(source, str(path))] == ["LRG201"]


HOLDER = """
from lightning.pytorch import LightningModule
from torchmetrics.retrieval import RetrievalMRR

class Base(LightningModule):
    def __init__(self):
        super().__init__()
        self.held = {"mrr": RetrievalMRR()}
"""


def test_what_a_class_of_another_file_holds_is_found_there_and_may_be_read_here(tmp_path: Path) -> None:
    (tmp_path / "base.py").write_text(HOLDER)
    reading = "class Model(Base):\n    def setup(self, stage):\n        print(len(self.held.values()))\n"
    source = f"from base import Base\nfrom torchmetrics.retrieval import RetrievalMRR\n\n{reading}"
    assert places(source, str(tmp_path / "model.py")) == []
    assert places(HOLDER, str(tmp_path / "base.py")) == [(8, "LRG405")]
