"""Correct evaluation numbers in distributed training: a Lightning callback for retrieval metrics."""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_retrieval_guard._compat import GuardError
    from lightning_retrieval_guard.callback import RetrievalGuard
    from lightning_retrieval_guard.findings import Finding, GuardWarning, Severity
    from lightning_retrieval_guard.rules import REGISTRY as rules

__all__ = ["Finding", "GuardError", "GuardWarning", "RetrievalGuard", "Severity", "rules"]
__version__ = "0.2.0"

_HOMES = {
    "Finding": "findings",
    "GuardError": "_compat",
    "GuardWarning": "findings",
    "RetrievalGuard": "callback",
    "Severity": "findings",
}


class _Package(ModuleType):
    """Loads public names when they are first asked for, so that the lint starts without torch."""

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *__all__})

    @property
    def rules(self) -> object:
        return import_module(f"{__name__}.rules").REGISTRY

    @rules.setter
    def rules(self, _: object) -> None:
        """The import system sets the subpackage of the same name here; the registry stays the public one."""


sys.modules[__name__].__class__ = _Package
