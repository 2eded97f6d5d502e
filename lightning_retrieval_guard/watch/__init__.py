"""Seeing: log calls, metric values and their origin, sampler and batch sizes."""
