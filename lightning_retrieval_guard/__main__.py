"""`python -m lightning_retrieval_guard`."""

import sys

from lightning_retrieval_guard.cli import main

if __name__ == "__main__":
    sys.exit(main())
