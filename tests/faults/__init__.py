"""Faults, injected in real processes: what the program does alone, and what it does under a guard."""
