"""From the command line's overrides to a finished sweep, by way of Hydra."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Optional

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from bench.console import Console
from bench.controller import interruption, sweep, torch_gpus
from bench.controller.config import CONF, Settings, keys, settings_of, to_configuration
from bench.controller.culprit import UNFORESEEN, culprits
from bench.controller.messages import (
    ConfigurationError,
    explain_hydra,
    is_hydra_error,
    not_understood,
    refuse_key,
    unknown_option,
)
from bench.controller.problem import own_files
from bench.controller.progress import display
from bench.controller.sweeper import Composer, Point, plan
from bench.trial import Configuration

if TYPE_CHECKING:
    from bench.controller.interpreter import InterpreterOf, Provide
    from bench.controller.pool import Pool
    from bench.controller.provenance import MachineWatch

DEFAULT_EXPERIMENT = "quick"

LauncherOf = Callable[["InterpreterOf", "MachineWatch"], sweep.Launcher]
"""Makes what runs trials; `bench.controller.hosts.Hosts` is one."""

_OTHER_MODES = {"--cfg", "-c", "--info", "-i", "--run", "-r", "--multirun", "-m"} | {
    "--hydra-help",
    "--shell-completion",
    "-sc",
}
AD_HOC_BASE = "torch-2.13"
"""The environment whose fields an ad-hoc one keeps where the command line names none."""

_VERSION_KEYS = ("environment.torch", "environment.deepspeed", "environment.python_version")


class Run:
    """One call of Hydra. Hydra takes it for the task function and calls it for single jobs.

    `launcher_of` is `bench.controller.hosts.Hosts` unless another is given, and `provide`, which
    makes the interpreters, `bench.controller.environments.provide`.
    """

    def __init__(
        self,
        console: Console,
        launcher_of: Optional[LauncherOf] = None,
        provide: Optional[Provide] = None,
    ) -> None:
        self._console = console
        self._launcher_of = launcher_of
        self._provide = provide
        self.folder: Optional[Path] = None
        """The results folder, once the plan stands."""
        self.report = True
        """Whether the sweep's report is wanted."""
        self.planned = False
        """Whether the overrides made a plan; what fails later is no fault of theirs."""
        self.summary: Optional[sweep.Summary] = None
        """How the sweep ended, when it ran here."""
        self.hashes: frozenset[str] = frozenset()
        """The configurations that it ran, when it ran here."""

    def __call__(self, cfg: DictConfig) -> None:
        """Run the one configuration of a job that a launcher (Slurm's, say) started."""
        from bench.controller.environments import known_specs

        self.planned = True
        name = HydraConfig.get().runtime.choices["environment"]
        spec = known_specs(CONF).get(name)
        chosen = spec.model_dump(mode="json") if spec is not None else None
        self._run([to_configuration(cfg, visible_gpu_count(), chosen)], cfg)

    def plan(
        self,
        loader: ConfigLoader,
        config: DictConfig,
        params: Mapping[str, Any],
        arguments: Sequence[str],
        here: bool,
    ) -> list[Point]:
        """All points of the sweep; raises `ConfigurationError` before anything happens.

        `here` tells whether the trials will run on this machine, with its GPUs.
        """
        settings = settings_of(config)
        self._composer = Composer(loader, config, visible_gpu_count() if here else None)
        points = plan(self._composer, params, arguments)
        self.folder, self.report = settings.results, settings.report
        self.planned = True
        return points

    def together(self, jobs: Sequence[Sequence[str]], config: DictConfig) -> None:
        """Run the configurations of all planned `jobs` here, as one interleaved sweep."""
        self._run([self._composer.configuration(overrides) for overrides in jobs], config)

    def _run(self, configurations: Sequence[Configuration], cfg: DictConfig) -> None:
        """Run the sweep; what the system refuses its own files is a `ControllerProblem`."""
        settings = settings_of(cfg)
        with own_files(settings.results):
            self._sweep(configurations, settings)

    def _sweep(self, configurations: Sequence[Configuration], settings: Settings) -> None:
        self.hashes = frozenset(one.hash for one in configurations)
        schedule = sweep.Schedule(configurations, settings)
        for line in schedule.remarks():
            self._say(line)
        interpreter_of, pool = self._interpreters(schedule)
        sweep.create(schedule.settings.results)
        shown = display(
            self._console,
            configurations,
            total=len(schedule.trials),
            settled=len(schedule.trials) - len(schedule.left),
        )
        watch = _watch()
        with interruption.once(), self._launcher(interpreter_of, watch) as launcher, shown:
            if pool is not None:
                pool.leave = launcher.leave
            self.summary = sweep.run(schedule, launcher, shown, watch)

    def _interpreters(self, schedule: sweep.Schedule) -> tuple[InterpreterOf, Optional[Pool]]:
        """The interpreters of all environments that are needed, before the first trial.

        With `env.keep` they come from a pool, which makes each when it is first asked for. Raises
        `EnvironmentProblem`, also where torch cannot use the GPUs that its trials need.
        """
        from bench.controller import environments

        provide = self._provide or environments.provide
        if schedule.settings.keep is not None:
            from bench.controller.pool import Pool

            pool = Pool(schedule.settings.keep, provide, self._say)
            return pool.interpreter, pool
        ready = {spec: provide(spec, self._say) for spec in schedule.environments}
        for spec, gpus in schedule.environments.items():
            torch_gpus.require(ready[spec], gpus)
        return ready.__getitem__, None

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _launcher(self, interpreter_of: InterpreterOf, watch: MachineWatch) -> sweep.Launcher:
        if self._launcher_of is not None:
            return self._launcher_of(interpreter_of, watch)
        from bench.controller.hosts import Hosts

        return Hosts(interpreter_of, watch)


