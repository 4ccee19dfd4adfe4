"""Which edits of spbench's own files make a trial's record stale, in a copy of the files."""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.code_roles import code_of, weights_code
from bench.controller import code
from bench.controller.code import Disk, of_launches
from bench.fingerprint import facts_of
from tests import factories

ROOT = Path(__file__).parents[2]
PARSED = functools.cache(facts_of)
LOSS, MODEL = "bench/worker/loss/local.py", "bench/worker/model.py"


@pytest.fixture(autouse=True)
def _parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(code, "facts_of", PARSED)


@pytest.fixture(scope="module")
def _copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "bench", root / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    return root


@pytest.fixture
def checkout(_copied: Path, tmp_path: Path) -> Path:
    """A copy of the files, to be edited."""
    shutil.copytree(_copied, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def disk(checkout: Path) -> Disk:
    return Disk(checkout)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def differ(disk: Disk, change: Callable[[], Any], **fields: Any) -> list[str]:
    """Roles of a configuration that `change` changes."""
    configuration = factories.configuration(**{"loss": "local", **fields})
    before = disk.code_of(configuration)
    change()
    after = disk.code_of(configuration)
    return [role for role in before | after if before.get(role) != after.get(role)]


def test_a_fingerprint_names_every_role(disk: Disk) -> None:
    found = disk.code_of(factories.configuration())
    roles = ["attention", "checking", "loss", "model", "reference", "scenario", "worker"]
    assert sorted(found) == roles
    assert all(re.fullmatch("[0-9a-f]{16}", digest) for digest in found.values())


@pytest.mark.parametrize(
    ("path", "old", "new", "roles"),
    [
        (LOSS, "return shard.mean", "return 3 * shard.mean", ["loss"]),
        (LOSS, "Each rank back-propagates", "Every rank backpropagates", []),
        (MODEL, "theta**-exponent", "theta**exponent", ["model"]),
        ("bench/worker/batch.py", "0.8 *", "0.7 *", ["model"]),
        ("bench/worker/attention/ulysses.py", "def build", "X = 1\n\n\ndef build", ["attention"]),
        ("bench/worker/checking/exact.py", "def check", "X = 1\n\n\ndef check", ["checking"]),
        ("bench/worker/reference/initial.py", "0.02", "0.03", ["reference"]),
        ("bench/worker/scenarios/train.py", "meter.reset_peak()", "pass", ["scenario"]),
        ("bench/worker/training.py", "self.engine.step()", "pass", ["worker"]),
        ("bench/worker/loss/all_gather.py", "sum()", "mean()", []),
        ("bench/worker/checking/sketch.py", "import json", "import json as j", []),
        ("bench/worker/scenarios/profile.py", "import", "import os\nimport", []),
        ("bench/worker/collectives/calls.py", "import", "import os\nimport", []),
        ("bench/theory/flops.py", "import", "import os\nimport", []),
        ("bench/record.py", "import", "import os\nimport", []),
        ("bench/__init__.py", '__version__ = "', '__version__ = "9', []),
    ],
)
def test_an_edit_changes_the_roles_that_run_it(
    disk: Disk, checkout: Path, path: str, old: str, new: str, roles: list[str]
) -> None:
    if old == "import":  # the first statement that is not of __future__
        old, new = "\nimport ", "\nimport os\nimport "
        if old not in (checkout / path).read_text():
            old, new = "\nfrom typing", "\nimport os\nfrom typing"
    assert differ(disk, lambda: edit(checkout / path, old, new)) == roles


def test_a_scenario_that_trains_nothing_has_no_loss_and_no_model(disk: Disk) -> None:
    found = disk.code_of(factories.configuration(scenario="collectives"))
    assert sorted(found) == ["scenario", "worker"]


def test_what_is_not_compared_needs_no_judge(disk: Disk) -> None:
    found = disk.code_of(factories.configuration(gradient_check="off"))
    assert "checking" not in found


def test_moving_a_file_is_no_other_code(disk: Disk, checkout: Path) -> None:
    def move() -> None:
        metrics = checkout / "bench/worker/metrics"
        (metrics / "times").mkdir()
        (metrics / "times/__init__.py").write_text('"""Clocks."""\n')
        (metrics / "clock.py").rename(metrics / "times/watch.py")
        for path in (checkout / "bench/worker").rglob("*.py"):
            text = path.read_text()
            moved = "from bench.worker.metrics.times import watch as clock"
            text = text.replace(
                "from bench.worker.metrics import clock, memory, snapshot",
                f"from bench.worker.metrics import memory, snapshot\n{moved}",
            )
            path.write_text(text.replace("from bench.worker.metrics import clock\n", f"{moved}\n"))

    assert differ(disk, move) == []
    assert not (checkout / "bench/worker/metrics/clock.py").exists()
    edit(checkout / "bench/worker/metrics/times/watch.py", "perf_counter_ns", "monotonic_ns")
    assert differ(disk, lambda: None) == []
    found = disk.code_of(factories.configuration())
    assert found["worker"] != Disk(ROOT).code_of(factories.configuration())["worker"]


def test_what_only_a_loss_brings_in_is_of_the_loss(disk: Disk, checkout: Path) -> None:
    helper = checkout / "bench/worker/weights_of_tokens.py"
    helper.write_text("def weight(tokens):\n    return tokens\n")
    edit(
        checkout / LOSS,
        "from bench.worker.model import ShardLoss",
        "from bench.worker.weights_of_tokens import weight\n"
        "from bench.worker.model import ShardLoss",
    )
    change = lambda: edit(helper, "return tokens", "return 2 * tokens")  # noqa: E731
    assert differ(disk, change) == ["loss"]
    assert differ(disk, lambda: edit(helper, "2 *", "3 *"), loss="all_gather") == []


def test_the_same_name_from_another_of_our_files_is_other_code(disk: Disk, checkout: Path) -> None:
    """Both are imported already, so that only the statement tells which one is meant."""
    for name in ("one", "two"):
        text = f"def weight(tokens):\n    return {name!r}\n"
        (checkout / f"bench/worker/{name}.py").write_text(text)
    both = (
        "from bench.worker import one, two\nfrom bench.worker.one import weight\n"
        "from bench.worker.model import ShardLoss"
    )
    edit(checkout / LOSS, "from bench.worker.model import ShardLoss", both)

    def retarget() -> None:
        edit(checkout / LOSS, "from bench.worker.one import", "from bench.worker.two import")

    assert differ(disk, retarget) == ["loss"]


def test_a_loss_without_a_file_is_none_of_the_others(disk: Disk, checkout: Path) -> None:
    def write() -> None:
        (checkout / "bench/worker/loss/mine.py").write_text("def aggregate(shard, group): ...\n")

    assert differ(disk, write, loss="mine") == ["loss"]


def test_a_package_that_nobody_chooses_from_is_named(disk: Disk, checkout: Path) -> None:
    edit(checkout / "bench/worker/training.py", 'plugins.load("loss"', 'plugins.load("losses"')
    with pytest.raises(KeyError, match="losses"):
        disk.code_of(factories.configuration())


def test_the_reference_is_of_model_batch_and_its_own_code(disk: Disk, checkout: Path) -> None:
    def keys() -> tuple[str, str]:
        fresh = Disk(checkout)
        return fresh.reference_code(), weights_code(lambda name: _facts(checkout, name))

    first = keys()
    edit(checkout / LOSS, "return shard.mean", "return 3 * shard.mean")
    assert keys() == first
    edit(checkout / "bench/worker/reference/blocks.py", "-torch.inf", "-1e9")
    second = keys()
    assert second[0] != first[0]
    assert second[1] == first[1]
    edit(checkout / "bench/worker/batch.py", "0.8 *", "0.7 *")
    assert keys()[0] != second[0]
    edit(checkout / "bench/worker/reference/initial.py", "0.02", "0.03")
    assert keys()[1] != first[1]


def _facts(root: Path, name: str) -> Any:
    path = root / (name.replace(".", "/") + ".py")
    return facts_of(path.read_bytes()) if path.is_file() else None


def test_launches_of_two_codes_are_like_neither() -> None:
    one, other = {"loss": "a" * 16, "model": "c" * 16}, {"loss": "b" * 16, "model": "c" * 16}
    assert of_launches([one, one]) == one
    mixed = of_launches([one, other])
    assert mixed["model"] == "c" * 16
    assert mixed["loss"] not in (one["loss"], other["loss"])


def test_relative_imports_are_followed(tmp_path: Path) -> None:
    files = {
        "bench/worker/process.py": b"from .scenarios import train\nfrom . import rank\n",
        "bench/worker/scenarios/__init__.py": b"",
        "bench/worker/scenarios/train.py": b"from ..rank import join\nX = 1\n",
        "bench/worker/rank.py": b"def join(): ...\n",
    }

    def facts(name: str) -> Any:
        path = name.replace(".", "/")
        for one in (f"{path}.py", f"{path}/__init__.py"):
            if one in files:
                return facts_of(files[one])
        return None

    configuration = factories.configuration(gradient_check="off")
    before = code_of(configuration, facts)
    files["bench/worker/rank.py"] = b"def join(): return 1\n"
    after = code_of(configuration, facts)
    assert sorted(before) == ["scenario", "worker"]
    assert before["worker"] != after["worker"]
