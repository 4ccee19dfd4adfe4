"""What benchmarks of real trials share: configuration, launch by torchrun, a silent display."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from bench.controller.code import reference_folder
from bench.controller.environments import known_specs
from bench.controller.interpreter import Interpreter
from bench.controller.precision import Widths
from bench.controller.server_process import ROOT
from bench.record import Record
from bench.trial import CommSpec, Configuration, ModelSpec, Trial

TINY = ModelSpec(name="tiny", layers=2, hidden=128, heads=8, kv_heads=4, ffn=256, vocab=256)


class Silent:
    """A display that shows nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def begin(self, trial: Trial) -> None:
        """Nothing to say."""

    def note(self, trial: Trial, text: str) -> None:
        """Nothing to say."""

    def done(self, trial: Trial, record: Record | None) -> None:
        """Nothing to say."""

    def waiting(self, trial: Trial) -> None:
        """Nothing to say."""

    def precision(self, found: Widths, total: int) -> None:
        """Not asked for."""


def configuration(environment: str, **fields: Any) -> Configuration:
    """The default experiment's model under `environment`; `fields` replace what it says."""
    return Configuration(
        **{
            "environment": known_specs(ROOT / "conf")[environment],
            "model": TINY,
            "comm": CommSpec(name="nccl_over_gloo"),
            "loss": "weighted_all_reduce",
            **fields,
        }
    )


def torchrun(interpreter: Interpreter, c: Configuration, *arguments: str) -> list[Any]:
    """Run `benchmarks/standalone.py` on `c.world` ranks; gives the JSON of each RESULT line."""
    command = [
        str(interpreter.python),
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={c.world}",
        str(ROOT / "benchmarks" / "standalone.py"),
        c.model_dump_json(),
        str(reference_folder(c)),
        *arguments,
    ]
    done = subprocess.run(
        command,
        env={**os.environ, **_VARIABLES},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"torchrun failed:\n{done.stderr[-3000:]}")
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return [json.loads(line.removeprefix("RESULT ")) for line in lines]


_VARIABLES = {
    "PYTHONPATH": str(ROOT),
    "DS_ACCELERATOR": "cpu",
    "GLOO_SOCKET_IFNAME": "lo",
    "CUDA_VISIBLE_DEVICES": "",
    "OMP_NUM_THREADS": "1",
}
