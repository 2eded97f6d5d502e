"""Measurements of what the guard costs."""
