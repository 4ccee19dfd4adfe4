"""The story of a stale result: a loss is added, run, edited, and run again by the same command."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bench.identity import identity_of
from bench.record import Record
from bench.record_files import read_records
from tests.conftest import ROOT

pytestmark = [pytest.mark.environment, pytest.mark.slow]

COMMAND = ("experiment=single", "environment=torch-2.13", "loss=mine", "zero=1,3", "rounds=2")
SMALL = ("seq_len=64", "steps=1", "warmup_steps=1", "report=false")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the project with the loss aggregation of README's example."""
    root = tmp_path / "checkout"
    for name in ("bench", "analysis", "conf", "hydra_plugins"):
        shutil.copytree(ROOT / name, root / name)
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"```(python|yaml)\n(.*?)```", readme, flags=re.DOTALL)
    [code] = [text for kind, text in blocks if kind == "python" and "def aggregate" in text]
    [chosen] = [text for kind, text in blocks if kind == "yaml" and "loss: mine" in text]
    (root / "bench/worker/loss/mine.py").write_text(code)
    (root / "conf/loss/mine.yaml").write_text(chosen)
    return root


def sweep(checkout: Path, *overrides: str) -> str:
    folder = checkout.parent / "results"
    arguments = [*COMMAND, *SMALL, *overrides, f"results={folder}"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.cli", "sweep", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def records(checkout: Path) -> list[Record]:
    """In the order in which they were measured; files have the names of their processes."""
    found = [
        Record.model_validate(one.content) for one in read_records(checkout.parent / "results")
    ]
    return sorted(found, key=lambda record: record.started)


def test_the_readmes_loss_edited_runs_again_and_is_kept_apart(checkout: Path) -> None:
    mine = checkout / "bench/worker/loss/mine.py"
    assert "have a record already" not in sweep(checkout)
    first = records(checkout)
    assert len(first) == 4
    scales = {r.config.zero: round(r.gradient.scale or 0, 3) for r in first if r.gradient}

    mine.write_text(mine.read_text().replace("return shard.mean", "return 3 * shard.mean"))
    output = sweep(checkout)
    assert "4 of 4 trials were measured by other code (loss): they run again" in output
    both = records(checkout)
    assert both[:4] == first
    assert len(both) == 8
    for record in both[4:]:
        assert record.gradient is not None
        assert record.gradient.scale == pytest.approx(3 * scales[record.config.zero], rel=1e-3)
        assert record.attempt == 1
    identities = {identity_of(record.model_dump(mode="json")) for record in both}
    assert len(identities) == 2

    text = mine.read_text()
    mine.write_text(re.sub(r'""".*?"""', '"""Three times the loss."""', text, flags=re.DOTALL))
    assert "4 of 4 trials have a record already" in sweep(checkout)

    clock = checkout / "bench/worker/metrics/clock.py"  # moved, with all that name it
    clock.rename(clock.with_name("watch.py"))
    for path in (checkout / "bench/worker").rglob("*.py"):
        text = path.read_text().replace("bench.worker.metrics.clock", "bench.worker.metrics.watch")
        text = text.replace("metrics import clock", "metrics import watch as clock")
        path.write_text(text)
    assert "4 of 4 trials have a record already" in sweep(checkout)
    assert len(records(checkout)) == 8

    mine.write_text(mine.read_text().replace("return 3 * ", "return "))
    output = sweep(checkout)  # the first code again: its records count
    assert "4 of 4 trials have a record already" in output
    assert len(records(checkout)) == 8
