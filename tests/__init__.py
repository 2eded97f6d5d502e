"""Tests of the package; `make test` runs them."""
