"""The demo: one retriever, evaluated on one and on N processes, without and with the guard."""

from lightning_retrieval_guard.demo.render import MAX_DEVICES, run_demo

__all__ = ["MAX_DEVICES", "run_demo"]
