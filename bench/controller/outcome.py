"""From what the ranks of a trial said and how they ended to the status of its record."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

from bench.controller import deaths, faults, rows
from bench.controller.deaths import Death
from bench.controller.faults import Fault
from bench.controller.reports import (
    failed_by_itself,
    failure_line,
    is_out_of_memory,
    worst_gradient,
)
from bench.controller.trial_log import TrialLog
from bench.failure_text import useful_line
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
        self._reports: dict[int, dict[str, Any]] = {}
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
            self._reports[line["rank"]] = line
        elif line["op"] == "exited":
            self._exits[line["rank"]] = line
            if line["rank"] not in self._reports:
                self._dead.append(_death(line))

    def beat(self, beats: list[dict[str, Any]]) -> bool:
        """Take the ranks' heartbeats; whether any of them moved since the last ones."""
        moved = [b["count"] for b in beats] != [b["count"] for b in self._beats]
        self._beats = beats
        return moved

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
        return bool(self._dead) or any(map(failed_by_itself, self.errors()))

    def all_settled(self) -> bool:
        """Whether every rank has reported or ended."""
        return len(self._reports.keys() | self._exits.keys()) == self.world

    def all_finished(self) -> bool:
        """Whether every rank has reported its results, ended or not."""
        return self.all_settled() and not self.failed()

    def _has_failed(self, rank: int) -> bool:
        report = self._reports.get(rank)
        return report["outcome"] == "raised" if report is not None else rank in self._exits

    def errors(self) -> list[RankError]:
        """What ranks raised, in rank order."""
        raised = [r for _, r in sorted(self._reports.items()) if r["outcome"] == "raised"]
        return [RankError(**report["error"]) for report in raised]

    def fields(self) -> dict[str, Any]:
        """The fields of the record that follow from what was collected."""
        status, reason = self._status()
        fields: dict[str, Any] = {"status": status, "reason": reason}
        fields["errors"] = [*self.errors(), *(fault.error for fault in self._faults)]
        fields["ranks"] = [self._outcome(rank) for rank in range(self.world)]
        if self._dead_settle():
            fields["first_ended"] = self._dead[0].rank
        if status is Status.OK:
            results = [self._reports[rank]["result"] for rank in range(self.world)]
            for name in ("samples", "memory"):
                fields[name] = [r[name] for r in results if r.get(name) is not None]
            fields["gradient"] = worst_gradient(
                [r["gradient"] for r in results if r.get("gradient")]
            )
            reasons = [r["gradient_reason"] for r in results if r.get("gradient_reason")]
            if reasons:
                fields["gradient_reason"] = reasons[0]
            fields.update({n: results[0].get(n) for n in ("clipping", "sketch", "sketch_version")})
            fields["collectives"] = [count for r in results for count in r.get("collectives", [])]
            fields["details"] = results[0].get("details", {})
        if (shared := self._observed().get("shared_gpu")) is not None:
            fields["timings_valid"] = not shared
        if self._rows:
            fields["details"] = {**fields.get("details", {}), "rows": self._rows}
        if self._rows_left_out:
            fields["details"]["rows_left_out"] = self._rows_left_out
        return fields

    def _status(self) -> tuple[Status, str | None]:
        errors = self.errors()
        if self._dead_settle():  # before what others raised: they only lost their peer
            killed = deaths.oom_kills() > self.oom_kills_before
            return deaths.judge(self._dead, self._output(), killed)
        if errors:
            status = Status.OOM if any(map(is_out_of_memory, errors)) else Status.ERROR
            return status, failure_line(errors)
        if self._gave_up is not None:
            status, reason = self._gave_up
            return status, f"{reason}; {self._whereabouts()}"
        if self._faults:
            return Status.ERROR, faults.reason(self._faults)
        return Status.OK, None

    def _dead_settle(self) -> bool:
        """Whether ranks that ended without a result settle the status.

        Not where they only aborted because of what another raised.
        """
        errors = self.errors()
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
        report, exit_ = self._reports.get(rank), self._exits.get(rank)
        beat = next(
            (b for b in self._beats if b["rank"] == rank), {"phase": "unknown", "step": None}
        )
        phase, step = beat["phase"], beat["step"]
        stack = self._stacks.get(str(rank))
        if report is not None and report["outcome"] == "raised":
            error = report["error"]
            return RankOutcome(
                rank=rank, outcome="raised", phase=error["phase"], step=error["step"]
            )
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
        report, exit_ = self._reports.get(0), self._exits.get(0)
        if report is not None and report["outcome"] == "finished":
            return None
        if report is not None:
            raised = RankError(rank=0, phase="reference", **report["error"])
            status = Status.OOM if is_out_of_memory(raised) else Status.ERROR
            said = useful_line(raised.message, raised.traceback) or "no message"
            return status, f"{raised.type.rpartition('.')[2]}: {said}", raised
        if exit_ is None:
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

    def first_losses(self) -> list[list[float]]:
        """Mean loss and number of labels that each rank's first forward pass gave, in rank order.

        Empty unless every rank told it.
        """
        told = [self._reports.get(rank, {}).get("result", {}) for rank in range(self.world)]
        found = [result.get("first_loss") for result in told]
        return [] if any(one is None for one in found) else found

    def late_imports(self) -> list[str]:
        """Modules that ranks imported themselves."""
        return sorted({name for r in self._reports.values() for name in r.get("late_imports", [])})

    def warnings(self) -> list[str]:
        """What libraries warned of, each text once, in rank order."""
        texts = [text for _, r in sorted(self._reports.items()) for text in r.get("warnings", [])]
        if self._threads_at_fork != 1:
            texts.append(f"spbench: the server had {self._threads_at_fork} threads when it forked")
        if self._log is not None and self._log.left_out:
            texts.append(f"spbench: {self._log.left_out:,} bytes of the log were left out")
        texts += [f"spbench: removed {what}, which ranks left" for what in self.shared_memory]
        texts += [
            f"spbench: rank {rank} had its results, then ended by {_death(exit_).manner}"
            for rank, exit_ in sorted(self._exits.items())
            if exit_["exit_code"] != 0 and self._reports.get(rank, {}).get("outcome") == "finished"
        ]
        return list(dict.fromkeys(texts))

    def _observed(self) -> dict[str, Any]:
        """What the first rank that reported saw (`bench.worker.rank.Rank.observed`)."""
        first = next((r for _, r in sorted(self._reports.items())), {})
        observed: dict[str, Any] = first.get("observed", {})
        return observed

    def variables(self) -> dict[str, str]:
        """Environment variables that steer torch, NCCL and DeepSpeed, as a rank saw them."""
        found: dict[str, str] = self._observed().get("variables", {})
        return found

    def sdpa_kernel(self) -> str | None:
        """The kernel that torch chose for attention; None where there was none."""
        kernel: str | None = self._observed().get("sdpa_kernel")
        return kernel

    def mesh_setup(self) -> str | None:
        """How DeepSpeed was told of sequence parallelism; None where nothing was trained."""
        setup: str | None = self._observed().get("mesh_setup")
        return setup

    def devices(self) -> list[str]:
        """Each rank's device."""
        return [r["device"] for _, r in sorted(self._reports.items()) if "device" in r]


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


def _death(exit_: dict[str, Any]) -> Death:
    return Death(exit_["rank"], exit_["signal"], exit_["exit_code"])
