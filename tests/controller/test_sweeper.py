"""Which points a sweep visits."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.controller import run as run_module
from bench.controller import sweeper
from bench.trial import Configuration
from tests.controller.fake_hosts import run_sweep


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "visible_gpu_count", lambda: 0)


def visited(tmp_path: Path, *overrides: str) -> list[Configuration]:
    """The configurations of one round, in the order of the plan."""
    _, hosts, _ = run_sweep(f"results={tmp_path}", "rounds=1", *overrides)
    return [trial.configuration for trial in hosts.trials]


def values(configurations: list[Configuration], *names: str) -> set[tuple[object, ...]]:
    return {tuple(getattr(one, name) for name in names) for one in configurations}


def test_quick_is_the_default(tmp_path: Path) -> None:
    found = visited(tmp_path)
    assert len(found) == 16
    assert values(found, "sp", "seq_len", "loss", "zero", "world", "dtype") == {
        (sp, seq_len, loss, 1, 4, "float32")
        for sp in (2, 4)
        for seq_len in (512, 2048)
        for loss in ("all_gather", "weighted_all_reduce")
    }
    assert {one.environment.name for one in found} == {"torch-2.2", "torch-2.13"}


def test_the_command_line_replaces_an_axis(tmp_path: Path) -> None:
    found = visited(tmp_path, "seq_len=64,128,256", "loss=local", "environment=torch-2.2")
    assert values(found, "seq_len", "sp", "loss") == {
        (seq_len, sp, "local") for seq_len in (64, 128, 256) for sp in (2, 4)
    }


def test_ranges_and_globs(tmp_path: Path) -> None:
    found = visited(tmp_path, "experiment=single", "zero=range(0,4)", "loss=glob(local*)")
    assert values(found, "zero", "loss") == {
        (zero, loss) for zero in range(4) for loss in ("local", "local_mean")
    }


def test_equal_points_are_visited_once(tmp_path: Path) -> None:
    # Both environments of quick become the same one.
    overrides = ["environment.torch=2.4.1", "environment.requirements=[]", "sp=2,2", "seq_len=512"]
    overrides += ["environment.python_version=null", f"results={tmp_path}", "rounds=1"]
    run, hosts, _ = run_sweep(*overrides)
    found = [trial.configuration for trial in hosts.trials]
    assert values(found, "sp", "loss") == {(2, "all_gather"), (2, "weighted_all_reduce")}
    assert run.summary is not None
    assert run.summary.planned == len(found) == 2


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("model.layers=3", "loss=local"), id="plain"),
        pytest.param(("model.layers=3", "model=1b"), id="value before its group"),
        pytest.param(("model={layers: 3, heads: 4}",), id="mapping"),
        pytest.param(("environment.requirements=[a,b]", "environment=torch-2.2"), id="list"),
        pytest.param(("memory_limit=1GiB", "oversubscribe=true"), id="interpolation"),
        pytest.param(("deepspeed.a.b=1", "deepspeed.a.c=x"), id="open"),
    ],
)
def test_the_short_way_composes_what_hydra_composes(
    overrides: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overrides = ("experiment=single", *overrides)
    short = visited(tmp_path / "short", *overrides)

    class Slow(sweeper.Composer):
        def _make(self, overrides: tuple[str, ...]) -> Configuration:
            base = self._compose([one for one in overrides if self._is_group(self._parse(one))])
            chosen = sweeper.OmegaConf.to_container(base.environment)
            assert isinstance(chosen, dict)
            return sweeper.to_configuration(self._compose(overrides), self._gpus, chosen)  # type: ignore[arg-type]

    monkeypatch.setattr(run_module, "Composer", Slow)
    assert visited(tmp_path / "long", *overrides) == short


def test_other_launchers_run_the_same_configurations(tmp_path: Path) -> None:
    overrides = ("experiment=single", "sp=2,4", "rounds=2", "environment.torch=2.4.1")
    _, hosts, _ = run_sweep(f"results={tmp_path}", *overrides, "hydra/launcher=basic")
    assert [(t.configuration.sp, t.round) for t in hosts.trials] == [(2, 0), (2, 1), (4, 0), (4, 1)]
    names = {trial.configuration.environment.name for trial in hosts.trials}
    assert names == {"torch-2.4.1+deepspeed-0.18.2"}
    _, again, _ = run_sweep(f"results={tmp_path}", *overrides)
    assert again.trials == []


def test_nothing_is_left_beside_the_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    visited(Path("out"), "experiment=single")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    names = {path.name.partition("-")[0] for path in (tmp_path / "out").iterdir()}
    assert names == {"records", ".claims"}
