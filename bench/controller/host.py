"""Runs trials on one server, against the clock that no rank outlives."""

from __future__ import annotations

import datetime
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import theory
from bench.controller import first_loss, leftovers, outcome, shared_memory
from bench.controller.code import DISK, reference_folder
from bench.controller.gpus import driver_version
from bench.controller.outcome import Flight
from bench.controller.problem import require_log
from bench.controller.server_process import ServerLost, ServerProcess
from bench.controller.trial_log import TrialLog
from bench.controller.vital_signs import Stops
from bench.record import GradientMode, RankError, Record, Status, Wanted, WorkerProvenance
from bench.record_files import flight_recorder_file
from bench.trial import Configuration, Trial

GRACE_S = 0.5
"""How long the other ranks get to fail on their own after the first one did."""
POLL_S = 0.5
"""How often a silent trial is asked for its progress."""
ANSWER_S = 30.0
"""How long a server may take to answer; it does so between two reads, in well under 1 s."""
LOST_PEER_GRACE_S = 5.0
"""How long a rank gets to say why it failed when others have only said that they lost a peer."""
PARTING_S = 10.0
"""How long ranks get to end their processes once all have their results: they need milliseconds."""
BUSY_SHARE = 0.1
"""Share of a core from which on a rank on CPU counts as computing, not as waiting."""


