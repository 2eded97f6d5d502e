"""The frozen, validated settings of one guard."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

Mode = Literal["warn", "correct", "strict"]
QueryScope = Literal["auto", "global", "batch"]
PathLike = str | os.PathLike[str]
_T = TypeVar("_T")

REPORT_SUFFIXES = (".json", ".html")
VARIABLE = "LIGHTNING_RETRIEVAL_GUARD"
TIMEOUT_VARIABLE = f"{VARIABLE}_TIMEOUT"
VARIABLES = (
    VARIABLE,
    *(f"{VARIABLE}_{name}" for name in ("SELECT", "IGNORE", "QUERY_SCOPE", "REPORT")),
    TIMEOUT_VARIABLE,
)
LARGEST_SEED = 2**32 - 1  # that torch takes
# What stands in a report's path for the folder of the trainer's logger.
LOG_DIR = "{log_dir}"


@dataclass(frozen=True)
class Settings:
    """What the user asked for, after validation."""

    mode: Mode = "warn"  # what to do with a finding
    select: tuple[str, ...] | None = None  # rule codes or prefixes that are enabled; None means all
    ignore: tuple[str, ...] = ()  # rule codes or prefixes that are not reported
    query_scope: QueryScope = "auto"  # which rows with the same query id belong together
    batch_size_fn: Callable[[Any], int] | None = None  # counts the samples in a batch
    report: Path | None = None  # where the report goes
    log_findings: bool = True  # whether the run's loggers get the number of findings
    report_to_loggers: bool = False  # whether the loggers that can keep files get the report
    max_held_mb: float = 256  # the most MiB of rows that the guard alone keeps alive, on each rank

    @property
    def corrects(self) -> bool:
        """Whether numbers are replaced."""
        return self.mode == "correct"

    def allows(self, code: str) -> bool:
        """Whether the rule ``code`` is enabled under ``select`` and ``ignore``."""
        selected = self.select is None or code.startswith(self.select)
        return selected and not (self.ignore and code.startswith(self.ignore))


def build_settings(
    mode: str,
    select: Sequence[str] | None,
    ignore: Sequence[str],
    query_scope: str,
    batch_size_fn: Callable[[Any], int] | None,
    report: PathLike | None,
    log_findings: bool,
    report_to_loggers: bool,
    known_codes: Iterable[str],
    max_held_mb: float = 256,
) -> Settings:
    """Validate the arguments of the guard; what is not given, the environment may say.

    Raises:
        ValueError: An argument or the name of a variable is not allowed; the message names the allowed ones.
        TypeError: ``batch_size_fn`` cannot be called, or ``select`` or ``ignore`` is not a sequence of strings.
    """
    _check_variables()
    select_name, select = _given("select", select, None, _codes_in)
    ignore_name, ignore = _given("ignore", ignore, (), _codes_in)
    scope_name, query_scope = _given("query_scope", query_scope, "auto", str)
    report_name, report = _given("report", report, None, str)
    check_choice("mode", mode, get_args(Mode))
    check_choice(scope_name, query_scope, get_args(QueryScope))
    for name, given in (("log_findings", log_findings), ("report_to_loggers", report_to_loggers)):
        if not isinstance(given, bool):  # 1 and 0 are among True and False
            raise ValueError(f"{name}={given!r} is not one of True, False.")
    if batch_size_fn is not None and not callable(batch_size_fn):
        raise TypeError(
            f"batch_size_fn={batch_size_fn!r} cannot be called. Pass a function that takes a batch and returns"
            " the number of samples in it as an int, or None."
        )
    _check_positive("max_held_mb", max_held_mb)
    codes = sorted(known_codes)
    return Settings(
        mode=mode,  # type: ignore[arg-type]  # checked above
        select=None if select is None else check_codes(select_name, select, codes),
        ignore=check_codes(ignore_name, ignore, codes),
        query_scope=query_scope,  # type: ignore[arg-type]  # checked above
        batch_size_fn=batch_size_fn,
        report=None if report is None else _check_report(report_name, report),
        log_findings=log_findings,
        report_to_loggers=report_to_loggers,
        max_held_mb=max_held_mb,
    )


def _check_variables() -> None:
    unknown = sorted(name for name in os.environ if name.startswith(f"{VARIABLE}_") and name not in VARIABLES)
    if unknown:
        raise ValueError(
            f"The environment sets {unknown[0]}, which is not one of {', '.join(VARIABLES)}. Rename or unset it."
        )


def _given(name: str, value: _T, default: object, parse: Callable[[str], Any]) -> tuple[str, _T]:
    """What to call an argument, and its value: what stands in code, else in the environment."""
    variable = f"{VARIABLE}_{name.upper()}"
    text = os.environ.get(variable, "")
    return (variable, parse(text)) if text and value == default else (name, value)


def _codes_in(text: str) -> tuple[str, ...]:
    return tuple(code.strip() for code in text.split(","))


def check_choice(name: str, given: object, allowed: Sequence[object]) -> None:
    """Raise ValueError, with the allowed values, for one that is not among them."""
    if given not in allowed:
        raise ValueError(f"{name}={given!r} is not one of {', '.join(map(repr, allowed))}.")


def _check_positive(name: str, given: object) -> None:
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not 0 < given < math.inf:
        raise ValueError(f"{name}={given!r} is not a positive number.")


def check_codes(name: str, given: Sequence[str], codes: Sequence[str]) -> tuple[str, ...]:
    """Validate rule codes and prefixes.

    Args:
        name: Of the argument.
        given: What the user gave.
        codes: Those that there are.

    Raises:
        ValueError: One of them is the beginning of no code; the message names the codes.
        TypeError: It is not a sequence of strings.
    """
    if isinstance(given, str) or not all(isinstance(code, str) for code in given):
        raise TypeError(f"{name}={given!r} must be a sequence of rule codes or prefixes, such as ['LRG2', 'LRG301'].")
    unknown = [code for code in given if not code or not any(rule.startswith(code) for rule in codes)]
    if unknown:
        raise ValueError(
            f"{name} holds {', '.join(map(repr, unknown))}, which no rule code starts with."
            f" Known codes: {', '.join(codes)}."
        )
    return tuple(given)


def _check_report(name: str, report: PathLike) -> Path:
    if not isinstance(report, str | os.PathLike):
        raise TypeError(
            f"{name}={report!r} is not a path. Give one that ends in {' or '.join(REPORT_SUFFIXES)}, or None."
        )
    # a configuration file or an environment variable has no shell that expands it
    path = Path(os.path.expanduser(report))
    # The rest is checked by path_refusal when the run starts, because the path may hold LOG_DIR.
    if refusal := _suffix_refusal(path, REPORT_SUFFIXES):
        raise ValueError(f"{name}={str(path)!r} {refusal}.")
    return path


def _suffix_refusal(path: Path, suffixes: Sequence[str]) -> str:
    return "" if path.suffix in suffixes else f"must end in {' or '.join(suffixes)}"


def path_refusal(path: Path, suffixes: Sequence[str] = REPORT_SUFFIXES) -> str:
    """Why a file, or the one that a link leads to, cannot be written; empty where it can.

    It is asked before any work is done. Missing folders can be made.
    """
    try:
        return _suffix_refusal(path, suffixes) or _target_refusal(Path(os.path.realpath(path)))
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        return f"cannot be written: {error.strerror}"


def _target_refusal(target: Path) -> str:
    folder = next(parent for parent in target.parents if parent.exists())
    if target.is_dir():
        return "is a folder; give the path of a file"
    if target.exists() and not target.is_file():
        return "is not a regular file"
    if not folder.is_dir():
        return f"cannot be written: {str(folder)!r} is not a folder"
    # a new file takes the place of the old one
    refused = [str(path) for path in (target, folder) if path.exists() and not os.access(path, os.W_OK)]
    return f"cannot be written: no permission on {refused[0]!r}" if refused else ""
