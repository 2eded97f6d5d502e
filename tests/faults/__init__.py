"""Faults, injected in real processes: what the program does alone, and what it does under a guard."""

import sys
from pathlib import Path

# pytest puts this folder in the path; `python -m tests.faults.table` does not
if str(Path(__file__).parents[1]) not in sys.path:
    sys.path.insert(0, str(Path(__file__).parents[1]))
