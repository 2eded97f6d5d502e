"""The demo: one retriever, evaluated on one and on N processes, without and with the guard.

``corpus`` reads the standard library, and ``encoder`` is the model with the fault. ``runs`` trains and evaluates it;
``render`` tells what happens, and draws the table.
"""

from lightning_retrieval_guard.demo.render import MAX_DEVICES, run_demo

__all__ = ["MAX_DEVICES", "run_demo"]
