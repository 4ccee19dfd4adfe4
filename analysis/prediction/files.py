"""Clusters and models by name: the YAML files in conf/cluster and conf/model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from analysis.reading import AnalysisError
from analysis.wording import hint
from bench.theory import Cluster, Efficiencies, Link
from bench.trial import ModelSpec

CONF = Path(__file__).resolve().parents[2] / "conf"
THIS_MACHINE = "this-machine"
LEAST_SHARE = 0.01
"""Of a peak rate, in matrix products or attention: no machine stays further below its own."""

_Model = TypeVar("_Model", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class LinkFile(_Strict):
    """What joins ranks: `bench.theory.Link`."""

    bandwidth: float = Field(gt=0)
    latency_s: float = Field(ge=0)


class AssumedFile(_Strict):
    """Efficiencies before any trial was fitted: `bench.theory.Efficiencies`."""

    matmul: float = Field(default=1.0, ge=LEAST_SHARE, le=1)
    attention: float = Field(default=1.0, ge=LEAST_SHARE, le=1)
    memory: float = Field(default=1.0, gt=0, le=1)
    all_to_all: float = Field(default=1.0, gt=0, le=1)
    gradient: float = Field(default=1.0, gt=0, le=1)
    overlap: float = Field(default=0.0, ge=0, le=1)
    step_overhead_s: float = Field(default=0.0, ge=0)
    layer_overhead_s: float = Field(default=0.0, ge=0)


class ClusterFile(_Strict):
    """A file in conf/cluster: `bench.theory.Cluster`, and what is assumed of it."""

    name: str
    gpus_per_node: int = Field(gt=0)
    peak_flops: float = Field(gt=0)
    memory_bytes: float = Field(gt=0)
    memory_bandwidth: float = Field(gt=0)
    intra: LinkFile
    inter: LinkFile
    assumed: AssumedFile = AssumedFile()


class MeasuredFile(_Strict):
    """A cluster file whose figures are measured when they are needed."""

    name: str
    measured: Literal[True]


class ClusterSpec(_Strict):
    """A cluster that a file describes."""

    cluster: Cluster
    assumed: Efficiencies


def cluster_named(name: str, conf: Path = CONF) -> ClusterSpec | None:
    """The cluster of conf/cluster/NAME.yaml, or of the file that `name` is the path of.

    None where the file says that the machine measures itself. Raises AnalysisError for an
    unknown name, and for a file with a missing or impossible field.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else conf / "cluster" / f"{name}.yaml"
    content = _content("cluster", name, path, conf)
    if "measured" in content:
        _validated(MeasuredFile, "cluster", path, content)
        return None
    file = _validated(ClusterFile, "cluster", path, content)
    values = file.model_dump(exclude={"assumed", "intra", "inter"})
    intra, inter = Link(**file.intra.model_dump()), Link(**file.inter.model_dump())
    return ClusterSpec(
        cluster=Cluster(**values, intra=intra, inter=inter),
        assumed=Efficiencies(**file.assumed.model_dump()),
    )


def model_named(name: str, checkpointing: bool = False, conf: Path = CONF) -> ModelSpec:
    """The model of conf/model/NAME.yaml; raises AnalysisError for an unknown name."""
    path = conf / "model" / f"{name}.yaml"
    content = _content("model", name, path, conf)
    if checkpointing:
        content["activation_checkpointing"] = True
    return _validated(ModelSpec, "model", path, content)


def _content(kind: str, name: str, path: Path, conf: Path) -> dict[str, Any]:
    if not path.is_file():
        known = sorted(one.stem for one in (conf / kind).glob("*.yaml"))
        raise AnalysisError(
            f"--{kind} {name}: unknown {kind}; allowed: {', '.join(known)}{hint(name, known)}"
        )
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = " ".join(str(error).split())
        raise AnalysisError(f"--{kind} {name}: {path.name} is no YAML: {where}") from error
    if not isinstance(content, dict):
        raise AnalysisError(f"--{kind} {name}: {path.name} holds no `field: value` lines")
    return content


def _validated(kind: type[_Model], option: str, path: Path, content: dict[str, Any]) -> _Model:
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        field = ".".join(map(str, fault["loc"]))
        if fault["type"] == "missing":
            text = f"{field}: missing; add a line `{field}: NUMBER`"
        elif fault["type"] == "extra_forbidden":
            known = list(kind.model_fields)
            text = f"{field}: unknown field; allowed: {', '.join(known)}{hint(field, known)}"
        elif field:
            text = f"{field}={fault['input']}: {fault['msg'][0].lower()}{fault['msg'][1:]}"
        else:
            text = str(fault["msg"])
        raise AnalysisError(f"{option} file {path.name}: {text}") from error
