"""Small programs, each one way of logging, and what is to be found in them."""

from .base import Entry, Program
from .table import EVERY, PROGRAMS

__all__ = ["EVERY", "PROGRAMS", "Entry", "Program"]
