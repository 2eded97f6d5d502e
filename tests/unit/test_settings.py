"""Settings: every refused value is answered with the allowed ones."""

import os
import re
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest

from lightning_retrieval_guard.settings import VARIABLE, Settings, build_settings, path_refusal

CODES = ("LRG301", "LRG101", "LRG104", "LRG203")


def build(**changed: Any) -> Settings:
    given = {
        "mode": "warn",
        "select": None,
        "ignore": (),
        "query_scope": "auto",
        "batch_size_fn": None,
        "report": None,
        "log_findings": True,
        "report_to_loggers": False,
    }
    return build_settings(**{**given, **changed}, known_codes=CODES)


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def test_the_defaults_are_those_of_the_dataclass() -> None:
    assert build() == Settings()


def test_they_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        build().mode = "strict"


@pytest.mark.parametrize("mode", ["warn", "correct", "strict"])
@pytest.mark.parametrize("scope", ["auto", "global", "batch"])
def test_every_mode_and_scope_is_taken(mode: str, scope: str) -> None:
    settings = build(mode=mode, query_scope=scope)
    assert (settings.mode, settings.query_scope) == (mode, scope)


@pytest.mark.parametrize("mode", ["", "Warn", "error", None, True])
def test_another_mode_is_refused(mode: Any) -> None:
    with pytest.raises(ValueError, match=exactly(f"mode={mode!r} is not one of 'warn', 'correct', 'strict'.")):
        build(mode=mode)


@pytest.mark.parametrize("scope", ["", "rank", None])
def test_another_scope_is_refused(scope: Any) -> None:
    with pytest.raises(ValueError, match=exactly(f"query_scope={scope!r} is not one of 'auto', 'global', 'batch'.")):
        build(query_scope=scope)


@pytest.mark.parametrize("given", [0, -1, float("nan"), float("inf"), "256", True, None])
def test_memory_is_a_positive_number(given: Any) -> None:
    assert build(max_held_mb=0.5).max_held_mb == 0.5
    with pytest.raises(ValueError, match=exactly(f"max_held_mb={given!r} is not a positive number.")):
        build(max_held_mb=given)


@pytest.mark.parametrize("name", ["select", "ignore"])
@pytest.mark.parametrize("given", [["LRG999"], ["LRG2", "E501"], ["lrg1"], [""], ["LRG1011"]])
def test_an_unknown_code_is_refused_with_the_known_ones(name: str, given: list[str]) -> None:
    said = f"{name} holds {given[-1]!r}, which no rule code starts with. Known codes: LRG101, LRG104, LRG203, LRG301."
    with pytest.raises(ValueError, match=exactly(said)):
        build(**{name: given})


@pytest.mark.parametrize("name", ["select", "ignore"])
@pytest.mark.parametrize("given", ["LRG101", [101], [None]])
def test_codes_must_be_a_sequence_of_strings(name: str, given: Any) -> None:
    with pytest.raises(TypeError) as caught:
        build(**{name: given})
    assert str(caught.value).startswith(f"{name}={given!r} must be a sequence of rule codes or prefixes, such as")


@pytest.mark.parametrize("given", [32, "len", []])
def test_what_cannot_be_called_is_refused(given: Any) -> None:
    with pytest.raises(TypeError, match=r"cannot be called\. Pass a function that takes a batch and returns"):
        build(batch_size_fn=given)


@pytest.mark.parametrize("report", ["report.txt", "report", "report.JSON", "json"])
def test_another_suffix_is_refused(report: str) -> None:
    with pytest.raises(ValueError, match=exactly(f"report={report!r} must end in .json or .html.")):
        build(report=report)


