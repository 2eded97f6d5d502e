"""Small programs, each one way of logging, and what is to be found in them."""

from .base import Entry, Program
from .table import PROGRAMS

__all__ = ["PROGRAMS", "Entry", "Program"]
