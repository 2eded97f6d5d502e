"""A plain mean over the samples of a batch counts a repeated sample once; what is no such mean stays, and is named."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.nn import functional
from torch.utils.data import DataLoader

from .evaluate import Recorder, guards, make_trainer, recorded_warnings
from .harness import Outcome, Pool

pytestmark = pytest.mark.timeout(120)

CLASSES = 3
_random = torch.Generator().manual_seed(5)
DATA = [
    (logits, label)
    for logits, label in zip(
        torch.randn(22, CLASSES, generator=_random), torch.randint(CLASSES, (22,), generator=_random), strict=True
    )
]


@functools.partial(torch.compile, fullgraph=True, backend="eager")
def _compiled(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels)


Logged = dict[str, Any]


def means(logits: Tensor, labels: Tensor) -> Logged:
    """Means over samples, as programs make them."""
    loss = functional.cross_entropy(logits, labels)
    squares = nn.MSELoss()(logits, functional.one_hot(labels, CLASSES).float())
    return {
        "loss": loss,
        "squares": squares,
        "both": loss + 0.1 * squares,
        "item": loss.item(),
        "detached": loss.detach(),
        "hits": (logits.argmax(dim=1) == labels).float().mean(),
        "by_sum": functional.cross_entropy(logits, labels, reduction="none").sum() / torch.tensor(len(labels)),
        "noisy": loss + 0 * torch.rand(()),
        "compiled": _compiled(logits, labels) + 0 * loss,
    }


def other_numbers(logits: Tensor, labels: Tensor) -> Logged:
    """What no sample can be taken from."""
    normed = functional.normalize(logits)
    return {
        "perplexity": functional.cross_entropy(logits, labels).exp(),
        "weighted": functional.cross_entropy(logits, labels, weight=torch.tensor([0.2, 0.3, 0.5])),
        "in_batch": functional.cross_entropy(normed @ normed.T, torch.arange(len(labels))),
        "number": round(float(functional.cross_entropy(logits, labels)), 5),
        "spread": logits.std() if len(logits) > 1 else logits.std(unbiased=False),
    }


def reordered(logits: Tensor, labels: Tensor) -> Logged:
    """Means over samples that stand in another order than in the batch."""
    return means(logits.flip(0), labels.flip(0))


def whole_numbers(logits: Tensor, labels: Tensor) -> Logged:
    """Nothing but numbers that many samples have."""
    return {"hits": (logits.argmax(dim=1) == labels).float().mean()}


def written_over(logits: Tensor, labels: Tensor) -> Logged:
    """A value that is not what the function returned any more."""
    loss = functional.cross_entropy(logits, labels)
    loss *= 100
    return {"percent": loss}


PROGRAMS: dict[str, Callable[[Tensor, Tensor], Logged]] = {
    program.__name__: program for program in (means, other_numbers, reordered, whole_numbers, written_over)
}


class Program(LightningModule):
    """Logs what a function makes of each batch."""

    def __init__(self, program: str, samples: int | list[int], batch_size: int, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.program, self.samples, self.batch_size = PROGRAMS[program], samples, batch_size
        self.arguments = arguments
        self.drawn: list[float] = []

    def val_dataloader(self) -> Any:
        sizes = [self.samples] if isinstance(self.samples, int) else self.samples
        return [DataLoader(DATA[:size], batch_size=self.batch_size) for size in sizes]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        # the mean over samples does not depend on how these fall into batches, so one device logs what two should
        self.log_dict(self.program(*batch), **self.arguments)
        self.drawn.append(float(torch.rand(())))


def run(
    mode: str,
    program: str,
    samples: int | list[int],
    batch_size: int,
    sync_dist: bool = True,
    weight: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """What this rank shows."""
    torch.manual_seed(0)
    module = Program(program, samples, batch_size, {"sync_dist": sync_dist, "batch_size": weight})
    guard = guards(mode, settings)
    trainer = make_trainer(guard, Recorder())
    with recorded_warnings():
        trainer.validate(module, verbose=False)
    found = [one for each in guard for one in each.findings if one.code == "LRG403"]
    return {
        "values": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "drawn": module.drawn,
        "found": {one.key: (one.severity.value, one.corrected, one.effect is not None) for one in found},
    }


class Compiled(LightningModule):
    """A network that torch compiles."""

    def __init__(self) -> None:
        super().__init__()
        self.counter = CompileCounter()
        self.layer = torch.compile(nn.Linear(CLASSES, CLASSES), fullgraph=True, backend=self.counter)

    def val_dataloader(self) -> Any:
        return DataLoader(DATA[:11], batch_size=3)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self.log("loss", functional.cross_entropy(self.layer(batch[0]), batch[1]), sync_dist=True)


def count_compilations(mode: str) -> int:
    """How often the network was compiled on this rank."""
    module = Compiled()
    with recorded_warnings():
        make_trainer(guards(mode, {}), Recorder()).validate(module, verbose=False)
    return int(module.counter.frame_count)


def shown(pools: Mapping[int, Pool], ranks: int, **case: Any) -> list[dict[str, Any]]:
    """What ranks that did not fail show."""
    outcomes: list[Outcome] = pools[ranks].run(f"{__name__}:run", **case)
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    return [outcome.value for outcome in outcomes]


# 6 samples a rank: the last batch is whole, is short, holds the repeated sample alone, and is the first one
CASES = [(2, 11, 2), (2, 11, 4), (2, 11, 5), (2, 11, 6), (3, 22, 3), (3, 22, 7)]


@pytest.mark.parametrize(("ranks", "samples", "batch_size"), CASES)
@pytest.mark.parametrize("sync_dist", [True, False])
def test_a_mean_over_samples_is_that_of_one_device(
    pools: Mapping[int, Pool], ranks: int, samples: int, batch_size: int, sync_dist: bool
) -> None:
    case = {"program": "means", "samples": samples, "batch_size": batch_size, "sync_dist": sync_dist}
    [alone] = shown(pools, 1, mode="none", **case)
    plain = shown(pools, ranks, mode="none", **case)
    for one, other in zip(plain, shown(pools, ranks, mode="correct", **case), strict=True):
        assert other["values"] == pytest.approx(alone["values"], rel=1e-5)
        assert other["drawn"] == one["drawn"]
        assert other["found"] == dict.fromkeys(alone["values"], ("warning", True, True))
    assert plain[0]["values"]["loss"] != pytest.approx(alone["values"]["loss"], rel=1e-3)
    for one, other in zip(plain, shown(pools, ranks, mode="warn", **case), strict=True):
        assert (other["values"], other["drawn"]) == (one["values"], one["drawn"])


def test_wrong_batch_sizes_and_a_repeated_sample_are_mended_together(pools: Mapping[int, Pool]) -> None:
    case = {"program": "means", "samples": 11, "batch_size": 4}
    [alone] = shown(pools, 1, mode="none", **case)
    for rank in shown(pools, 2, mode="correct", **case, weight=4):
        assert rank["values"] == pytest.approx(alone["values"], rel=1e-5)


@pytest.mark.parametrize("program", ["other_numbers", "reordered", "whole_numbers", "written_over"])
def test_what_is_no_mean_over_samples_stays(pools: Mapping[int, Pool], program: str) -> None:
    case = {"program": program, "samples": 11, "batch_size": 4}
    plain = shown(pools, 2, mode="none", **case)
    for one, other in zip(plain, shown(pools, 2, mode="correct", **case), strict=True):
        assert other["values"] == one["values"]
        assert other["found"] == dict.fromkeys(one["values"], ("warning", False, False))


def test_what_takes_too_much_memory_is_not_kept(pools: Mapping[int, Pool]) -> None:
    case = {"program": "means", "samples": 11, "batch_size": 4}
    plain = shown(pools, 2, mode="none", **case)
    for one, other in zip(plain, shown(pools, 2, mode="correct", **case, max_held_mb=1e-6), strict=True):
        assert other["values"] == one["values"]


def test_each_dataloader_is_padded_by_itself(pools: Mapping[int, Pool]) -> None:
    case = {"program": "means", "samples": [20, 21, 18], "batch_size": 4}
    [alone] = shown(pools, 1, mode="none", **case)
    for rank in shown(pools, 2, mode="correct", **case):
        assert rank["values"] == pytest.approx(alone["values"], rel=1e-5)
        assert set(rank["found"]) == {name for name in alone["values"] if name.endswith("/dataloader_idx_1")}


def test_a_compiled_module_is_compiled_no_more_often_than_without_the_guard(pools: Mapping[int, Pool]) -> None:
    for mode in ("none", "warn", "correct"):
        [first, *_] = pools[2].run(f"{__name__}:count_compilations", mode=mode)
        assert first.value == 1
