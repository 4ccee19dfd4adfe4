"""How a gradient is to be compared: by what the exact reference would cost.

It follows from the configuration alone, never from the machine at hand, so that one hash always
means one mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.record import GradientMode
    from bench.trial import Configuration


def gradient_mode(configuration: Configuration) -> GradientMode:
    """The mode that `configuration.gradient_check` comes to."""
    return "exact" if configuration.gradient_check == "auto" else configuration.gradient_check
