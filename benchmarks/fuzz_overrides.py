"""Random overrides, given to `spbench sweep` up to the plan: no trial is run."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from bench.controller import run as run_module
from bench.controller import sweep
from bench.controller.config import CONF, Settings, keys
from bench.controller.run import Run
from bench.trial import Configuration
from benchmarks.fuzzing import Fault, Tally, spbench

KEYS = tuple(keys())
GROUPS = {
    group.name: tuple(sorted(file.stem for file in group.glob("*.yaml")))
    for group in sorted(CONF.glob("*/"))
}
OPTIONS = ("steps", "causal", "start", "points", "faults", "bytes", "ways", "sketch")
HYDRA = (
    "hydra.sweeper.params",
    "hydra.sweeper.params.sp",
    "hydra.sweeper",
    "hydra.mode",
    "hydra.job.name",
    "hydra.job.num",
    "hydra.job.chdir",
    "hydra.job",
    "hydra.run",
    "hydra.sweep",
    "hydra.sweep.subdir",
    "hydra.verbose",
    "hydra.callbacks",
    "hydra.searchpath",
    "hydra.help",
    "hydra",
    "hydra/launcher",
    "hydra/sweeper",
    "hydra/help",
    "hydra/output",
    "hydra/job_logging",
)
PREFIXES = ("",) * 14 + ("+", "++", "~", "+++", "~~", "-+", " ", "@", "/", ".")
TEXTS = (
    "",
    "x",
    "true",
    "null",
    "nan",
    "inf",
    "-inf",
    "None",
    "0",
    "1",
    "2",
    "4",
    "-1",
    "1.5",
    "1e400",
    "0x10",
    "1_000",
    "08",
    str(2**31),
    str(2**63),
    str(2**64),
    "9" * 400,
    "9" * 5000,
    "a" * 5000,
    "ünïcödé",
    "日本",
    "\u202etxt",
    "\u200b",
    "\ud800",
    "\x1b[2J",
    "\x07",
    "\r\n",
    "a\nb",
    "\t",
    "\x7f",
    "::error::x",
    "${sp}",
    "${world}",
    "${nothing}",
    "${a.b.c}",
    "${",
    "${}",
    "${${sp}}",
    "${sp}x${zero}",
    "${oc.env:HOME}",
    "${oc.env:NOTHING_SET}",
    "${oc.decode:'{'}",
    "${oc.create:{a:1}}",
    "${results_folder:1}",
    "${results_folder:1,2,3}",
    "${hydra:job.num}",
    "${hydra:nothing}",
    "${now:%Y}",
    "${now:}",
    "${unknown:1}",
    "!!python/object:os.system",
    "!!int 1",
    "!!map {}",
    "&a [*a]",
    "*a",
    "???",
    "'quoted'",
    '"double"',
    "'open",
    '"open',
    "\\",
    "\\'",
    "a b",
    "a:b",
    "a=b",
    "a==b",
    "@x",
    "%s",
    "{}",
    "[]",
    "()",
    "{",
    "[",
    "]",
    "}",
    "#x",
    "/etc/passwd",
    "../x",
    "~",
    "-",
    "1GiB",
    "1e30GiB",
    "-1GiB",
    "5%",
    "100%",
    "1,2,3",
    ",",
    ",,",
    "1,",
    ",1",
    "range()",
    "range(3)",
    "range(0,0)",
    "range(1,3)",
    "range(0,1,0)",
    "range(0,1e9)",
    "range(0,1,1e-9)",
    "range(a,b)",
    "range(3,0,-1)",
    "interval(0,1)",
    "interval(1,0)",
    "choice()",
    "choice(1)",
    "choice(a,b)",
    "choice(choice(1,2),3)",
    "glob(*)",
    "glob(t*)",
    "glob([a*,b*],exclude=c*)",
    "glob()",
    "sort(3,2,1)",
    "shuffle(1,2,3)",
    "shuffle(range(0,100000000))",
    "tag(x,1,2)",
    "extend_list(1)",
    "int(x)",
    "float(2)",
    "str(2)",
    "bool(x)",
    "json_str({a:1})",
    "unknown(1)",
)


NEARLY = (
    "attention=glob(*)",
    "comm=glob(*)",
    "deepspeed.gradient_clipping=1",
    "deepspeed.zero_optimization={stage: 1}",
    "dtype=bfloat16,float32",
    "environment=glob(*)",
    "gradient_check=off,proxy,sketch",
    "limits.timeout_s=0.5",
    "loss=glob(*)",
    "mask=none,prompt",
    "micro_batch=7",
    "model.heads=3",
    "model.hidden=96",
    "model.vocab=2",
    "precision=0.01",
    "precision=1%",
    "seed=range(0,50)",
    "seq_len=63",
    "seq_len=range(64,257,64)",
    "sp=3",
    "sp=4",
    "steps=0",
    "warmup_steps=0",
    "world=1",
    "zero=choice(0,1,2,3)",
)
"""Overrides that make a plan, or that only the whole configuration can refuse."""


class Drawn:
    """Draws override lists from a seed."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def overrides(self) -> list[str]:
        """Some overrides, mostly of one configuration; of two thirds, some are wrong or odd."""
        draw = self._draw
        base = ["experiment=single"] if draw.random() < 0.9 else []
        plain = [self._good() for _ in range(draw.choice((0, 0, 1, 2)))]
        odd = [self._odd() for _ in range(draw.choice((0, 1, 1, 1, 2, 3)))]
        if draw.random() < 0.3 or not odd:
            plain.append(draw.choice(NEARLY))
        every = [*base, *plain, *odd]
        draw.shuffle(every)
        return every

    def _good(self) -> str:
        draw = self._draw
        if draw.random() < 0.5:
            group = draw.choice([one for one in GROUPS if one not in ("cluster", "experiment")])
            return f"{group}={draw.choice(GROUPS[group])}"
        return draw.choice(("sp=1,2", "world=2", "steps=3", "zero=0,2", "seed=7", "rounds=2"))

    def _odd(self) -> str:
        draw = self._draw
        if draw.random() < 0.03:
            return draw.choice(("=", "==", "+", "~", "x", "\x1b", "é", "+=1", "~x", "a,b", "''"))
        separator = draw.choice(("=",) * 30 + ("", "==", ":=", "=="))
        return f"{draw.choice(PREFIXES)}{self._key()}{separator}{self._value(3)}"

    def _key(self) -> str:
        draw = self._draw
        kind = draw.random()
        if kind < 0.45:
            key = draw.choice(KEYS)
        elif kind < 0.6:
            key = draw.choice(tuple(GROUPS))
        elif kind < 0.75:
            key = draw.choice(HYDRA)
        elif kind < 0.85:
            key = f"deepspeed.{draw.choice(('a.b', 'zero_optimization', 'fp16.enabled', '', '1'))}"
        elif kind < 0.92:
            key = f"options.{draw.choice(OPTIONS)}"
        else:
            key = draw.choice(("", "nothing", "model.nothing.x", "é", "sp.x", "sp[0]", "a" * 3000))
        if draw.random() < 0.05:
            key += draw.choice(("@x", ".", "..x", "[0]", "@", ":x", "/x", "\x1b", "é", " "))
        return key

    def _value(self, depth: int) -> str:
        draw = self._draw
        kind = draw.random()
        if depth == 0 or kind < 0.7:
            return draw.choice(TEXTS)
        if kind < 0.78:
            group = draw.choice(tuple(GROUPS))
            return draw.choice(GROUPS[group])
        inner = [self._value(depth - 1) for _ in range(draw.choice((0, 1, 2, 3)))]
        if kind < 0.85:
            return f"[{','.join(inner)}]"
        if kind < 0.93:
            return "{" + ",".join(f"{draw.choice(KEYS)}:{one}" for one in inner) + "}"
        if kind < 0.97:
            return f"{draw.choice(('choice', 'range', 'glob', 'sort'))}({','.join(inner)})"
        depth = draw.choice((20, 300))
        return "[" * depth + "]" * draw.choice((depth, depth - 1))


