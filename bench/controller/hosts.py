"""Runs trials: one warm server per environment, started when first needed."""

from __future__ import annotations

import contextlib
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from bench.controller import drivers, locks, torch_gpus
from bench.controller.code import Code, driver_code, of_launches
from bench.controller.drivers import Driver, Note
from bench.controller.environments import key_of
from bench.controller.gpu_locks import GpuLocks
from bench.controller.host import Host, utc_now
from bench.controller.interpreter import EnvironmentProblem, Interpreter
from bench.controller.problem import ControllerProblem, own_files, require_log, require_writable
from bench.controller.proxy import Proxies
from bench.controller.server_process import ROOT, ServerBroken, ServerLost, ServerProcess
from bench.record import RankError, Record, Status
from bench.trial import Configuration, EnvironmentSpec, Trial

Key = tuple[EnvironmentSpec, str, bool]
"""Environment, device type, and whether DeepSpeed's shared-memory op is on."""
STARTS = 3
"""How often a server is started for one trial while files of spbench keep changing."""

RESTART_PAUSES_S = (0.5, 1.0, 2.0)
"""After which a server is started again that was lost while it started."""

REHEARSALS = 3
"""How often a trial is launched again whose ranks imported under a memory limit: where that ended
them, the next launch may get further and import more."""


def say(text: str) -> None:
    """A note of a trial that has no display."""
    locks.say(f"spbench: {text}")


class Watch(Protocol):
    """What is told of a trial on GPUs: see `bench.controller.provenance.MachineWatch`."""

    def begin(self) -> None:
        """The trial has its GPUs: what was before counts no longer."""
        ...

    def in_steps(self) -> None:
        """Ranks are in their steps; told again and again."""
        ...


