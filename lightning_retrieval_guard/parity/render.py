"""The command: run a check, say how far it is, print what it found."""

from __future__ import annotations

import sys
from pathlib import Path

from lightning_retrieval_guard.parity.check import Processes, check
from lightning_retrieval_guard.parity.compare import NOT_RUN
from lightning_retrieval_guard.parity.document import write_document
from lightning_retrieval_guard.parity.options import Options
from lightning_retrieval_guard.parity.table import render

INTERRUPTED = 130


def run_parity(options: Options, document: Path | None = None) -> int:
    """Run a check; the table goes to stdout, progress to stderr.

    Args:
        options: What is asked.
        document: Where the JSON goes, or ``None``.

    Returns:
        0 where all numbers are the same, 1 where one is different, 2 where a run could not be made, 130 after Ctrl-C.
    """
    try:
        with Processes() as processes:
            parity = check(options, processes, _say)
    except KeyboardInterrupt:
        _say("interrupted; all processes are ended")
        return INTERRUPTED
    print(render(parity), flush=True)
    if document is not None:
        try:
            write_document(document, parity)
        except OSError as error:
            _say(f"error: {str(document)!r} cannot be written: {error}")
            return NOT_RUN
    return parity.exit_code


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
