"""Which small changes to a module no test notices: `python -m tests.mutation --module plan`.

Each mutant runs the module's tests, fastest first, in a process that is forked after the heavy imports. It survives
where all of them pass.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch
import numpy as np
import pytest
import torch
import torchmetrics.retrieval

from .mutants import Mutant, mutants

FOUND, TABLES = "tests/fuzz/test_found.py", "tests/fuzz/test_tables.py"
ROWS = [f"tests/unit/test_{name}.py" for name in ("plan", "combining", "one_answer", "narrow_rows", "digest")]
TESTS: dict[str, tuple[str, Sequence[str]]] = {
    "exchange": ("distributed.exchange", ["tests/unit/test_exchange.py", "tests/unit/test_payload.py"]),
    "store": ("distributed.store", ["tests/unit/test_store.py", "tests/unit/test_exchange.py"]),
    "plan": ("epoch.plan", ["tests/unit/test_plan.py", "tests/unit/test_combining.py"]),
    "facts": ("epoch.row_facts", [*ROWS, "tests/rules", TABLES]),
    "keys": ("watch.keys", ["tests/unit/test_weights.py", "tests/rules", TABLES]),
    "view": ("epoch.views", ["tests/rules", FOUND, TABLES]),
}
PATIENCE = 240
PRELOADED = (lightning.pytorch, np, torch, torchmetrics.retrieval)


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed source."""

    def __init__(self, name: str, path: Path, source: str) -> None:
        self.name, self.path, self.source = name, path, source

    def find_spec(self, fullname: str, *_: Any) -> Any:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.path)
        exec(compile(self.source, str(self.path), "exec"), vars(module))


def passes(name: str, path: Path, source: str, tests: Sequence[str]) -> bool:
    """Whether the tests pass with the changed module; those that do not end do not."""
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # the process ends with it
        signal.alarm(PATIENCE)
        sys.meta_path.insert(0, Mutated(name, path, source))
        # to rewrite assertions, pytest would find the package itself, as that of a plugin
        options = ["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "--hypothesis-seed=0"]
        os._exit(int(pytest.main([*options, *tests])))
    _, status = os.waitpid(child, 0)
    return status == 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.mutation", description=main.__doc__)
    parser.add_argument("--module", choices=sorted(TESTS), required=True)
    parser.add_argument("--lines", type=int, nargs="+", help="only changes to these lines")
    parser.add_argument("--sample", type=int, help="no more mutants than that, chosen by a fixed seed")
    parser.add_argument("--minutes", type=float, default=600.0, help="begin no further mutant after that")
    arguments = parser.parse_args()
    dotted, tests = TESTS[arguments.module]
    name = f"lightning_retrieval_guard.{dotted}"
    path = Path(*name.split(".")).with_suffix(".py")
    source = path.read_text(encoding="utf-8")
    if not passes(name, path, source, tests):
        print("the tests fail without a change")
        return 2
    if passes(name, path, "", tests):
        print("the tests do not look at the module that is changed")
        return 2
    chosen: list[Mutant] = list(mutants(source))
    total = len(chosen)
    if arguments.lines is not None:
        chosen = [mutant for mutant in chosen if mutant.line in arguments.lines]
    if arguments.sample is not None and arguments.sample < len(chosen):
        chosen = random.Random(0).sample(chosen, arguments.sample)
    end, ran, survivors = time.monotonic() + 60 * arguments.minutes, 0, 0
    for mutant in chosen:
        if time.monotonic() > end:
            break
        ran += 1
        if passes(name, path, mutant.source, tests):
            survivors += 1
            print(f"{path}:{mutant.line}: {mutant.change}", flush=True)
    print(f"{arguments.module}: {ran} of {total} mutants, {survivors} survived")
    return 0


if __name__ == "__main__":
    sys.exit(main())
