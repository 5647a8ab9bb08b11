"""Benchmarks: each is run as `python -m benchmarks.NAME`, prints a table and writes the same as JSON."""
