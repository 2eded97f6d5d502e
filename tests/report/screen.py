"""What a terminal shows of what a program writes to it: carriage returns, cursor up, and erasing."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

_SEQUENCE = re.compile(r"\x1b\[[?]?(\d*)[\d;]*([A-Za-z])")
ROWS = 50


def run_on_terminal(command: Sequence[str], columns: int, folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Run a program on a terminal of so many columns, and read the screen when it has ended."""
    process, terminal = pty.fork()
    if process == 0:
        os.chdir(folder)
        os.execvpe(command[0], command, environment)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
    written = b""
    try:
        while part := os.read(terminal, 65536):
            written += part
    except OSError:  # how a terminal says that nobody writes to it any longer
        pass
    finally:
        os.close(terminal)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    shown = screen_of(written.decode("utf-8"), columns)
    assert code == 0, "\n".join(shown)
    return shown


def screen_of(text: str, columns: int) -> list[str]:
    """The lines that are seen after a text was written."""
    lines: list[list[str]] = [[]]
    row = column = position = 0
    while position < len(text):
        sequence = _SEQUENCE.match(text, position)
        if sequence is not None:
            position = sequence.end()
            if sequence[2] == "A":
                row = max(0, row - int(sequence[1] or 1))
            elif sequence[2] == "K":
                lines[row] = [] if sequence[1] == "2" else lines[row][:column]
            continue
        char = text[position]
        position += 1
        if char == "\r":
            column = 0
            continue
        if char == "\n" or column == columns:
            row, column = row + 1, 0
            lines += [[] for _ in range(row + 1 - len(lines))]
        if char != "\n":
            line = lines[row] = lines[row] + [" "] * (column + 1 - len(lines[row]))
            line[column] = char
            column += 1
    return ["".join(line).rstrip() for line in lines]
