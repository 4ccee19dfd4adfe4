"""Which rows are run, in which order, and what becomes of one that breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.controller.messages import ConfigurationError
from bench.controller.selfcheck.row import Row, Seen
from bench.controller.selfcheck.rows import ROWS, check, chosen
from bench.controller.selfcheck.stand import RowFailed, Stand
from bench.record import Status
from tests.controller.selfcheck.stands import (
    stand,
)


def test_rows_are_chosen_in_their_own_order_and_unknown_ones_refused() -> None:
    assert [row.name for row in chosen(["judge", "fork"])] == ["fork", "judge"]
    assert chosen([]) == list(ROWS)
    with pytest.raises(ConfigurationError, match=r"--rows frok: unknown row.*mean 'fork'\?"):
        chosen(["frok"])


def test_a_row_that_breaks_is_a_miss_and_a_gpu_row_is_not_run_on_cpu(tmp_path: Path) -> None:
    def fails(_: Stand) -> Seen:
        raise RowFailed("error: no luck")

    rows = [Row("a", "", fails), Row("b", "", fails, needs_gpu=True)]
    broken, skipped = check(stand(tmp_path), rows)
    assert (broken.missed, broken.seen.text) == (True, "error: no luck")
    assert (skipped.missed, skipped.seen.passed) == (False, None)
    assert "needs a GPU" in skipped.seen.text


def test_a_row_that_breaks_by_itself_is_a_miss_and_the_next_one_runs(tmp_path: Path) -> None:
    def breaks(_: Stand) -> Seen:
        raise TypeError("unsupported format string")

    broken, after = check(
        stand(tmp_path), [Row("a", "", breaks), Row("b", "", lambda _: Seen("here", True))]
    )
    assert (broken.missed, after.seen.passed) == (True, True)
    assert broken.seen.text == "the row itself broke: TypeError: unsupported format string"


def test_one_configuration_runs_once(tmp_path: Path) -> None:
    seen: list[str] = []
    there = stand(tmp_path, lambda c: seen.append(c.loss) or {})  # type: ignore[func-returns-value]
    assert there.ok(loss="local") is there.ok(loss="local")
    there.ok(loss="all_gather")
    there.launch(loss="local")
    assert seen == ["local", "all_gather", "local"]


def test_a_trial_that_fails_fails_its_row(tmp_path: Path) -> None:
    there = stand(tmp_path, lambda _: {"status": Status.CRASH, "reason": "rank 0 ended"})
    [result] = check(there, chosen(["one_rank"]))
    assert (result.missed, result.seen.text) == (True, "crash: rank 0 ended")
