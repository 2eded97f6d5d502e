"""The page that tells in which versions the tests were run; `nox -s compat unpinned page` runs this file."""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from lightning_retrieval_guard import _compat

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "compatibility.md"
RESULTS = ROOT / ".nox" / "compatibility"
PACKAGES = ("lightning", "pytorch-lightning", "torchmetrics", "torch")

_TOP = """\
# Compatibility

See whether your versions of Lightning and torchmetrics were tested. The guard is checked with these, and warns once
where another is in use:

- `lightning` and `pytorch_lightning` {lightning}; 2.6.2 and 2.6.3 were withdrawn
- `torchmetrics` {torchmetrics}

Any `torch` from 2.1 on may be installed.

`nox -s compat unpinned page` installs each row below on its own, runs the tests and writes this page. First come pairs
of versions, the oldest also with the oldest torch. The oldest and the newest pair are part of `make test`, and the
newest pair runs all tests there. Then comes what `pip install` finds newest for each Python.

| Lightning, both packages | torchmetrics | torch | Python | passed | skipped | failed |
|---|---|---|---|---|---|---|
"""
_TESTS = """
## What was run

The same tests in every row, on one process and on several, from these files:

{tests}
Skipped is what a version does not have. Aggregations other than the mean and `RetrievalAUROC` came with torchmetrics
1.3. Before 2.6 a trainer refuses callbacks of the other Lightning package; the guard is a callback of both then.

## Python

The tests above ran with these: {pythons}. The package was installed in fresh environments as
`make release-check` does it, and the demo ran there: the wheel with Python 3.11.7, the sdist with 3.13.0.

"""
_FAULTS = """\
## What depends on versions

Some of what the guard does is needed only while Lightning or torchmetrics do something wrong. Each of these faults has
a test that runs the program without the guard, and fails where the installed version has been put right:

| what | in versions |
|---|---|
"""


def note(result: Path, name: str) -> None:
    """Keep what became of the tests in the environment that runs this."""
    cases = ElementTree.parse(result).iter("testcase")
    verdicts = [(case.attrib["classname"].replace(".", "/"), _ended(case)) for case in cases]
    told = {
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "ended": Counter(ended for _, ended in verdicts),
        "files": sorted({f"{name}.py" for name, _ in verdicts}),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(told), encoding="utf-8")


def _ended(case: ElementTree.Element) -> str:
    tags = {part.tag for part in case}
    return "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"


def render(results: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    rows = [_row(result) for result in results]
    files = sorted({name for result in results for name in result["files"]})
    pythons = ", ".join(sorted({result["python"] for result in results}))
    faults = [_compat.FLOORED_WEIGHTS, _compat.ORDER_PAIRS_KEYS, _compat.UNEVEN_LISTS, _compat.REFUSED_CALLBACKS]
    return "".join(
        [
            _TOP.format(**{name: f"`{checked}`" for name, checked in _compat.CHECKED.items()}),
            *rows,
            _TESTS.format(tests="".join(f"- `{name}`\n" for name in files), pythons=pythons),
            _FAULTS,
            *(f"| {fault.what} | {fault.versions} |\n" for fault in faults),
        ]
    )


def _row(result: dict[str, Any]) -> str:
    versions, ended = result["versions"], result["ended"]
    assert versions["lightning"] == versions["pytorch-lightning"]
    shown = [versions["lightning"], versions["torchmetrics"], versions["torch"], result["python"]]
    counts = [str(ended.get(name, 0)) for name in ("passed", "skipped", "failed")]
    return f"| {' | '.join([*shown, *counts])} |\n"


def main(command: str, *arguments: str) -> None:
    if command == "note":
        result, name = arguments
        note(Path(result), name)
    else:
        found = [json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")) for name in arguments]
        DOCUMENT.write_text(render(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
