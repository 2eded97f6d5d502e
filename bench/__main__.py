"""Measures everything and prints it: `python -m bench [--json PATH]`."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from bench.log_calls import KINDS, Cost, measure

PACKAGES = ("torch", "lightning", "torchmetrics")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="What a guard in warn mode costs.")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the numbers here as well")
    parser.add_argument("--rounds", type=int, default=15, help="runs with and without a guard, by turns (default 15)")
    parser.add_argument("--steps", type=int, default=400, help="log calls in a run (default 400)")
    arguments = parser.parse_args()
    costs = {kind: measure(kind, arguments.rounds, arguments.steps) for kind in KINDS}
    print_table(costs)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(document(costs, arguments), indent=2) + "\n")
    return 0


def print_table(costs: dict[str, Cost]) -> None:
    print(f"{'one log call of':16} {'without':>11} {'with warn':>11} {'ratio':>7}   middle half of the rounds")
    for kind, cost in costs.items():
        low, high = cost.middle_half
        print(
            f"{kind:16} {1e6 * cost.without:8.1f} us {1e6 * cost.with_warn:8.1f} us {cost.ratio:7.2f}"
            f"   {low:.2f} to {high:.2f}"
        )


def document(costs: dict[str, Cost], arguments: argparse.Namespace) -> dict[str, object]:
    return {
        "version": 1,
        "rounds": arguments.rounds,
        "steps": arguments.steps,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "seconds_per_log_call": {kind: asdict(cost) for kind, cost in costs.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
