"""Measurements beside their targets and peers; `python -m tests.benchmarks` runs them. Not collected by pytest."""
