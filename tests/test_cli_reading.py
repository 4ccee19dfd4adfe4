"""Damaged lines: every verb that reads a folder names them, once, by file and number."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from analysis.report import content_of
from bench import cli
from bench.cli_reading import MOST_NAMED, loaded
from tests.factories import machine, ok, write


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["spbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[Path, str]:
    """A folder with two aggregations, whose first line was cut off; and the name of that line."""
    folder = tmp_path / "results"
    lengths = range(512, 4096, 512)
    trials = [ok(loss=loss, seq_len=n) for loss in ("all_gather", "local") for n in lengths]
    path = write(folder, *trials)
    text = path.read_text()
    path.write_text(text[:99] + "\n" + text)
    return folder, f"{path.name}, line 1: truncated or not a record"


@pytest.mark.parametrize(
    "arguments",
    [
        ("show",),
        ("compare",),
        ("compare", "--format", "markdown"),
        ("compare", "--format", "csv"),
        ("compare", "--format", "json"),
        ("audit",),
        ("audit", "--format", "markdown"),
        ("audit", "--format", "json"),
        ("export", "--to", "csv"),
        ("export", "--to", "parquet"),
        ("export", "--to", "json"),
    ],
    ids=" ".join,
)
def test_a_damaged_line_is_named_once(
    arguments: tuple[str, ...],
    damaged: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, line = damaged
    verb, *options = arguments
    assert main(monkeypatch, verb, str(folder), *options) == 0
    said = capsys.readouterr()
    assert said.err == f"spbench: not counted: {folder}/{line}\n"
    assert line not in said.out.replace(json.dumps(line), "")
    if options[-1:] == ["json"] and verb != "export":
        content = json.loads(said.out)
        objects = content if verb == "compare" else [content]
        assert [one["skipped"] for one in objects] == [[line]] * len(objects)


def test_baseline_names_it(
    damaged: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, line = damaged
    file = str(tmp_path / "golden.yaml")
    for verb in ("write", "check"):
        assert main(monkeypatch, "baseline", verb, file, str(folder)) == 0
        assert capsys.readouterr().err == f"spbench: not counted: {folder}/{line}\n"


def test_the_baselines_folder_is_named_beside_the_candidates(
    damaged: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, line = damaged
    now = tmp_path / "now"
    path = write(now, ok(loss="all_gather"))
    path.write_text(path.read_text() + "{\n")
    assert main(monkeypatch, "compare", str(now), "--baseline-results", str(folder)) == 0
    assert set(capsys.readouterr().err.splitlines()) == {
        f"spbench: not counted: {now}/{path.name}, line 2: truncated or not a record",
        f"spbench: not counted: {folder}/{line}",
    }


def test_predict_names_it(
    damaged: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, line = damaged
    options = ("--results", str(folder), "--format", "json", "--checkpointing")
    main(monkeypatch, "predict", *options)
    said = capsys.readouterr()
    assert said.err.count(f"spbench: not counted: {folder}/{line}\n") == 1


def test_trace_names_it(
    damaged: tuple[Path, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, line = damaged
    assert main(monkeypatch, "trace", str(folder)) == 2  # no trial of it was profiled
    assert f"spbench: not counted: {folder}/{line}\n" in capsys.readouterr().err


def test_the_report_names_it(damaged: tuple[Path, str]) -> None:
    folder, line = damaged
    assert content_of(folder, loaded(folder))["skipped"] == [line]


def test_many_damaged_lines_are_counted(
    damaged: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = damaged
    (folder / "records-z-1.jsonl").write_text("{\n" * (MOST_NAMED + 4))
    loaded(folder)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == MOST_NAMED + 1
    assert lines[-1] == f"spbench: not counted: 5 more lines of {folder}"


def test_machines_are_joined_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    other = machine().model_copy(update={"hostname": "b", "cores": 64})
    trials = [
        ok(loss=loss, machine=m) for loss in ("local", "all_gather") for m in (machine(), other)
    ]
    write(tmp_path, *trials)
    for verb in ("show", "compare"):
        assert main(monkeypatch, verb, str(tmp_path)) == 0
        apart = capsys.readouterr().out
        assert "64 cores" in apart and "put together" not in apart
        assert main(monkeypatch, verb, str(tmp_path), "--across-machines") == 0
        assert "put together" in " ".join(capsys.readouterr().out.split())
