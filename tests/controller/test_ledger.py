"""Which record of a trial counts, and who may run it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.controller.ledger import Ledger
from bench.record import Record, Status
from bench.trial import Trial
from tests import factories

ROOT = Path(__file__).parents[2]

HOLDER = """
import sys
from pathlib import Path
from bench.controller.ledger import Ledger
from bench.trial import Trial
folder, trial = sys.argv[1:]
with Ledger(Path(folder)).claim(Trial.model_validate_json(trial)) as claimed:
    print(claimed, flush=True)
    sys.stdin.readline()
"""


@contextmanager
def held(folder: Path, trial: Trial) -> Iterator[Callable[[], None]]:
    """Another process holds the claim of `trial`; calling what this gives lets it go."""
    command = [sys.executable, "-c", HOLDER, str(folder), trial.model_dump_json()]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        yield holder.stdin.close


def others(folder: Path, *records: Record) -> None:
    """Append records to the file of another process."""
    with (folder / "records-other-1.jsonl").open("a") as file:
        file.writelines(record.model_dump_json() + "\n" for record in records)


def trial(round: int = 0, attempt: int = 0) -> Trial:
    return Trial(configuration=factories.configuration(), round=round, attempt=attempt)


def test_a_claim_is_of_one_round(tmp_path: Path) -> None:
    """Another sweep holds round 0 of a configuration: round 1 is free."""
    ledger = Ledger(tmp_path)
    with (
        held(tmp_path, trial()),
        ledger.claim(trial(0)) as same,
        ledger.claim(trial(1)) as other,
    ):
        assert (same, other) == (False, True)
    with ledger.claim(trial(0)) as free:
        assert free
    ledger.close()


def test_the_last_attempt_counts_in_whatever_order_records_lie(tmp_path: Path) -> None:
    others(tmp_path, factories.ok(attempt=1), factories.failed(attempt=0))
    ledger = Ledger(tmp_path)
    found = ledger.find(trial().key)
    assert found is not None
    assert (found.status, found.attempt) == (Status.OK, 1)
    assert ledger.next_attempt(trial().key) == 2


def test_of_one_attempt_the_first_record_counts(tmp_path: Path) -> None:
    """As for readers of the folder: a second sweep's record of the same attempt changes nothing."""
    others(tmp_path, factories.ok(step_s=0.5), factories.failed())
    ledger = Ledger(tmp_path)
    found = ledger.find(trial().key)
    assert found is not None
    assert (found.status, found.step_s) == (Status.OK, 0.5)


def test_a_record_settles_its_attempt_and_those_before(tmp_path: Path) -> None:
    others(tmp_path, factories.ok(attempt=1))
    ledger = Ledger(tmp_path)
    assert [ledger.settles(trial(attempt=attempt)) for attempt in range(3)] == [True, True, False]


def test_what_this_process_wrote_is_known_once(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for round_ in range(2):
        ledger.append(factories.ok(round=round_))
        ledger.refresh()
    assert [[one.own for one in ledger.all(trial(r).key)] for r in range(2)] == [[True], [True]]
    ledger.close()


def test_what_others_append_is_read_once_and_from_where_it_begins(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for round_ in range(3):
        others(tmp_path, factories.ok(round=round_))
        ledger.refresh()
    assert [len(ledger.all(trial(round_).key)) for round_ in range(3)] == [1, 1, 1]
    assert ledger.skipped == []
