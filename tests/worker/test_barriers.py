"""Ranks on GPU name their device in every barrier, and let communicators be made when needed.

Read from the source, since neither can be seen without NCCL.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

WORKER = Path(__file__).resolve().parents[2] / "bench" / "worker"


def calls(name: str) -> Iterator[tuple[str, set[str | None]]]:
    """File and keywords of every call of `dist.<name>`."""
    for path in sorted(WORKER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"dist.{name}":
                yield path.name, {keyword.arg for keyword in node.keywords}


def test_every_barrier_names_its_device() -> None:
    assert list(calls("barrier")) == [("mesh.py", {"group", "device_ids"})]


def test_the_process_group_is_bound_to_no_device() -> None:
    """It would split every subgroup from one communicator; torch before 2.3 knows no such key."""
    found = list(calls("init_process_group"))
    assert "rank.py" in {path for path, _ in found}
    assert all("device_id" not in keywords for _, keywords in found)