def _stopped(run: Run, configurations: list[Configuration], settings: Settings) -> None:
    """A sweep up to its first trial: what is planned, and what the folder has of it."""
    schedule = sweep.Schedule(configurations, settings)
    schedule.remarks()
    assert schedule.environments or not schedule.left
    run.folder = None


def attack(count: int, seed: int) -> Tally:
    """Give `count` lists of overrides to `spbench sweep`."""
    drawn, tally = Drawn(seed), Tally()
    with _workplace() as folder:
        for _ in range(count):
            overrides = drawn.overrides()
            arguments = ["sweep", *overrides]
            if not any("results" in one for one in overrides):
                arguments.append("results=results")
            tally.count(repr(arguments), spbench(*arguments))
            os.chdir(folder)
            for made in folder.iterdir():
                if made.name != "results":
                    tally.outside.append(Fault(repr(arguments), f"made {made.name!r}"))
                    made.rename(folder.parent / f"{folder.name}-{len(tally.outside)}")
    return tally


@contextmanager
def _workplace() -> Iterator[Path]:
    """A folder to stand in, on a machine of no GPU, where sweeps stop at their plan."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "workplace"
        folder.mkdir()
        os.chdir(folder)
        try:
            with (
                patch.object(Run, "_sweep", _stopped),
                patch.object(run_module, "visible_gpu_count", lambda: 0),
            ):
                yield folder
        finally:
            os.chdir(before)
