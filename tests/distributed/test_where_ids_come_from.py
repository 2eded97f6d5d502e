"""Query ids of the data stay as they are, whatever they look like; those that were counted are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.retrieval import RetrievalMRR

from .harness import Pool
from .ranks import Shown, on_ranks

pytestmark = pytest.mark.timeout(120)

SAMPLES, CANDIDATES, BATCH = 24, 5, 4
_random = torch.Generator().manual_seed(11)
SCORES = torch.rand(SAMPLES, CANDIDATES, generator=_random)
RELEVANT = torch.randint(CANDIDATES, (SAMPLES,), generator=_random)
# each question stands in two samples, which the sampler deals to two ranks
QUESTION = torch.arange(SAMPLES) // 2
NAMES = [f"question {number}" for number in QUESTION.tolist()]


class Program(LightningModule):
    """Scores the candidates of each sample; how the samples come and what their ids are is its subclasses' business."""

    def __init__(self) -> None:
        super().__init__()
        self.mrr, self.seen = RetrievalMRR(), 0

    def sample(self, index: int) -> Any:
        return index

    def val_dataloader(self) -> Any:
        return DataLoader([self.sample(index) for index in range(SAMPLES)], batch_size=BATCH)

    def ids(self, batch: Any) -> Tensor:
        raise NotImplementedError

    def index(self, batch: Any) -> Tensor:
        return batch

    def update(self, index: Tensor, ids: Tensor) -> None:
        relevance = torch.nn.functional.one_hot(RELEVANT[index], CANDIDATES)
        self.mrr.update(SCORES[index].flatten(), relevance.flatten(), indexes=ids.repeat_interleave(CANDIDATES))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.update(self.index(batch), self.ids(batch))
        self.seen += len(self.index(batch))
        self.log("mrr", self.mrr)


class Pair(Program):
    """A question and an item side by side."""

    def sample(self, index: int) -> Any:
        return torch.tensor([QUESTION[index], index])

    def index(self, batch: Tensor) -> Tensor:
        return batch[:, 1]

    def ids(self, batch: Tensor) -> Tensor:
        return batch[:, 0]


class Small(Program):
    def sample(self, index: int) -> Any:
        return {"index": index, "question": QUESTION[index].to(torch.int16)}

    def index(self, batch: Any) -> Tensor:
        return batch["index"]

    def ids(self, batch: Any) -> Tensor:
        return batch["question"].long()


class Floats(Small):
    def sample(self, index: int) -> Any:
        return {"index": index, "question": QUESTION[index].double()}


class OwnCollate(Small):
    """A collate function of the program's own."""

    def val_dataloader(self) -> Any:
        samples = [self.sample(index) for index in range(SAMPLES)]
        return DataLoader(samples, batch_size=BATCH, collate_fn=lambda items: torch.utils.data.default_collate(items))


