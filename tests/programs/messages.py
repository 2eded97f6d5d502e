"""What the guard prints about a program of the corpus, for each rule: `python -m tests.programs.messages` writes it.

The pages of the rules show it; write them anew with `python -m tools.rule_pages docs/rules`.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from tests.distributed.harness import Pools

from .evaluate import printed
from .expectations import Program
from .runs import Runs

DOCUMENT = Path(__file__).parents[2] / "docs" / "rules" / "messages.json"
WORLD_SIZES = (2, 1)  # two devices show more


def collect(runs: Runs) -> dict[str, dict[str, Any]]:
    """By code: a program that sets the rule off, its right form, how it was run, and what is printed."""
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
                        "mode": _mode(program, world_size),
                        "devices": world_size,
                        "printed": printed(finding),
                    }
    return dict(sorted(messages.items()))


def _found(runs: Runs, program: Program, world_size: int, code: str) -> list[dict[str, Any]]:
    """The findings of a rule, those first that change a number."""
    run = runs.values(program.name, world_size, _mode(program, world_size))[0]
    found = [one for one in run["findings"] if one["code"] == code]
    return sorted(found, key=lambda one: (one["severity"] == "note", one["effect"] is None))


def _mode(program: Program, world_size: int) -> str:
    # What aborts without a guard ends well in correct mode alone.
    return "correct" if program.fails(world_size) else "warn"


def render(messages: dict[str, dict[str, Any]]) -> str:
    return json.dumps(messages, indent=1) + "\n"


def main() -> int:
    """Run the corpus and write the file."""
    with contextlib.closing(Pools()) as pools:
        DOCUMENT.write_text(render(collect(Runs(pools))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
