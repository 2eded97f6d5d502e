"""Correct evaluation numbers in distributed training: a Lightning callback for retrieval metrics."""

from lightning_retrieval_guard.callback import RetrievalGuard
from lightning_retrieval_guard.findings import Finding, GuardError, GuardWarning, Severity
from lightning_retrieval_guard.rules import REGISTRY as rules

__all__ = ["Finding", "GuardError", "GuardWarning", "RetrievalGuard", "Severity", "rules"]
__version__ = "0.1.0"
