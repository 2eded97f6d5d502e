"""Measures everything and prints one table: `python -m bench [--quick] [--only NAME] [--json PATH]`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.declare import Scale, measured
from bench.document import entry, load, save
from bench.registry import BENCHES
from bench.table import HEAD, aligned, rows

JSON = Path("reports/bench.json")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.partition(":")[0] + ".")
    parser.add_argument("--quick", action="store_true", help="less of everything: shows that all of it runs")
    parser.add_argument("--only", action="append", choices=BENCHES, metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--json", type=Path, default=JSON, metavar="PATH", help=f"write the numbers here ({JSON})")
    parser.add_argument("--write-docs", action="store_true", help="measure nothing: put the numbers into the docs")
    arguments = parser.parse_args()
    if arguments.write_docs:
        return write_docs(arguments.json)
    names = arguments.only or list(BENCHES)
    document = load(arguments.json)
    for name in names:
        print(f"{name} ...", file=sys.stderr, flush=True)
        scale = Scale(quick=arguments.quick)
        document["benches"][name] = entry(BENCHES[name], measured(BENCHES[name], scale), scale)
        save(arguments.json, document)
    print(aligned(HEAD, rows(document["benches"][name] for name in names)))
    return 0


def write_docs(path: Path) -> int:
    from bench.write_docs import refresh

    refresh(load(path)["benches"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
