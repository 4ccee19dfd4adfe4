"""Sections: what is shown of scenarios whose findings are no step times, one file a scenario.

`analysis/sections/<scenario>.py` defines

    NOTEBOOKS: tuple[str, ...]
    show(folder: Path, frame: pd.DataFrame, console: Console) -> None
    sentences(folder: Path, frame: pd.DataFrame) -> list[str]

the notebooks in `analysis/notebooks` that the report holds when such trials are in the folder,
what the terminal shows of them instead of the table, and what they answer in plain words, which
the report begins with; `frame` has their rows only. Trials of
other scenarios (`train`) are in the table and in the general notebooks.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from typing import Any

import pandas as pd

from analysis.audit import is_audit

GENERAL = ("upgrade_or_workaround", "gradient_error", "scaling")
"""Notebooks on trials that train."""
PREDICTION = ("prediction",)
"""And where their sizes and splits differ enough to say something of another."""
FEWEST_SIZES = 8
AUDIT = ("gradient_error",)
"""Those of them that have something to say where single steps were made for their gradients."""


def found(frame: pd.DataFrame) -> dict[str, Any]:
    """The sections of the scenarios in `frame`, by scenario."""
    names = dict.fromkeys(frame.scenario)
    modules = {name: f"{__name__}.{name}" for name in names}
    return {
        name: importlib.import_module(module)
        for name, module in modules.items()
        if importlib.util.find_spec(module) is not None
    }


def notebooks(frame: pd.DataFrame) -> list[str]:
    """Names of the notebooks that have something to say of `frame`, in the report's order."""
    sections = found(frame)
    trained = frame[~frame.scenario.isin(sections)]
    general = list(AUDIT if is_audit(trained) else GENERAL)
    if len(frame) and trained.empty:
        general = []
    elif not is_audit(trained) and _sizes(trained) >= FEWEST_SIZES:
        general += PREDICTION
    return general + [name for section in sections.values() for name in section.NOTEBOOKS]


def _sizes(trained: pd.DataFrame) -> int:
    """How many different amounts of work there are step times of."""
    timed = trained[trained.step_s.notna()]
    return len(timed[["model.kv_heads", "sp", "zero", "micro_batch", "seq_len"]].drop_duplicates())


def all_notebooks() -> list[str]:
    """Every notebook that some report holds."""
    modules = [
        importlib.import_module(one.name) for one in pkgutil.iter_modules(__path__, f"{__name__}.")
    ]
    return [*GENERAL, *PREDICTION, *(name for module in modules for name in module.NOTEBOOKS)]
