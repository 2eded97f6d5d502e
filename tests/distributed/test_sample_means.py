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
from .harness import Pool
from .ranks import Shown, on_ranks

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
    def __init__(
        self,
        program: str,
        samples: int | list[int] = 11,
        batch_size: int = 4,
        sync_dist: bool = True,
        weight: int | None = None,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.program, self.samples, self.batch_size = PROGRAMS[program], samples, batch_size
        self.arguments = {"sync_dist": sync_dist, "batch_size": weight}
        self.drawn: list[float] = []

    def val_dataloader(self) -> Any:
        sizes = [self.samples] if isinstance(self.samples, int) else self.samples
        return [DataLoader(DATA[:size], batch_size=self.batch_size) for size in sizes]

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int, dataloader_idx: int = 0) -> None:
        # the mean over samples does not depend on how these fall into batches, so one device logs what two should
        self.log_dict(self.program(*batch), **self.arguments)
        self.drawn.append(float(torch.rand(())))


class Compiled(LightningModule):
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


def shown(pool: Pool, mode: str, *program: Any, max_held_mb: float = 256, **options: Any) -> list[Shown]:
    settings = {"max_held_mb": max_held_mb}
    return on_ranks(pool, functools.partial(Program, *program, **options), mode, ["drawn"], guard_options=settings)


def found(shown: Shown) -> dict[str | None, tuple[str, bool, bool]]:
    findings = [one for one in shown.findings if one.code == "LRG403"]
    return {one.key: (one.severity.value, one.corrected, one.effect is not None) for one in findings}


# 6 samples a rank: the last batch is whole, is short, holds the repeated sample alone, and is the first one
CASES = [(2, 11, 2), (2, 11, 4), (2, 11, 5), (2, 11, 6), (3, 22, 3), (3, 22, 7)]


@pytest.mark.parametrize(("ranks", "samples", "batch_size"), CASES)
@pytest.mark.parametrize("sync_dist", [True, False])
def test_a_mean_over_samples_is_that_of_one_device(
    pools: Mapping[int, Pool], ranks: int, samples: int, batch_size: int, sync_dist: bool
) -> None:
    case = "means", samples, batch_size, sync_dist
    [alone] = shown(pools[1], "none", *case)
    plain = shown(pools[ranks], "none", *case)
    for one, other in zip(plain, shown(pools[ranks], "correct", *case), strict=True):
        assert other.numbers == pytest.approx(alone.numbers, rel=1e-5)
        assert other.kept == one.kept
        assert found(other) == dict.fromkeys(alone.numbers, ("warning", True, True))
    assert plain[0].numbers["loss"] != pytest.approx(alone.numbers["loss"], rel=1e-3)
    for one, other in zip(plain, shown(pools[ranks], "warn", *case), strict=True):
        assert (other.numbers, other.kept) == (one.numbers, one.kept)


def test_wrong_batch_sizes_and_a_repeated_sample_are_mended_together(pools: Mapping[int, Pool]) -> None:
    [alone] = shown(pools[1], "none", "means")
    for rank in shown(pools[2], "correct", "means", weight=4):
        assert rank.numbers == pytest.approx(alone.numbers, rel=1e-5)


@pytest.mark.parametrize("program", ["other_numbers", "reordered", "whole_numbers", "written_over"])
def test_what_is_no_mean_over_samples_stays(pools: Mapping[int, Pool], program: str) -> None:
    for one, other in zip(*(shown(pools[2], mode, program) for mode in ("none", "correct")), strict=True):
        assert other.numbers == one.numbers
        assert found(other) == dict.fromkeys(one.numbers, ("warning", False, False))


def test_what_takes_too_much_memory_is_not_kept(pools: Mapping[int, Pool]) -> None:
    plain, limited = shown(pools[2], "none", "means"), shown(pools[2], "correct", "means", max_held_mb=1e-6)
    assert [rank.numbers for rank in limited] == [rank.numbers for rank in plain]


def test_each_dataloader_is_padded_by_itself(pools: Mapping[int, Pool]) -> None:
    case = "means", [20, 21, 18]
    [alone] = shown(pools[1], "none", *case)
    for rank in shown(pools[2], "correct", *case):
        assert rank.numbers == pytest.approx(alone.numbers, rel=1e-5)
        assert set(found(rank)) == {name for name in alone.numbers if name.endswith("/dataloader_idx_1")}


def test_a_compiled_module_is_compiled_no_more_often_than_without_the_guard(pools: Mapping[int, Pool]) -> None:
    for mode in ("none", "warn", "correct"):
        [first, *_] = pools[2].run(f"{__name__}:count_compilations", mode=mode)
        assert first.value == 1
