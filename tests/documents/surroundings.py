"""Where a piece of a program that a page shows is run: a module in a validation, and the names that pages use."""

from __future__ import annotations

import ast
import functools
import textwrap
import warnings
from typing import Any

import lightning.pytorch
import torch
from lightning.pytorch import LightningModule
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection, retrieval
from torchmetrics.functional.retrieval import retrieval_normalized_dcg

from lightning_retrieval_guard import GuardWarning, RetrievalGuard

ONE_CPU = {
    "accelerator": "cpu",
    "devices": 1,
    "strategy": "auto",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


class Trainer(lightning.pytorch.Trainer):
    """A Trainer with one device in this process, whatever a page asks for, and without output."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, **ONE_CPU})

    validate = functools.partialmethod(lightning.pytorch.Trainer.validate, verbose=False)
    test = functools.partialmethod(lightning.pytorch.Trainer.test, verbose=False)


class Module(LightningModule):
    """What pages call `self`: metrics, and the names that a step computes."""

    batch_size = 4

    def __init__(self) -> None:
        super().__init__()
        self.metrics: Any = None
        for name in ("mrr", "recall", "map", "ndcg", "hit_rate"):
            setattr(self, name, retrieval.RetrievalMRR())
        self.queries, self.documents = [torch.rand(3, 8)], [torch.rand(3, 8)]
        self.recalls = torch.nn.ModuleList([retrieval.RetrievalRecall(top_k=1)])

    def loss(self, batch: Any) -> torch.Tensor:
        return batch["scores"].mean()

    def rank(self, batch: Any) -> tuple[torch.Tensor, ...]:
        return batch["scores"], batch["target"], batch["index"][:, None].expand(-1, 5)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        for metric in (self.mrr, self.recall, self.map, self.ndcg, self.hit_rate):
            metric.update(*self.rank(batch))

    test_step = validation_step

    def val_dataloader(self) -> DataLoader[Any]:
        return loader()

    test_dataloader = val_dataloader


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.arange(10)), batch_size=4, collate_fn=collate)


def collate(samples: list[tuple[torch.Tensor]]) -> dict[str, torch.Tensor]:
    index = torch.stack([sample[0] for sample in samples])
    scores = (torch.arange(5) * 7 + index[:, None] * 3) % 11 / 12 + 0.01
    return {"index": index, "scores": scores, "target": torch.arange(5) == index[:, None] % 5, "labels": index}


def names(batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What pages use without saying where it comes from."""
    scores, target = batch["scores"], batch["target"]
    query, document = torch.rand(len(scores), 8), torch.rand(5, 8)
    loss = scores.mean()
    return {
        "acc": loss,
        "document": document,
        "documents": document,
        "embeddings": query,
        "ids": batch["index"][:, None].expand_as(scores),
        "labels": batch["labels"],
        "loss": loss,
        "queries": query,
        "query": query,
        "scores": scores,
        "target": target,
        "values": {"val_a": loss, "val_b": loss},
    }


def namespace() -> dict[str, Any]:
    """The names of a page: what a user has imported, a guard, and one batch."""
    dataset = TensorDataset(torch.arange(10))
    return {
        **{name: getattr(retrieval, name) for name in dir(retrieval) if name.startswith("Retrieval")},
        **names(next(iter(loader()))),
        "batch": next(iter(loader())),
        "DataLoader": functools.partial(DataLoader, collate_fn=collate),
        "F": functional,
        "GuardWarning": GuardWarning,
        "LightningModule": LightningModule,
        "MetricCollection": MetricCollection,
        "RetrievalGuard": RetrievalGuard,
        "Trainer": Trainer,
        "dataset": dataset,
        "guard": RetrievalGuard(),
        "loader": loader(),
        "model": Module(),
        "retrieval_normalized_dcg": retrieval_normalized_dcg,
        "torch": torch,
        "warnings": warnings,
    }


# A step that has fed the metrics, and knows the names for its own batch.
STEP = f"""\
def validation_step(self, batch, batch_idx):
    super().validation_step(batch, batch_idx)
    {", ".join(names(next(iter(loader()))))}, = names(batch).values()
"""


def run(source: str, filename: str, known: dict[str, Any]) -> None:
    """Run a piece of a program: methods in a module, statements about `self` in its step, others as they are.

    Args:
        source: The piece.
        filename: What a traceback calls it.
        known: The names that it may use, and where it leaves its own.
    """
    tree = ast.parse(source)
    if all(isinstance(node, ast.FunctionDef) and node.args.args[:1] for node in tree.body) and "(self" in source:
        _run_methods(source, filename, known)
    elif "self" in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} and "class " not in source:
        _run_methods(STEP + textwrap.indent(source, "    "), filename, known)
    else:
        exec(compile(source, filename, "exec"), known)


def _run_methods(source: str, filename: str, known: dict[str, Any]) -> None:
    scope = {**known, "Module": Module, "names": names}
    exec(compile(f"class Snippet(Module):\n{textwrap.indent(source, '    ')}", filename, "exec"), scope)
    Trainer(callbacks=[known["guard"]]).validate(scope["Snippet"]())
