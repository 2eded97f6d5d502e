"""LightningCLI builds the guard from YAML, and Hydra from `_target_`, with every argument."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from lightning.pytorch.cli import LightningCLI
from omegaconf import DictConfig, ListConfig, OmegaConf

from lightning_retrieval_guard import GuardWarning, RetrievalGuard

from .programs import Restarting, make_trainer, merged

TARGET = "lightning_retrieval_guard.RetrievalGuard"
Build = Callable[[dict[str, Any]], RetrievalGuard]


def samples_of(batch: Any) -> int:
    return len(batch["query"])


def every_argument(folder: Path) -> dict[str, Any]:
    return {
        "mode": "correct",
        "select": ["LRG2", "LRG301"],
        "ignore": ["LRG203", "LRG207"],
        "query_scope": "global",
        "report": str(folder / "report.json"),
        "log_findings": False,
    }


def by_cli(folder: Path, arguments: dict[str, Any], *command: str) -> LightningCLI:
    """A command line with one configuration file."""
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    callback = {"class_path": TARGET, "init_args": arguments}
    path = folder / "config.yaml"
    trainer = {**quiet, "enable_checkpointing": False, "callbacks": [callback]}
    path.write_text(yaml.safe_dump({"trainer": trainer}), encoding="utf-8")
    options = {"save_config_callback": None, "seed_everything_default": False, "run": bool(command)}
    return LightningCLI(Restarting, args=[*command, "--config", str(path)], **options)


def guard_of(cli: LightningCLI) -> RetrievalGuard:
    [guard] = [callback for callback in cli.trainer.callbacks if isinstance(callback, RetrievalGuard)]
    return guard


def by_hydra(folder: Path, arguments: dict[str, Any]) -> RetrievalGuard:
    """A configuration file that Hydra composes."""
    (folder / "config.yaml").write_text(yaml.safe_dump({"guard": {"_target_": TARGET, **arguments}}), encoding="utf-8")
    with initialize_config_dir(config_dir=str(folder), version_base=None):
        config = compose("config")
    assert isinstance(config, DictConfig)
    return instantiate(config.guard)


@pytest.fixture(autouse=True)
def command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """LightningCLI warns of pytest's own arguments, and calls what jsonargparse deprecates."""
    monkeypatch.setattr(sys, "argv", ["program.py"])
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")


@pytest.fixture(params=["cli", "hydra"])
def build(request: pytest.FixtureRequest, tmp_path: Path) -> Build:
    """Builds a guard from its arguments, one way and the other."""
    if request.param == "cli":
        return lambda arguments: guard_of(by_cli(tmp_path, arguments))
    return lambda arguments: by_hydra(tmp_path, arguments)


def test_the_defaults(build: Build) -> None:
    assert build({}).settings == RetrievalGuard().settings


def test_every_argument_arrives(build: Build, tmp_path: Path) -> None:
    arguments = every_argument(tmp_path)
    assert build(arguments).settings == RetrievalGuard(**arguments).settings


@pytest.mark.parametrize("absent", ["select", "batch_size_fn", "report"])
def test_null_is_taken(build: Build, absent: str) -> None:
    assert getattr(build({absent: None}).settings, absent) is None


def test_a_function_is_given_by_its_path(tmp_path: Path) -> None:
    path = f"{__name__}.{samples_of.__name__}"
    assert guard_of(by_cli(tmp_path, {"batch_size_fn": path})).settings.batch_size_fn is samples_of
    by_path = {"batch_size_fn": {"_target_": "hydra.utils.get_method", "path": path}}
    assert by_hydra(tmp_path, by_path).settings.batch_size_fn is samples_of


WRONG = [
    ("mode", "loud", "warn', 'correct', 'strict"),
    ("query_scope", "epoch", "auto', 'global', 'batch"),
    ("select", ["LRG999"], "Known codes: LRG101, "),
    ("ignore", ["LRG203", "E501"], "Known codes: LRG101, "),
    ("report", "report.txt", ".json or .html"),
]


def said(error: BaseException | None) -> str:
    """The messages of an error and of those that led to it."""
    return "" if error is None else f"{error}\n{said(error.__cause__ or error.__context__)}"


@pytest.mark.parametrize(("name", "value", "allowed"), WRONG)
def test_the_command_line_answers_a_wrong_value_with_the_allowed_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, value: Any, allowed: str
) -> None:
    with pytest.raises((SystemExit, ValueError)) as refused:
        by_cli(tmp_path, {name: value})
    answer = said(refused.value) + capsys.readouterr().err
    assert name in answer
    assert re.sub(r"[\s\"']", "", allowed) in re.sub(r"[\s\"']", "", answer)


@pytest.mark.parametrize(("name", "value", "allowed"), [*WRONG, ("log_findings", "no", "True, False")])
def test_hydra_answers_a_wrong_value_with_the_allowed_ones(tmp_path: Path, name: str, value: Any, allowed: str) -> None:
    with pytest.raises(InstantiationException, match=f"{name}.*{re.escape(allowed)}"):
        by_hydra(tmp_path, {name: value})


def test_lists_of_omegaconf_are_taken() -> None:
    given = OmegaConf.create({"select": ["LRG2", "LRG301"], "ignore": ["LRG203"]})
    assert isinstance(given.select, ListConfig)
    settings = RetrievalGuard(select=given.select, ignore=given.ignore).settings
    assert (settings.select, settings.ignore) == (("LRG2", "LRG301"), ("LRG203",))
    with RetrievalGuard().ignore(*given.select):
        pass


# --- in a run ---------------------------------------------------------------------------------------------------


def test_a_run_of_the_command_line(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with pytest.warns(GuardWarning, match="LRG301"):
        cli = by_cli(tmp_path, {"mode": "correct", "ignore": ["LRG1"], "report": str(report)}, "validate")
    [finding] = json.loads(report.read_text())["findings"]
    assert (finding["code"], finding["corrected"]) == ("LRG301", True)
    [of_guard] = guard_of(cli).findings
    assert of_guard.to_dict() | {"group": "LRG301-1"} == finding


def test_a_run_with_hydra(tmp_path: Path) -> None:
    guard = by_hydra(tmp_path, {"mode": "strict", "ignore": ["LRG301"]})
    assert make_trainer(guard).validate(Restarting(), verbose=False) == [{"mrr": pytest.approx(merged(), abs=1e-6)}]
