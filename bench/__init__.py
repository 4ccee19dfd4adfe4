"""spbench: the benchmarking and profiling harness for sequence parallelism."""

__version__ = "0.1.0"
