"""A proxy speaks for all rounds of its trial, as long as it is of the same code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.controller.code import DISK
from bench.controller.proxy import Proxies
from bench.record import Record, Status
from bench.trial import Trial
from tests import factories
from tests.conftest import ROOT


def test_a_proxy_runs_once_and_again_after_an_edit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(ROOT / "bench", tmp_path / "bench")
    monkeypatch.setattr(DISK, "_root", tmp_path)
    monkeypatch.setattr(DISK, "_codes", {})
    deep = factories.TINY.model_copy(update={"layers": 4})
    configuration = factories.configuration(model=deep, gradient_check="proxy", loss="local")
    launched: list[int] = []

    def launch(trial: Trial) -> Record:
        launched.append(trial.round)
        scale = float(len(launched))
        fields = {"gradient": factories.gradient(scale=scale)}
        return Record.of(trial, Status.OK, factories.STARTED, 1.0, **fields)

    proxies = Proxies()

    def scale_of(round_: int) -> float:
        trial = Trial(configuration=configuration, round=round_)
        found: float = proxies.judge(trial, launch)["gradient"].scale
        return found

    assert [scale_of(0), scale_of(1)] == [1.0, 1.0]
    loss = tmp_path / "bench/worker/loss/local.py"
    loss.write_text(loss.read_text().replace("return shard.mean", "return 3 * shard.mean"))
    assert [scale_of(2), scale_of(3)] == [2.0, 2.0]
    assert launched == [0, 2]
