"""An interpreter that the user already has is used and not changed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.controller.environments import provide
from bench.controller.hosts import Hosts
from bench.record import Status
from bench.trial import EnvironmentSpec, Trial
from tests.conftest import configure, spec


@pytest.mark.environment
def test_no_bytecode_is_left_beside_the_users_modules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sitecustomize` is imported at every start of Python, from wherever it lies."""
    (tmp_path / "site").mkdir()
    module = tmp_path / "site" / "sitecustomize.py"
    module.write_text(f"open({str(tmp_path / 'imported')!r}, 'w').close()")
    monkeypatch.setenv("SPBENCH_USER_PYTHONPATH", str(module.parent))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    mine = EnvironmentSpec(name="mine", python=str(provide(spec("torch-2.13")).python))
    drill = configure(scenario="drill").model_copy(update={"environment": mine})
    with Hosts(provide) as hosts:
        record = hosts.run(Trial(configuration=drill, round=0), tmp_path)
    assert record.status is Status.OK, record.reason
    assert (tmp_path / "imported").exists()
    assert list(module.parent.iterdir()) == [module]
