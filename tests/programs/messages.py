"""What the guard prints about a program of the corpus, for each rule: `python -m tests.programs.messages` writes it.

The pages of the rules show it; write them anew with `python -m tools.rule_pages docs/rules`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from lightning_retrieval_guard.findings import show_number
from tests.distributed.harness import Pools

from .expectations import Program
from .runs import Runs

DOCUMENT = Path(__file__).parents[2] / "docs" / "rules" / "messages.json"
WORLD_SIZES = (2, 1)  # two devices show more


def collect(runs: Runs) -> dict[str, dict[str, Any]]:
    """By code: a program that sets the rule off, its right form, on how many devices, and what is printed."""
    messages: dict[str, dict[str, Any]] = {}
    for world_size in WORLD_SIZES:
        # A program with a right form of its own shows more than one without.
        for program in sorted(runs.programs.values(), key=lambda one: "Right form" not in one.fields):
            wanted = program.expected(world_size) | program.expected(world_size, note=True)
            new = {place.code for place in wanted} - messages.keys() if not program.is_right else ()
            for code in sorted(new):
                for finding in _found(runs, program, world_size, code)[:1]:  # none is a known miss
                    messages[code] = {
                        "program": program.name,
                        "right": program.right_form if program.right_form != program.name else None,
                        "devices": world_size,
                        "printed": _printed(program, finding),
                    }
    return dict(sorted(messages.items()))


def _found(runs: Runs, program: Program, world_size: int, code: str) -> list[dict[str, Any]]:
    """The findings of a rule, those first that change a number."""
    # What aborts without a guard ends well in correct mode alone.
    mode = "correct" if program.fails(world_size) else "warn"
    found = [one for one in runs.values(program.name, world_size, mode)[0]["findings"] if one["code"] == code]
    return sorted(found, key=lambda one: (one["severity"] == "note", one["effect"] is None))


_NUMBERS = (("logged", "logged"), ("one device", "reference"))


def _printed(program: Program, finding: dict[str, Any]) -> list[str]:
    head = f"{program.path.name}:{finding['line']}: {finding['code']} {finding['rule']}: {finding['message']}"
    effect = finding["effect"]
    numbers = effect and [f"{word} {show_number(effect[name])}" for word, name in _NUMBERS]
    return [head, *([f"{finding['key']}: {', '.join(numbers)}"] if numbers else []), f"Fix: {finding['fix']}"]


def render(messages: dict[str, dict[str, Any]]) -> str:
    return json.dumps(messages, indent=1) + "\n"


def main() -> int:
    """Run the corpus and write the file."""
    with contextlib.closing(Pools()) as pools:
        DOCUMENT.write_text(render(collect(Runs(pools))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