def start(arguments: Sequence[str], run: Run) -> None:
    """Give `arguments` to Hydra: a sweep, unless a flag such as `--cfg` asks for other things.

    Raises `ConfigurationError`, `EnvironmentProblem`, `RecordsError`, `ControllerProblem` or
    KeyboardInterrupt.
    """
    arguments = [normalised(argument) for argument in arguments]
    completing = any(argument in ("--shell-completion", "-sc") for argument in arguments)
    if not completing and not any(re.match(r"\+{0,2}experiment=", one) for one in arguments):
        # Next to the other overrides: Hydra's parser wants them in one piece.
        found = (i for i, one in enumerate(arguments) if "=" in one and not one.startswith("-"))
        arguments.insert(next(found, len(arguments)), f"+experiment={DEFAULT_EXPERIMENT}")
    keys_given = {argument.partition("=")[0] for argument in arguments}
    if keys_given & {"environment.torch", "environment.python"} and "environment" not in keys_given:
        # one interpreter of the user's own, and not one more for each of the experiment's
        index = next(i for i, one in enumerate(arguments) if one.startswith("environment."))
        arguments.insert(index, f"environment={AD_HOC_BASE}")
    if not any(argument.partition("=")[0] in _OTHER_MODES for argument in arguments):
        arguments.insert(0, "--multirun")
    _refuse_unknown_flags(arguments)
    task = hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")(run)
    with _hydra_process(arguments):
        try:
            task()
        except Exception as error:
            if is_hydra_error(error):
                raise explain_hydra(error, keys()) from error
            if not run.planned and isinstance(error, UNFORESEEN):
                given = [one for one in arguments if not one.startswith("-")]
                raise not_understood(error, culprits(given)) from error
            raise


def _refuse_unknown_flags(arguments: Sequence[str]) -> None:
    """Raise `ConfigurationError` for what Hydra's own parser would answer with its usage."""

    def refuse(message: str) -> NoReturn:
        raise ConfigurationError(
            f"{message}; allowed: key=value, and the flags of `spbench sweep --hydra-help`"
        )

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]
    parser.parse_args(list(arguments))


def normalised(argument: str) -> str:
    """An override as people write it, in the words of Hydra's grammar."""
    key, equals, value = argument.partition("=")
    refuse_key(key, argument)
    if re.fullmatch(r"null|\d+(\.\d+)?|\[.*\]|", value) and (CONF / key).is_dir() and key:
        raise unknown_option(key, value, [file.stem for file in (CONF / key).glob("*.yaml")])
    if not equals or value.startswith(("'", '"', "[")):
        return argument
    if key == "experiment":  # no experiment is chosen by default, so Hydra wants to add one
        return f"+{argument}"
    if key == "retry":  # a list of the sweep, not an axis
        return f"retry=[{value}]"
    if key == "results":  # paths may hold commas, blanks and brackets
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"results='{quoted}'"
    if key in _VERSION_KEYS:  # 3.10 is a version, not the number 3.1
        return f"{key}=" + re.sub(r"(?<![\w.])\d+(\.\d+)?(?![\w.])", r"'\g<0>'", value)
    return argument


def visible_gpu_count() -> int:
    """GPUs that trials on this machine can use."""
    from bench.controller.gpus import visible_gpus

    return len(visible_gpus())


def _watch() -> MachineWatch:
    from bench.controller.provenance import MachineWatch

    return MachineWatch()


@contextmanager
def _hydra_process(arguments: Sequence[str]) -> Iterator[None]:
    """What Hydra reads from the process: its arguments, and whether to raise or to exit."""
    argv, full_error = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = ["spbench", *arguments]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        sys.argv = argv
        HydraConfig.instance().cfg = None
        if full_error is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full_error
