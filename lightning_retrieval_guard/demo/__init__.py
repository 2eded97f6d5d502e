"""The demo: one retriever, evaluated on one and on N processes, without and with the guard.

``corpus`` reads the standard library, ``encoder`` is the model with the fault and its data, ``runs`` trains and evaluates
it, and ``render`` tells the story and draws the table.
"""

from lightning_retrieval_guard.demo.render import MAX_DEVICES, run_demo

__all__ = ["MAX_DEVICES", "run_demo"]
