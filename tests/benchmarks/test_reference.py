"""What goes into results/reference: small, without this machine's paths, and still the truth."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.frame import load, samples
from bench.controller.environments import cache_dir
from bench.record import Record
from benchmarks import reference
from tests.factories import error, failed, ok, worker, write


def recorded(folder: Path) -> Path:
    """Two rounds of a configuration and a failure, with paths wherever a record has them."""
    seen = worker().model_copy(
        update={"python_path": f"{cache_dir()}/environments/x/bin/python", "warnings": ["careful"]}
    )
    paths = (f"{Path.home()}/clone/bench/worker/rank.py", "/v/lib/python3.9/site-packages/t.py")
    trace = "\n".join(f'  File "{path}", line 1' for path in paths)
    raised = error(1).model_copy(update={"traceback": trace})
    write(
        folder,
        ok(step_s=0.1234567891, worker=seen, log="logs/x.log"),
        ok(round=1, worker=seen, started="2025-01-01T00:01:00+00:00"),
        failed(loss="local", errors=[raised], worker=seen, started="2025-01-01T00:02:00+00:00"),
    )
    return folder


def test_nothing_that_is_shown_changes(tmp_path: Path) -> None:
    folder = recorded(tmp_path / "sweep")
    reference.write_records(folder, tmp_path / "reference")
    before, after = load(folder), load(tmp_path / "reference")
    assert list(after.step_s)[:2] == pytest.approx(list(before.step_s)[:2], abs=5e-7)
    exact = ["trial_id", "config_hash", "round", "status", "failure", "gradient_verdict", "loss"]
    assert after[exact].equals(before[exact])
    assert len(samples(tmp_path / "reference")) == len(samples(folder))


def test_no_path_of_this_machine_is_left(tmp_path: Path) -> None:
    path = reference.write_records(recorded(tmp_path / "sweep"), tmp_path / "reference")
    text = path.read_text(encoding="utf-8")
    assert str(Path.home()) not in text and str(tmp_path) not in text
    last = Record.model_validate_json(text.splitlines()[-1])
    assert last.errors[0].traceback == (
        '  File "bench/worker/rank.py", line 1\n  File "site-packages/t.py", line 1'
    )


def test_what_repeats_stays_once(tmp_path: Path) -> None:
    path = reference.write_records(recorded(tmp_path / "sweep"), tmp_path / "reference")
    first, second, third = map(Record.model_validate_json, path.read_text().splitlines())
    assert (len(first.collectives), len(second.collectives)) == (4, 0)
    assert [r.worker.warnings for r in (first, second, third) if r.worker] == [["careful"], [], []]
    assert first.samples[3].step_s == [0.123457] * 5
    assert first.log is None


def test_more_than_git_should_hold_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "MOST_BYTES", 1000)
    with pytest.raises(SystemExit, match="record fewer rounds"):
        reference.write_records(recorded(tmp_path / "sweep"), tmp_path / "reference")
    assert not (tmp_path / "reference").exists()
