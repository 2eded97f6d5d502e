"""LRG101, LRG202 and LRG204: weights and reductions of log calls, and compute() on rank zero alone."""

from __future__ import annotations

import pytest

from .snippets import expected, in_module, in_step
from .snippets import places as all_places


def places(source: str) -> list[tuple[int, str]]:
    """What is found, but for the note on metrics that are computed in steps, which is no matter of log calls."""
    return [place for place in all_places(source) if place[1] != "LRG207"]


LOGGED = [
    'self.log("loss", batch["loss"].mean(), batch_size=8 * self.trainer.world_size)  # lint: LRG101',
    'self.log("loss", F.mse_loss(batch, batch), batch_size=self.factor * len(batch))  # lint: LRG101',
    'self.log("loss", 0.5, on_epoch=True, batch_size=int(8 * dist.get_world_size()))  # lint: LRG101',
    'n = len(batch)\nsize = n * torch.cuda.device_count()\nself.log("loss", 1.0, batch_size=size)  # lint: LRG101',
    'loss, _ = self.loss(batch)\nself.log("loss", loss, batch_size=4 * self.trainer.num_devices)  # lint: LRG101',
    'self.log_dict({"loss": torch.ones(1)}, batch_size=len(batch) * self.trainer.world_size / 1)  # lint: LRG101',
    'self.log("loss", self.loss(batch), sync_dist=True, rank_zero_only=True)  # lint: LRG204',
    'sync = True\nself.log("loss", batch.mean() * 2, sync_dist=sync, rank_zero_only=sync)  # lint: LRG204',
    'self.log("r", self.recall.compute(), sync_dist=True, reduce_fx="sum")  # lint: LRG202',
    'value = self.mrr.compute()\nself.log("r", value, sync_dist=True, reduce_fx=torch.sum)  # lint: LRG202',
    'self.log_dict(self.all.compute(), sync_dist=True, reduce_fx="SUM")  # lint: LRG202',
]

NOT_LOGGED = {
    "divided again": 'self.log("loss", 1.0, batch_size=8 * self.trainer.world_size // self.trainer.world_size)',
    "the share of a global batch": 'self.log("loss", 1.0, batch_size=self.total // self.trainer.world_size)',
    "a share times the devices": (
        'own = self.total // self.trainer.world_size\nself.log("loss", 1.0, batch_size=own * self.trainer.world_size)'
    ),
    "not a product": 'self.log("loss", 1.0, batch_size=self.trainer.world_size)',
    "a metric object": 'self.log("r", self.recall, batch_size=8 * self.trainer.world_size)',
    "perhaps a metric object": 'self.log("r", self.other, batch_size=8 * self.trainer.world_size)',
    "an item of a collection": 'self.log("r", self.metrics["r"], batch_size=8 * self.trainer.world_size)',
    "perhaps a metric of a method": 'self.log("r", self.get_metric("r"), batch_size=8 * self.trainer.world_size)',
    "a sum": 'self.log("n", 1.0, reduce_fx="sum", batch_size=8 * self.trainer.world_size)',
    "of the step alone": 'self.log("n", 1.0, on_epoch=False, batch_size=8 * self.trainer.world_size)',
    "another logger": 'self.logger.log("n", 1.0, batch_size=8 * self.trainer.world_size)',
    "one of several branches": (
        'size = 8\nif batch:\n    size = 8 * self.trainer.world_size\nself.log("n", 1.0, batch_size=size)'
    ),
    "a test for devices": (
        'if self.trainer.world_size == 1:\n    self.log("n", 1.0, batch_size=8 * self.trainer.world_size)'
    ),
    "arguments that are not spelled out": (
        'self.log("n", 1.0, batch_size=8 * self.trainer.world_size, **self.options)'
    ),
    "rank zero and a metric object": 'self.log("r", self.recall, sync_dist=True, rank_zero_only=True)',
    "rank zero alone": 'self.log("r", 1.0, rank_zero_only=True)',
    "a switch": 'self.log("r", 1.0, sync_dist=self.sync, rank_zero_only=True)',
    "a mean": 'self.log("r", self.recall.compute(), sync_dist=True)',
    "no sync": 'self.log("r", self.recall.compute(), reduce_fx="sum")',
    "a sum of what each rank has": 'self.log("r", self.local.compute(), sync_dist=True, reduce_fx="sum")',
    "a sum of a share": (
        'self.log("r", self.recall.compute() / self.trainer.world_size, sync_dist=True, reduce_fx="sum")'
    ),
    "an unknown metric": 'self.log("r", self.other.compute(), sync_dist=True, reduce_fx="sum")',
}


