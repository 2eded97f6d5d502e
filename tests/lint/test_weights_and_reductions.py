"""LRG101, LRG202 and LRG204 at log calls."""

from __future__ import annotations

import pytest

from .snippets import expected, in_module, in_step
from .snippets import places as all_places


def places(source: str) -> list[tuple[int, str]]:
    """What is found, but for the note on metrics that are computed in steps, which is no matter of log calls."""
    return [own for own in all_places(source) if own[1] != "LRG207"]


FOUND = [
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

SILENT = {
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


@pytest.mark.parametrize("body", FOUND)
def test_it_is_found(body: str) -> None:
    source = in_step(body)
    assert expected(source)
    assert places(source) == expected(source)


@pytest.mark.parametrize("body", SILENT.values(), ids=SILENT)
def test_it_is_silent(body: str) -> None:
    assert places(in_step(body)) == []


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
