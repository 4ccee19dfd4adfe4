"""`spbench report`: a results folder as one HTML file that needs no network.

The notebooks are executed and rendered by nbconvert with the template in `report_template`;
around them stand the answer, the table, every trial that is not ok, and where it all ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook
from traitlets.config import Config

from analysis import conditions, sections
from analysis.answers import all_answers
from analysis.evidence import Evidence, gather
from analysis.execution import execute
from analysis.figures.display import html_table
from analysis.frame import load
from analysis.headline import Line, headline, report_command
from analysis.identities import RESULT
from analysis.output import output_file
from analysis.parts import Result, part, places_named
from analysis.table import clipped, closing_line, marks, readable, variant_notes
from bench.printable import printable

HERE = Path(__file__).resolve().parent
FILE_NAME = "report.html"
MOST_LINES = 200
"""Noisy trials and skipped lines that are named one by one."""


class Report(NamedTuple):
    """A report that was written."""

    path: Path
    broken: list[str]
    """Parts that could not be made, or not of all records, and why."""


def write(
    folder: Path,
    output: Path | None = None,
    frame: pd.DataFrame | None = None,
) -> Report:
    """Write the report on a results folder, RESULTS/report.html by default.

    `frame` is what `analysis.frame.load` returned, where the caller has it already. A part that
    a record prevents says so in its place. Raises AnalysisError for a folder without records,
    and what `output_file` raises.
    """
    frame = load(folder) if frame is None else frame
    across = bool(frame.attrs.get("across_machines"))
    names = sections.notebooks(frame)
    notebooks = execute_all(folder, names, across)
    content = content_of(folder, frame)
    content["broken"] += _broken(folder, frame, dict(zip(names, notebooks, strict=True)))
    path = output or folder / FILE_NAME
    with output_file(path) as partial:
        partial.write_text(page_of(content, notebooks), encoding="utf-8")
    return Report(path, content["broken"])


def execute_all(
    folder: Path, names: Sequence[str] = sections.GENERAL, across_machines: bool = False
) -> list[NotebookNode]:
    """The notebooks `names`, executed, in the order of the report."""
    paths = [HERE / "notebooks" / f"{name}.ipynb" for name in names]
    parameters = {"results": str(folder.absolute()), "across_machines": across_machines}
    return execute(paths, parameters)


def page_of(content: dict[str, Any], notebooks: Sequence[NotebookNode]) -> str:
    """The page of what `content_of` returned and of executed notebooks."""
    exporter = HTMLExporter(
        template_name="report_template",
        extra_template_basedirs=[str(HERE)],
        exclude_anchor_links=True,
        config=Config({"HTMLExporter": {"preprocessors": []}}),
    )
    content = {**content, "notebooks": [_title(notebook) for notebook in notebooks]}
    page, _ = exporter.from_notebook_node(_merged(notebooks), {"report": content})
    return printable(str(page))


def content_of(folder: Path, frame: pd.DataFrame) -> dict[str, Any]:
    """What the template shows besides the notebooks; text, which the template escapes."""
    broken: list[str] = []

    def made(name: str, make: Callable[[pd.DataFrame], Result]) -> Result | None:
        found, trouble = part(folder, frame, make)
        broken.extend([] if trouble is None else [f"{name}: {trouble}"])
        return found

    evidence = made("trials that are not ok", lambda rows: gather(folder, rows)) or Evidence()
    said = made("the answers", lambda rows: all_answers(folder, rows)) or []
    broken += [one.broken for one in said if one.broken]
    noisy = frame[frame.noisy != ""]
    return {
        "name": folder.absolute().name,
        "headline": made("the answer", lambda rows: _headline(folder, rows)) or [],
        "answers": said,
        "closing": closing_line(frame).plain,
        "cautions": made("the cautions", cautions) or [],
        "table": made("the table", lambda rows: html_table(readable(rows))) or "",
        "failures": evidence.failures,
        "not_ok": int((frame.status != "ok").sum()),
        "noisy": _limited([f"{row.trial_id}: {row.noisy}" for row in noisy.itertuples()]),
        "skipped": _limited(list(frame.attrs["skipped"])),
        "superseded": int(frame.attrs["superseded"]),
        "method": made("the method", method) or [],
        "broken": broken,
        "workers": evidence.workers,
        "warnings": {name: texts for name, texts in evidence.warnings.items() if texts},
        "machines": evidence.machines,
        "began": _day(frame.started.min()),
        "ended": _day(frame.started.max()),
    }


def _headline(folder: Path, frame: pd.DataFrame) -> list[Line]:
    """The headline; a reader of the report need not make it."""
    return [one for one in headline(folder, frame) if one.text != report_command(folder)]


def _broken(
    folder: Path, frame: pd.DataFrame, notebooks: Mapping[str, NotebookNode]
) -> Iterator[str]:
    """Which of the executed notebooks have a cell that raised, and of which records."""
    for name, notebook in notebooks.items():
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
        error = next((one for one in outputs if one.output_type == "error"), None)
        if error is not None:
            given = places_named(folder, sections.rows_of(name, frame))
            why = f"{error.ename}: {error.evalue}"
            yield f"{_title(notebook)}: could not be made of {given} ({why})"


def cautions(frame: pd.DataFrame) -> list[str]:
    """What limits the use of the numbers, a sentence each."""
    found = []
    if frame.emulated.any():
        found.append(
            "Emulated: torch's NCCL code path ran on gloo. Gradients and failures are those of "
            "the code path; times are those of gloo, not of a GPU cluster."
        )
    if not frame.timings_valid.all():
        found.append("Ranks shared a GPU: gradients are valid, times are not.")
    noisy = int((frame.noisy != "").sum())
    if noisy:
        found.append(f"Noisy: during {noisy:,} of {len(frame):,} trials the machine was not quiet.")
    found += [f"{line}." for line in conditions.imports(frame)]
    found += [f"{line}." for line in variant_notes(frame)]
    rounds = frame[frame.step_s.notna()].groupby(RESULT).size()
    if len(rounds) and rounds.min() < 3:
        found.append(f"Some configurations have only {rounds.min()} round: no verdict on these.")
    if frame.attrs["skipped"]:
        found.append(f"{len(frame.attrs['skipped']):,} lines of the records could not be read.")
    return found


def method(frame: pd.DataFrame) -> list[str]:
    """How it was measured, a sentence each."""
    rounds = frame.groupby(RESULT).size()
    results = f" ({len(rounds):,} results)" if len(rounds) > frame.config_hash.nunique() else ""
    return [
        f"{len(frame):,} trials of {frame.config_hash.nunique():,} configurations{results}, "
        f"{_range(rounds)} rounds. "
        "A round runs every configuration once, in fresh processes and in an order of its own, "
        "so that a drift of the machine hits all alike.",
        f"{_range(frame.warmup_steps)} warm-up steps{_longer(frame)}, then {_range(frame.steps)} "
        "measured ones. "
        "A step's time is the maximum over ranks; a round's is the median over its steps; "
        "a configuration's the median over its rounds.",
        "The sample is the round, not the step: steps within a process are not independent. "
        "Comparisons are paired by round; the interval is a 95 % bootstrap interval of the "
        "geometric mean of the ratios. Fewer than 3 common rounds give no verdict. Rounds count as "
        "independent; from 10 on that is tested, and where neighbouring ones are alike the "
        "interval is wider and the answer says so.",
        "Tokens/s counts each token once: dp × micro_batch × seq_len / step time.",
        *(f"DeepSpeed and sequence parallelism, {line}." for line in conditions.mesh_setups(frame)),
        *_judged(frame),
    ]


def _judged(frame: pd.DataFrame) -> Iterator[str]:
    """What the verdicts on gradients rest on, by mode."""
    modes = frame.gradient_mode[frame.gradient_verdict.notna()]
    if not modes.eq("directional").all() or not len(modes):
        yield (
            "Gradient: of the first step, reduced over all ranks and before any clipping, beside "
            "one process that computes the whole global batch in float64 with dense attention."
        )
    yield from (f"Gradient, {line}." for line in (*marks(frame), *clipped(frame)))


def _merged(notebooks: Sequence[NotebookNode]) -> NotebookNode:
    """All notebooks as one, each heading one level lower, a marker before each notebook."""
    cells = []
    for index, notebook in enumerate(notebooks):
        marker = new_markdown_cell("")
        marker.metadata["spbench_section"] = index
        cells.append(marker)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell = new_markdown_cell(_lowered(cell.source))
            cells.append(cell)
    return new_notebook(cells=cells)


def _title(notebook: NotebookNode) -> str:
    """The first heading."""
    lines = "\n".join(c.source for c in notebook.cells if c.cell_type == "markdown").splitlines()
    return next(line.lstrip("# ") for line in lines if line.startswith("# "))


def _lowered(markdown: str) -> str:
    """Headings one level lower; the title, which the template writes, is left out."""
    lines = [line for line in markdown.splitlines() if not line.startswith("# ")]
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in lines)


def _limited(lines: list[str]) -> list[str]:
    if len(lines) <= MOST_LINES:
        return lines
    return [*lines[:MOST_LINES], f"… and {len(lines) - MOST_LINES:,} more"]


def _longer(frame: pd.DataFrame) -> str:
    """What `bench.worker.warm_up` adds on GPUs."""
    return " (on GPUs as many more as make 3 s)" if (frame.comm == "nccl").any() else ""


def _range(values: pd.Series) -> str:
    low, high = values.min(), values.max()
    return str(low) if low == high else f"{low} to {high}"


def _day(moment: pd.Timestamp) -> str:
    return "unknown" if pd.isna(moment) else moment.strftime("%Y-%m-%d %H:%M UTC")
