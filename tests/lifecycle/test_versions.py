"""Versions that nobody has checked get one warning, and a correction goes where upstream needs none."""

from __future__ import annotations

import warnings
from types import ModuleType

import lightning.pytorch as lightning
import pytest
import pytorch_lightning
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from lightning_retrieval_guard import GuardWarning, RetrievalGuard, _compat
from lightning_retrieval_guard.report import log

from .programs import Restarting, RestartingIds, make_trainer


@pytest.fixture(autouse=True)
def nothing_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_versions_warned_of", set())


def install(monkeypatch: pytest.MonkeyPatch, **versions: str | None) -> None:
    """Let packages have other versions than they have."""
    others = {package: version and Version(version) for package, version in versions.items()}
    version_of = _compat.version_of
    monkeypatch.setattr(
        _compat, "version_of", lambda package: others[package] if package in others else version_of(package)
    )


def warned(package: ModuleType = lightning, runs: int = 1) -> list[warnings.WarningMessage]:
    """What the guard says of versions."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(runs):
            module = type("Module", (RestartingIds, package.LightningModule), {})()
            make_trainer(RetrievalGuard(ignore=["LRG301"]), package=package).validate(module, verbose=False)
    return [one for one in seen if one.category is GuardWarning]


@pytest.mark.parametrize("package", [lightning, pytorch_lightning], ids=["lightning", "pytorch_lightning"])
def test_installed_versions_are_checked(package: ModuleType) -> None:
    assert not warned(package)


@pytest.mark.parametrize("version", ["2.0.9", "2.6.2", "2.7.0", "2.7.0.dev20260101", "3.0.0"])
def test_a_version_out_of_range_is_told_once(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, lightning=version)
    [warning] = warned(runs=2)
    assert str(warning.message) == (
        f"RetrievalGuard: it was not checked with lightning {version}, but with >=2.1,!=2.6.2,!=2.6.3,<2.7."
        " It goes on, and steps aside where it fails, but may judge or correct numbers wrongly. Install a version of"
        " that range, or a newer lightning-retrieval-guard."
    )
    assert warning.filename == __file__


@pytest.mark.parametrize("version", ["2.1.0", "2.5.0.post0", "2.6.0rc1", "2.6.99"])
def test_a_version_within_range_is_silent(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    install(monkeypatch, lightning=version)
    assert not warned()


def test_each_package_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lightning="9.0", torchmetrics="1.1.2")
    said = [str(warning.message) for warning in warned()]
    assert [text.split(", but")[0].split("with ")[1] for text in said] == ["lightning 9.0", "torchmetrics 1.1.2"]


def test_only_the_package_in_use_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lightning="9.0")
    assert not warned(pytorch_lightning)
    assert len(warned(lightning)) == 1


def test_a_version_that_cannot_be_told_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, torchmetrics=None)
    [warning] = warned()
    assert "it was not checked with torchmetrics (no version), but with" in str(warning.message)


def test_it_is_a_warning_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, lightning="9.0")
    guard = RetrievalGuard(mode="correct")
    with pytest.warns(GuardWarning, match="lightning 9.0"), pytest.warns(GuardWarning, match="LRG301"):
        make_trainer(guard).validate(Restarting(), verbose=False)
    assert [finding.code for finding in guard.findings] == ["LRG301"]


def test_a_distribution_without_a_version_has_none() -> None:
    assert _compat.version_of("no_such_distribution") is None


# --- corrections that upstream may make unnecessary -------------------------------------------------------------


@pytest.mark.parametrize(
    ("installed", "shown"), [("2.0.6", False), ("2.0.7", True), ("2.6.0.dev1", True), ("2.7.0", False), (None, True)]
)
def test_a_fault_has_its_versions(monkeypatch: pytest.MonkeyPatch, installed: str | None, shown: bool) -> None:
    install(monkeypatch, lightning=installed)
    assert _compat.Fault("", SpecifierSet(">=2.0.7,<2.7")).shown_by("lightning") == shown
