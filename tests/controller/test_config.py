"""What users may write, and what they are told when they write something else."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bench.controller import run as run_module
from bench.controller.config import CONF
from bench.controller.messages import ConfigurationError
from bench.record import SCHEMA_VERSION
from bench.record_files import RecordsError
from bench.trial import Configuration
from tests.controller.fake_hosts import FakeHosts, run_sweep

SINGLE = ("experiment=single", "rounds=1")


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: 0)


def configuration(tmp_path: Path, *overrides: str) -> Configuration:
    """The one configuration that `overrides` make."""
    _, hosts, _ = run_sweep(*SINGLE, f"results={tmp_path / 'results'}", *overrides)
    [trial] = hosts.trials
    return trial.configuration


REFUSED = [
    (["seqlen=3"], ["seqlen: unknown key", "did you mean 'seq_len'?"]),
    (["los=local"], ["los: unknown key", "did you mean 'loss'?"]),
    (["+los=local"], ["los: unknown key", "did you mean 'loss'?"]),
    (["model={a:1}"], ["model.a: unknown key; allowed: name, layers,"]),
    (["model=[tiny]"], ["model=[tiny]: unknown model; allowed: 160m,"]),
    (["hydra.mode=RUN"], ["hydra.mode=RUN: spbench always runs a sweep"]),
    (["hydra.launcher._target_=foo.bar"], ["Invalid plugin 'foo.bar'", "these overrides"]),
    (["model.layers=???"], ["model.layers: has no value; give one with model.layers=VALUE"]),
    (["layers=3"], ["did you mean 'model.layers'?"]),
    (["model.layer=3"], ["model.layer: unknown key", "did you mean 'model.layers'?"]),
    (["environment.foo=3"], ["environment.foo: unknown key", "allowed: name, torch, deepspeed"]),
    (["loss=al_gather"], ["loss=al_gather: unknown loss", "local_mean", "mean 'all_gather'?"]),
    (["loss=local,loca"], ["loss=loca: unknown loss", "did you mean 'local'?"]),
    (["environment=torch-2.4"], ["environment=torch-2.4: unknown environment", "torch-2.13"]),
    (["experiment=quik"], ["experiment=quik: unknown experiment", "did you mean 'quick'?"]),
    (["scenario=tran"], ["scenario=tran: unknown scenario", "did you mean 'train'?"]),
    (["hydra/launcher=slurm"], ["hydra/launcher=slurm: unknown", "basic, local"]),
    (["world=a"], ["world=a: must be a whole number"]),
    (["world=100000"], ["world=100000: must be at most 1024"]),
    (["sp=2,x"], ["sp=x: must be a whole number"]),
    (["steps=1.5"], ["steps=1.5: must be a whole number"]),
    (
        ["gradient_check=maybe"],
        ["gradient_check=maybe", "allowed: auto, exact, proxy, sketch, directional, off"],
    ),
    (["matmul=tf23"], ["matmul=tf23", "allowed: highest, tf32", "did you mean 'tf32'?"]),
    (["sdpa=falsh"], ["sdpa=falsh", "did you mean 'flash'?"]),
    (["learning_rate=fast"], ["learning_rate=fast: must be a number"]),
    (["options=3"], ["options=3: must be a mapping"]),
    (["dtype=float3"], ["dtype=float3", "allowed: float32, bfloat16", "mean 'float32'?"]),
    (["mask=ragge"], ["mask=ragge", "empty_shard", "did you mean 'ragged'?"]),
    (["comm.name=nccx"], ["comm.name=nccx", "allowed: gloo, nccl, nccl_over_gloo"]),
    (["sp=3"], ["sp=3 must divide world=4; allowed: 1, 2, 4"]),
    (["sp=2,3"], ["sp=3 must divide world=4"]),
    (["zero=4"], ["zero=4: must be at most 3"]),
    (["seq_len=-4"], ["seq_len=-4: must be greater than 0"]),
    (["seq_len=0"], ["seq_len=0: must be greater than 0"]),
    (["warmup_steps=0"], ["warmup_steps=0: must be at least 1"]),
    (["limits.timeout_s=0"], ["limits.timeout_s=0.0: must be greater than 0"]),
    ([f"limits.timeout_s={10**400}"], ["limits.timeout_s=1000", "int too large"]),
    (["memory_limit=0"], ["memory_limit=0: must be greater than 0"]),
    (["memory_limit=1Gi"], ["memory_limit=1Gi: not a size", "1GiB"]),
    (["memory_limit=1KiB"], ["memory_limit=1024 is below", "weights of model=tiny", "raise it"]),
    (["scenario=capacity", "comm=gloo"], ["scenario=capacity on CPU needs a memory_limit"]),
    (
        ["scenario=capacity", "memory_limit=1GiB", "options.resolution=0"],
        ["options.resolution=0: must be a number of tokens from 1 on"],
    ),
    (["model.loss_tiles=0"], ["model.loss_tiles=0: must be greater than 0"]),
    (["model.heads=3"], ["model.hidden=128", "model.heads=3"]),
    (["world=3", "sp=3"], ["model.heads=8 is not divisible by sp=3"]),
    (["seq_len=511,513"], ["seq_len=511 is not divisible by sp=2", "none of the 2 combinations"]),
    (["comm=nccl"], ["comm=nccl: world=4 ranks, but 0 visible GPUs", "comm=nccl_over_gloo"]),
    (["comm=nccl", "oversubscribe=true"], ["0 visible GPUs"]),
    (["environment.torch=null"], ["needs both `torch` and `deepspeed`"]),
    (["rounds=0"], ["rounds=0: must be from 1 to 10000"]),
    (["rounds=3000000"], ["rounds=3000000: must be from 1 to 10000"]),
    (["environment=null"], ["environment=null: unknown environment", "torch-2.13"]),
    (["model=5"], ["model=5: unknown model", "tiny"]),
    (["~loss"], ["loss cannot be left out; write loss=VALUE"]),
    (["options.foo=1"], ["options.foo: unknown to scenario=train", "busy_s"]),
    (["scenario=drill", "options.fualt=raise"], ["did you mean 'fault'?"]),
    (["seed=99999999999999999999999"], ["seed=99999999999999999999999: must be less than"]),
    (["learning_rate=inf"], ["learning_rate=inf"]),
    (["seq_len=100000000000000"], ["seq_len=100000000000000: must be at most"]),
    (["environment.name=../../x"], ["environment.name=../../x: must be 1 to 100 of letters"]),
    (["deepspeed.zero_optimization.stage=3"], ["zero_optimization.stage follows from `zero`"]),
    (["deepspeed.bf16.enabled=true"], ["deepspeed.bf16.enabled follows from `dtype`"]),
    (["mask=empty_shard", "sp=1"], ["mask=empty_shard leaves no label at all with sp=1"]),
    (["environment=torch-2.2,torch-2.13", "environment.torch=2.4.1"], ["two different"]),
    (["env.keep=0"], ["env.keep=0: must be at least 1"]),
    (["env.keep=-1"], ["env.keep=-1: must be at least 1"]),
    (["env.keep=x"], ["env.keep=x: must be a whole number"]),
    (["env.keep=1,2"], ["env.keep=1,2", "no axis"]),
    (["env.kep=1"], ["env.kep: unknown key", "did you mean 'env.keep'?"]),
    (["scenario=compat", "options.zeros=[0]"], ["options.zeros: unknown", "did you mean 'zero'?"]),
    (["rounds=1,2"], ["rounds=1,2", "no axis"]),
    (["retry=eror"], ["retry=eror: unknown status", "timeout", "did you mean 'error'?"]),
    (["seq_len=interval(1,3)"], ["seq_len=interval(1,3)", "range(start,stop,step)"]),
    (["seq_len=range(5,5)"], ["this axis has no values"]),
    (["seq_len"], ["seq_len: not an override", "write key=value"]),
    (["results=/dev/null"], ["results=/dev/null: /dev/null is a file"]),
    (["results=/proc/spbench"], ["results=/proc/spbench: cannot be created"]),
]


@pytest.mark.parametrize(
    ("overrides", "fragments"), [pytest.param(*case, id=" ".join(case[0])) for case in REFUSED]
)
def test_refused(overrides: list[str], fragments: list[str], tmp_path: Path) -> None:
    hosts = FakeHosts()
    results = tmp_path / "results"
    with pytest.raises(ConfigurationError) as caught:
        run_sweep("experiment=single", f"results={results}", *overrides, hosts=hosts)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message
    assert hosts.trials == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", ["hydra/help=false", "hydra/launcher=[1,{a:2}]"])
def test_of_several_overrides_the_wrong_one_is_named(wrong: str, tmp_path: Path) -> None:
    given = [f"results={tmp_path}", "rounds=2", wrong, "sp=2"]
    with pytest.raises(ConfigurationError) as caught:
        run_sweep("experiment=single", *given, hosts=FakeHosts())
    assert str(caught.value).startswith(f"{wrong}: no configuration follows from this override (")


def test_one_impossible_value_among_valid_ones_is_not_refused(tmp_path: Path) -> None:
    _, hosts, _ = run_sweep(*SINGLE, f"results={tmp_path}", "seq_len=511,512")
    assert [trial.configuration.seq_len for trial in hosts.trials] == [512]


def test_a_folder_of_a_newer_schema_is_refused(tmp_path: Path) -> None:
    newer = tmp_path / "records-other-1.jsonl"
    newer.write_text(f'{{"schema_version": {SCHEMA_VERSION + 1}}}\n')
    with pytest.raises(RecordsError, match=f"schema version {SCHEMA_VERSION + 1}"):
        run_sweep(*SINGLE, f"results={tmp_path}")
    assert list(tmp_path.iterdir()) == [newer]


def test_the_defaults_are_those_of_the_contract() -> None:
    # Configuration.hash leaves defaults out: were they different here, a field that is added
    # later would change the identity of older records.
    values = yaml.safe_load((CONF / "config.yaml").read_text())
    for name, field in Configuration.model_fields.items():
        if name in values and name != "limits":
            assert values[name] == field.default, name
    assert values["limits"] == Configuration.model_fields["limits"].default.model_dump()


def test_every_file_of_a_group_composes(tmp_path: Path) -> None:
    for group in ("model", "attention", "loss", "comm", "scenario", "environment"):
        _, hosts, _ = run_sweep(
            *SINGLE, "sp=1", f"{group}=glob(torch-2.*)" if group == "environment"
            else f"{group}=glob(*,exclude=nccl)", f"results={tmp_path / group}",
        )  # fmt: skip
        assert hosts.trials, group


def test_sizes_with_units(tmp_path: Path) -> None:
    assert configuration(tmp_path, "memory_limit=1GiB").memory_limit == 1_073_741_824


def test_options_of_deepspeed_need_no_plus(tmp_path: Path) -> None:
    found = configuration(tmp_path, "deepspeed.zero_optimization.reduce_scatter=false")
    assert found.deepspeed == {"zero_optimization": {"reduce_scatter": False}}


def test_additions_are_left_to_hydra(tmp_path: Path) -> None:
    overrides = ("+deepspeed.a.b=1", "deepspeed.a.c=2")
    assert configuration(tmp_path, *overrides).deepspeed == {"a": {"b": 1, "c": 2}}


def test_an_ad_hoc_environment_replaces_those_of_the_experiment(tmp_path: Path) -> None:
    overrides = ("environment.torch=2.4.1", "environment.deepspeed=0.16.9", "rounds=1")
    _, hosts, _ = run_sweep("+experiment=quick", f"results={tmp_path}", *overrides)
    names = {trial.configuration.environment.name for trial in hosts.trials}
    assert names == {"torch-2.4.1+deepspeed-0.16.9"}


@pytest.mark.parametrize(
    ("gpus", "overrides", "expected"),
    [
        pytest.param(0, [], ("nccl_over_gloo", False), id="none"),
        pytest.param(3, [], ("nccl_over_gloo", False), id="too few"),
        pytest.param(4, [], ("nccl", False), id="enough"),
        pytest.param(1, ["oversubscribe=true"], ("nccl", True), id="shared"),
        pytest.param(0, ["oversubscribe=true"], ("nccl_over_gloo", False), id="nothing to share"),
        pytest.param(1, ["comm=nccl", "comm.oversubscribe=true"], ("nccl", True), id="nccl"),
        pytest.param(4, ["oversubscribe=true"], ("nccl", False), id="a GPU each"),
        pytest.param(
            8, ["comm=nccl", "oversubscribe=true"], ("nccl", False), id="nccl, a GPU each"
        ),
        pytest.param(8, ["comm=gloo"], ("gloo", False), id="gloo"),
    ],
)
def test_communication_is_resolved(
    gpus: int,
    overrides: list[str],
    expected: tuple[str, bool],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: gpus)
    monkeypatch.setattr(run_module.torch_gpus, "require", lambda interpreter, gpus: None)
    comm = configuration(tmp_path, *overrides).comm
    assert (comm.name, comm.oversubscribe) == expected


def test_an_ad_hoc_environment_is_named_by_its_versions(tmp_path: Path) -> None:
    environment = configuration(
        tmp_path, "environment.torch=2.4.1", "environment.deepspeed=0.16.9"
    ).environment
    assert environment.name == "torch-2.4.1+deepspeed-0.16.9"


@pytest.mark.parametrize(
    ("torch", "name", "requirements", "python"),
    [
        pytest.param("2.2.2", "torch-2.2.2+deepspeed-0.18.6", ("numpy<2", "setuptools"),
                     ">=3.9,<3.12", id="of the file with that torch"),
        pytest.param("2.2.1", "torch-2.2.1+deepspeed-0.18.6", ("numpy<2", "setuptools"),
                     ">=3.9,<3.12", id="of its minor release"),
        pytest.param("2.4.1", "torch-2.4.1+deepspeed-0.18.6", (), ">=3.10", id="none"),
    ],
)  # fmt: skip
def test_an_ad_hoc_torch_brings_what_a_file_says_it_needs(
    torch: str, name: str, requirements: tuple[str, ...], python: str, tmp_path: Path
) -> None:
    found = configuration(
        tmp_path, f"environment.torch={torch}", "environment.deepspeed=0.18.6"
    ).environment
    assert (found.name, found.requirements, found.python_version) == (name, requirements, python)


def test_what_the_command_line_asks_for_stays(tmp_path: Path) -> None:
    found = configuration(
        tmp_path,
        "environment.torch=2.2.2",
        "environment.deepspeed=0.18.6",
        "environment.python_version=3.10",
        "environment.requirements=[wheel]",
    ).environment
    assert (found.requirements, found.python_version) == (("wheel",), "3.10")
    assert found.name == "torch-2.2.2+deepspeed-0.18.6+wheel+3.10"


def test_ad_hoc_versions_that_a_file_has_are_that_environment(tmp_path: Path) -> None:
    overrides = ("environment.torch=2.2.2", "environment.deepspeed=0.18.2")
    assert configuration(tmp_path, *overrides).environment.name == "torch-2.2"


def test_a_name_that_was_given_is_kept(tmp_path: Path) -> None:
    environment = configuration(
        tmp_path, "environment.torch=2.4.1", "environment.name=old"
    ).environment
    assert (environment.name, environment.torch) == ("old", "2.4.1")


def test_repeating_what_the_file_says_changes_nothing(tmp_path: Path) -> None:
    assert configuration(tmp_path, "environment.torch=2.13.0").environment.name == "torch-2.13"


def test_compat_trains_for_two_steps_and_keeps_few_environments(tmp_path: Path) -> None:
    _, hosts, _ = run_sweep("experiment=compat", f"results={tmp_path}", "env.keep=null")
    found = [trial.configuration for trial in hosts.trials]
    assert {(one.scenario, one.loss, one.warmup_steps, one.steps) for one in found} == {
        ("compat", "local", 1, 1)
    }
    assert len({(one.environment.torch, one.environment.deepspeed) for one in found}) == 9
    default = yaml.safe_load((CONF / "scenario" / "compat.yaml").read_text())
    assert default["env"] == {"keep": 2}


def test_versions_are_no_numbers(tmp_path: Path) -> None:
    found = configuration(tmp_path, "environment.python_version=3.10").environment
    assert found.python_version == "3.10"


def test_an_interpreter_of_ones_own_is_named_by_its_folder(tmp_path: Path) -> None:
    home = tmp_path / "mine"
    (home / "bin").mkdir(parents=True)
    (home / "pyvenv.cfg").touch()
    found = configuration(tmp_path, f"environment.python={home}/bin/python").environment
    assert found.name == "mine"
    assert found.python == f"{home}/bin/python"
    assert found.torch is None


def test_results_are_relative_to_the_callers_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run, _, _ = run_sweep(*SINGLE, "results=a, (b)/c's")
    assert run.folder == tmp_path / "a, (b)" / "c's"
    assert list(run.folder.glob("records-*.jsonl"))
