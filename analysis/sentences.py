"""A comparison in plain sentences."""

from __future__ import annotations

from analysis.comparison import Comparison


def sentences(comparison: Comparison) -> list[str]:
    """The answer in sentences: speed, failures, gradients, and what limits them."""
    raise NotImplementedError