def test_a_report_may_be_a_string_or_a_path(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert build(report=path).report == build(report=str(path)).report == path


@pytest.mark.parametrize(
    ("select", "ignore", "allowed"),
    [
        (None, (), ["LRG101", "LRG104", "LRG203", "LRG301"]),
        (["LRG1"], (), ["LRG101", "LRG104"]),
        (["LRG1", "LRG301"], ["LRG104"], ["LRG101", "LRG301"]),
        (None, ["LRG"], []),
        ([], (), []),
    ],
)
def test_select_and_ignore_take_codes_and_prefixes(select: Any, ignore: Any, allowed: list[str]) -> None:
    settings = build(select=select, ignore=ignore)
    assert [code for code in sorted(CODES) if settings.allows(code)] == allowed


def test_a_report_that_cannot_be_written_is_refused_early(tmp_path: Path) -> None:
    assert path_refusal(tmp_path / "report.json") == path_refusal(Path("report.json")) == ""
    assert path_refusal(tmp_path / "missing" / "folders" / "report.json") == ""
    assert os.listdir(tmp_path) == []
    (tmp_path / "folder.json").mkdir()
    assert path_refusal(tmp_path / "folder.json") == "is a folder; give the path of a file"
    assert path_refusal(tmp_path / "result.html", (".json",)) == "must end in .json"


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "report.json")
    assert path_refusal(tmp_path / "report.json") == "is not a regular file"
    (tmp_path / "file").write_text("")
    assert path_refusal(tmp_path / "file" / "report.json").endswith("file' is not a folder")


def test_a_link_into_a_missing_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "report.json").symlink_to(tmp_path / "missing" / "report.json")
    assert path_refusal(tmp_path / "report.json") == ""


def test_what_cannot_even_be_looked_at_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert path_refusal(tmp_path / f"{'a' * 300}.json") == "cannot be written: File name too long"

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refuse)
    assert path_refusal(tmp_path / "report.json") == "cannot be written: Permission denied"


def test_the_home_folder_may_be_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build(report="~/runs/report.json").report == tmp_path / "runs" / "report.json"
    assert build(report="~nobody-of-this-name/report.json").report == Path("~nobody-of-this-name/report.json")


def test_missing_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda target, mode: False)
    assert path_refusal(tmp_path / "report.json") == f"cannot be written: no permission on {str(tmp_path)!r}"


# --- the environment --------------------------------------------------------------------------------------------

FROM_ENVIRONMENT = {"select": ("LRG1", "LRG3"), "ignore": ("LRG104",), "query_scope": "batch", "report": Path("r.json")}
IN_CODE = {"select": ("LRG2",), "ignore": ("LRG2",), "query_scope": "global", "report": Path("code.html")}


def set_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("SELECT", "LRG1, LRG3"), ("IGNORE", "LRG104"), ("QUERY_SCOPE", "batch"), ("REPORT", "r.json")):
        monkeypatch.setenv(f"{VARIABLE}_{name}", text)


@pytest.mark.parametrize("name", IN_CODE)
def test_the_environment_says_what_code_leaves_open(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_all(monkeypatch)
    assert getattr(build(), name) == FROM_ENVIRONMENT[name]
    assert getattr(build(**{name: IN_CODE[name]}), name) == IN_CODE[name]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("SELECT", "LRG9x", f"{VARIABLE}_SELECT holds 'LRG9x', which no rule code starts with."),
        ("QUERY_SCOPE", "rank", f"{VARIABLE}_QUERY_SCOPE='rank' is not one of 'auto', 'global', 'batch'."),
        ("REPORT", "r.txt", f"{VARIABLE}_REPORT='r.txt' must end in .json or .html."),
        (
            "REPROT",
            "r.json",
            f"The environment sets {VARIABLE}_REPROT, which is not one of {VARIABLE}, {VARIABLE}_SELECT,",
        ),
    ],
)
def test_a_wrong_variable_is_named(name: str, text: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{VARIABLE}_{name}", text)
    with pytest.raises(ValueError, match=re.escape(words)):
        build()


def test_a_report_that_is_no_path_is_refused() -> None:
    with pytest.raises(
        TypeError, match=re.escape("report=True is not a path. Give one that ends in .json or .html, or None.")
    ):
        build(report=True)


@pytest.mark.parametrize("name", ["log_findings", "report_to_loggers"])
@pytest.mark.parametrize("given", [1, 0, "yes", None])
def test_a_switch_is_true_or_false(name: str, given: Any) -> None:
    with pytest.raises(ValueError, match=exactly(f"{name}={given!r} is not one of True, False.")):
        build(**{name: given})
