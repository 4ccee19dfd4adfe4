"""From Hydra's composed configuration to a `Configuration`, and what is resolved on the way:
units, `comm=auto`, names of ad-hoc environments.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, MissingMandatoryValue
from pydantic import ByteSize, TypeAdapter, ValidationError

from bench.controller.messages import ConfigurationError, explain_pydantic, hint
from bench.controller.problem import ControllerProblem
from bench.controller.schema import Schema, keys
from bench.record import Status
from bench.rounds import share
from bench.trial import Configuration

MAX_ROUNDS = 10_000
UNKNOWN_CODE = "unknown_code"
"""What `retry` calls records that do not say which code ran."""
MAX_WORLD = 1024
"""Ranks of one trial, which are processes of one machine."""

ROOT = Path(__file__).resolve().parents[2]
CONF = ROOT / "conf"

SECTIONS = (
    "zero_optimization",
    "zero_optimization.offload_param",
    "zero_optimization.offload_optimizer",
    "data_types",
    "optimizer",
    "scheduler",
    "fp16",
    "bf16",
    "amp",
    "activation_checkpointing",
    "comms_logger",
    "flops_profiler",
    "tensorboard",
    "aio",
)
"""Keys of a DeepSpeed configuration whose values are mappings."""

SWEEP_KEYS = (
    "experiment",
    "rounds",
    "scenario_options",
    "precision",
    "max_rounds",
    "results",
    "retry",
    "report",
    "env",
)
"""Keys of a sweep as a whole: no part of a configuration, and never an axis."""


@dataclass(frozen=True)
class Settings:
    """How a sweep is run."""

    results: Path
    rounds: int
    seed: int
    """Of the order of the trials within a round."""
    precision: Optional[float] = None
    """Relative half-width of a configuration's interval up to which rounds are added."""
    max_rounds: int = 0
    """Rounds beyond which none is added."""
    retry: frozenset[Status] = frozenset()
    """Final statuses that are run once more."""
    retry_unknown_code: bool = False
    """Whether trials are run once more whose records do not say which code ran."""
    experiment: Optional[str] = None
    report: bool = True
    """Whether the sweep ends with a report."""
    keep: Optional[int] = None
    """Environments made when first needed, at most so many of them kept; None: all beforehand."""


def results_folder(results: Optional[str], experiment: Optional[str]) -> str:
    """Where the records go: as given, from the caller's folder, or results/<experiment> here."""
    if results in (None, "None", ""):
        return str(ROOT / "results" / (experiment or "sweep"))
    return str(Path(results).expanduser().absolute())


def settings_of(cfg: DictConfig) -> Settings:
    """The sweep-level keys of a composed configuration; raises `ConfigurationError`."""
    for key in ("rounds", "max_rounds"):
        if not 1 <= cfg[key] <= MAX_ROUNDS:
            raise ConfigurationError(f"{key}={cfg[key]}: must be from 1 to {MAX_ROUNDS}")
    if cfg.env.keep is not None and cfg.env.keep < 1:
        raise ConfigurationError(f"env.keep={cfg.env.keep}: must be at least 1")
    precision = _precision(cfg)
    allowed = [*(status.value for status in Status), UNKNOWN_CODE]
    for status in cfg.retry:
        if status not in allowed:
            raise ConfigurationError(
                f"retry={status}: unknown status; allowed: {', '.join(allowed)}"
                f"{hint(status, allowed)}"
            )
    return Settings(
        results=usable_folder(Path(results_folder(cfg.results, cfg.experiment))),
        rounds=cfg.rounds,
        seed=cfg.seed,
        precision=precision,
        max_rounds=cfg.max_rounds,
        retry=frozenset(Status(status) for status in cfg.retry if status != UNKNOWN_CODE),
        retry_unknown_code=UNKNOWN_CODE in cfg.retry,
        experiment=cfg.experiment,
        report=cfg.report,
        keep=cfg.env.keep,
    )


