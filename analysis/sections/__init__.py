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
import io
import pkgutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from analysis.audit import is_audit
from analysis.details import fitting
from analysis.parts import Result, part
from bench.console import Console

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


class Made(NamedTuple):
    """What the section of a scenario says."""

    scenario: str
    sentences: list[str]
    troubles: list[str]
    """Records that it leaves out, and why; a section that could not be made."""
    broken: str
    """The one of `troubles` that nobody foresaw; empty where there is none."""


def sentences(folder: Path, frame: pd.DataFrame) -> Iterator[Made]:
    """What the scenarios in `frame` that have a section answer, whatever their records hold."""
    for scenario, section in found(frame).items():
        rows = frame[frame.scenario == scenario]

        def say(rows: pd.DataFrame, section: Any = section) -> list[str]:
            said: list[str] = section.sentences(folder, rows)
            return said

        made, troubles, broken = _made(folder, scenario, rows, say)
        yield Made(scenario, made or [], troubles, broken)


def show(folder: Path, frame: pd.DataFrame, console: Console) -> None:
    """Print the sections of the scenarios in `frame`, and what they had to leave out."""
    for scenario, section in found(frame).items():
        rows = frame[frame.scenario == scenario]

        def draw(rows: pd.DataFrame, section: Any = section) -> str:
            page = io.StringIO()
            section.show(folder, rows, console.like(page))
            return page.getvalue()

        made, troubles, _ = _made(folder, scenario, rows, draw)
        console.add(made or "")
        for line in troubles:
            console.print(line, style="red", highlight=False, soft_wrap=True)


def _made(
    folder: Path, scenario: str, rows: pd.DataFrame, make: Callable[[pd.DataFrame], Result]
) -> tuple[Result | None, list[str], str]:
    """What a section makes of the records that fit, `Made.troubles` and `Made.broken`."""
    fit = fitting(folder, rows)
    left_out = [f"Left out of {scenario}: {one}." for one in fit.misfits]
    if fit.frame.empty:
        return None, left_out, ""
    made, trouble = part(folder, fit.frame, make)
    if trouble is None:
        return made, left_out, ""
    broken = f"The section {scenario} {trouble}."
    return made, [*left_out, broken], broken


def rows_of(notebook: str, frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of `frame` that a notebook is about."""
    sections = found(frame)
    own = [name for name, section in sections.items() if notebook in section.NOTEBOOKS]
    return frame[frame.scenario.isin(own) if own else ~frame.scenario.isin(sections)]


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