END = "on_validation_epoch_end(self)"

COMPUTED = [
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

NOT_COMPUTED = {
    "the value of before": "x = self.mrr.compute()\nif self.trainer.is_global_zero:\n    print(self.mrr.compute())",
    "logged as an object": 'self.log("r", self.recall)\nif self.trainer.is_global_zero:\n    self.recall.compute()',
    "of the rank alone": "if self.trainer.is_global_zero:\n    print(self.local.compute())",
    "compute of an unknown metric": "if self.trainer.is_global_zero:\n    print(self.other.compute())",
    "compute on every rank": "if self.trainer.is_global_zero:\n    print(1)\nself.recall.compute()",
    "another test": "if self.global_rank == 1 or self.verbose:\n    self.recall.compute()",
    "one of two reasons": "if self.trainer.is_global_zero or self.verbose:\n    self.recall.compute()",
    "one process": "if self.trainer.is_global_zero and self.trainer.world_size == 1:\n    self.recall.compute()",
    "no process group": "if dist.is_initialized():\n    return\nif self.global_rank == 0:\n    self.recall.compute()",
    "both branches": "if self.global_rank == 0:\n    self.recall.compute()\nelse:\n    self.recall.compute()",
    "sync switched off": "self.recall.sync_on_compute = False\nif self.global_rank == 0:\n    self.recall.compute()",
}


FOUND = [*map(in_step, LOGGED), *(in_step(body, head=END) for body in COMPUTED)]
SILENT = {name: in_step(body) for name, body in NOT_LOGGED.items()}
SILENT |= {name: in_step(body, head=END) for name, body in NOT_COMPUTED.items()}


@pytest.mark.parametrize("source", FOUND)
def test_it_is_found(source: str) -> None:
    assert places(source) == expected(source) != []


@pytest.mark.parametrize("source", SILENT.values(), ids=SILENT)
def test_it_is_silent(source: str) -> None:
    assert places(source) == []


WEIGHT = 'self.log("loss", 1.0, batch_size=8 * self.trainer.world_size)'


@pytest.mark.parametrize(
    "head", ["training_step(self, batch, batch_idx)", "on_validation_epoch_end(self)", "help(self)"]
)
def test_where_no_mean_over_batches_is_certain_it_is_silent(head: str) -> None:
    assert places(in_step(WEIGHT, head=head)) == []


@pytest.mark.parametrize("base", ["Base", "LightningModule, Mixin", "nn.Module", "object"])
def test_a_base_that_cannot_be_followed_or_is_another_is_silent(base: str) -> None:
    assert places(in_step(WEIGHT, base=base)) == []


def test_a_module_with_a_log_of_its_own_is_silent() -> None:
    assert places(in_step(WEIGHT) + "\n    def log(self, *args, **kwargs): ...\n") == []


def test_a_base_in_the_same_file_is_followed() -> None:
    source = in_module("x = 1\n", init="")
    source += (
        "\n\nclass Other(Model):\n    def test_step(self, batch, batch_idx):\n        " + WEIGHT + "  # lint: LRG101\n"
    )
    assert places(source) == expected(source) != []


def test_a_callback_logs_through_the_module() -> None:
    source = in_module(
        """
        def on_validation_batch_end(self, trainer, pl_module):
            pl_module.log("loss", 1.0, batch_size=8 * trainer.world_size)  # lint: LRG101
        """,
        base="Callback",
        init="",
    )
    assert places(source) == expected(source) != []


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
    assert places(in_step(f"{second}\n{COMPUTED[0]}", head=END)) == []


@pytest.mark.parametrize("argument", ["**options", "process_group=group", "sync_on_compute=flag"])
def test_a_metric_whose_sync_is_not_certain_is_silent(argument: str) -> None:
    body = f"if self.trainer.is_global_zero:\n    m = RetrievalMRR({argument})\n    m.compute()"
    assert places(in_step(body, head=END)) == []