def _precision(cfg: DictConfig) -> Optional[float]:
    if cfg.precision is None:
        return None
    try:
        precision = share(str(cfg.precision))
    except ValueError as error:
        raise ConfigurationError(
            f"precision={cfg.precision}: must be above 0 % and below 100 %, such as 2% or 0.02"
        ) from error
    if cfg.max_rounds < cfg.rounds:
        raise ConfigurationError(
            f"max_rounds={cfg.max_rounds}: must be at least rounds={cfg.rounds}"
        )
    return precision


def usable_folder(folder: Path) -> Path:
    """`folder` when records can be written there; nothing is created yet.

    Raises `ConfigurationError` where it can be no folder, and `ControllerProblem` where the
    system refuses to write there.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir():
        raise ConfigurationError(
            f"results={folder}: {existing} is a file; allowed: a folder, or a name for a new one"
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        read_only = os.statvfs(existing).f_flag & os.ST_RDONLY
        cause = errno.EROFS if read_only else errno.EACCES
        refused = OSError(cause, os.strerror(cause), str(existing))
        raise ControllerProblem.of(refused, existing, "or choose another with results=FOLDER")
    return folder


def to_configuration(
    cfg: DictConfig, gpus: Optional[int], chosen: Optional[Mapping[str, Any]] = None
) -> Configuration:
    """The configuration that a composed `cfg` describes, everything resolved.

    `gpus` is how many are visible, None when that is not known here (another machine will
    run it). `chosen` is the environment as its file has it, before single fields were
    overridden. Raises `ConfigurationError`.
    """
    values = _resolved(cfg)
    _require_known(values["options"], values["scenario"], values["scenario_options"])
    for key in (*SWEEP_KEYS, "hydra", "oversubscribe"):
        values.pop(key, None)
    if values["world"] > MAX_WORLD:
        raise ConfigurationError(f"world={values['world']}: must be at most {MAX_WORLD}")
    _require_sections(values["deepspeed"])
    values["environment"] = _located(_environment(values["environment"], chosen))
    values["comm"] = _comm(values["comm"], values["world"], gpus)
    values["memory_limit"] = _bytes("memory_limit", values["memory_limit"])
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        raise explain_pydantic(error, keys()) from error


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    """The values of `cfg`; refuses a key that has none."""
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except (MissingMandatoryValue, InterpolationToMissingValueError) as error:
        absent = min(OmegaConf.missing_keys(cfg))  # slow
        raise ConfigurationError(f"{absent}: has no value; give one with {absent}=VALUE") from error
    assert isinstance(values, dict)
    return values  # type: ignore[return-value]


def _require_sections(options: Any) -> None:
    """Refuse a section of DeepSpeed's configuration that is no mapping, as it takes them."""
    for name in SECTIONS:
        section, _, inner = name.partition(".")
        value = options.get(section) if isinstance(options, dict) else None
        if inner:
            value = value.get(inner) if isinstance(value, dict) else None
        if value is not None and not isinstance(value, dict):
            raise ConfigurationError(
                f"deepspeed.{name}={value}: must be a mapping; write +deepspeed.{name}.KEY=VALUE"
            )


def _require_known(options: Any, scenario: str, declared: Mapping[str, str]) -> None:
    """Refuse options that the scenario's YAML file does not declare."""
    for name in options if isinstance(options, dict) else ():  # other types: pydantic refuses them
        if name not in declared:
            raise ConfigurationError(
                f"options.{name}: unknown to scenario={scenario}; "
                f"allowed: {', '.join(declared) or 'none'}{hint(str(name), declared)}"
            )


def _environment(spec: dict[str, Any], chosen: Optional[Mapping[str, Any]]) -> dict[str, Any]:
    """The environment under a name that does not lie.

    Fields overridden on the command line make another environment than the file's; it is
    named by its versions, or by its interpreter, unless a name was given as well.
    """
    if chosen is None:
        return spec
    if spec["python"] != chosen["python"]:
        # Versions that the file wants installed say nothing about an existing interpreter.
        empty: dict[str, Any] = {"torch": None, "deepspeed": None, "requirements": []}
        empty |= {"python_version": None, "torch_backend": None}
        spec = {**spec, **{key: none for key, none in empty.items() if spec[key] == chosen[key]}}
    if spec["python"] is None and spec["torch"] != chosen["torch"]:
        spec, chosen = _companions(spec, chosen)
    if spec["name"] != chosen["name"] or all(spec[key] == chosen[key] for key in spec):
        return spec
    if spec["python"] is not None:
        return {**spec, "name": _interpreter_name(spec["python"])}
    label = [f"torch-{spec['torch']}", f"deepspeed-{spec['deepspeed']}"]
    for key in ("requirements", "python_version", "torch_backend"):
        if spec[key] != chosen[key]:
            label.extend(spec[key] if key == "requirements" else [str(spec[key])])
    return {**spec, "name": _label("+".join(label))}


