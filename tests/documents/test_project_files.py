"""Files for contributors: they parse, agree with each other, and name only what is there."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import lightning_retrieval_guard
from lightning_retrieval_guard.report.document import Report, build_document
from tests.report.samples import LIKE_A_RUN

from .pages import ROOT

FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
SCHEMA = ROOT / "docs" / "report.schema.json"


def loaded(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_one_version_everywhere() -> None:
    [project] = re.findall(r'^version = "(.*)"$', PYPROJECT, re.MULTILINE)
    newest = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    released = [name for name in newest if name != "Unreleased"]
    assert project == lightning_retrieval_guard.__version__ == loaded("CITATION.cff")["version"] == released[0]


def test_the_workflow_runs_targets_of_make_on_every_supported_python() -> None:
    jobs = loaded(".github/workflows/test.yml")["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands
    for command in commands:
        assert re.search(rf"^{command.removeprefix('make ')}:", MAKEFILE, re.MULTILINE), command
    declared = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PYPROJECT)
    assert jobs["test"]["strategy"]["matrix"]["python"] == declared


@pytest.mark.parametrize("form", [form for form in FORMS if form.stem != "config"], ids=lambda form: form.stem)
def test_issue_forms_are_complete(form: Path) -> None:
    content = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= content.keys()
    names = [part["id"] for part in content["body"]]
    assert len(set(names)) == len(names)
    for part in content["body"]:
        assert part["type"] in {"input", "textarea", "dropdown", "checkboxes", "markdown"}
        assert part["attributes"]["label"]
    assert any(part.get("validations", {}).get("required") for part in content["body"])


def test_the_hooks_of_the_project_are_commands_that_make_lint_runs_or_files_that_exist() -> None:
    [repository] = loaded(".pre-commit-config.yaml")["repos"]
    for hook in repository["hooks"]:
        program, *words = hook["entry"].split()
        for word in words:
            if "/" in word:
                assert (ROOT / word).exists(), hook
            if word.startswith("tools."):
                assert (ROOT / f"{word.replace('.', '/')}.py").exists(), hook
        assert program == "python" or f"$(BIN)/{program}" in MAKEFILE, hook


def test_the_citation_has_what_the_format_asks_for() -> None:
    citation = loaded("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert f'license = "{citation["license"]}"' in PYPROJECT


@pytest.mark.parametrize("report", [LIKE_A_RUN, Report("warn", 1, (), {}, {}, {})], ids=["run", "empty"])
def test_the_schema_describes_reports(report: Report) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    document = json.loads(json.dumps(build_document(report)))
    jsonschema.Draft202012Validator(schema).validate(document)
    assert document.keys() == schema["properties"].keys()
    for finding in document["findings"]:
        assert finding.keys() == schema["$defs"]["finding"]["properties"].keys()


def test_the_schema_refuses_another_version() -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    with pytest.raises(jsonschema.ValidationError, match="2 was expected"):
        jsonschema.validate({**build_document(LIKE_A_RUN), "version": 1}, schema)