class Host:
    """One server, and one trial at a time on it."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.interpreter = server.interpreter
        self.in_steps: Callable[[], None] | None = None
        """Called while ranks are in their steps, as often as they are asked for their progress."""
        self._made: dict[tuple[str, ...], tuple[Status, str, RankError] | None] = {}
        self.learnt: list[str] = []
        """Modules that the ranks of the last trial imported, of which the server knew nothing."""
        self.mismatch = outcome.version_mismatch(server.interpreter.spec, server.versions)

    def close(self) -> None:
        """End the server."""
        self._server.close()

    def seen(self, configuration: Configuration) -> dict[str, Any]:
        """The fields `code` and `worker` of a record of a trial that took the server along."""
        code = self._server.known_code(configuration)
        if code is None:
            return {}
        return {"code": code, "worker": self._provenance(Flight(configuration.world))}

    def is_running(self) -> bool:
        """Whether the server has neither ended nor been stopped."""
        return self._server.is_running()

    def is_stale(self, configuration: Configuration) -> bool:
        """Whether the server runs other code than the files on the disk now say.

        Raises `ServerLost` when the server itself is lost.
        """
        if self._server.torn:
            return True
        if self._server.sources == DISK.stamps():
            return False
        return self._server.code_of(configuration) != DISK.code_of(configuration)

    def run(self, trial: Trial, folder: Path, log_name: str) -> Record:
        """One trial, whose output goes to `logs/<log_name>.log` of `folder`.

        Raises `ServerLost` when the server itself is lost.
        """
        c = trial.configuration
        self.learnt = []
        started, clock = utc_now(), time.monotonic()
        code = self._server.code_of(c)
        if self.mismatch is not None:
            seen = {"worker": self._provenance(Flight(c.world)), "code": code}
            return Record.of(trial, Status.ENVIRONMENT, started, 0.0, reason=self.mismatch, **seen)
        log = folder / "logs" / f"{log_name}.log"
        require_log(log)
        failure = self._ensure(trial, "off", log)
        if failure is not None:
            status, reason, error = failure
            return Record.of(
                trial,
                status,
                started,
                time.monotonic() - clock,
                reason=f"the initial weights could not be made: {reason}",
                errors=[error],
                worker=self._provenance(Flight(c.world)),
                code=code,
                log=str(log.relative_to(folder)),
            )
        mode, why_not = theory.decision(c)
        check = mode
        if mode == "exact" and (failure := self._ensure(trial, "exact", log)) is not None:
            check = "off"
            why_not = f"not compared: the exact reference could not be made: {failure[1]}"
        reference_loss = self._reference_loss(trial, mode, log)
        started, clock = utc_now(), time.monotonic()
        flight = self._fly(trial, log, check, why_not)
        duration = time.monotonic() - clock
        self.learnt = self._server.learn(flight.reports.late_imports())
        return Record.of(
            trial,
            started=started,
            duration_s=duration,
            hang_s=_hang_s(trial),
            gradient_mode=mode,
            worker=self._provenance(flight),
            code=code,
            log=str(log.relative_to(folder)),
            flight_recorder=[str(path.relative_to(folder)) for path in flight.dumps],
            first_loss=first_loss.judge(c, flight.reports.first_losses(), reference_loss),
            **{"gradient_reason": why_not, **flight.fields()},
        )

    def _fly(self, trial: Trial, log: Path, check: GradientMode, why_not: str | None) -> Flight:
        """Launch the ranks, watch them, and see every process of the trial ended.

        `why_not`: why they compare nothing, where they were to.
        """
        c = trial.configuration
        scratch, began = self._server.scratch / trial.id, time.time()
        scratch.mkdir(parents=True, exist_ok=True)
        flight = Flight(c.world, scratch, written := TrialLog(log))
        others_memory = shared_memory.names()
        self._server.send(
            op="run",
            configuration=c.model_dump(mode="json"),
            scratch=str(scratch),
            log=str(log),
            reference=str(self._reference_folder(trial)),
            threads=threads_per_rank(c.world),
            check=check,
            check_reason=why_not,
        )
        try:
            self._watch(flight, trial, written)
            if flight.failed():
                self._progressed(flight, on_cpu=False)  # where each rank was
        finally:
            used = shared_memory.used_by(flight.pids)
            self._end(flight)
            shared_memory.remove_deepspeed_buffers(flight.store_port)
            if c.comm.device == "cuda":
                shared_memory.remove_nccl_segments(began)
            used |= shared_memory.noted(scratch, flight.pids)
            flight.shared_memory = shared_memory.remove_left(used - others_memory, began)
            if flight.failed() or not flight.all_settled():
                leftovers.remove_build_locks(self._server.interpreter.extensions, began)
            written.finish()
            flight.collect_rows()
            flight.dumps = _keep_dumps(scratch, log, c.world)
            shutil.rmtree(scratch, ignore_errors=True)
        return flight

    def _end(self, flight: Flight) -> None:
        """See every process of the trial ended, though the server be lost."""
        others: list[dict[str, Any]] = []
        try:
            self._server.ask("kill", "ended", others, ANSWER_S)
        except ServerLost:  # then they die with it; whoever asks it for more is told
            leftovers.await_end(flight.pids)
        for line in others:
            flight.take(line)

    def _watch(self, flight: Flight, trial: Trial, log: TrialLog) -> None:
        """Until all ranks have ended, one has failed, or the time is up."""
        limits, hang_s = trial.configuration.limits, _hang_s(trial)
        start = last_progress = time.monotonic()
        on_cpu = trial.configuration.comm.device == "cpu"
        failed_at: float | None = None
        finished_at: float | None = None
        while not flight.over():
            log.trim()
            now = time.monotonic()
            if flight.all_finished():  # one that died while it parted leaves the others waiting
                finished_at = now if finished_at is None else finished_at
                if now - finished_at > PARTING_S:
                    return
            if flight.failed() and failed_at is None:
                failed_at = now
            grace = GRACE_S if flight.cause_known() else LOST_PEER_GRACE_S
            if failed_at is not None and (now - failed_at > grace or flight.all_settled()):
                return
            line = self._server.receive(0.05 if failed_at is not None else POLL_S)
            if line is not None:
                flight.take(line)
                last_progress = time.monotonic()
                continue
            if failed_at is not None or finished_at is not None:
                continue
            if self._progressed(flight, on_cpu):
                last_progress = time.monotonic()
            now = time.monotonic()
            if now - start > limits.timeout_s:
                flight.give_up(
                    Status.TIMEOUT, f"not done within {limits.timeout_s:g} s", self._stacks(flight)
                )
            elif now - last_progress > hang_s:
                flight.give_up(Status.HANG, f"no progress for {hang_s:g} s", self._stacks(flight))

    def _progressed(self, flight: Flight, on_cpu: bool) -> bool:
        """Whether a rank reported itself, or computed, since the last time.

        A rank on GPU that waits spins, in NCCL or for its device, so that its CPU time says
        nothing but in `CPU_PHASES`; that of processes it started, compilers say, does.
        """
        others: list[dict[str, Any]] = []
        answer = self._server.ask("progress", "progress", others, ANSWER_S)
        for line in others:
            flight.take(line)
        moved = flight.beat(answer["beats"])
        if answer["beats"] and not flight.outside_steps() and self.in_steps is not None:
            self.in_steps()
        alone = flight.ranks_on_cpu()
        used = [
            leftovers.cpu_seconds(pid, of_itself=on_cpu or rank in alone)
            for rank, pid in enumerate(flight.pids)
        ]
        return flight.computed(used, BUSY_SHARE) or moved or bool(others)

    def _stacks(self, flight: Flight) -> dict[str, str]:
        others: list[dict[str, Any]] = []
        answer = self._server.ask("stacks", "stacks", others, ANSWER_S)
        for line in others:
            flight.take(line)
        self._progressed(flight, on_cpu=False)  # where each rank is now
        stacks: dict[str, str] = answer["stacks"]
        return stacks

    def _reference_loss(self, trial: Trial, mode: GradientMode, log: Path) -> float | str | None:
        """The loss of a forward pass in float64, or why there is none.

        None where the exact reference has it, or no comparison was asked for.
        """
        if mode == "exact" or trial.configuration.gradient_check == "off":
            return None
        reason = theory.first_loss_reason(trial.configuration)
        if reason is not None:
            return reason
        failure = self._ensure(trial, "first_loss", log)
        if failure is not None:
            return f"not compared: the forward pass in float64 failed: {failure[1]}"
        return first_loss.read(self._reference_folder(trial))

    def _reference_folder(self, trial: Trial) -> Path:
        c = trial.configuration
        return reference_folder(c, self._server.reference_code(c))

    def _ensure(
        self, trial: Trial, check: Wanted, log: Path
    ) -> tuple[Status, str, RankError] | None:
        """Make what `check` needs of the reference, if need be; returns why it could not be made.

        `off` needs the weights alone. A failure is remembered, so that it is not computed for
        hours again by every round; not that its process was ended, by a signal say, which the
        next trial may be spared.
        """
        c = trial.configuration
        key = (str(self._reference_folder(trial)), c.comm.device, c.dtype, c.matmul, c.sdpa, check)
        if key in self._made:
            return self._made[key]
        failure = self._make_reference(trial, check, log)
        if failure is None or failure[0] is not Status.CRASH:
            self._made[key] = failure
        return failure

    def _make_reference(
        self, trial: Trial, check: Wanted, log: Path
    ) -> tuple[Status, str, RankError] | None:
        c = trial.configuration
        self._server.send(
            op="reference",
            configuration=c.model_dump(mode="json"),
            folder=str(self._reference_folder(trial)),
            check=check,
            log=str(log),
            threads=threads_per_rank(1),
        )
        flight = Flight(1)
        self._await_maker(flight, time.monotonic() + c.limits.timeout_s)
        self._server.ask("kill", "ended", [], ANSWER_S)
        return flight.reference_failure(c.limits.timeout_s)

    def _await_maker(self, flight: Flight, deadline: float) -> None:
        """Until the process that makes a reference has ended or was stopped, or the time is up."""
        maker: Stops | None = None
        while not flight.over() and time.monotonic() < deadline:
            line = self._server.receive(POLL_S)
            if line is not None:
                flight.take(line)
            elif flight.pids:
                maker = maker or Stops(flight.pids[0])
                if maker.for_long():
                    flight.give_up(Status.CRASH, "its process was stopped (SIGSTOP)", {})

    def _provenance(self, flight: Flight) -> WorkerProvenance:
        return WorkerProvenance(
            **self._server.versions,
            devices=flight.reports.devices(),
            driver=driver_version(),
            threads_per_rank=threads_per_rank(flight.world),
            warnings=[*self._server.warnings, *flight.warnings()],
            late_imports=flight.reports.late_imports(),
            sdpa_kernel=flight.reports.observed("sdpa_kernel"),
            mesh_setup=flight.reports.observed("mesh_setup"),
            variables=flight.reports.observed("variables") or {},
        )


def _keep_dumps(scratch: Path, log: Path, world: int) -> list[Path]:
    """Copy what torch's flight recorder wrote of each rank to beside the log."""
    kept = []
    for rank in range(world):
        if (written := flight_recorder_file(scratch, rank)).is_file():
            copy = log.with_name(f"{log.stem}.flight-{rank}")
            kept.append(Path(shutil.copyfile(written, copy)))
    return kept


def _hang_s(trial: Trial) -> float:
    """Seconds without progress after which `trial` has hung."""
    given = trial.configuration.limits.hang_s
    return theory.hang_s(trial.configuration) if given is None else given


def threads_per_rank(world: int) -> int:
    """Cores that this process may use, shared out over the ranks; at least one."""
    return max(1, len(os.sched_getaffinity(0)) // world)


def utc_now() -> str:
    """Now, as records say it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