def _companions(
    spec: dict[str, Any], chosen: Mapping[str, Any]
) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """`spec` with what its torch needs beside it, and the environment that it now differs from.

    What goes with a release of torch (numpy<2, a Python that it has wheels for) is written down
    once, in the file of an environment with that torch, or one of the same minor release. Fields
    that the command line changed stay.
    """
    base = _of_torch(spec["torch"])
    if base is None:
        return spec, chosen
    keys = ("requirements", "python_version", "torch_backend")
    taken = {key: base[key] for key in keys if spec[key] == chosen[key]}
    name = base["name"] if spec["name"] == chosen["name"] else spec["name"]
    return {**spec, **taken, "name": name}, base


@functools.cache
def _of_torch(torch: Optional[str]) -> Optional[dict[str, Any]]:
    """The environment in conf/environment with this torch, else one of its minor release."""
    from bench.controller.environments import known_specs

    def release(version: str) -> list[str]:
        return version.split(".")[:2]

    specs = [one for one in known_specs(CONF).values() if one.torch is not None]
    near = [one for one in specs if torch and release(str(one.torch)) == release(torch)]
    best = next((one for one in near if one.torch == torch), near[0] if near else None)
    return None if best is None else best.model_dump(mode="json")


def _located(spec: dict[str, Any]) -> dict[str, Any]:
    """`spec` with the interpreter's full path, so that `current` is one thing in a record."""
    return spec if spec["python"] is None else {**spec, "python": _path_of(spec["python"])}


@functools.cache
def _path_of(python: str) -> str:
    from bench.controller.interpreter import locate

    return str(locate(python))


def _interpreter_name(python: str) -> str:
    """A virtual environment's folder name, otherwise the path itself."""
    home = Path(python).parent.parent
    return _label(home.name if (home / "pyvenv.cfg").exists() else python.strip("/"))


def _label(text: str) -> str:
    """`text` with what a name may not hold replaced."""
    return re.sub(r"[^\w.+<>=!~-]", "-", text)[:100]


def _comm(spec: dict[str, Any], world: int, gpus: Optional[int]) -> dict[str, Any]:
    """`spec` with `auto` resolved; refuses NCCL without a GPU for each rank."""
    enough = gpus is not None and gpus >= (1 if spec["oversubscribe"] else world)
    if spec["name"] == "auto":
        spec = {**spec, "name": "nccl" if enough else "nccl_over_gloo"}
    if spec["name"] != "nccl" or (gpus is not None and gpus >= world):
        return {**spec, "oversubscribe": False}  # none is shared: timings stay valid
    if gpus is not None and not enough:
        remedy = f"world<={gpus}, oversubscribe=true (timings not valid), or " if gpus else ""
        raise ConfigurationError(
            f"comm=nccl: world={world} ranks, but {gpus} visible GPUs; "
            f"allowed: {remedy}comm=nccl_over_gloo, comm=gloo, comm=auto"
        )
    return spec


def _bytes(key: str, value: Union[int, str, None]) -> Optional[int]:
    """A size with or without a unit [bytes]."""
    if value is None:
        return None
    try:
        return int(TypeAdapter(ByteSize).validate_python(value))
    except ValidationError as error:
        raise ConfigurationError(
            f"{key}={value}: not a size; allowed: bytes, or a number with a unit (512MiB, 1GiB)"
        ) from error


def register() -> None:
    """Make the schema and the resolvers of conf/config.yaml known to Hydra."""
    ConfigStore.instance().store(name="spbench_schema", node=Schema, provider="spbench")
    OmegaConf.register_new_resolver("results_folder", results_folder, replace=True)
