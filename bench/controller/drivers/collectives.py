"""Collectives that hang, or end their process, must not take the others along.

The ranks run case after case and note each beginning and end. When a launch ends early, the
cases that a rank had begun and not ended are what it died of: they are marked, and the rest runs
in fresh ranks. The record's `details["cases"]` then has every case once, with what each rank saw.
"""

from __future__ import annotations

from collections import Counter
from signal import SIGABRT
from typing import Any

from bench.controller.deaths import Death
from bench.controller.drivers import Launch, Note
from bench.record import Record, Status
from bench.trial import Trial

MOST_LAUNCHES = 60
"""Beyond, what is left is reported as not run; every launch costs about a second."""
_FINDING = ("status", "type", "phase", "message", "value", "gradient")
_IDENTITY = ("case", "collective", "variant", "group", "layout", "dtype", "awaited")


def run(trial: Trial, launch: Launch, note: Note) -> Record:
    """Launch until every case has been tried; see `results/README.md` for `details`."""
    log = _Findings()
    record, lost = _all_cases(trial, launch, note, log)
    timing: list[dict[str, Any]] = []
    if trial.configuration.options.get("timing") and lost is None:
        note("collectives: bandwidth")
        record = launch(_inner(trial, skip=["*"], timing=True))
        timing = [row for row in _rows(record) if row["event"] == "timing"]
        lost = None if record.status is Status.OK else record.reason
    details = {"headline": log.headline(), "cases": log.cases(), "listed": log.listed}
    if timing:
        details["timing"] = timing
    return record.model_copy(
        update={
            "trial_id": trial.id,
            "config_hash": trial.configuration.hash,
            "config": trial.configuration,
            "round": trial.round,
            "attempt": trial.attempt,
            "started": log.started,
            "duration_s": log.duration_s,
            "status": record.status if lost else Status.OK,
            "reason": lost,
            "errors": record.errors if lost else [],
            "details": details,
        }
    )


def _all_cases(
    trial: Trial, launch: Launch, note: Note, log: _Findings
) -> tuple[Record, str | None]:
    """The last launch's record, and why cases are left that nobody tried."""
    for number in range(1, MOST_LAUNCHES + 1):
        record = launch(_inner(trial, skip=log.settled(), timing=False))
        before = len(log.settled())
        log.take(record)
        note(f"collectives: {len(log.settled())} of {log.planned} cases, launch {number}")
        if record.status is Status.OK:
            return record, None
        if len(log.settled()) == before:  # it failed outside any case, and would again
            return record, record.reason or "the ranks failed outside any case"
    return record, f"gave up after {MOST_LAUNCHES} launches; {log.left()} cases were not tried"


def _inner(trial: Trial, **options: Any) -> Trial:
    given = trial.configuration.options
    skip = given.get("skip", [])
    patterns = [skip] if isinstance(skip, str) else list(skip)
    merged = {**given, **options, "skip": [*patterns, *options["skip"]]}
    update = {"options": merged, "gradient_check": "off"}
    configuration = trial.configuration.model_copy(update=update)
    return Trial(configuration=configuration, round=trial.round, attempt=trial.attempt)


def _rows(record: Record) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = record.details.get("rows", [])
    return rows


class _Findings:
    """What all launches of a trial found."""

    def __init__(self) -> None:
        self.started = ""
        self.duration_s = 0.0
        self.planned = 0
        self.listed: list[dict[str, Any]] = []
        self._cases: dict[str, dict[str, Any]] = {}
        self._outcomes: dict[str, dict[int, dict[str, Any]]] = {}

    def take(self, record: Record) -> None:
        """The rows of one launch, and what became of the ranks that did not end theirs."""
        self.started = self.started or record.started
        self.duration_s += record.duration_s
        begun: dict[int, str] = {}
        for row in _rows(record):
            if row["event"] == "plan":
                self.planned = self.planned or row["cases"]
            elif row["event"] == "listed":
                found = {name: row[name] for name in ("collective", "status")}
                self.listed += [found] if found not in self.listed else []
            elif row["event"] == "begin":
                self._cases.setdefault(row["case"], {name: row[name] for name in _IDENTITY})
                begun[row["rank"]] = row["case"]
            elif row["event"] == "end":
                begun.pop(row["rank"], None)
                finding = {name: row[name] for name in _FINDING if name in row}
                self._outcomes.setdefault(row["case"], {})[row["rank"]] = finding
        for rank, case in begun.items():
            self._outcomes.setdefault(case, {})[rank] = _fate(record, rank)

    def settled(self) -> list[str]:
        """Names of the cases that were tried."""
        return list(self._outcomes)

    def left(self) -> int:
        """How many were not."""
        return self.planned - len(self._outcomes)

    def cases(self) -> list[dict[str, Any]]:
        """Each case with its outcomes: ranks that saw the same are named together."""
        found = []
        for name, case in self._cases.items():
            alike: list[dict[str, Any]] = []
            for rank, finding in sorted(self._outcomes[name].items()):
                same = next((one for one in alike if _kind(one) == _kind(finding)), None)
                if same is None:
                    alike.append({"ranks": [rank], **finding})
                else:
                    same["ranks"].append(rank)
            found.append({**case, "outcomes": alike})
        return found

    def headline(self) -> str:
        """`740 ok, 12 wrong gradient, 8 error`: cases by their worst outcome."""
        worst = Counter(
            next((f["status"] for f in ranks.values() if f["status"] != "ok"), "ok")
            for ranks in self._outcomes.values()
        )
        return ", ".join(f"{count} {status}" for status, count in worst.most_common())


def _kind(finding: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two ranks' findings the same: all but the numbers behind them."""
    scales = [
        None if not isinstance(part, dict) else (part.get("problem"), _rounded(part.get("scale")))
        for part in (finding.get("value"), finding.get("gradient"))
    ]
    return (*(finding.get(name) for name in ("status", "type", "phase", "message")), *scales)


def _rounded(scale: float | None) -> float | None:
    return None if scale is None else round(scale, 4)


def _fate(record: Record, rank: int) -> dict[str, Any]:
    """What became of a rank that did not come out of a case."""
    outcome = next((one for one in record.ranks if one.rank == rank), None)
    # NCCL's watchdog ends a rank whose collective waited in vain, and says so before
    waited = outcome is not None and outcome.signal == SIGABRT and record.status is Status.HANG
    if outcome is not None and outcome.outcome in ("killed", "exited") and not waited:
        death = Death(rank, outcome.signal, outcome.exit_code)
        return {"status": "crash", "message": f"its process ended by {death.manner}"}
    if record.status is Status.CRASH:
        return {"status": "lost", "message": "another rank's process ended meanwhile"}
    return {"status": "hang", "message": "it did not come out and was ended"}
