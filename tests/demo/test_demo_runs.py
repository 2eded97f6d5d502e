"""Training and evaluation in real processes."""

import logging
import os
import warnings

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from lightning_retrieval_guard.demo.corpus import Pair
from lightning_retrieval_guard.demo.encoder import HELD_OUT, DualEncoder, split_pairs
from lightning_retrieval_guard.demo.runs import evaluate, raised, silenced, train

Split = tuple[TensorDataset, TensorDataset]

TRACEBACK = """

-- Process 1 terminated with the following error:
Traceback (most recent call last):
  File "a.py", line 1, in f
    raise ValueError
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "m.py", line 3, in g
    raise GuardError(text)
package.findings.GuardError: src/m.py:3: LRG201
Logged 0.2109, reference 0.4219.
"""


class Failing(Callback):
    """Fails as a user's own callback might."""

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        raise RuntimeError("no luck\ntoday")


@pytest.fixture(scope="module")
def split() -> Split:
    """Pairs that share a word, so that an encoder without training finds some of them."""
    return split_pairs(
        [Pair(f"find w{number} q{number % 7}", f"w{number} q{number % 5}") for number in range(HELD_OUT + 240)], seed=0
    )


@pytest.fixture(scope="module")
def model() -> DualEncoder:
    """An encoder without training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DualEncoder()


@pytest.mark.timeout(120)
def test_without_a_guard_recall_at_1_is_divided_by_the_number_of_processes(split: Split, model: DualEncoder) -> None:
    one = evaluate("one", model, DataLoader(split[1], 120), devices=1)
    two = evaluate("two", model, DataLoader(split[1], 60), devices=2)
    assert (one.error, two.error) == ("", "")
    assert one.numbers["val_recall@1"] > 0.1
    assert two.numbers["val_recall@1"] == pytest.approx(one.numbers["val_recall@1"] / 2, abs=1e-6)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("devices", [1, 2])
def test_a_failing_run_is_a_row_and_not_the_end(split: Split, model: DualEncoder, devices: int) -> None:
    run = evaluate("failing", model, DataLoader(split[1], 60), devices, Failing())
    assert run.error == "RuntimeError: no luck\ntoday"
    assert run.numbers == {}
    assert not run.stopped_by_guard


@pytest.mark.timeout(120)
def test_equal_seeds_give_equal_weights_and_leave_the_callers_random_state_alone(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_retrieval_guard.demo.runs.EPOCHS", 1)
    before = torch.get_rng_state()
    one, same, other = (train(split[0], DataLoader(split[1], 120), seed).embedding.weight for seed in (3, 3, 4))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


def test_the_error_of_a_process_is_read_from_its_traceback() -> None:
    assert raised(RuntimeError(TRACEBACK)) == "GuardError: src/m.py:3: LRG201\nLogged 0.2109, reference 0.4219."
    assert raised(ValueError("plain")) == "ValueError: plain"


@silenced()
def _interrupted_inside_silenced() -> None:
    os.environ["MASTER_PORT"] = "1"
    assert "LIGHTNING_RETRIEVAL_GUARD" not in os.environ
    assert torch.get_num_threads() == 1
    raise KeyboardInterrupt


def test_silenced_puts_everything_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_RETRIEVAL_GUARD", "strict")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    level = logging.getLogger("lightning.pytorch").level
    torch.set_num_threads(2)
    before = dict(os.environ), list(warnings.filters), level
    with pytest.raises(KeyboardInterrupt):
        _interrupted_inside_silenced()
    threads, level = torch.get_num_threads(), logging.getLogger("lightning.pytorch").level
    torch.set_num_threads(1)
    assert threads == 2
    assert (dict(os.environ), list(warnings.filters), level) == before


def test_silenced_lets_other_warnings_through() -> None:
    with pytest.warns(UserWarning, match="LRG201"), silenced():
        warnings.warn("LRG201 gathered-before-sync", UserWarning, stacklevel=1)
