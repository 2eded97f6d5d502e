"""The steps of docs/github-actions.yml, run here as GitHub runs them: from the run to the check and its SARIF."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

PROGRAM = Path(__file__).with_name("program.py")
WORKFLOW = Path(__file__).parents[2] / "docs" / "github-actions.yml"
ROOT = Path(__file__).parents[2]


def run_job(name: str, folder: Path) -> tuple[dict[str, dict[str, Any]], list[int], str]:
    """Run a job of the workflow in a checkout of its own.

    Returns:
        The SARIF files that would be uploaded, the exit codes of the commands, and what the last one wrote.
    """
    source = PROGRAM.read_text(encoding="utf-8").replace("main(*sys.argv[1:])", 'main("ddp_fork", "none")')
    (folder / "evaluate.py").write_text(source, encoding="utf-8")
    job = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"][name]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, **job.get("env", {}), "PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    uploads, codes, written = {}, [], ""
    for step in job["steps"]:
        if step.get("uses", "").startswith("github/codeql-action/upload-sarif"):
            uploads[step["with"]["category"]] = json.loads((folder / step["with"]["sarif_file"]).read_text())
        if "run" not in step or step["run"].startswith("pip install"):
            continue
        assert not any(codes), "a step that fails ends the job"
        command = ["bash", "-e", "-o", "pipefail", "-c", step["run"]]
        ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        codes.append(ended.returncode)
        written = ended.stdout
        assert ended.returncode < 2, ended.stdout + ended.stderr
    return uploads, codes, written


@pytest.mark.timeout(150)
@pytest.mark.skipif(shutil.which("bash") is None, reason="GitHub runs steps in bash")
@pytest.mark.parametrize(("job", "line"), [("lint", "self.recall.update("), ("evaluate", "self.log(")])
def test_a_fault_comes_to_code_scanning_and_fails_the_job(job: str, line: str, tmp_path: Path) -> None:
    uploads, codes, written = run_job(job, tmp_path)
    assert codes == [0] * (len(codes) - 1) + [1]
    [document] = uploads.values()
    [run] = document["runs"]
    [result] = [one for one in run["results"] if one["ruleId"] == "LRG201"]
    assert result["level"] == "error"
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == "LRG201"
    [location] = result["locations"]
    assert location["physicalLocation"]["artifactLocation"] == {"uri": "evaluate.py", "uriBaseId": "%SRCROOT%"}
    number = location["physicalLocation"]["region"]["startLine"]
    assert line in (tmp_path / "evaluate.py").read_text().splitlines()[number - 1]
    [command] = [one for one in written.splitlines() if "title=LRG201 gathered-before-sync::" in one]
    assert command.startswith(f"::error file=evaluate.py,line={number},")