class TwoRounds(OwnCollate):
    """Every question once, and then again, each ranked against the answers in its batch."""

    def sample(self, index: int) -> Any:
        return {"index": index, "question": torch.tensor(index % (SAMPLES // 2))}

    def update(self, index: Tensor, ids: Tensor) -> None:
        answers = torch.eye(len(index), dtype=torch.long)
        scores = SCORES[index][:, : len(index)]
        self.mrr.update(scores.flatten(), answers.flatten(), indexes=ids.repeat_interleave(len(index)))


class Derived(Program):
    """Ids that are worked out in the step."""

    def ids(self, batch: Tensor) -> Tensor:
        return batch // 2


class Looked(Program):
    """Ids that a table has for the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("question", QUESTION)

    def ids(self, batch: Tensor) -> Tensor:
        return self.question[batch]


class Collects(Program):
    """Keeps the batches for the hook."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.batches.append(batch)


class LookedInHook(Collects, Looked):
    """The same, for all samples of the rank."""

    def on_validation_epoch_end(self) -> None:
        index = torch.cat(self.batches)
        self.update(index, self.ids(index))
        self.log("mrr", self.mrr.compute())
        self.mrr.reset()


class Texts(Program):
    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {name: number for number, name in enumerate(dict.fromkeys(NAMES))}

    def ids(self, batch: Tensor) -> Tensor:
        return torch.tensor([self.numbers[NAMES[index]] for index in batch])


class InBatch(Program):
    """Numbers of the samples in their batch; all batches are of one size, and nothing is on a diagonal."""

    def ids(self, batch: Tensor) -> Tensor:
        return torch.arange(len(batch))


class Position(Program):
    """The same numbers, worked out from those of the data."""

    def ids(self, batch: Tensor) -> Tensor:
        return (batch - batch[0]) // self.trainer.world_size


class Distinct(Position):
    def ids(self, batch: Tensor) -> Tensor:
        return batch.unique(return_inverse=True)[1]


class Sparse(Program):
    """Some samples have no relevant candidate, and the last batch is short; ids are those of the samples."""

    count = SAMPLES - 2

    def val_dataloader(self) -> Any:
        return DataLoader(range(self.count), batch_size=BATCH)

    def update(self, index: Tensor, ids: Tensor) -> None:
        relevance = torch.nn.functional.one_hot(RELEVANT[index], CANDIDATES) * (index % 3 > 0)[:, None]
        self.mrr.update(SCORES[index].flatten(), relevance.flatten(), indexes=ids)

    def ids(self, batch: Tensor) -> Tensor:
        return batch.repeat_interleave(CANDIDATES)


class SparseArange(Sparse):
    def ids(self, batch: Tensor) -> Tensor:
        return torch.arange(len(batch)).repeat_interleave(CANDIDATES)


class SparseNonzero(Sparse):
    def ids(self, batch: Tensor) -> Tensor:
        return torch.ones(len(batch), CANDIDATES).nonzero()[:, 0]


class SparseNonzeroByTensor(Sparse):
    """Tensors choose among what was found."""

    def ids(self, batch: Tensor) -> Tensor:
        found = torch.ones(len(batch), CANDIDATES).nonzero()
        return found[:, torch.tensor([1, 0])][torch.arange(len(found)), 1]


class SparseWhere(Sparse):
    def ids(self, batch: Tensor) -> Tensor:
        return torch.where(torch.ones(len(batch), CANDIDATES) > 0)[0]


class SparseLengths(Sparse):
    """The batch holds how many candidates each sample has."""

    def val_dataloader(self) -> Any:
        return DataLoader([(index, CANDIDATES) for index in range(self.count)], batch_size=BATCH)

    def index(self, batch: Any) -> Tensor:
        return batch[0]

    def ids(self, batch: Any) -> Tensor:
        return torch.repeat_interleave(batch[1])


class SparseList(Sparse):
    """Numbers that no torch function has made."""

    def ids(self, batch: Tensor) -> Tensor:
        return torch.tensor([row // CANDIDATES for row in range(len(batch) * CANDIDATES)])


class SparseInBatches(SparseArange):
    """All batches are of one size."""

    count = SAMPLES


class NonzeroInBatches(SparseNonzero):
    count = SAMPLES


class WhereInBatches(SparseWhere):
    count = SAMPLES


class LengthsInBatches(SparseLengths):
    count = SAMPLES

    def ids(self, batch: Any) -> Tensor:
        return torch.repeat_interleave(batch[1], output_size=len(batch[1]) * CANDIDATES)


IN_BATCHES = (SparseInBatches, NonzeroInBatches, WhereInBatches, LengthsInBatches)


class SparseOnRank(Sparse):
    """A number of its own for each sample of the rank, that no torch function has made."""

    def ids(self, batch: Tensor) -> Tensor:
        return torch.tensor([self.seen + row // CANDIDATES for row in range(len(batch) * CANDIDATES)])


class Kept(Sparse):
    """Samples without a relevant candidate are left out."""

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        kept = batch[batch % 3 > 0]
        self.update(kept, self.ids(kept))
        self.log("mrr", self.mrr)


class KeptArange(Kept):
    ids = SparseArange.ids


class SparseInHook(Collects, Sparse):
    """The hook makes the metric, and counts the samples of its rank."""

    def on_validation_epoch_end(self) -> None:
        index, self.mrr = torch.cat(self.batches), RetrievalMRR()
        self.update(index, torch.arange(len(index)).repeat_interleave(CANDIDATES))
        self.log("mrr", self.mrr.compute())


class PoolOfRank(SparseInHook):
    """Each sample is ranked against those of its rank; several are relevant."""

    def on_validation_epoch_end(self) -> None:
        index = torch.cat(self.batches)
        scores, question = SCORES[index] @ SCORES[index].T, index // 3
        ids = torch.arange(len(index))[:, None].expand_as(scores)
        self.mrr.update(scores, (question[:, None] == question).long(), indexes=ids)
        self.log("mrr", self.mrr.compute())


class Parts(Sparse):
    """The candidates of a question come in several samples, and questions are numbered as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: dict[str, int] = {}

    def ids(self, batch: Tensor) -> Tensor:
        names = [f"question {index // 3}" for index in batch.tolist()]
        numbers = [self.numbers.setdefault(name, len(self.numbers)) for name in names]
        return torch.tensor(numbers).repeat_interleave(CANDIDATES)


class OnRank(Program):
    """Numbers of the samples on their rank."""

    def ids(self, batch: Tensor) -> Tensor:
        return torch.arange(len(batch)) + self.seen


OF_THE_DATA = (Pair, Small, Floats, OwnCollate, TwoRounds, Derived, Looked, LookedInHook, Texts)


def shown(pools: Mapping[int, Pool], ranks: int, program: type[Program], *modes: str) -> list[Shown]:
    """What rank zero shows in each mode."""
    return [on_ranks(pools[ranks], program, mode)[0] for mode in modes]


def levels(shown: Shown) -> dict[str, str]:
    return {one.code: one.severity.value for one in shown.found}


@pytest.mark.parametrize("program", OF_THE_DATA)
def test_ids_of_the_data_stay(pools: Mapping[int, Pool], program: type[Program]) -> None:
    for ranks in (1, 2):
        plain, result = shown(pools, ranks, program, "none", "correct")
        assert result.numbers == pytest.approx(plain.numbers, rel=1e-6)
        assert not any(corrected for _, corrected in result.corrected)
        # nothing shows that these are not counted
        assert levels(result) == ({"LRG301": "warning"} if ranks == 2 and program is Texts else {})


@pytest.mark.parametrize("program", [InBatch, OnRank])
def test_ids_that_were_counted_are_told_apart(pools: Mapping[int, Pool], program: type[Program]) -> None:
    rank = 1 + (SCORES.gather(1, RELEVANT[:, None]) < SCORES).sum(dim=1)
    for ranks in (1, 2):
        [result] = shown(pools, ranks, program, "correct")
        assert result.numbers == {"mrr": pytest.approx(float((1 / rank).mean()), rel=1e-6)}
        if ranks == 2 or program is InBatch:
            assert levels(result) == {"LRG301": "error"}


@pytest.mark.parametrize("program", [Position, Distinct])
def test_positions_are_no_ids_of_the_data(pools: Mapping[int, Pool], program: type[Program]) -> None:
    for ranks in (1, 2):
        plain, result = shown(pools, ranks, program, "none", "correct")
        assert result.numbers == pytest.approx(plain.numbers, rel=1e-6)
        assert levels(result) == {"LRG301": "warning"}


@pytest.mark.parametrize(
    "program", [SparseArange, SparseNonzero, SparseNonzeroByTensor, SparseWhere, SparseLengths, SparseList]
)
def test_ids_restart_though_queries_lack_a_relevant_row(pools: Mapping[int, Pool], program: type[Program]) -> None:
    [right] = shown(pools, 1, Sparse, "none")
    for ranks in (1, 2):
        plain, result = shown(pools, ranks, program, "none", "correct")
        assert plain.numbers["mrr"] != pytest.approx(right.numbers["mrr"], abs=1e-3)
        assert result.numbers == pytest.approx(right.numbers, rel=1e-6)
        assert result.corrected == [("LRG301", True)]


def test_ids_that_count_the_samples_that_a_step_keeps(pools: Mapping[int, Pool]) -> None:
    [right] = shown(pools, 1, Kept, "strict")
    for ranks in (1, 2):
        plain, result = shown(pools, ranks, KeptArange, "none", "correct")
        assert plain.numbers["mrr"] != pytest.approx(right.numbers["mrr"], abs=1e-3)
        assert result.numbers == pytest.approx(right.numbers, rel=1e-6)
        assert result.corrected == [("LRG301", True)]


def test_a_hook_that_counts_the_samples_of_its_rank(pools: Mapping[int, Pool]) -> None:
    [right] = shown(pools, 1, Sparse, "none")
    plain, strict = shown(pools, 1, SparseInHook, "none", "strict")
    assert plain.numbers == strict.numbers == right.numbers
    [result] = shown(pools, 2, SparseInHook, "correct")
    assert result.numbers == pytest.approx(right.numbers, rel=1e-6)
    assert result.corrected == [("LRG301", True)]


def test_counted_queries_against_the_samples_of_their_rank_are_in_doubt(pools: Mapping[int, Pool]) -> None:
    """They may be queries that all ranks have, each against its share of a corpus."""
    plain, result = shown(pools, 2, PoolOfRank, "none", "correct")
    assert result.numbers == pytest.approx(plain.numbers, rel=1e-6)
    assert (levels(result), result.corrected) == ({"LRG301": "warning"}, [("LRG301", False)])
    assert not shown(pools, 1, PoolOfRank, "strict")[0].found


@pytest.mark.parametrize("program", [*IN_BATCHES, SparseOnRank])
def test_with_less_evidence_the_number_stays(pools: Mapping[int, Pool], program: type[Program]) -> None:
    for ranks in (1, 2):
        plain, result = shown(pools, ranks, program, "none", "correct")
        assert result.numbers == pytest.approx(plain.numbers, rel=1e-6)
        # on one device the numbers of a rank are unique
        in_doubt = (ranks, program) != (1, SparseOnRank)
        assert result.corrected == ([("LRG301", False)] if in_doubt else [])
        assert levels(result) == ({"LRG301": "warning"} if in_doubt else {})


@pytest.mark.parametrize("program", [Sparse, Parts])
def test_ids_that_go_on_are_right(pools: Mapping[int, Pool], program: type[Program]) -> None:
    assert not shown(pools, 1, program, "strict")[0].found
