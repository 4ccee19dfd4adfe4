"""A part that its records do not let be made costs the others nothing, and names them."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pandas as pd
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from analysis import report, sections
from analysis.answers import all_answers
from analysis.frame import AnalysisError, load
from analysis.parts import MOST_TRIED, part
from analysis.sections import compat
from bench import cli
from bench.console import Console
from tests.analysis.test_compat import stage, trial
from tests.factories import ok, write

BAD_ROUND = 1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pairs of versions and a training; the section that raises does so of one pair."""
    path = write(
        tmp_path,
        trial("2.2.2", "0.18.6", stage(0)),
        trial("2.2.2", "0.18.6", stage(0), round=BAD_ROUND),
        trial("2.3.1", "0.18.6", stage(0)),
        ok(),
    )
    path.rename(tmp_path / "records-a.jsonl")
    return tmp_path


def raises_of_the_bad_round(folder: Path, frame: pd.DataFrame, *_: Console) -> list[str]:
    if (frame["round"] == BAD_ROUND).any():
        raise ZeroDivisionError("nobody foresaw this")
    return [f"{len(frame)} records."]


def executed(title: str, *outputs: NotebookNode) -> NotebookNode:
    return new_notebook(
        cells=[new_markdown_cell(f"# {title}"), new_code_cell(outputs=list(outputs))]
    )


def test_a_section_that_raises_is_made_without_the_record(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "sentences", raises_of_the_bad_round)
    monkeypatch.setattr(compat, "show", raises_of_the_bad_round)
    trouble = (
        "The section compat was made without records-a.jsonl, line 2 "
        "(ZeroDivisionError: nobody foresaw this)."
    )
    [answer, *_] = all_answers(folder, load(folder))
    assert answer.sentences == ("2 records.", trouble) and answer.broken == trouble
    page = io.StringIO()
    sections.show(folder, load(folder), Console(file=page, width=40))
    assert page.getvalue() == f"{trouble}\n"


def test_a_part_that_no_record_alone_prevents_names_those_it_was_given(folder: Path) -> None:
    def make(frame: pd.DataFrame) -> str:
        if len(frame) > 1:
            raise KeyError("together")
        return "made"

    assert part(folder, load(folder).iloc[:2], make) == (
        None,
        "could not be made of records-a.jsonl, line 1, records-a.jsonl, line 2 "
        "(KeyError: 'together')",
    )
    assert part(folder, load(folder).iloc[:1], make) == ("made", None)


def test_many_records_are_not_tried_one_by_one(tmp_path: Path) -> None:
    write(tmp_path, *(ok(round=number) for number in range(MOST_TRIED + 1)))
    tried = []

    def make(frame: pd.DataFrame) -> str:
        tried.append(len(frame))
        raise KeyError("each")

    made, trouble = part(tmp_path, load(tmp_path), make)
    assert made is None and tried == [MOST_TRIED + 1]
    assert trouble is not None and f" and {MOST_TRIED + 1 - 5} more (" in trouble


def test_an_error_that_says_what_to_do_is_passed_on(folder: Path) -> None:
    def make(frame: pd.DataFrame) -> str:
        raise AnalysisError("choose another")

    with pytest.raises(AnalysisError, match="choose another"):
        part(folder, load(folder), make)


def test_the_report_is_made_whatever_raises_and_says_so_by_its_exit_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = new_output("error", ename="TypeError", evalue="in a figure", traceback=[])
    notebooks = {"compat": executed("Which runs", error)}
    monkeypatch.setattr(compat, "sentences", raises_of_the_bad_round)
    monkeypatch.setattr(
        report,
        "execute_all",
        lambda folder, names, across: [notebooks.get(name, executed(name)) for name in names],
    )
    monkeypatch.setattr(sys, "argv", ["spbench", "report", str(folder)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    captured = capsys.readouterr()
    assert ended.value.code == 1
    [line] = captured.err.splitlines()
    assert line.startswith("spbench: the report is not complete: The section compat was made ")
    assert "records-a.jsonl, line 2 (ZeroDivisionError: nobody foresaw this)" in line
    assert "Which runs: could not be made of records-a.jsonl, line 1, records-a.jsonl" in line
    assert f"report: {folder / 'report.html'}" in captured.out.replace("\n", "")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "2 records." in page and "All configurations" in page
    assert page.count("ZeroDivisionError: nobody foresaw this") == 2
    assert "line 4" not in page
