"""`spbench audit` from outside."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bench import cli
from tests.factories import gradient, ok, write

TWICE = gradient(verdict="scaled", scale=2.0, scale_label="×2")


def main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["spbench", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_the_matrix_in_three_formats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ok(gradient=TWICE), ok(zero=3))
    assert main(monkeypatch, "audit", str(tmp_path)) == 0
    table = capsys.readouterr().out
    assert "×2" in table
    assert "right in every case at ZeRO 1: no aggregation;" in " ".join(table.split())
    assert main(monkeypatch, "audit", str(tmp_path), "--format", "markdown") == 0
    assert "| all_gather | sp=2 dp=2 | ragged | ×2 | ×1 |" in capsys.readouterr().out
    assert main(monkeypatch, "audit", str(tmp_path), "--format", "json") == 0
    assert [case["text"] for case in json.loads(capsys.readouterr().out)["cells"]] == ["×2", "×1"]


@pytest.mark.parametrize("others", [False, True], ids=["no records", "no training"])
def test_nothing_to_audit_is_one_line(
    others: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if others:
        write(tmp_path, ok(scenario="drill"))
    assert main(monkeypatch, "audit", str(tmp_path)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith(f"spbench: results={tmp_path} holds no ")


def test_a_folder_of_single_steps_is_shown_as_the_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, ok(steps=1, gradient=TWICE))
    assert main(monkeypatch, "show", str(tmp_path)) == 0
    out = capsys.readouterr().out
    assert "ZeRO 1" in out
    assert "tokens/s" not in out
