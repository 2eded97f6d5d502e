"""Tests in real processes."""