class Hosts:
    """The servers of a sweep, started when first needed. A context manager that ends them all.

    Servers are told apart by environment, device type and DeepSpeed's shared-memory switch,
    since these are settled when a server imports DeepSpeed. A trial on GPUs has them for itself:
    see `bench.controller.gpu_locks`.
    """

    def __init__(
        self,
        interpreter_of: Callable[[EnvironmentSpec], Interpreter],
        watch: Watch | None = None,
    ) -> None:
        self._interpreter_of = interpreter_of
        self._watch = watch
        self._locks = GpuLocks()
        self._hosts: dict[Key, Host] = {}
        self._broken: dict[Key, ServerBroken | EnvironmentProblem] = {}
        self._proxies = Proxies()

    def __enter__(self) -> Hosts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def run(self, trial: Trial, folder: Path, note: Note = say) -> Record:
        """Run one trial and return its record, whatever happens; logs go to `folder/logs`.

        `note` is told where a trial of several launches stands, and what it waits for.

        A server that is lost, by a signal say, costs at most this trial: a `crash`, and the next
        trial has a new server. One that is lost while it starts is started again, up to three
        times; only if all are lost is this trial a `crash`, and the next one tries anew. What the
        environment itself says (its import fails, its version is another) is remembered.

        Raises only `KeyboardInterrupt`, `ControllerProblem` where the controller itself cannot go
        on, and what the controller does wrong.
        """
        driver = drivers.find(trial.configuration.scenario)
        try:
            if driver is None:
                record = self._judged(trial, folder, note)
            else:
                record = self._driven(trial, driver, folder, note)
        finally:
            self._locks.release()
        if record.status is not Status.OK:  # perhaps because of a full disk
            for place in (folder, Path(tempfile.gettempdir())):
                require_writable(place)
        return record

    def _driven(self, trial: Trial, driver: Driver, folder: Path, note: Note) -> Record:
        """Several launches, whose code the record names with that of the driver."""
        codes: list[Code] = []

        def launch(one: Trial) -> Record:
            record = self._judged(one, folder, note)
            if record.code is not None:
                codes.append(record.code)
            return record

        own = driver_code(trial.configuration)
        record = driver(trial, launch, note)
        code = of_launches(codes) | own if codes else None
        return record.model_copy(update={"code": code})

    def _judged(self, trial: Trial, folder: Path, note: Note) -> Record:
        """One launch of ranks, after that of its proxy where it has one that did not run yet."""

        def proxy(one: Trial) -> Record:
            note(f"gradient of the proxy of {one.configuration.model.layers} layers")
            return self._launch(one, folder, f"{trial.id}.proxy", note)

        found = self._proxies.judge(trial, proxy)
        record = self._launch(trial, folder, trial.id, note)
        return record.model_copy(update=found) if record.status is Status.OK else record

    def _launch(
        self, trial: Trial, folder: Path, log_name: str, note: Note, rehearsals: int = 0
    ) -> Record:
        """One launch of ranks, whose output goes to `logs/<log_name>.log`.

        Where ranks had to import modules that the server knew nothing of, as in the first trial of
        an environment or of a choice, that was a rehearsal: it is launched once more, by a
        server that imports them as it starts, and the first record is dropped. One that failed is
        a rehearsal only on CPU under a `memory_limit`, against which what they import counts; it
        may have ended long before the last import.
        """
        c = trial.configuration
        key = (c.environment, c.comm.device, c.comm.deepspeed_shm)
        started, clock = utc_now(), time.monotonic()
        try:
            host = self._host(key, folder, c, note)
            if c.comm.device == "cuda":
                self._take_gpus(note)
        except (ServerBroken, EnvironmentProblem) as broken:
            return Record.of(
                trial,
                Status.ENVIRONMENT,
                started,
                time.monotonic() - clock,
                reason=str(broken).splitlines()[0],
                errors=[_environment_error(broken)],
            )
        except ServerLost as lost:
            duration = time.monotonic() - clock
            return Record.of(trial, Status.CRASH, started, duration, reason=str(lost))
        own = log_name == trial.id  # not the proxy's
        host.in_steps = self._watch.in_steps if own and self._watch is not None else None
        started, clock = utc_now(), time.monotonic()
        try:
            record = host.run(trial, folder, log_name)
        except ServerLost as lost:
            self._hosts.pop(key).close()
            duration = time.monotonic() - clock
            log = Path("logs") / f"{log_name}.log"
            fields: dict[str, Any] = {"reason": str(lost)}
            fields |= {"log": str(log) if (folder / log).exists() else None}
            fields |= host.seen(c)
            return Record.of(trial, Status.CRASH, started, duration, **fields)
        if not host.learnt:
            return record
        modules = "1 module" if len(host.learnt) == 1 else f"{len(host.learnt)} modules"
        imported = f"ranks imported {modules} during the trial"
        if rehearsals >= _rehearsals(record):
            if rehearsals:
                note(f"{imported}, which its record names: late_imports")
            return record
        note(f"rehearsal, {time.monotonic() - clock:.1f} s: {imported}; again without that")
        self._hosts.pop(key).close()
        return self._launch(trial, folder, log_name, note, rehearsals + 1)

    def _take_gpus(self, note: Note) -> None:
        """Have the GPUs for this trial alone, from its first launch to its end."""
        try:
            taken = self._locks.take(note)
        except OSError as error:
            raise ControllerProblem(
                f"{error.filename}: {error.strerror}: make the lock of a GPU readable for all "
                "users, or remove it, then the same command resumes"
            ) from error
        if taken and self._watch is not None:
            self._watch.begin()

    def _host(self, key: Key, folder: Path, c: Configuration, note: Note) -> Host:
        """The server for `key`, started if need be, where torch can use the GPUs that `c` needs.

        One that runs other code than the files now say is ended, and another started.
        """
        if key in self._broken:
            raise self._broken[key]
        gpus = torch_gpus.needed(c)
        for _ in range(STARTS):
            if key in self._hosts and not self._hosts[key].is_running():
                self._hosts.pop(key).close()
            if key not in self._hosts:
                self._start(key, folder, gpus, note)
            torch_gpus.require(self._hosts[key].interpreter, gpus)
            if not _is_stale(self._hosts[key], c):
                return self._hosts[key]
            note("files of spbench have changed: the server starts anew")
            self._hosts.pop(key).close()
        raise ControllerProblem(
            f"{ROOT}: files of spbench changed while a server started, {STARTS} times in a row: "
            "leave them alone for as long, then the same command resumes"
        )

    def _start(self, key: Key, folder: Path, gpus: int, note: Note) -> None:
        """Start the server for `key`, and remember if it is broken."""
        spec, device, shm = key
        log = folder / "logs" / f"server-{spec.name}-{device}.log"
        try:
            interpreter = self._interpreter_of(spec)
            torch_gpus.require(interpreter, gpus)
            require_log(log)
            self._hosts[key] = Host(_started(interpreter, device, shm, log, note))
        except (ServerBroken, EnvironmentProblem) as broken:
            stage = broken.stage if isinstance(broken, EnvironmentProblem) else "import"
            if stage == "machine":
                raise ControllerProblem(str(broken)) from broken
            if stage != "gpu":  # of too few GPUs, a smaller world may be enough
                self._broken[key] = broken
            raise

    def leave(self, key: str) -> None:
        """End the servers of the environment `key`, which is about to be removed."""
        for one in [one for one in self._hosts if key_of(one[0]) == key]:
            self._hosts.pop(one).close()

    def close(self) -> None:
        """End every server and rank; a second Ctrl-C meanwhile changes nothing."""
        with _uninterrupted():
            while self._hosts:
                self._hosts.popitem()[1].close()


def _started(
    interpreter: Interpreter, device: str, shm: bool, log: Path, note: Note
) -> ServerProcess:
    """A server that is ready; tried again where one is lost, which is nobody's fault we know of."""
    pauses = iter(RESTART_PAUSES_S)
    while True:
        try:
            with own_files(log):
                return ServerProcess(interpreter, device, shm, log)
        except ServerLost as lost:
            pause_s = next(pauses, None)
            if pause_s is None:
                times = 1 + len(RESTART_PAUSES_S)
                raise ServerLost(f"{lost}, {times} times in a row") from None
            note(f"{lost}; another starts in {pause_s:g} s")
            time.sleep(pause_s)


def _rehearsals(record: Record) -> int:
    """How often a trial that ended as `record` may be launched again for what it imported."""
    c = record.config
    if c.memory_limit is not None and c.comm.device == "cpu":
        return REHEARSALS
    return int(record.status is Status.OK)


def _is_stale(host: Host, configuration: Configuration) -> bool:
    """Whether `host` runs old code. One that is lost says so when it is to run the trial."""
    try:
        return host.is_stale(configuration)
    except ServerLost:
        return False


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _environment_error(broken: ServerBroken | EnvironmentProblem) -> RankError:
    """The phase is the stage that the environment came to: `resolve`, `install`, `import`, …"""
    first, _, rest = str(broken).partition("\n")
    phase = broken.stage if isinstance(broken, EnvironmentProblem) else "import"
    return RankError(rank=0, type=type(broken).__name__, message=first, traceback=rest, phase=phase)
