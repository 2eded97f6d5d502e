"""LRG204: compute() on rank zero alone."""

from __future__ import annotations

import pytest

from .snippets import expected, in_module, in_step, places

END = "on_validation_epoch_end(self)"

FOUND = [
    "if self.trainer.is_global_zero:\n    print(self.recall.compute())  # lint: LRG204",
    "if self.global_rank == 0 and self.verbose:\n    print(self.recall.compute())  # lint: LRG204",
    "if dist.get_rank() != 0:\n    return\nprint(self.recall.compute())  # lint: LRG204",
    "if not self.trainer.is_global_zero:\n    pass\nelse:\n    x = self.mrr.compute()  # lint: LRG204",
    "rank = dist.get_rank()\nif rank == 0:\n    print(self.all.compute())  # lint: LRG204",
    "x = self.recall.compute() if self.local_rank == 0 else None  # lint: LRG204",
    "self.trainer.is_global_zero and print(self.recall.compute())  # lint: LRG204",
    "if not self.global_rank:\n    for _ in range(2):\n        self.recall.compute()  # lint: LRG204",
    "if self.trainer.is_global_zero:\n    m = RetrievalMRR()\n    m.update(1, 2, 3)\n    m.compute()  # lint: LRG204",
]

SILENT = {
    "the value of before": "x = self.mrr.compute()\nif self.trainer.is_global_zero:\n    print(self.mrr.compute())",
    "logged as an object": 'self.log("r", self.recall)\nif self.trainer.is_global_zero:\n    self.recall.compute()',
    "of the rank alone": "if self.trainer.is_global_zero:\n    print(self.local.compute())",
    "an unknown metric": "if self.trainer.is_global_zero:\n    print(self.other.compute())",
    "every rank": "if self.trainer.is_global_zero:\n    print(1)\nself.recall.compute()",
    "another test": "if self.global_rank == 1 or self.verbose:\n    self.recall.compute()",
    "one of two reasons": "if self.trainer.is_global_zero or self.verbose:\n    self.recall.compute()",
    "one process": "if self.trainer.is_global_zero and self.trainer.world_size == 1:\n    self.recall.compute()",
    "no process group": "if dist.is_initialized():\n    return\nif self.global_rank == 0:\n    self.recall.compute()",
    "both branches": "if self.global_rank == 0:\n    self.recall.compute()\nelse:\n    self.recall.compute()",
    "sync switched off": "self.recall.sync_on_compute = False\nif self.global_rank == 0:\n    self.recall.compute()",
}


@pytest.mark.parametrize("body", FOUND)
def test_it_is_found(body: str) -> None:
    source = in_step(body, head=END)
    assert places(source) == expected(source) != []


@pytest.mark.parametrize("body", SILENT.values(), ids=SILENT)
def test_it_is_silent(body: str) -> None:
    assert places(in_step(body, head=END)) == []


def test_a_decorator_is_a_test() -> None:
    source = in_module(
        """
        @rank_zero_only
        def show(self):
            print(self.recall.compute())  # lint: LRG204
        """
    )
    assert places(source) == expected(source) != []


@pytest.mark.parametrize(
    "second",
    [
        "self.recall = RetrievalRecall(top_k=2, sync_on_compute=False)",
        "setattr(self, 'recall', None)",
        "model.recall = None",
    ],
)
def test_an_attribute_that_is_set_twice_is_silent(second: str) -> None:
    assert places(in_step(f"{second}\n{FOUND[0]}", head=END)) == []


@pytest.mark.parametrize("argument", ["**options", "process_group=group", "sync_on_compute=flag"])
def test_a_metric_whose_sync_is_not_certain_is_silent(argument: str) -> None:
    body = f"if self.trainer.is_global_zero:\n    m = RetrievalMRR({argument})\n    m.compute()"
    assert places(in_step(body, head=END)) == []
