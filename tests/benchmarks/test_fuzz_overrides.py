"""A thousand lists of overrides do no more than be used or be refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


@pytest.mark.timeout(1200)
def test_a_thousand_lists_of_overrides(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", "--overrides", "1000", "--records", "0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("1,000 lists of overrides, "), done.stderr
    targets = [line for line in done.stdout.splitlines() if "(target" in line]
    missed = [line for line in targets if line.endswith(": missed") and "slowest" not in line]
    assert len(targets) == 5 and not missed, done.stdout
