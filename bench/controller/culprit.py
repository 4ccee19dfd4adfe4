"""Which of several overrides Hydra fails on, where its error does not say."""

from __future__ import annotations

from collections.abc import Sequence

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from bench.controller.config import CONF

UNFORESEEN = (
    *(ArithmeticError, AttributeError, AssertionError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
"""What Hydra, OmegaConf and their parser raise for overrides that they did not foresee."""
MOST_TRIED = 10
"""Each takes up to a fifth of a second."""


def culprits(overrides: Sequence[str]) -> list[str]:
    """The first of `overrides` on which Hydra fails alone; all where that shows none."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for one in overrides[:MOST_TRIED]:
            if _fails(one):
                return [one]
    return list(overrides)


def _fails(override: str) -> bool:
    """Whether Hydra meets what it did not foresee, and not what it refuses in words."""
    try:
        compose("config", overrides=[override], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):
        return False
    except UNFORESEEN:
        return True
    return False
