"""The files that records name: only those of their own folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.breakdown import one
from analysis.evidence import gather
from analysis.frame import AnalysisError, load
from analysis.sketch_files import of_sides
from bench.record_files import RecordsError, within
from tests.analysis import test_breakdown
from tests.analysis.sides import frame_of
from tests.factories import failed, ok, write
from tests.sketching import save

OUTSIDE = ["/etc/passwd", "../secret", "logs/../../secret", "link/secret", "logs/a\0b", "x" * 5000]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with a link that leads out of it, and a file beside it."""
    results = tmp_path / "results"
    (results / "logs").mkdir(parents=True)
    (results / "link").symlink_to(tmp_path)
    (tmp_path / "secret").write_text("secret")
    return results


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_leads_out_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(RecordsError, match="is no file of the folder"):
        within(folder, name)


@pytest.mark.parametrize("name", ["logs/a.log", "logs/../logs/a.log", "a"])
def test_a_name_in_the_folder_is_its_file(folder: Path, name: str) -> None:
    assert within(folder, name) == folder / name


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_verb_opens_or_names_it(folder: Path, name: str) -> None:
    profiled = ok(scenario="profile", world=2, details=test_breakdown.details(trace=name))
    write(folder, profiled, failed(log=name, loss="local"))
    frame = load(folder)
    [failure] = gather(folder, frame).failures
    assert failure.logs == [] and "is no file of the folder" in failure.refused[0]
    with pytest.raises(AnalysisError, match="its trace .* is no file of the folder"):
        one(folder, profiled.trial_id, frame)


def test_a_sketch_outside_is_not_read(folder: Path) -> None:
    save(folder.parent / "secret.npz", {"w": np.ones(1)})
    sides = [ok(sketch="../secret.npz"), ok(sketch="../secret.npz", loss="local")]
    frame = frame_of(folder, sides)
    found = of_sides(str(folder), frame[frame.loss == "local"], frame[frame.loss != "local"])
    assert found is not None and found.scale is None
    assert "is no file of the folder" in found.reason
