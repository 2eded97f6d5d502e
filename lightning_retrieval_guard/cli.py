"""The command line: one subcommand an entry in COMMANDS.

A command imports what it needs when it is asked for, so that ``lint`` starts without torch.
"""

from __future__ import annotations

import os
import shutil
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from dataclasses import fields
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_retrieval_guard import __version__
from lightning_retrieval_guard.settings import LARGEST_SEED, REPORT_SUFFIXES, path_refusal

if TYPE_CHECKING:
    from lightning_retrieval_guard.rules import Rule

# Longer lines are hard to read, however wide the terminal is.
MAX_COLUMNS = 100

Run = Callable[[Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Args:
        argv: The arguments after the program's name; by default those of this process.

    Returns:
        The exit code: 0 when all is well, 1 when a check failed, 2 when it could not run.

    Raises:
        SystemExit: With code 2 when an argument is refused, with code 0 after `--help`.
    """
    options = _parser(sys.argv[1:] if argv is None else argv).parse_args(argv)
    run: Run = options.run
    if isinstance(sys.stdout, TextIOWrapper):
        # what the encoding of a terminal or pipe does not have, as in a key or file name, is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    return run(options)


def _parser(arguments: Sequence[str]) -> ArgumentParser:
    parser = ArgumentParser(
        prog="lightning-retrieval-guard",
        description="The number you log on N devices is the number one device would have logged.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (text, add_options) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=text, description=text)
        # only of the command that is asked for: its options may need its imports
        if name in arguments:
            subparser.set_defaults(run=add_options(subparser))
    return parser


def _refused(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)
    return 2


# --- the commands: each adds its options, and returns what it does with them ------------------------------------


def _demo(parser: ArgumentParser) -> Run:
    from lightning_retrieval_guard.demo import MAX_DEVICES, run_demo

    parser.add_argument(
        "--devices",
        type=_integer_between(1, MAX_DEVICES),
        default=2,
        metavar="N",
        help=f"how many processes to compare with one, 1 to {MAX_DEVICES} (default: 2)",
    )
    _add_seed(parser, "of the weights, the split and the order of the batches (default: 0)")
    parser.add_argument(
        "--report",
        type=_path_ending_in(*REPORT_SUFFIXES),
        metavar="PATH",
        help="write what the warn run finds to PATH, as .json or .html",
    )
    return lambda options: run_demo(devices=options.devices, seed=options.seed, report=options.report)


def _explain(parser: ArgumentParser) -> Run:
    from lightning_retrieval_guard.rules import REGISTRY
    from lightning_retrieval_guard.rules.documentation import render_list, render_rule

    parser.add_argument(
        "rules",
        nargs="?",
        type=_rules,
        default=REGISTRY,
        metavar="RULE",
        help="a code, a name or the beginning of codes, such as LRG201, gathered-before-sync or LRG2, which lists its"
        " family; without it all rules are listed",
    )

    def run(options: Namespace) -> int:
        width = min(shutil.get_terminal_size().columns, MAX_COLUMNS)
        first, *others = options.rules.values()
        try:
            print(render_list(options.rules, width) if others else render_rule(first, width))
        except ValueError as error:  # python -OO
            return _refused(error)
        return 0

    return run


def _parity(parser: ArgumentParser) -> Run:
    from lightning_retrieval_guard.parity import Options, ParityError, build_options, run_parity
    from lightning_retrieval_guard.parity.options import CHOICES

    parser.add_argument(
        "target",
        metavar="TARGET",
        help="path/to/file.py:function or package.module:function; it returns a module, (module, loaders or datamodule)"
        " or (module, loaders or datamodule, a dict of Trainer arguments)",
    )
    parser.add_argument(
        "--world-sizes",
        type=_integers,
        default=Options.world_sizes,
        metavar="N,N",
        help=f"the numbers of processes; 1 is always among them (default: {','.join(map(str, Options.world_sizes))})",
    )
    batches = (
        "global: all processes together have the batch of one; per-rank: each has the batch that the program makes"
    )
    for name, text in (("stage", "what is run"), ("mode", "of the guard"), ("keep", batches)):
        default = getattr(Options, name)
        parser.add_argument(f"--{name}", choices=CHOICES[name], default=default, help=f"{text} (default: %(default)s)")
    for name, kind in (("rtol", "relative"), ("atol", "absolute")):
        text = f"{kind} difference that is none (default: %(default)s)"
        parser.add_argument(f"--{name}", type=float, default=getattr(Options, name), help=text)
    parser.add_argument(
        "--timeout",
        type=float,
        default=Options.timeout,
        metavar="S",
        help="seconds for each run (default: %(default)g)",
    )
    _add_seed(parser, "of every process (default: 0)")
    parser.add_argument("--json", type=_path_ending_in(".json"), metavar="PATH", help="write the result to PATH too")

    def run(options: Namespace) -> int:
        try:
            checked = build_options(**{field.name: getattr(options, field.name) for field in fields(Options)})
        except (ParityError, ValueError) as error:
            return _refused(error)
        return run_parity(checked, options.json)

    return run


def _check(parser: ArgumentParser) -> Run:
    from lightning_retrieval_guard.report.check import FORMATS, ReportError, check_report
    from lightning_retrieval_guard.rules import REGISTRY

    parser.add_argument("report", type=Path, metavar="REPORT.json", help="what RetrievalGuard(report=...) wrote")
    parser.add_argument(
        "--fail-on",
        choices=("error", "warning"),
        default="warning",
        help="what is at least so bad fails the check, unless it was corrected (default: %(default)s)",
    )
    parser.add_argument(
        "--format", choices=FORMATS, default="text", help="how to show what was found (default: %(default)s)"
    )
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 also where the check fails")

    def run(options: Namespace) -> int:
        scaled = {code for code, rule in REGISTRY.items() if rule.spec.scales_by_ranks}
        try:
            text, passed = check_report(options.report, options.fail_on, options.format, scaled)
        except ReportError as error:
            return _refused(error)
        if text:
            print(text)
        return 0 if passed or options.exit_zero else 1

    return run


def _lint(parser: ArgumentParser) -> Run:
    from lightning_retrieval_guard.lint.runner import FORMATS, run_lint

    parser.add_argument(
        "paths", nargs="*", default=["."], metavar="PATH", help="files, folders, or - for standard input (default: .)"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="how to show what was found (default: text)")
    for name, text in (("select", "report these codes or prefixes alone"), ("ignore", "do not report these")):
        parser.add_argument(f"--{name}", type=_codes, default=(), metavar="CODES", help=text)
    parser.add_argument("--fix", action="store_true", help="change what has one safe form; needs libcst")
    parser.add_argument("--diff", action="store_true", help="show these changes and make none")
    parser.add_argument("--exit-zero", action="store_true", help="exit with 0 also where something was found")
    parser.add_argument("--strict-notes", action="store_true", help="count notes as findings")
    parser.add_argument("--quiet", "-q", action="store_true", help="leave out the line that counts")
    parser.add_argument("--stdin-filename", default="<stdin>", metavar="PATH", help="the name of what - reads")
    return run_lint


# --- the types of arguments -------------------------------------------------------------------------------------


def _add_seed(parser: ArgumentParser, meaning: str) -> None:
    parser.add_argument("--seed", type=_integer_between(0, LARGEST_SEED), default=0, help=meaning)


def _integers(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if not all(number.isdecimal() for number in numbers):
        raise ArgumentTypeError(f"{text!r} is not a list of whole numbers, such as 1,2,4")
    return tuple(map(int, numbers))


def _codes(text: str) -> tuple[str, ...]:
    return tuple(code.strip().upper() for code in text.split(",") if code.strip())


def _integer_between(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ArgumentTypeError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def _rules(text: str) -> dict[str, Rule]:
    from lightning_retrieval_guard.rules import REGISTRY
    from lightning_retrieval_guard.rules.documentation import UnknownRuleError, find_rule

    family = {code: rule for code, rule in REGISTRY.items() if code.startswith(text.strip().upper())}
    if text.strip() and family:
        return family
    try:
        rule = find_rule(text, REGISTRY)
    except UnknownRuleError as error:
        raise ArgumentTypeError(str(error)) from error
    return {rule.code: rule}


def _path_ending_in(*suffixes: str) -> Callable[[str], Path]:
    def parse(text: str) -> Path:
        # Looked at here too, so that a typing mistake is not found only after the runs.
        path = Path(os.path.expanduser(text))
        if refusal := path_refusal(path, suffixes):
            raise ArgumentTypeError(f"{text!r} {refusal}")
        return path

    return parse


# What `--help` says of each command, and what adds its options.
COMMANDS: dict[str, tuple[str, Callable[[ArgumentParser], Run]]] = {
    "demo": ("Train a small retriever, evaluate it on one and on N processes, and compare the numbers.", _demo),
    "explain": ("Say what a rule flags, why that is wrong, and what to type instead.", _explain),
    "parity": (
        "Evaluate the same weights and data on several numbers of CPU processes, and compare what is logged.",
        _parity,
    ),
    "check": ("Fail on what a JSON report of a run holds; for continuous integration.", _check),
    "lint": ("Find in source what it alone makes certain, and fix what has one safe form.", _lint),
}
