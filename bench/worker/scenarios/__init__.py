"""Scenarios, one file each: `run(rank)` does the work of one rank and returns what it measured."""
