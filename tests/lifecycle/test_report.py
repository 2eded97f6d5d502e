"""The report on disk: after each stage, where strict mode raises, and where it can no longer be written."""

from __future__ import annotations

import json
import re
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.retrieval import RetrievalMRR

from lightning_retrieval_guard import GuardWarning, RetrievalGuard
from lightning_retrieval_guard.rules import REGISTRY
from tests.distributed.evaluate import make_trainer as make_ddp_trainer
from tests.distributed.evaluate import recorded_warnings
from tests.distributed.harness import Pool

SAMPLES = 7  # the last batch is shorter, which shows that ids number its samples
FINDING_FIELDS = {
    *("code", "rule", "severity", "key", "stage", "hook", "path", "line", "message", "fix"),
    *("ranks", "count", "corrected", "effect", "group"),
}
FIELDS = {"version", "mode", "world_size", "findings", "keys", "when", "command", "versions", "epoch", "global_step"}


class WholeData(LightningModule):
    """Every rank holds all rows; on one process the ids restart in each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.metric = RetrievalMRR()

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        scores, target = batch
        ids = torch.arange(len(scores))[:, None].expand_as(scores)
        self.metric.update(scores, target, indexes=ids)
        self.log("mrr <b>", self.metric)

    def val_dataloader(self) -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(3)
        scores = torch.rand(SAMPLES, 5, generator=generator)
        target = torch.zeros(SAMPLES, 5, dtype=torch.long)
        target[torch.arange(SAMPLES), torch.arange(SAMPLES) % 5] = 1
        return DataLoader(TensorDataset(scores, target), batch_size=4)


def make_trainer(*callbacks: Callback, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", enable_checkpointing=False, callbacks=list(callbacks), **quiet, **options)


def validate(guard: RetrievalGuard, *callbacks: Callback) -> None:
    with pytest.warns(GuardWarning, match="LRG301"):
        make_trainer(guard, *callbacks, devices=1).validate(WholeData(), verbose=False)


def test_the_json_report_follows_the_schema(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    guard = RetrievalGuard(report=path)
    validate(guard)
    document = json.loads(path.read_text())
    assert set(document) == FIELDS | {"stopped"}
    assert (document["version"], document["mode"], document["world_size"]) == (2, "warn", 1)
    assert (document["epoch"], document["global_step"], document["stopped"]) == (0, 0, [])
    assert document["command"]
    assert set(document["versions"]) == {"python", "lightning-retrieval-guard", "lightning", "torch", "torchmetrics"}
    assert document["findings"] == [
        finding.to_dict() | {"ranks": [0], "group": "LRG301-1"} for finding in guard.findings
    ]
    assert all(set(finding) == FINDING_FIELDS for finding in document["findings"])
    [effect] = {tuple(finding["effect"].values()) for finding in document["findings"]}
    key = document["keys"]["mrr <b>"]
    assert (key["logged"], key["reference"]) == effect
    assert [(one["stage"], one["epoch"], one["logged"]) for one in key["history"]] == [("validate", 0, effect[0])]
    assert effect[0] != pytest.approx(effect[1])
    assert list(tmp_path.iterdir()) == [path]


def test_the_html_report_escapes_the_key(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    validate(RetrievalGuard(report=path))
    page = path.read_text()
    assert "mrr &lt;b&gt;" in page
    assert "mrr <b>" not in page


def test_the_html_report_shows_the_line_the_reason_and_the_samples(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    validate(RetrievalGuard(report=path))
    page = path.read_text()
    assert "self.log(&#34;mrr &lt;b&gt;&#34;, self.metric)</span></mark>" in page
    assert f"{Path(__file__)}:" in page
    assert re.search(r"<summary>Why it is wrong</summary>\s*<p>torchmetrics groups rows by id", page)
    assert "<h1>1 fault, 1 of 1 key wrong</h1>" in page
    assert "7 samples; 2 updates; 4 queries." in page


def test_correct_mode_reports_what_was_corrected(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    validate(RetrievalGuard(mode="correct", report=path))
    assert "<h1>1 fault, 1 of 1 key corrected</h1>" in path.read_text()


def test_without_docstrings_the_report_has_no_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[type(REGISTRY["LRG301"]).__module__], "__doc__", None)
    path = tmp_path / "report.html"
    validate(RetrievalGuard(report=path))
    page = path.read_text()
    assert "LRG301" in page
    assert "<details" not in page


@pytest.mark.timeout(60)
def test_strict_writes_the_report_before_it_raises(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    options = {"devices": 2, "strategy": "ddp_fork", "use_distributed_sampler": False}
    trainer = make_trainer(RetrievalGuard(mode="strict", report=path), **options)
    with pytest.raises(Exception, match="LRG201"):
        trainer.validate(WholeData(), verbose=False)
    document = json.loads(path.read_text())
    assert {finding["code"] for finding in document["findings"]} >= {"LRG201"}
    assert document["world_size"] == 2
    assert document["stopped"][0] == "LRG201"


class RemovesTheFolder(Callback):
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        shutil.rmtree(self._folder)


def test_a_report_that_can_no_longer_be_written_costs_the_report_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    guard = RetrievalGuard(report=folder / "report.json")
    trainer = make_trainer(guard, RemovesTheFolder(folder), devices=1)
    with pytest.warns(GuardWarning) as warned:
        [numbers] = trainer.validate(WholeData(), verbose=False)
    messages = [str(one.message) for one in warned if issubclass(one.category, GuardWarning)]
    assert len(messages) == 2
    assert messages[0].startswith("LRG301")
    assert messages[1].startswith("RetrievalGuard: the report could not be written ([Errno 2]")
    assert messages[1].endswith("The run goes on.")
    assert capsys.readouterr().err.splitlines()[-1] == "RetrievalGuard: 1 fault, 1 of 1 key wrong"
    assert list(numbers) == ["mrr <b>"]


# --- a full disk ------------------------------------------------------------------------------------------------


def with_full_disk(folder: str, mode: Any) -> dict[str, Any]:
    """Validate three times on two ranks, where no file may grow beyond a few bytes."""
    guard = RetrievalGuard(mode=mode, report=Path(folder) / "report.html")
    trainer = make_ddp_trainer([guard], False, use_distributed_sampler=False)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, limit[1]))
    try:
        with recorded_warnings() as warned:
            numbers = [trainer.validate(WholeData(), verbose=False)[0]["mrr <b>"] for _ in range(3)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    said = [one["text"] for one in warned if "GuardWarning" in one["categories"]]
    return {"numbers": numbers, "said": said, "codes": [finding.code for finding in guard.findings]}


@pytest.mark.timeout(60)
def test_a_full_disk_costs_the_report_and_not_the_run(pool: Pool, tmp_path: Path) -> None:
    outcomes = pool.run(f"{__name__}:with_full_disk", folder=str(tmp_path), mode="correct")
    assert all(outcome.ok for outcome in outcomes), "\n".join(map(str, outcomes))
    first, second = (outcome.value for outcome in outcomes)
    assert first["numbers"] == second["numbers"] == [first["numbers"][0]] * 3
    assert set(first["codes"]) == set(second["codes"])
    assert "LRG201" in first["codes"]
    assert "LRG901" not in first["codes"]
    assert [text for text in first["said"] if "LRG" not in text] == [
        "RetrievalGuard: the report could not be written ([Errno 27] File too large). The run goes on."
    ]
    assert not second["said"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.timeout(60)
def test_strict_raises_on_every_rank_with_a_full_disk(pool: Pool, tmp_path: Path) -> None:
    outcomes = pool.run(f"{__name__}:with_full_disk", folder=str(tmp_path), mode="strict")
    for outcome in outcomes:
        assert "GuardError" in outcome.error_types, str(outcome)
        assert "LRG201" in outcome.error
    assert "the report could not be written" in outcomes[0].log
    assert list(tmp_path.iterdir()) == []
