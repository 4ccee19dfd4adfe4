"""From what the ranks of a trial said and how they ended to the status of its record."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from bench.controller import deaths, faults, rank_report, rows
from bench.controller.deaths import Death
from bench.controller.faults import Fault
from bench.controller.reports import (
    Reports,
    failed_by_itself,
    failure_line,
    is_out_of_memory,
    uneven,
    worst_gradient,
)
from bench.controller.trial_log import TrialLog
from bench.failure_text import useful_line
from bench.lines import MOST_REPORT_BYTES
from bench.record import CPU_PHASES, PHASES, RankError, RankOutcome, Status
from bench.trial import EnvironmentSpec


class Flight:
    """A trial in the air: collects the server's lines, then says what happened."""

    def __init__(
        self, world: int, scratch: Path | None = None, log: TrialLog | None = None
    ) -> None:
        self.world = world
        self._scratch, self._log = scratch, log
        self._rows: list[dict[str, Any]] = []
        self._faults: list[Fault] = []
        self._rows_left_out = 0
        self.pids: list[int] = []
        self.store_port = 0
        self.oom_kills_before = deaths.oom_kills()
        self.dumps: list[Path] = []  # of torch's flight recorder
        self.shared_memory: list[str] = []
        """What ranks left in shared memory, in a few words each."""
        self.reports = Reports(world)
        self._unread: set[int] = set()  # ranks that reported what is no report
        self._exits: dict[int, dict[str, Any]] = {}
        self._dead: list[Death] = []  # without a report, in the order in which they ended
        self._beats: list[dict[str, Any]] = []
        self._cpu: tuple[float, list[float]] | None = None
        self._gave_up: tuple[Status, str] | None = None
        self._stacks: dict[str, str] = {}
        self._threads_at_fork = 1

    def take(self, line: dict[str, Any]) -> None:
        """One line from the server."""
        if line["op"] == "forked":
            self.pids, self.store_port = line["pids"], line["store_port"]
            self._threads_at_fork = line["threads"]
        elif line["op"] == "rank":
            self._report(line["rank"], line["report"], line["bytes"])
        elif line["op"] == "exited":
            self._exits[line["rank"]] = line
            if self._ended_without_a_report(line):
                self._dead.append(_death(line))

    def _report(self, rank: int, text: str, length: int) -> None:
        if length > MOST_REPORT_BYTES:
            self._unread.add(rank)
            most = f"at most {MOST_REPORT_BYTES:,} are taken"
            self._faults.append(Fault(rank, f"it reported {length:,} bytes; {most}"))
            return
        report, wrong = rank_report.read(rank, text)
        self._faults += wrong
        if report is None:
            self._unread.add(rank)
        elif (again := self.reports.take(rank, report)) is not None:
            self._faults.append(again)

    def _ended_without_a_report(self, line: dict[str, Any]) -> bool:
        """Not so where a rank reported what is no report, and then left of its own accord."""
        rank = line["rank"]
        if self.reports.get(rank) is not None:
            return False
        return rank not in self._unread or line["exit_code"] != 0

    def beat(self, beats: list[dict[str, Any]]) -> bool:
        """Take the ranks' heartbeats; whether any moved, or reported more, since the last ones."""
        before, self._beats = self._beats, beats
        return list(map(_moves, beats)) != list(map(_moves, before))

    def computed(self, cpu_seconds: list[float], share: float) -> bool:
        """Whether a rank used more than `share` of a core since the last call."""
        now, before = time.monotonic(), self._cpu
        self._cpu = (now, cpu_seconds)
        if before is None or len(before[1]) != len(cpu_seconds):
            return True
        used = max((b - a for a, b in zip(before[1], cpu_seconds, strict=True)), default=0.0)
        return used > share * (now - before[0])

    def outside_steps(self) -> bool:
        """Whether a rank was last seen in another phase than those of a step."""
        return any(beat["phase"] not in PHASES for beat in self._beats)

    def ranks_on_cpu(self) -> set[int]:
        """Ranks that were last seen working by themselves on the CPU."""
        return {beat["rank"] for beat in self._beats if beat["phase"] in CPU_PHASES}

    def give_up(self, status: Status, reason: str, stacks: dict[str, str]) -> None:
        """The host's verdict when ranks neither end nor fail."""
        self._gave_up = (status, reason)
        self._stacks = stacks

    def collect_rows(self) -> None:
        """Read what the ranks noted, however they ended."""
        if self._scratch is None:
            return
        for rank in range(self.world):
            noted = rows.read(self._scratch, rank)
            self._rows += noted.rows
            self._rows_left_out += noted.left_out
            self._faults += noted.faults

    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self._gave_up is not None or len(self._exits) == self.world

    def failed(self) -> bool:
        """Whether a rank raised, or ended without having finished."""
        return any(self._has_failed(rank) for rank in range(self.world))

    def cause_known(self) -> bool:
        """Whether a rank failed by itself, and not only because it lost a peer."""
        errors = self.reports.errors()
        return bool(self._dead or self._unread) or any(map(failed_by_itself, errors))

    def all_settled(self) -> bool:
        """Whether every rank has reported or ended."""
        return len(self.reports.ranks() | self._exits.keys()) == self.world

    def all_finished(self) -> bool:
        """Whether every rank has reported its results, ended or not."""
        return self.all_settled() and not self.failed()

    def _has_failed(self, rank: int) -> bool:
        report = self.reports.get(rank)
        if report is not None:
            return not report.finished
        return rank in self._exits or rank in self._unread

    def fields(self) -> dict[str, Any]:
        """The fields of the record that follow from what was collected."""
        reports, faults_ = self.reports, self._all_faults()
        status, reason = self._status(faults_)
        fields: dict[str, Any] = {"status": status, "reason": reason}
        fields["errors"] = [*reports.errors(), *(fault.error for fault in faults_)]
        fields["ranks"] = [self._outcome(rank) for rank in range(self.world)]
        if self._dead_settle():
            fields["first_ended"] = self._dead[0].rank
        if status is Status.OK:
            fields.update({name: reports.parts(name) for name in ("samples", "memory")})
            fields["gradient"] = worst_gradient(reports.parts("gradient"))
            if reasons := list(filter(None, reports.parts("gradient_reason"))):
                fields["gradient_reason"] = reasons[0]
            fields.update({n: reports.part(n) for n in ("clipping", "sketch", "sketch_version")})
            fields["collectives"] = [one for some in reports.parts("collectives") for one in some]
        if self.all_finished():  # though a part of what they returned may be beyond any record
            fields["details"] = reports.part("details") or {}
        if (shared := reports.observed("shared_gpu")) is not None:
            fields["timings_valid"] = not shared
        if self._rows:
            fields["details"] = {**fields.get("details", {}), "rows": self._rows}
        if self._rows_left_out:
            left_out = {"rows_left_out": self._rows_left_out}
            fields["details"] = {**fields.get("details", {}), **left_out}
        return fields

    def _all_faults(self) -> list[Fault]:
        """Of single ranks, and of what they returned together."""
        found = [*self._faults, uneven(self.reports.parts("samples"))]
        if self._rows and "rows" in (self.reports.part("details") or {}):
            found.append(Fault(0, "the scenario returned details.rows beside the ranks' own rows"))
        return [fault for fault in found if fault is not None]

    def _status(self, wrong: list[Fault]) -> tuple[Status, str | None]:
        errors = self.reports.errors()
        if self._dead_settle():  # before what others raised: they only lost their peer
            killed = deaths.oom_kills() > self.oom_kills_before
            return deaths.judge(self._dead, self._output(), killed)
        if errors:
            status = Status.OOM if any(map(is_out_of_memory, errors)) else Status.ERROR
            return status, failure_line(errors)
        if self._gave_up is not None:
            status, reason = self._gave_up
            return status, f"{reason}; {self._whereabouts()}"
        if wrong:
            return Status.ERROR, faults.reason(wrong)
        return Status.OK, None

    def _dead_settle(self) -> bool:
        """Whether ranks that ended without a result settle the status.

        Not where they only aborted because of what another raised.
        """
        errors = self.reports.errors()
        if not self._dead or not any(map(failed_by_itself, errors)):
            return bool(self._dead)
        if any(map(is_out_of_memory, errors)):  # on a full card NCCL fails in many ways
            return not deaths.all_aborted(self._dead)
        return not deaths.followed(self._dead, self._output())

    def _output(self) -> str:
        return "" if self._log is None else self._log.output()

    def _whereabouts(self) -> str:
        """Where the ranks were: `ranks 0, 1 in backward, rank 2 in forward`."""
        places: dict[str, list[int]] = {}
        for beat in self._beats:
            places.setdefault(beat["phase"], []).append(beat["rank"])
        return ", ".join(f"{deaths.ranks(ranks)} in {phase}" for phase, ranks in places.items())

    def _outcome(self, rank: int) -> RankOutcome:
        report, exit_ = self.reports.get(rank), self._exits.get(rank)
        beat = next(
            (b for b in self._beats if b["rank"] == rank), {"phase": "unknown", "step": None}
        )
        phase, step = beat["phase"], beat["step"]
        stack = self._stacks.get(str(rank))
        if report is not None and report.error is not None:
            error = report.error
            return RankOutcome(rank=rank, outcome="raised", phase=error.phase, step=error.step)
        if report is not None:
            ended = {} if exit_ is None else {n: exit_[n] for n in ("signal", "exit_code")}
            return RankOutcome(rank=rank, outcome="finished", phase="done", **ended)
        if exit_ is None:
            return RankOutcome(
                rank=rank, outcome="interrupted", phase=phase, step=step, stack=stack
            )
        return RankOutcome(
            rank=rank,
            outcome="killed" if exit_["signal"] else "exited",
            phase=phase,
            step=step,
            signal=exit_["signal"],
            exit_code=exit_["exit_code"],
        )

    def reference_failure(self, timeout_s: float) -> tuple[Status, str, RankError] | None:
        """Why the one process that makes a reference failed, in a line too; None: it did not."""
        report, exit_ = self.reports.get(0), self._exits.get(0)
        if report is not None and report.error is not None:
            raised = report.error
            status = Status.OOM if is_out_of_memory(raised) else Status.ERROR
            said = useful_line(raised.message, raised.traceback) or "no message"
            return status, f"{raised.type.rpartition('.')[2]}: {said}", raised
        if self._faults:
            return Status.ERROR, self._faults[0].text, self._faults[0].error
        if report is not None:
            return None
        if self._gave_up is not None:
            status, message = self._gave_up
        elif exit_ is None:
            status, message = Status.TIMEOUT, f"it took longer than limits.timeout_s={timeout_s:g}"
            message += "; raise that, or use a smaller model"
        elif exit_["signal"] == signal.SIGKILL and deaths.oom_kills() > self.oom_kills_before:
            status, message = Status.OOM, "the kernel's out-of-memory killer ended its process"
        else:
            status, message = Status.CRASH, f"its process ended by {_death(exit_).manner}"
        error = RankError(
            rank=0, type="Reference", message=message, traceback="", phase="reference"
        )
        return status, message, error

    def warnings(self) -> list[str]:
        """What libraries warned of, and what is odd about the launch, each text once."""
        texts = self.reports.warnings()
        if self._threads_at_fork != 1:
            texts.append(f"spbench: the server had {self._threads_at_fork} threads when it forked")
        if self._log is not None and self._log.left_out:
            texts.append(f"spbench: {self._log.left_out:,} bytes of the log were left out")
        texts += [f"spbench: removed {what}, which ranks left" for what in self.shared_memory]
        texts += [
            f"spbench: rank {rank} had its results, then ended by {_death(exit_).manner}"
            for rank, exit_ in sorted(self._exits.items())
            if exit_["exit_code"] != 0 and self._finished(rank)
        ]
        return list(dict.fromkeys(texts))

    def _finished(self, rank: int) -> bool:
        report = self.reports.get(rank)
        return report is not None and report.finished


def version_mismatch(spec: EnvironmentSpec, observed: dict[str, Any]) -> str | None:
    """Why the interpreter is not the environment that was asked for; None when it is."""
    wanted = {"torch": spec.torch, "deepspeed": spec.deepspeed}
    wrong = [
        f"{package} {observed[package]} instead of {version}"
        for package, version in wanted.items()
        if version is not None and observed[package].split("+")[0] != version.split("+")[0]
    ]
    if not wrong:
        return None
    return (
        f"environment '{spec.name}' has {' and '.join(wrong)}; "
        f"`spbench env remove {spec.name}`, then sync it again"
    )


def _moves(beat: dict[str, Any]) -> tuple[int, int]:
    return beat["count"], beat.get("received", 0)


def _death(exit_: dict[str, Any]) -> Death:
    return Death(exit_["rank"], exit_["signal"], exit_["exit_code"])
