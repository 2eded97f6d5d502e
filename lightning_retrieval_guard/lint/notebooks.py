"""The code of a notebook as one source, and the cell of each of its lines."""

from __future__ import annotations

import ast
import json


def read_notebook(text: str) -> tuple[str, list[tuple[int, int]]]:
    """The code cells of a notebook, one after the other.

    Args:
        text: The file.

    Returns:
        The source, and for each of its lines the cell and the line in it, both from 1. Cells that are no Python, as
        those with magics of other languages, are empty.

    Raises:
        ValueError: If the file is no notebook.
    """
    try:
        cells = json.loads(text)["cells"]
        sources = [
            (number, "".join(own["source"])) for number, own in enumerate(cells, 1) if own["cell_type"] == "code"
        ]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError("this is not a notebook") from error
    lines: list[str] = []
    places: list[tuple[int, int]] = []
    for number, source in sources:
        own = [_without_magic(line) for line in source.splitlines()]
        lines += own if _is_python("\n".join(own)) else [""] * len(own)
        places += [(number, line) for line in range(1, len(own) + 1)]
    return "\n".join(lines) + "\n", places


def _without_magic(line: str) -> str:
    code = line.lstrip()
    return line[: len(line) - len(code)] + "pass" if code.startswith(("%", "!", "?")) and code[:2] != "%%" else line


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True
