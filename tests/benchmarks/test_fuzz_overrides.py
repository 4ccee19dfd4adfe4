"""A thousand lists of overrides do no more than be used or be refused.

A file of its own, so that it runs beside the other thousand.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.test_smoke import attacked, run


@pytest.mark.timeout(1200)
def test_a_thousand_lists_of_overrides(tmp_path: Path) -> None:
    found = run("fuzz", tmp_path, "--overrides", "1000", "--records", "0")
    attacked(*found, "1,000 lists of overrides, ")
