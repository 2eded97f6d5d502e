"""What a run says: one block a fault, and one line at its end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, get_args

from lightning_retrieval_guard.findings import Finding, GuardWarning, show_number
from lightning_retrieval_guard.report.faults import Fault, group, ratio_text
from lightning_retrieval_guard.report.text import columns, format_table, printable, several, wrap

KEYS_SHOWN = 4
_NARROWEST, _WIDEST, _WITHOUT_TERMINAL = 40, 120, 100
_SEEN_IN_SANITY_CHECK = "seen in the sanity check; the numbers follow after the first epoch."

_Action = Literal["default", "always", "ignore", "module", "once", "error"]
_ACTIONS: tuple[_Action, ...] = get_args(_Action)
_CATEGORY = f"{__name__.partition('.')[0]}.{GuardWarning.__name__}"


def terminal_width() -> int:
    """Of the terminal in columns, within what is well read."""
    given = shutil.get_terminal_size((_WITHOUT_TERMINAL, 24)).columns
    return max(_NARROWEST, min(given, _WIDEST))


def render_fault(fault: Fault, width: int, taken: int = 0, *, numbers: bool = True) -> str:
    """A fault as text: what is wrong, the keys with both numbers, the fix, and how to read on.

    Args:
        fault: With at least one finding that is more than a note.
        width: Of the lines.
        taken: Columns that the location takes in the first line.
        numbers: Whether the numbers are those of a whole epoch; else the fault is only named.
    """
    first = fault.serious[0]
    message = first.message if numbers or first.effect is None else _SEEN_IN_SANITY_CHECK
    head = wrap(f"{first.code} {first.rule}:", printable(message), width, taken)
    if not numbers:
        return head
    fix = wrap("  Fix:", printable(first.fix), width, indent="       ")
    return "\n".join([head, *_keys(fault.serious, width), fix, f"  lightning-retrieval-guard explain {first.code}"])


def _keys(findings: Sequence[Finding], width: int) -> Iterator[str]:
    if len(findings) == 1 and findings[0].effect is None:
        return  # the message names the key
    # a corrected number is not what was logged
    logged = "uncorrected" if all(finding.corrected for finding in findings) else "logged"
    has_numbers = any(finding.effect for finding in findings)
    rows = [("", logged, "one device", "") if has_numbers else ("",) * 4, *map(_row, findings[:KEYS_SHOWN])]
    yield from filter(str.strip, format_table(rows, width, indent="  ", ruled=False, gap="   "))
    more = len(findings) - KEYS_SHOWN
    if more > 0:
        yield f"  ... {several(more, 'more key')}"


def _row(finding: Finding) -> tuple[str, str, str, str]:
    effect = finding.effect
    numbers = ("", "") if effect is None else (show_number(effect.logged), show_number(effect.reference))
    return (printable(finding.key), *numbers, ratio_text(finding))


def render_error(findings: Iterable[Finding]) -> str:
    """Faults as the text of the error that stops a run, each with its location."""
    blocks = []
    for fault in group(findings):
        where = printable(f"{fault.first.path}:{fault.first.line}: ")
        blocks.append(where + render_fault(fault, terminal_width(), columns(where)))
    return "\n".join(blocks)


def warn_of(fault: Fault, *, numbers: bool) -> None:
    """Emit a fault as one warning at the user's line."""
    first = fault.first
    taken = columns(printable(f"{first.path}:{first.line}: {GuardWarning.__name__}: "))
    warn_at(render_fault(fault, terminal_width(), taken, numbers=numbers), first.path, first.line)


def warn_at(text: str, path: str, line: int) -> None:
    """Emit a printable text as a warning at a line of the user's.

    Raises:
        GuardWarning: The user turned the category into an error.
    """
    _apply_options(sys.warnoptions)
    with _progress_bars_away():
        # a registry of its own: the interpreter's would swallow a second run's warnings
        warnings.warn_explicit(text, GuardWarning, printable(path), line, _module_at(path), registry={})


def say(text: str) -> None:
    """Print a line that is no warning to the standard error stream."""
    with _progress_bars_away():
        print(text, file=sys.stderr)


def _progress_bars_away() -> contextlib.AbstractContextManager[None]:
    """Takes tqdm's bars away from the terminal while something is written, and draws them anew."""
    tqdm = sys.modules.get("tqdm.std")
    if tqdm is None or not sys.stderr.isatty():
        return contextlib.nullcontext()
    bars: contextlib.AbstractContextManager[None] = tqdm.tqdm.external_write_mode(file=sys.stderr)
    return bars


def _module_at(path: str) -> str:
    """The name of the user's module, by which filters choose; else the path without its suffix, as Python has it."""
    for name, module in list(sys.modules.items()):
        # an attribute that is asked for may make a lazy module import what it stands for
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and os.path.abspath(file) == os.path.abspath(path):
            return name
    return path.removesuffix(".py")


def _apply_options(options: Iterable[str]) -> None:
    """Filter as ``python -W action:message:category:module:line`` says of the guard's category.

    Python reads these options before it can import the package, and drops them as invalid.
    """
    for option in options:
        action, message, category, module, line = [*map(str.strip, option.split(":")), "", "", "", "", ""][:5]
        chosen = next((name for name in _ACTIONS if action and name.startswith(action)), None)
        if category == _CATEGORY and chosen is not None and (line.isdigit() or not line):
            whole_module = rf"{re.escape(module)}\Z" if module else ""
            warnings.filterwarnings(chosen, re.escape(message), GuardWarning, whole_module, int(line or 0), append=True)
