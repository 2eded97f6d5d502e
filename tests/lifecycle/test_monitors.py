"""EarlyStopping and ModelCheckpoint see the corrected number on every rank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.strategies import DDPStrategy

from tests.distributed.evaluate import GROUP_TIMEOUT, guards, recorded_warnings
from tests.distributed.harness import Pool

from .programs import Sharded, floats, make_trainer, reference


def fit(mode: str, folder: str) -> dict[str, Any]:
    """Two epochs on this rank; what the monitors have seen."""
    stopper = EarlyStopping("mrr", mode="max", patience=5)
    keeper = ModelCheckpoint(folder, monitor="mrr", mode="max", filename="best-{epoch}-{mrr:.4f}")
    trainer = make_trainer(
        stopper,
        keeper,
        *guards(mode, {}),
        strategy=DDPStrategy(timeout=GROUP_TIMEOUT),
        devices=2,
        max_epochs=2,
        enable_checkpointing=True,
    )
    with recorded_warnings() as warned:
        trainer.fit(Sharded())
    return {
        "stopper": float(stopper.best_score),
        "keeper": float(keeper.best_model_score),
        "path": keeper.best_model_path,
        "metrics": floats(trainer.callback_metrics),
        "codes": [one["text"] for one in warned if "GuardWarning" in one["categories"]],
    }


def seen(pool: Pool, mode: str, folder: Path) -> list[dict[str, Any]]:
    return pool.values(f"{__name__}:fit", mode=mode, folder=str(folder))


@pytest.mark.timeout(60)
def test_without_a_guard_each_rank_sees_its_own(pool: Pool, tmp_path: Path) -> None:
    first, second = seen(pool, "none", tmp_path)
    assert first["stopper"] != second["stopper"]
    assert first["keeper"] != pytest.approx(reference(), abs=1e-3)


@pytest.mark.timeout(60)
def test_with_correct_every_rank_sees_the_reference(pool: Pool, tmp_path: Path) -> None:
    right = pytest.approx(reference(), abs=1e-6)
    for rank in seen(pool, "correct", tmp_path):
        assert rank["stopper"] == rank["keeper"] == rank["metrics"]["mrr"] == right
        assert rank["path"].endswith(f"mrr={reference():.4f}.ckpt")


@pytest.mark.timeout(60)
def test_warn_names_what_monitors_it(pool: Pool, tmp_path: Path) -> None:
    first, second = seen(pool, "warn", tmp_path)
    sanity, said = first["codes"]
    assert "LRG203" in sanity
    assert "LRG203" in said
    assert "monitor" in said or "checkpoint" in said
    assert not second["codes"]
