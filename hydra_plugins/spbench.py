"""spbench's sweeper and launcher, where Hydra looks for plugins.

Hydra accepts plugin classes from the package `hydra_plugins` only; what they do lives in
`bench.controller`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from bench.controller.config import register


class SpbenchSweeper(Sweeper):
    """Plans every point, refuses what cannot be right, and launches the rest as one batch.

    A job is one configuration with all its rounds. `task_function` is the
    `bench.controller.run.Run` that started Hydra.
    """

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra."""
        self.run: Any = task_function
        self.config = config
        self.loader = hydra_context.config_loader
        self.chosen = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Called by Hydra with the command line's overrides."""
        here = isinstance(self.chosen, LocalLauncher)
        points = self.run.plan(self.loader, self.config, self.params, arguments, here)
        jobs = self.chosen.launch([list(point.overrides) for point in points], 0)
        for job in jobs:
            job.return_value  # noqa: B018 (raises what the job raised)
        return jobs


class LocalLauncher(Launcher):
    """Runs all jobs of a batch together, in this process, their rounds interleaved.

    They come from `SpbenchSweeper`, which has composed them already. Hydra's basic launcher
    runs one job after the other, which forbids interleaving, and composes, logs and makes
    folders for each (some 100 ms).
    """

    def setup(
        self,
        *,
        hydra_context: HydraContext,  # noqa: ARG002 (Hydra names its arguments)
        task_function: TaskFunction,
        config: DictConfig,
    ) -> None:
        """Called by Hydra."""
        self.run: Any = task_function
        self.config = config

    def launch(
        self,
        job_overrides: Sequence[Sequence[str]],
        initial_job_idx: int,  # noqa: ARG002
    ) -> Sequence[JobReturn]:
        """Run the configurations that `job_overrides` make; one return for each."""
        self.run.together(job_overrides, self.config)
        return [
            JobReturn(overrides=list(overrides), status=JobStatus.COMPLETED)
            for overrides in job_overrides
        ]


register()
_HERE = "hydra_plugins.spbench"
# `params`: the axes of an experiment, in the syntax of overrides.
ConfigStore.instance().store(
    group="hydra/sweeper",
    name="spbench",
    node={"_target_": f"{_HERE}.SpbenchSweeper", "params": {}},
    provider="spbench",
)
ConfigStore.instance().store(
    group="hydra/launcher",
    name="local",
    node={"_target_": f"{_HERE}.LocalLauncher"},
    provider="spbench",
)
